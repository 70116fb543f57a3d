//! A child stays who it is: over a reboot, and over stop and start.

use crate::Case;
use anyhow::{Result, ensure};
use ramet_tests::{TEMPLATE, World, contains, until};
use std::time::Duration;

pub(crate) const CASES: &[Case] =
    &[("lifecycle::identity_survives_reboot_and_restart", identity_survives_reboot_and_restart)];

/// A cold boot, nested in an emulated host.
const BOOT: Duration = Duration::from_secs(300);

fn identity_survives_reboot_and_restart(world: &World) -> Result<()> {
    const WHO: &str =
        "uname -n; cat /etc/machine-id /sys/class/net/e*/address /etc/ssh/ssh_host_ed25519_key.pub";
    const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
    world.ok(["fork", TEMPLATE, "--name", "keeper"])?;
    let before = world.ssh("keeper", WHO)?;
    let first_boot = world.ssh("keeper", BOOT_ID)?;

    world.ssh("keeper", "systemctl --no-block reboot")?;
    let second_boot = until(BOOT, || {
        let boot = world.ssh("keeper", BOOT_ID)?;
        ensure!(boot != first_boot, "it has not rebooted yet");
        Ok(boot)
    })?;
    let after = world.ssh("keeper", WHO)?;
    ensure!(after == before, "after a reboot:\n{after}\nbefore:\n{before}");

    contains(&world.fails(["start", "keeper"])?, "keeper is running already")?;
    // Whether a guest heeds its power button is the image's business; stopped it is either way.
    world.ok(["stop", "keeper", "--timeout", "20s"])?;
    ensure!(world.json(&["show", "keeper"])?["state"] == "stopped");
    contains(&world.fails(["ssh", "keeper", "--", "true"])?, "is not running")?;
    contains(&world.ok(["stop", "keeper"])?, "already")?;

    let started = world.json(&["start", "keeper"])?;
    ensure!(started[0]["boot_ms"].as_u64() > Some(0), "{started}");
    let again = world.ssh("keeper", WHO)?;
    ensure!(again == before, "after stop and start:\n{again}\nbefore:\n{before}");
    ensure!(world.ssh("keeper", BOOT_ID)? != second_boot, "it has not booted again");
    world.remove(&["keeper"])?;
    world.nothing_left()
}
