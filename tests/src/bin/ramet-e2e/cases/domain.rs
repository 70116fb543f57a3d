//! A domain, and a guest that cannot become a member. Members are other guests.

use crate::Case;
use anyhow::{Result, ensure};
use ramet_tests::{Domain, TEMPLATE, World, contains, string, until};
use std::{fs, time::Duration};

pub(crate) const CASES: &[Case] = &[("domain::a_controller_serves_and_leaves_nothing", a_controller_serves)];

/// The controller of the tests itself, of which nothing may be left; and a guest that has no client for a domain.
fn a_controller_serves(world: &World) -> Result<()> {
    let domain = Domain::start(&world.network)?;
    domain.provision(world, "clientless", 1)?;
    let error = world.fails(["fork", TEMPLATE, "--name", "clientless", "--pool", "clientless"])?;
    contains(&error, "neither Samba's winbind nor SSSD is installed")?;
    let shown = world.json(&["pool", "show", "clientless"])?;
    ensure!(string(&shown, "/0/state")? == "quarantine", "{shown}");
    drop(domain);
    until(Duration::from_secs(10), || {
        let processes = controllers()?;
        ensure!(processes.is_empty(), "still there: {processes:?}");
        Ok(())
    })?;
    world.nothing_left()
}

/// Names of Samba's processes.
fn controllers() -> Result<Vec<String>> {
    let name = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    let names = fs::read_dir("/proc")?.filter_map(Result::ok).filter_map(name);
    Ok(names.filter(|name| ["samba", "smbd", "winbind"].iter().any(|part| name.contains(part))).collect())
}
