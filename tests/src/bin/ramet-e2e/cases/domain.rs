//! A domain, and a guest that cannot become a member. Members are other guests.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet_tests::{Domain, TEMPLATE, World, contains, string, succeeded, until};
use std::{fs, process::Stdio, time::Duration};

pub(crate) const CASES: &[Case] = &[("domain::a_controller_serves_and_leaves_nothing", a_controller_serves)];

/// The controller of the tests itself, since all that is said about domains rests on it; and a guest that has no client for
/// a domain.
fn a_controller_serves(world: &World) -> Result<()> {
    let computer = ["computer", "create", "left-over"];
    let show = ["computer", "show", "left-over"];
    let domain = Domain::start(&world.network)?;
    let mut kinit = domain.command("kinit");
    let password = fs::File::open(domain.password_file("alice"))?;
    succeeded(kinit.args(["-c", "MEMORY:", "alice"]).stdin(Stdio::from(password)))?;
    let mut whoami = domain.command("ldapwhoami");
    whoami.env("LDAPTLS_CACERT", "/srv/ad/tls/ca.pem").args(["-x", "-H", "ldaps://dc1.ad.ramet.test"]);
    whoami.args(["-D", "ramet@ad.ramet.test", "-y", "/srv/ad/secrets/ramet"]);
    contains(&succeeded(&mut whoami)?, r"RAMET\ramet")?;
    succeeded(&mut domain.administrate(&computer))?;
    succeeded(&mut domain.administrate(&show))?;
    drop(domain);
    until(Duration::from_secs(10), || {
        let processes = controllers()?;
        ensure!(processes.is_empty(), "still there: {processes:?}");
        Ok(())
    })?;

    // The next one knows nothing of what the last was told.
    let domain = Domain::start(&world.network)?;
    let unknown = domain.administrate(&show).output().context("cannot run samba-tool")?;
    ensure!(!unknown.status.success(), "an account of the last run is there");
    contains(&String::from_utf8_lossy(&unknown.stderr), "Unable to find computer")?;
    clientless(world, &domain)
}

fn clientless(world: &World, domain: &Domain<'_>) -> Result<()> {
    domain.provision(world, "clientless", 1)?;
    let error = world.fails(["fork", TEMPLATE, "--name", "clientless", "--pool", "clientless"])?;
    contains(&error, "neither Samba's winbind nor SSSD is installed")?;
    let shown = world.json(&["pool", "show", "clientless"])?;
    ensure!(string(&shown, "/0/state")? == "quarantine", "{shown}");
    world.nothing_left()
}

/// Names of Samba's processes.
fn controllers() -> Result<Vec<String>> {
    let name = |process: fs::DirEntry| fs::read_to_string(process.path().join("comm")).ok();
    let names = fs::read_dir("/proc")?.filter_map(Result::ok).filter_map(name);
    Ok(names.filter(|name| ["samba", "smbd", "winbind"].iter().any(|part| name.contains(part))).collect())
}
