//! A child stays who it is over stop and start. Over a reboot one that is a member of a domain does, too: that is in
//! `guests/domain.rs`.

use crate::Case;
use anyhow::{Result, ensure};
use ramet_tests::{BOOT_LIMIT, TEMPLATE, World, contains, until};
use std::time::Duration;

pub(crate) const CASES: &[Case] =
    &[("lifecycle::identity_survives_stop_and_start", identity_survives_stop_and_start)];

/// A cold boot, nested in an emulated host.
const BOOT: Duration = Duration::from_secs(300);

/// What a child answers in the same way for as long as it is there.
pub(super) const WHO: &str =
    "uname -n; cat /etc/machine-id /sys/class/net/e*/address /etc/ssh/ssh_host_ed25519_key.pub";
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Has a child reboot from inside, and waits until it can be logged in to again.
pub(super) fn reboot(world: &World, child: &str) -> Result<()> {
    let first_boot = world.ssh(child, BOOT_ID)?;
    world.ssh(child, "systemctl --no-block reboot")?;
    until(BOOT, || {
        ensure!(world.ssh(child, BOOT_ID)? != first_boot, "{child} has not rebooted yet");
        Ok(())
    })
}

fn identity_survives_stop_and_start(world: &World) -> Result<()> {
    world.ok(["fork", TEMPLATE, "--name", "keeper"])?;
    let before = world.ssh("keeper", WHO)?;
    let first_boot = world.ssh("keeper", BOOT_ID)?;
    contains(&world.fails(["start", "keeper"])?, "keeper is running already")?;
    // Whether a guest heeds its power button is the image's business; stopped it is either way.
    world.ok(["stop", "keeper", "--timeout", "20s"])?;
    ensure!(world.json(&["show", "keeper"])?["state"] == "stopped");
    contains(&world.fails(["ssh", "keeper", "--", "true"])?, "is not running")?;
    contains(&world.ok(["stop", "keeper"])?, "already")?;
    let started = world.json(&["start", "keeper", "--timeout", BOOT_LIMIT])?;
    ensure!(started[0]["boot_ms"].as_u64() > Some(0), "{started}");
    let after = world.ssh("keeper", WHO)?;
    ensure!(after == before, "after stop and start:\n{after}\nbefore:\n{before}");
    ensure!(world.ssh("keeper", BOOT_ID)? != first_boot, "it has not booted again");
    world.remove(&["keeper"])?;
    world.nothing_left()
}
