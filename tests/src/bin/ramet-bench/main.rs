//! How long a fork takes, beside what it replaces, in one run on one image. `cargo xtask bench` runs it where KVM and
//! vhost-vsock are real. Markdown on stdout, and JSON into the file named by the last argument.
//!
//! Every figure is the median of several runs and named with its stop line: resumed, identified, ready, joined.

mod forks;
mod leases;
mod members;
mod report;
mod restores;

use anyhow::{Result, bail};
use ramet_tests::World;
use report::Report;
use std::{env, ffi::OsStr};

/// Of each measurement of VMs.
const RUNS: usize = 5;

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let arguments: Vec<&OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    match arguments.as_slice() {
        [what] if *what == "vms" => vms()?.close(None),
        [what, json] if *what == "vms" => vms()?.close(Some(json)),
        [what, server] if *what == "leases" => leases::leases(server)?.close(None),
        [what, server, json] if *what == "leases" => leases::leases(server)?.close(Some(json)),
        _ => bail!("usage: ramet-bench vms [JSON], or ramet-bench leases POSTGRES-URL [JSON]"),
    }
}

fn vms() -> Result<Report> {
    let world = World::make()?;
    forks::templates(&world)?;
    let mut report = Report::new()?;
    let (cold, [small, _, large]) = forks::boots_and_forks(&world, &mut report)?;
    let (fork, copy) = restores::restores(&world, &mut report)?;
    forks::at_once(&world, &mut report)?;
    let (alone, joined) = members::members(&world, &mut report)?;

    report.at_least("cold boot to ready : fork to identified", (cold, small.identified), 30.0);
    report.at_least("cold boot to ready : fork to ready", (cold, small.ready), 10.0);
    report.at_most("fork to identified, 4 GiB : 512 MiB", (large.identified, small.identified), 1.25);
    report.at_least("restore that copies all RAM : fork, 2 GiB, to resumed", (copy, fork), 5.0);
    report.at_most("private MiB of an idle child, QEMU included : 1", (small.private, 1), 60.0);
    report.at_most("fork to joined : fork to ready without a domain, SSSD", (joined, alone), 2.0);
    Ok(report)
}
