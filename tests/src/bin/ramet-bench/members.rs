//! Members of a domain beside children of the same template that are in none.

use crate::{RUNS, report::Report};
use anyhow::{Context as _, Result};
use ramet_tests::{Domain, World};
use serde_json::Value;

/// What becomes a member, and the pool that it takes its account from.
const GUEST: &str = "debian13-sssd";
const POOL: &str = "office";

/// A child without a domain to ready, and a member to joined.
pub(crate) fn members(world: &World, report: &mut Report) -> Result<()> {
    eprintln!("bench: starting a domain controller, and making the template of a member");
    let domain = Domain::start(&world.network)?;
    domain.provision(world, POOL, RUNS + 1)?;
    world.create_template(GUEST, GUEST, "512M", &["bridge=ramete2e0"])?;
    let mut runs: [Vec<u64>; 4] = Default::default();
    for run in 0..=RUNS {
        let alone = world.json(&["fork", GUEST, "--name", "one"])?;
        world.remove(&["one"])?;
        let member = world.json(&["fork", GUEST, "--name", "one", "--pool", POOL])?;
        world.remove(&["one"])?;
        let time = |forked: &Value, line: &str| forked[0]["timings_ms"][line].as_u64().context("a figure");
        let member_time = |line| time(&member, line);
        let times = [
            time(&alone, "ready")?,
            member_time("identified")?,
            member_time("joined")?,
            member_time("ready")?,
        ];
        // The first turn warms up.
        if run > 0 {
            runs.iter_mut().zip(times).for_each(|(values, value)| values.push(value));
        }
    }
    let [alone, identified, joined, ready] = runs;
    let alone = report.add("fork to ready, SSSD installed, no domain, 512M", "ms", alone);
    report.add("fork of a member (SSSD) to identified, 512M", "ms", identified);
    let joined = report.add("fork of a member (SSSD) to joined, 512M", "ms", joined);
    report.add("fork of a member (SSSD) to ready, 512M", "ms", ready);
    report.at_most("fork to joined : fork to ready without a domain, SSSD", (joined, alone), 2.0);
    Ok(())
}
