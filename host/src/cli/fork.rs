//! `ramet fork`

use super::{
    cancelled_by_signal,
    output::{self, ChildView, joined, ms},
    parse, progress,
};
use ramet::{
    child::Child,
    fork::{self, Lease, Request, Wait, plan::Naming},
    identity::IdentityFile,
    name::Name,
    pool::Stores,
    state::StateDir,
};
use std::{fs::File, os::fd::AsFd as _, path::PathBuf, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The template to fork
    template: Name,
    /// The child's name; without it, the identity's host name or the template's name and a number
    #[arg(long, conflicts_with = "count")]
    name: Option<Name>,
    /// Fork so many children, side by side: all or none
    #[arg(long, value_name = "N", value_parser = parse::count)]
    count: Option<usize>,
    /// Call them PREFIX-1, PREFIX-2, …; numbers that are taken are left out
    #[arg(long, value_name = "PREFIX", requires = "count")]
    name_prefix: Option<Name>,
    /// TOML with `hostname`, `macs`, `machine_id`, `machine_sid`, `ip`, `authorized_keys`; what it leaves out is generated
    #[arg(long, value_name = "FILE", conflicts_with_all = ["count", "pool"])]
    identity: Option<PathBuf>,
    /// Lease each child's identity from this pool, its domain account included
    #[arg(long)]
    pool: Option<Name>,
    /// The children keep their domain accounts for good: their passwords change, and when they are gone ramet domain retire deletes the accounts
    #[arg(long, requires = "pool")]
    persistent: bool,
    /// When to return; the rest goes on in the background
    #[arg(long, value_enum, default_value_t = Wait::Joined)]
    wait: Wait,
    /// At most so many at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parse::count)]
    parallel: usize,
    /// Print JSON: an array, one object for each child
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(state: &StateDir, stores: &Stores, args: Args) -> anyhow::Result<ExitCode> {
    let identity = args.identity.as_deref().map(IdentityFile::read).transpose()?.unwrap_or_default();
    let named =
        || identity.hostname.as_ref().and_then(|hostname| hostname.as_str().split('.').next()?.parse().ok());
    let naming = match (args.count, args.name.or_else(named)) {
        (None, Some(name)) => Naming::One(name),
        (count, _) => Naming::Count(count.unwrap_or(1), args.name_prefix),
    };
    let request = Request {
        template: args.template,
        naming,
        identity,
        lease: args.pool.map(|pool| Lease { pool, persistent: args.persistent }),
        wait: args.wait,
        parallel: args.parallel,
    };
    let cancel = cancelled_by_signal()?;
    let shown = progress::show();
    let records = fork::fork(state, stores, &request, &shown.progress, &cancel).await?;
    drop(shown);
    let children = records.iter().map(|record| Ok(ChildView::from(Child::find(state, &record.name)?)));
    let children: Vec<ChildView> = children.collect::<anyhow::Result<_>>()?;
    if args.json {
        output::json(&children)?;
        return Ok(ExitCode::SUCCESS);
    }
    let in_domain = children.iter().any(|child| child.identity.domain.is_some());
    let rows = children.into_iter().map(|child| {
        let mut row = vec![
            child.name.to_string(),
            child.identity.hostname.to_string(),
            joined(&child.identity.macs),
            child.identity.machine_id.to_string(),
            ms(child.timings_ms.resumed),
            ms(child.timings_ms.identified),
            ms(child.timings_ms.ready),
        ];
        row.extend(in_domain.then(|| ms(child.timings_ms.joined)));
        row
    });
    let mut titles = vec!["NAME", "HOSTNAME", "MAC", "MACHINE ID", "RESUMED ms", "IDENTIFIED ms", "READY ms"];
    titles.extend(in_domain.then_some("JOINED ms"));
    output::table(&titles, rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The background half of a fork: the child's lock came as stdin.
pub(crate) async fn finish(state: &StateDir, stores: &Stores, name: &Name) -> anyhow::Result<ExitCode> {
    let mine = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    fork::finish(state, stores, name, mine).await?;
    Ok(ExitCode::SUCCESS)
}
