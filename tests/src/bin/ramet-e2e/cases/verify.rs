//! `ramet verify`: who a child is, asked again and seen from outside.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet_tests::{Network, TEMPLATE, World, contains, string, succeeded, until};
use std::{process::Command, time::Duration};

pub(crate) const CASES: &[Case] = &[("verify::it_is_seen_from_every_side", it_is_seen_from_every_side)];

fn it_is_seen_from_every_side(world: &World) -> Result<()> {
    let forked = world.json(&["fork", TEMPLATE, "--name", "seen"])?;
    let mac = string(&forked[0], "/identity/macs/0")?.to_owned();
    let address =
        until(Duration::from_secs(30), || world.network.leases()?.remove(&mac).context("no address yet"))?;
    let found = until(Duration::from_secs(30), || {
        let found = world.json(&["verify"])?;
        let findings = found[0]["findings"].as_array().context("no findings")?.clone();
        let sides = ["agent", "qemu", "sshd", "arp"];
        let seen = |side: &&str| findings.iter().any(|one| one["seen_by"] == **side);
        ensure!(sides.iter().all(seen), "not seen from every side: {found}");
        Ok(findings)
    })?;
    ensure!(found.iter().all(|one| one["verdict"] == "right"), "{found:?}");

    world.ssh("seen", "hostname other")?;
    let wrong = world.fails(["verify", "seen"]);
    world.ssh("seen", "hostname seen")?;
    wrong?;
    // Somebody else has its address, as far as this host's kernel knows.
    let elsewhere = |action: &[&str]| {
        let entry = [action, &[address.as_str(), "dev", Network::BRIDGE]].concat();
        succeeded(Command::new("ip").arg("neigh").args(entry))
    };
    elsewhere(&["replace", "lladdr", "02:00:00:00:00:99", "nud", "permanent", "to"])?;
    let output = world.ramet(["verify", "seen"]).output()?;
    elsewhere(&["del"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    contains(&String::from_utf8(output.stdout)?, "is at 02:00:00:00:00:99")?;

    // sshd reads its key anew for a new process only; the agent sees the file.
    world.ssh(
        "seen",
        "cd /etc/ssh && rm ssh_host_ed25519_key* && ssh-keygen -qt ed25519 -N '' -f ssh_host_ed25519_key",
    )?;
    let mut verify = world.ramet(["verify", "seen"]);
    let output = verify.output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    contains(&String::from_utf8(output.stdout)?, "its SSH host keys are others")?;
    world.remove(&["seen"])?;
    contains(&world.fails(["verify", "seen"])?, "no child seen")?;
    world.nothing_left()
}
