//! `ramet domain …`

use super::{cancelled_by_signal, output, parse, progress};
use ramet::{
    domain::{Config, Directory, Found},
    name::Name,
    pool::{Entry, Store, Stores, life::State},
    provision::{
        self, Provisioned,
        reconcile::{self, Difference},
        retire::{self, Fate, Retired},
    },
    state::StateDir,
};
use ramet_proto::{Hostname, Sid, domain::NetbiosName};
use serde::Serialize;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make computer accounts, and put them into a pool
    Provision(ProvisionArgs),
    /// List the computer accounts of the organizational unit
    Ls(ListArgs),
    /// Give accounts in quarantine new passwords, so that they can be leased again, or delete them
    Retire(RetireArgs),
    /// Compare the store with the organizational unit in both directions, and mend what differs
    Reconcile(ReconcileArgs),
}

#[derive(Debug, clap::Args)]
struct Domain {
    /// The domain: TOML with `realm`, `servers`, `ca_file`, `ou`, `user` and `password_file` or `credential`
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ProvisionArgs {
    #[command(flatten)]
    domain: Domain,
    /// The pool, which is there already: its pattern names the accounts
    #[arg(long)]
    pool: Name,
    /// How many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// At most so many at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse::count)]
    parallel: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    domain: Domain,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    domain: Domain,
    /// Of this pool
    #[arg(long)]
    pool: Name,
    /// Only these identities, by host name; all that are in quarantine if none is named
    #[arg(value_name = "HOSTNAME")]
    hostnames: Vec<Hostname>,
    /// Delete the accounts: tickets that former children still hold are worth nothing then
    #[arg(long)]
    delete: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReconcileArgs {
    #[command(flatten)]
    domain: Domain,
    /// Only say what differs
    #[arg(long)]
    dry_run: bool,
    /// Leave accounts alone that were begun later than so long ago: somebody may be making them
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = parse::duration)]
    stale: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(state: &StateDir, stores: &Stores, command: Command) -> anyhow::Result<ExitCode> {
    let store = stores.get(state).await?;
    match command {
        Command::Provision(args) => provision(store, args).await,
        Command::Ls(args) => list(store, args).await,
        Command::Retire(args) => retire(store, args).await,
        Command::Reconcile(args) => reconcile(store, args).await,
    }
}

/// The domain that a file describes, as whoever may administrate it.
pub(super) async fn connect(config: &Path) -> anyhow::Result<Directory> {
    let config = Config::read(config)?;
    let password = config.read_password()?;
    Ok(Directory::connect(&config, &password).await?)
}

async fn provision(store: &Store, args: ProvisionArgs) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct Made {
        name: NetbiosName,
        fqdn: String,
        sid: Sid,
        kvno: u32,
    }
    #[derive(Serialize)]
    struct Refused {
        name: NetbiosName,
        by: String,
    }
    #[derive(Serialize)]
    struct View {
        made: Vec<Made>,
        refused: Vec<Refused>,
    }
    // A pool that is not there is no reason to ask for a password.
    store.pool(&args.pool).await?;
    let directory = connect(&args.domain.config).await?;
    let cancel = cancelled_by_signal()?;
    let shown = progress::show();
    let how = (usize::try_from(args.count)?, args.parallel);
    let done = provision::provision(store, &directory, &args.pool, how, &shown.progress, &cancel).await;
    drop(shown);
    let Provisioned { mut made, refused } = done?;
    made.sort_by(|a, b| a.name.cmp(&b.name));
    let made = made.into_iter().map(|account| Made {
        fqdn: account.fqdn(),
        name: account.name,
        sid: account.sid,
        kvno: account.kvno,
    });
    let refused = refused.into_iter().map(|(name, by)| Refused { name, by });
    let view = View { made: made.collect(), refused: refused.collect() };
    if args.json {
        output::json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    for Refused { name, by } in &view.refused {
        eprintln!("ramet: the name {name} is taken by {by}, and was left alone");
    }
    let rows = view.made.into_iter().map(|account| {
        vec![account.name.to_string(), account.fqdn, account.sid.to_string(), account.kvno.to_string()]
    });
    output::table(&["ACCOUNT", "FQDN", "SID", "KEY VERSION"], rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn list(store: &Store, args: ListArgs) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct View {
        name: NetbiosName,
        sid: Sid,
        kvno: u32,
        enabled: bool,
        /// Of the identity that it belongs to, if the store has it.
        pool: Option<Name>,
        state: Option<State>,
        child: Option<Name>,
    }
    let directory = connect(&args.domain.config).await?;
    let accounts = directory.list().await?;
    let entries = store.all_entries().await?;
    let by_sid: HashMap<Sid, Entry> = entries
        .into_iter()
        .filter(|entry| entry.state != State::Retired)
        .filter_map(|entry| Some((entry.account.as_ref()?.made.as_ref()?.sid.clone(), entry)))
        .collect();
    let views: Vec<View> = accounts
        .into_iter()
        .map(|Found { account, enabled, .. }| {
            let entry = by_sid.get(&account.sid);
            View {
                name: account.name,
                sid: account.sid,
                kvno: account.kvno,
                enabled,
                pool: entry.map(|entry| entry.pool.clone()),
                state: entry.map(|entry| entry.state),
                child: entry.and_then(|entry| Some(entry.held_by.as_ref()?.holder.child.clone())),
            }
        })
        .collect();
    if args.json {
        output::json(&views)?;
        return Ok(ExitCode::SUCCESS);
    }
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = views.into_iter().map(|view| {
        vec![
            view.name.to_string(),
            view.sid.to_string(),
            view.kvno.to_string(),
            if view.enabled { "yes" } else { "no" }.to_owned(),
            or_dash(view.pool.map(String::from)),
            or_dash(view.state.map(|state| state.to_string())),
            or_dash(view.child.map(String::from)),
        ]
    });
    output::table(&["ACCOUNT", "SID", "KEY VERSION", "ENABLED", "POOL", "STATE", "CHILD"], rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn retire(store: &Store, args: RetireArgs) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct View {
        hostname: Hostname,
        retired: Retired,
    }
    let mut entries = store.entries(&args.pool).await?;
    let directory = connect(&args.domain.config).await?;
    store.keep_domain(directory.domain()).await?;
    for hostname in &args.hostnames {
        let known = entries
            .iter()
            .any(|entry| entry.identity.hostname.same(hostname) && retire::waits(entry, &directory));
        anyhow::ensure!(known, "the pool {} has no account {hostname} in quarantine", args.pool);
    }
    let named = |entry: &Entry| args.hostnames.iter().any(|hostname| entry.identity.hostname.same(hostname));
    entries.retain(|entry| retire::waits(entry, &directory) && (args.hostnames.is_empty() || named(entry)));
    let fate = if args.delete { Fate::Delete } else { Fate::Reset };
    let shown = progress::show();
    let mut views = Vec::new();
    for entry in &entries {
        shown.progress.say(&format!("{} of {} accounts retired", views.len(), entries.len()));
        let retired = retire::retire(store, &directory, entry, fate).await?;
        views.push(View { hostname: entry.identity.hostname.clone(), retired });
    }
    drop(shown);
    if args.json {
        output::json(&views)?;
    } else {
        views
            .iter()
            .try_for_each(|view| output::print(&format!("{} {}", view.hostname, view.retired.word())))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn reconcile(store: &Store, args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    let directory = connect(&args.domain.config).await?;
    store.keep_domain(directory.domain()).await?;
    let shown = progress::show();
    shown.progress.say("comparing");
    let differences = reconcile::reconcile(store, &directory, args.stale, args.dry_run).await?;
    drop(shown);
    if args.json {
        output::json(&differences)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = differences.into_iter().map(|Difference { name, kind, mended }| {
        vec![name.to_string(), kind.words().to_owned(), if mended { "yes" } else { "no" }.to_owned()]
    });
    output::table(&["ACCOUNT", "DIFFERENCE", "MENDED"], rows)?;
    Ok(ExitCode::SUCCESS)
}
