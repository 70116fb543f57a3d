//! `ramet ls`, `show`, `stop`, `start` and `rm`

use super::{
    cancelled_by_signal, domain,
    output::{self, ChildView, ShowView, joined, mib, ms},
    parse, progress,
};
use ramet::{
    agent::{Agent, AgentError},
    child::{
        self, Child, Memory, State,
        lifecycle::{self, Stopped},
    },
    name::Name,
    pool::Stores,
    provision::retire,
    state::StateDir,
};
use ramet_proto::domain::DomainAccount;
use serde::Serialize;
use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The child
    child: Name,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StopArgs {
    /// The children
    #[arg(required = true, value_name = "CHILD")]
    children: Vec<Name>,
    /// How long the guest may take to shut down before it is ended; 0: end it at once
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse::duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The children
    #[arg(required = true, value_name = "CHILD")]
    children: Vec<Name>,
    /// How long the guest may take to boot
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = parse::duration)]
    timeout: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// The children
    #[arg(required = true, value_name = "CHILD")]
    children: Vec<Name>,
    /// The domain (`ramet domain provision --help`): their accounts are deleted if they had them for good, and get new
    /// passwords if not. Without it they wait in quarantine for ramet domain retire
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A child whose record cannot be read.
#[derive(Debug, Serialize)]
struct Broken {
    name: Name,
    state: &'static str,
    failure: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Listed {
    Whole(Box<ChildView>),
    Broken(Broken),
}

pub(crate) fn list(state: &StateDir, args: &ListArgs) -> anyhow::Result<ExitCode> {
    let children = child::list(state)?.into_iter();
    let listed: Vec<Listed> = children
        .map(|(name, child)| match child {
            Ok(child) => Listed::Whole(Box::new(child.into())),
            Err(error) => Listed::Broken(Broken { name, state: "broken", failure: ramet::chain(&error) }),
        })
        .collect();
    if args.json {
        output::json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = listed.into_iter().map(|listed| match listed {
        Listed::Whole(child) => vec![
            child.name.to_string(),
            child.template.to_string(),
            child.state.word().to_owned(),
            child.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            child.identity.hostname.to_string(),
            joined(&child.identity.macs),
            child.failure.unwrap_or_default(),
        ],
        Listed::Broken(broken) => {
            let dash = || "-".to_owned();
            vec![
                broken.name.to_string(),
                dash(),
                broken.state.to_owned(),
                dash(),
                dash(),
                dash(),
                broken.failure,
            ]
        }
    });
    output::table(&["NAME", "TEMPLATE", "STATE", "PID", "HOSTNAME", "MAC", "FAILURE"], rows)?;
    Ok(ExitCode::SUCCESS)
}

/// How long `show` waits for a child to tell its addresses.
const SOON: Duration = Duration::from_secs(5);

pub(crate) async fn show(state: &StateDir, args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let found = Child::find(state, &args.child)?;
    let memory = found.pid.and_then(Memory::of);
    let console = child::console_tail(&found.dir, 5);
    // What is shown without them is still true.
    let addresses = addresses(&found, SOON).await.unwrap_or_default();
    let joined = found.record.joined.clone();
    let view = ShowView { child: found.into(), joined, memory, addresses, console };
    if args.json {
        output::json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let child = view.child;
    let timings = child.timings_ms;
    let mut lines = vec![
        ("name", child.name.to_string()),
        ("template", child.template.to_string()),
        ("state", child.state.word().to_owned()),
        ("pid", child.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
        ("cid", child.cid.map_or_else(|| "-".to_owned(), |cid| cid.to_string())),
        ("instance", child.identity.instance_id.to_string()),
        ("hostname", child.identity.hostname.to_string()),
        ("macs", output::joined(&child.identity.macs)),
        ("addresses", output::joined(&view.addresses)),
        ("machine id", child.identity.machine_id.to_string()),
        ("SID", child.identity.machine_sid.to_string()),
    ];
    lines.extend(child.identity.ssh_host_keys.iter().map(|key| ("host key", key.to_string())));
    let domain = child.identity.domain;
    lines.extend(domain.iter().map(|account| {
        ("domain", format!("{} ({}, key version {})", account.principal(), account.sid, account.kvno))
    }));
    let mut stop_lines =
        vec![("resumed", timings.resumed), ("identified", timings.identified), ("ready", timings.ready)];
    stop_lines.extend(domain.map(|_| ("joined", timings.joined)));
    lines.extend(stop_lines.into_iter().map(|(stop_line, value)| (stop_line, format!("{} ms", ms(value)))));
    lines.extend(
        view.joined
            .into_iter()
            .flat_map(|evidence| evidence.checks)
            .map(|check| ("checked", format!("{}: {}", check.command, check.printed))),
    );
    lines.extend(view.memory.map(|memory| {
        let parts = [memory.pss, memory.private_dirty, memory.shared].map(mib);
        ("memory", format!("{} PSS, {} private dirty, {} shared", parts[0], parts[1], parts[2]))
    }));
    lines.extend(child.failure.map(|failure| ("failure", failure)));
    lines.extend(view.console.into_iter().map(|line| ("console", line)));
    for (key, value) in lines {
        output::print(&format!("{key:10} {value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The addresses that the guest says it has; none from a child that is not past its gate. `within` is for reaching its
/// agent, and again for its answer: it reads everything back from its system, which may be busy.
pub(crate) async fn addresses(child: &Child, within: Duration) -> Result<Vec<IpAddr>, AgentError> {
    if child.pid.is_none() || !matches!(child.state, State::Ready | State::Identified) {
        return Ok(Vec::new());
    }
    let mut agent: Agent = Agent::dial(child.record.cid, within, || Ok::<_, AgentError>(())).await?;
    let evidence = agent.observe(within).await?;
    Ok(evidence.nics.into_iter().flat_map(|nic| nic.addresses).collect())
}

pub(crate) async fn stop(state: &StateDir, args: &StopArgs) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct View {
        name: Name,
        stopped: &'static str,
    }
    let shown = progress::show();
    for name in &args.children {
        shown.progress.say(&format!("stopping {name}"));
    }
    let stopping = args
        .children
        .iter()
        .map(|name| async move { (name.clone(), lifecycle::stop(state, name, args.timeout).await) });
    let results = futures::future::join_all(stopping).await;
    drop(shown);
    let (stopped, failed) = told_apart(results);
    let views: Vec<View> = stopped
        .into_iter()
        .map(|(name, stopped)| {
            let stopped = match stopped {
                Stopped::Already => "already",
                Stopped::ShutDown => "shut_down",
                Stopped::Killed => "killed",
            };
            View { name, stopped }
        })
        .collect();
    if args.json {
        output::json(&views)?;
    } else {
        views.iter().try_for_each(|view| output::print(&format!("{} {}", view.name, view.stopped)))?;
    }
    Ok(failed)
}

/// Each child's own result: what came of those that succeeded, the failures of the others on stderr, and the exit
/// status that says whether there were any.
fn told_apart<T, E: std::error::Error>(results: Vec<(Name, Result<T, E>)>) -> (Vec<(Name, T)>, ExitCode) {
    let mut status = ExitCode::SUCCESS;
    let mut done = Vec::new();
    for (name, result) in results {
        match result {
            Ok(value) => done.push((name, value)),
            Err(error) => {
                eprintln!("ramet: {}", ramet::chain(&error));
                status = ExitCode::FAILURE;
            }
        }
    }
    (done, status)
}

pub(crate) async fn start(state: &StateDir, stores: &Stores, args: &StartArgs) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct View {
        #[serde(flatten)]
        child: ChildView,
        /// Milliseconds from the start of its boot to its end.
        boot_ms: u64,
    }
    let cancel = cancelled_by_signal()?;
    let shown = progress::show();
    let starting = args.children.iter().map(async |name| {
        (name.clone(), lifecycle::start(state, stores, name, args.timeout, &shown.progress, &cancel).await)
    });
    let results = futures::future::join_all(starting).await;
    drop(shown);
    let (started, failed) = told_apart(results);
    let mut views = Vec::new();
    for (name, (_, boot)) in started {
        let boot_ms = u64::try_from(boot.as_millis()).unwrap_or(u64::MAX);
        if !args.json {
            output::print(&format!("{name} ready after {boot_ms} ms"))?;
        }
        views.push(View { child: Child::find(state, &name)?.into(), boot_ms });
    }
    if args.json {
        output::json(&views)?;
    }
    Ok(failed)
}

pub(crate) async fn remove(state: &StateDir, stores: &Stores, args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    // First: a directory that cannot be reached is told while the children are still there.
    let directory = match &args.config {
        Some(config) => Some(domain::connect(config).await?),
        None => None,
    };
    let removing =
        args.children.iter().map(async |name| (name.clone(), child::remove(state, stores, name).await));
    let (removed, mut status) = told_apart(futures::future::join_all(removing).await);
    let names: Vec<&Name> = removed.iter().map(|(name, _)| name).collect();
    if args.json {
        output::json(&names)?;
    } else {
        names.iter().try_for_each(|name| output::print(name.as_str()))?;
    }
    if let Some(directory) = directory {
        let records = removed.into_iter().filter_map(|(_, record)| record);
        let accounts: Vec<DomainAccount> = records.filter_map(|record| record.identity.domain).collect();
        let store = stores.get(state).await?;
        for (hostname, retired) in retire::retire_all(store, &directory, &accounts).await? {
            match retired {
                Ok(retired) => eprintln!("ramet: the account of {hostname}: {}", retired.word()),
                Err(error) => {
                    let why = ramet::chain(&error);
                    eprintln!(
                        "ramet: the account of {hostname} stays in quarantine, for ramet domain retire: {why}"
                    );
                    status = ExitCode::FAILURE;
                }
            }
        }
    }
    Ok(status)
}
