//! `ramet pool …`

use super::{
    output::{self, joined},
    parse,
};
use ramet::{
    child,
    name::Name,
    pool::{
        Entry, Event, HostId, HostnamePattern, MacSource, NewEntry, NewPool, Store, Summary,
        import::ImportFile, life::State,
    },
    state::StateDir,
};
use ramet_proto::{Hostname, InstanceId, MacAddr, Sid};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode, time::Duration};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a pool of identities, empty as yet
    Create(CreateArgs),
    /// Add identities, named by the pool's pattern
    Add {
        /// The pool's name
        pool: Name,
        /// How many
        #[arg(long, value_name = "N", value_parser = parse::count)]
        count: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add the identities in a file, all or none
    Import(ImportArgs),
    /// List pools
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the identities of a pool, and whose they are
    Show(OneArgs),
    /// Show what happened to the identities of a name
    History {
        /// The host name
        hostname: Hostname,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove pools that nobody needs
    Rm {
        /// The pools' names
        #[arg(required = true, value_name = "NAME")]
        pools: Vec<Name>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give back what children of this host have that are no more
    Reconcile {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put all that a lost host's children have into quarantine, from where it is not given again by itself
    Quarantine {
        /// The host's id, as `pool show` has it
        #[arg(long, value_name = "ID")]
        host: HostId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take identities without an account out of quarantine, whose children are gone for sure
    Release {
        /// Their host names
        #[arg(required = true, value_name = "HOSTNAME")]
        hostnames: Vec<Hostname>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    /// The pool's name
    name: Name,
    /// The host names of its identities: `vdi-{}`, or `vdi-{:04}` for numbers of at least four digits
    #[arg(long, value_name = "PATTERN")]
    hostnames: HostnamePattern,
    /// Where MAC addresses come from: the first three octets, or FIRST-LAST; without it, a fork makes them
    #[arg(long, value_name = "OUI|FROM-TO")]
    macs: Option<MacSource>,
    /// How many MAC addresses each identity has
    #[arg(long, value_name = "N", default_value_t = 1, requires = "macs", value_parser = clap::value_parser!(u8).range(1..=32))]
    nics: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The pool's name
    pool: Name,
    /// CSV with a header, or TOML with [[identity]]: `hostname`, `macs`, `machine_sid`; what is left out is made
    file: PathBuf,
    /// Only say whether it could be done
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OneArgs {
    /// The pool's name
    pool: Name,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A pool, as scripts see it.
#[derive(Debug, Serialize)]
struct PoolView {
    name: Name,
    hostnames: String,
    macs: Option<String>,
    nics: usize,
    intent: usize,
    available: usize,
    leased: usize,
    handed: usize,
    in_use: usize,
    quarantine: usize,
    retired: usize,
}

/// An identity, as scripts see it.
#[derive(Debug, Serialize)]
struct EntryView {
    hostname: Hostname,
    macs: Vec<MacAddr>,
    machine_sid: Sid,
    state: State,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    since_ms: u64,
    holder: Option<HolderView>,
    account: Option<AccountView>,
}

/// Whose an identity is, or was before its quarantine.
#[derive(Debug, Serialize)]
struct HolderView {
    host: HostId,
    host_name: String,
    child: Name,
    instance_id: InstanceId,
    cid: Option<u32>,
}

/// A computer account, as scripts see it. What is not known before it was made is `null`.
#[derive(Debug, Serialize)]
struct AccountView {
    principal: String,
    dn: String,
    sid: Option<Sid>,
    kvno: Option<u32>,
    persistent: bool,
}

impl From<Summary> for PoolView {
    fn from(summary: Summary) -> Self {
        let NewPool { name, hostnames, macs, nics } = summary.pool.clone();
        let count = |state| summary.count(state);
        Self {
            name,
            hostnames: hostnames.to_string(),
            macs: macs.map(|macs| macs.to_string()),
            nics,
            intent: count(State::Intent),
            available: count(State::Available),
            leased: count(State::Leased),
            handed: count(State::Handed),
            in_use: count(State::InUse),
            quarantine: count(State::Quarantine),
            retired: count(State::Retired),
        }
    }
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let NewEntry { hostname, macs, machine_sid } = entry.identity;
        Self {
            hostname,
            macs,
            machine_sid,
            state: entry.state,
            since_ms: entry.since_ms,
            holder: entry.held_by.map(|held_by| HolderView {
                host: held_by.host,
                host_name: held_by.host_name,
                child: held_by.holder.child,
                instance_id: held_by.holder.instance_id,
                cid: held_by.cid,
            }),
            account: entry.account.map(|account| AccountView {
                principal: format!("{}$@{}", account.planned.name, account.planned.realm),
                dn: account.planned.dn,
                sid: account.made.as_ref().map(|made| made.sid.clone()),
                kvno: account.made.as_ref().map(|made| made.kvno),
                persistent: account.persistent,
            }),
        }
    }
}

pub(crate) async fn run(state: &StateDir, store: &Store, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(args) => create(store, args).await,
        Command::Add { pool, count, json } => added(&store.grow(&pool, count).await?, json),
        Command::Import(args) => import(store, &args).await,
        Command::Ls { json } => list(store, json).await,
        Command::Show(args) => show(store, &args).await,
        Command::History { hostname, json } => history(store.history(&hostname).await?, json),
        Command::Rm { pools, json } => remove(store, &pools, json).await,
        Command::Reconcile { json } => reconcile(state, store, json).await,
        Command::Quarantine { host, json } => entries(store.quarantine_host(host).await?, json),
        Command::Release { hostnames, json } => release(store, &hostnames, json).await,
    }
}

async fn create(store: &Store, args: CreateArgs) -> anyhow::Result<ExitCode> {
    let nics = if args.macs.is_some() { usize::from(args.nics) } else { 0 };
    let pool = NewPool { name: args.name, hostnames: args.hostnames, macs: args.macs, nics };
    store.create_pool(&pool).await?;
    if args.json {
        output::json(&PoolView::from(store.pool(&pool.name).await?))?;
    } else {
        output::print(pool.name.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn added(entries: &[NewEntry], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(&entries)?;
    } else {
        entries.iter().try_for_each(|entry| output::print(entry.hostname.as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn import(store: &Store, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let file = ImportFile::read(&args.file)?;
    added(&file.add_to(store, &args.pool, args.dry_run).await?, args.json)
}

async fn list(store: &Store, json: bool) -> anyhow::Result<ExitCode> {
    let pools: Vec<PoolView> = store.pools().await?.into_iter().map(PoolView::from).collect();
    if json {
        output::json(&pools)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = pools.into_iter().map(|pool| {
        vec![
            pool.name.to_string(),
            pool.hostnames,
            pool.macs.unwrap_or_else(|| "-".to_owned()),
            pool.available.to_string(),
            (pool.leased + pool.handed + pool.in_use).to_string(),
            pool.quarantine.to_string(),
            pool.intent.to_string(),
        ]
    });
    output::table(&["NAME", "HOSTNAMES", "MACS", "AVAILABLE", "LEASED", "QUARANTINE", "INTENT"], rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn show(store: &Store, args: &OneArgs) -> anyhow::Result<ExitCode> {
    entries(store.entries(&args.pool).await?, args.json)
}

fn entries(entries: Vec<Entry>, json: bool) -> anyhow::Result<ExitCode> {
    let views: Vec<EntryView> = entries.into_iter().map(EntryView::from).collect();
    if json {
        output::json(&views)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = views.into_iter().map(|view| {
        let (child, host) = match &view.holder {
            Some(holder) => (holder.child.to_string(), format!("{} ({})", holder.host_name, holder.host)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        vec![
            view.hostname.to_string(),
            view.state.to_string(),
            time(view.since_ms),
            child,
            host,
            view.account.map_or_else(|| "-".to_owned(), |account| account.principal),
            joined(&view.macs),
        ]
    });
    output::table(&["HOSTNAME", "STATE", "SINCE", "CHILD", "HOST", "ACCOUNT", "MACS"], rows)?;
    Ok(ExitCode::SUCCESS)
}

fn history(events: Vec<Event>, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(&events)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = events.into_iter().map(|event| {
        vec![
            time(event.at_ms),
            event.from.map_or("-", State::word).to_owned(),
            event.to.to_string(),
            event.child.map_or_else(|| "-".to_owned(), |child| child.to_string()),
            event.host_name,
            event.reason,
        ]
    });
    output::table(&["WHEN", "FROM", "TO", "CHILD", "HOST", "WHY"], rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(store: &Store, pools: &[Name], json: bool) -> anyhow::Result<ExitCode> {
    for pool in pools {
        store.remove_pool(pool).await?;
        if !json {
            output::print(pool.as_str())?;
        }
    }
    if json {
        output::json(&pools)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn reconcile(state: &StateDir, store: &Store, json: bool) -> anyhow::Result<ExitCode> {
    // Held to the end: a child that is being made would be taken for one that is gone.
    let lock = state.lock()?;
    entries(store.sweep(&child::instances(state, &lock)?).await?, json)
}

async fn release(store: &Store, hostnames: &[Hostname], json: bool) -> anyhow::Result<ExitCode> {
    for hostname in hostnames {
        store.release(store.find(hostname).await?.id).await?;
        if !json {
            output::print(hostname.as_str())?;
        }
    }
    if json {
        output::json(&hostnames)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A time as RFC 3339 has it, to the second.
fn time(ms: u64) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
