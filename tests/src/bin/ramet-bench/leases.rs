//! What a lease costs: an identity of a pool becomes a child's, written and committed.

use crate::report::Report;
use anyhow::Result;
use ramet::{
    name::Name,
    pool::{self, Holder, NewPool, Settings, StoreUrl},
    state::StateDir,
};
use ramet_proto::InstanceId;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Of each store.
const LEASES: usize = 201;

/// On SQLite, and on the PostgreSQL server at this URL, whose database is a new one.
pub(crate) fn leases(server: &StoreUrl, report: &mut Report) -> Result<()> {
    let files = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let stores = [
        ("a lease, SQLite", None, "µs of a lease, SQLite : 1", 5000.0),
        ("a lease, PostgreSQL", Some(server.clone()), "µs of a lease, PostgreSQL : 1", 10_000.0),
    ];
    for (what, url, ratio, goal) in stores {
        let mut times = runtime.block_on(measure(files.path(), url))?;
        times.sort_unstable();
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // Every tenth, from the first to the last: all would fill a page.
        let shown = times.iter().step_by((LEASES - 1) / 10).map(micros).collect();
        let median = report.add(what, "µs", shown);
        report.at_most(ratio, (median, 1), goal);
    }
    Ok(())
}

async fn measure(files: &Path, url: Option<StoreUrl>) -> Result<Vec<Duration>> {
    let settings = Settings { url, key_file: None };
    let store = pool::open(&StateDir::open(files)?, &settings).await?;
    let name: Name = "bench".parse()?;
    let (hostnames, macs) = ("bench-{:04}".parse()?, Some("52:54:01".parse()?));
    store.create_pool(&NewPool { name: name.clone(), hostnames, macs, nics: 1 }).await?;
    store.grow(&name, LEASES).await?;
    let mut times = Vec::with_capacity(LEASES);
    for _ in 0..LEASES {
        let holder = Holder { child: "child".parse()?, instance_id: InstanceId::random() };
        let begin = Instant::now();
        store.lease(&name, &[holder], false).await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}
