//! `ramet template …`

use super::{
    cancelled_by_signal,
    output::{self, joined, mib},
    parse, progress,
};
use ramet::{
    child,
    name::Name,
    net::NetSpec,
    qemu::version::QemuVersion,
    state::StateDir,
    template::{self, Template, create, findings, manifest::TemplateNic},
};
use ramet_proto::{message::Finding, text::Text};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode, time::Duration};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Boot a parent from a disk image to its gate, suspend it, and keep it as a template
    Create(CreateArgs),
    /// List templates
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a template
    Show(OneArgs),
    /// Compare every byte of a template with its manifest
    Verify(OneArgs),
    /// Remove templates that no child refers to
    Rm(ManyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The template's name
    name: Name,
    /// Disk image with ramet-agent baked in, in any format of qemu-img; it is copied
    #[arg(long, value_name = "FILE")]
    disk: PathBuf,
    /// RAM of the parent and of each child
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse::bytes)]
    memory: u64,
    /// Virtual CPUs of the parent and of each child
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// A NIC's network: user, bridge=NAME or none; repeat for more NICs
    #[arg(long, value_name = "SPEC", default_value = "user")]
    net: Vec<NetSpec>,
    /// How long the parent may take to its gate
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = parse::duration)]
    timeout: Duration,
    /// Make no template if anything is found in the image that gets past the gate or would not work in a child; what
    /// every child would die of is refused in any case
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// The template's name
    name: Name,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ManyArgs {
    /// The templates' names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A template, as scripts see it.
#[derive(Debug, Serialize)]
struct View {
    name: Name,
    /// Seconds since 1970-01-01T00:00:00Z.
    created: u64,
    memory: u64,
    cpus: u32,
    disk_size: u64,
    /// Bytes on the host's disk.
    disk_usage: u64,
    nics: Vec<TemplateNic>,
    qemu: QemuVersion,
    machine: String,
    agent: String,
    /// The version of the protocol that its agent speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<u16>,
    features: Vec<Text>,
    findings: Vec<Finding>,
    path: PathBuf,
    children: Vec<Name>,
}

/// A template that cannot be used.
#[derive(Debug, Serialize)]
struct Damaged {
    name: Name,
    problem: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Listed {
    Whole(Box<View>),
    Damaged(Damaged),
}

pub(crate) async fn run(state: &StateDir, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create(state, args).await,
        Command::Ls { json } => list(state, json),
        Command::Show(args) => show(state, &args),
        Command::Verify(args) => verify(state, &args),
        Command::Rm(args) => remove(state, &args),
    }
}

async fn create(state: &StateDir, args: CreateArgs) -> anyhow::Result<ExitCode> {
    let request = create::Request {
        name: args.name,
        disk: args.disk,
        memory: args.memory,
        cpus: args.cpus,
        nets: args.net,
        timeout: args.timeout,
        strict: args.strict,
    };
    let cancel = cancelled_by_signal()?;
    let shown = progress::show();
    let template = create::create(state, &request, &shown.progress, &cancel).await?;
    drop(shown);
    for finding in &template.manifest.findings {
        eprintln!("ramet: {}", findings::sentence(finding));
    }
    let view = view(state, &template)?;
    if args.json {
        output::json(&view)?;
    } else {
        output::print(&format!("{}: ready to fork, {} on disk", view.name, mib(view.disk_usage)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn view(state: &StateDir, template: &Template) -> anyhow::Result<View> {
    let manifest = template.manifest.clone();
    Ok(View {
        name: template.name.clone(),
        created: manifest.created,
        memory: manifest.memory,
        cpus: manifest.cpus,
        disk_size: manifest.disk_size,
        disk_usage: template.disk_usage()?,
        nics: manifest.nics,
        qemu: manifest.qemu,
        machine: manifest.machine,
        agent: manifest.agent.as_str().to_owned(),
        protocol: manifest.protocol,
        features: manifest.features,
        findings: manifest.findings,
        path: template.dir.clone(),
        children: child::of_template(state, &template.name, &state.lock()?)?,
    })
}

fn list(state: &StateDir, json: bool) -> anyhow::Result<ExitCode> {
    let names = template::list(state)?.into_iter();
    let listed: Vec<Listed> = names
        .map(|name| {
            match Template::open(state, &name).map_err(anyhow::Error::from).and_then(|t| view(state, &t)) {
                Ok(view) => Listed::Whole(Box::new(view)),
                Err(error) => Listed::Damaged(Damaged { name, problem: super::explain(&error) }),
            }
        })
        .collect();
    if json {
        output::json(&listed)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = listed.into_iter().map(|listed| match listed {
        Listed::Whole(view) => {
            let nets: Vec<_> = view.nics.iter().map(|nic| &nic.net).collect();
            vec![
                view.name.to_string(),
                mib(view.memory),
                view.cpus.to_string(),
                joined(&nets),
                mib(view.disk_usage),
                view.children.len().to_string(),
            ]
        }
        Listed::Damaged(damaged) => vec![damaged.name.to_string(), damaged.problem],
    });
    output::table(&["NAME", "MEMORY", "CPUS", "NETS", "ON DISK", "CHILDREN"], rows)?;
    Ok(ExitCode::SUCCESS)
}

fn show(state: &StateDir, args: &OneArgs) -> anyhow::Result<ExitCode> {
    let view = view(state, &Template::open(state, &args.name)?)?;
    if args.json {
        output::json(&view)?;
        return Ok(ExitCode::SUCCESS);
    }
    let created = std::time::UNIX_EPOCH + Duration::from_secs(view.created);
    let nics: Vec<String> = view.nics.iter().map(|nic| format!("{} ({})", nic.net, nic.mac)).collect();
    let agent = match view.protocol {
        Some(version) => format!("{}, protocol {version}", view.agent),
        None => view.agent,
    };
    for (key, value) in [
        ("name", view.name.to_string()),
        ("created", humantime::format_rfc3339_seconds(created).to_string()),
        ("memory", mib(view.memory)),
        ("cpus", view.cpus.to_string()),
        ("disk", mib(view.disk_size)),
        ("nics", joined(&nics)),
        ("machine", format!("{}, QEMU {}", view.machine, view.qemu)),
        ("agent", agent),
        ("path", format!("{} ({})", view.path.display(), mib(view.disk_usage))),
        ("children", joined(&view.children)),
    ] {
        output::print(&format!("{key:10} {value}"))?;
    }
    for finding in &view.findings {
        output::print(&format!("{:10} {}", "finding", findings::sentence(finding)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(state: &StateDir, args: &OneArgs) -> anyhow::Result<ExitCode> {
    #[derive(Serialize)]
    struct Verdict<'a> {
        name: &'a Name,
        ok: bool,
        problems: &'a [String],
    }
    let shown = progress::show();
    shown.progress.say(&format!("reading {}", args.name));
    let problems = Template::read(state, &args.name)?.verify()?;
    drop(shown);
    if args.json {
        output::json(&Verdict { name: &args.name, ok: problems.is_empty(), problems: &problems })?;
    } else if problems.is_empty() {
        output::print(&format!("{}: every byte is as it was", args.name))?;
    }
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!(template::TemplateError::Damaged { name: args.name.clone(), problems })
}

fn remove(state: &StateDir, args: &ManyArgs) -> anyhow::Result<ExitCode> {
    for name in &args.names {
        template::remove(state, name)?;
        if !args.json {
            output::print(name.as_str())?;
        }
    }
    if args.json {
        output::json(&args.names)?;
    }
    Ok(ExitCode::SUCCESS)
}
