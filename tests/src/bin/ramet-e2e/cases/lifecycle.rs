//! A child that is stopped stays so until it is started. That it is then who it was, and after a reboot, too, is tried with
//! a member of a domain (`guests/domain.rs`): each is a cold boot.

use crate::Case;
use anyhow::{Result, ensure};
use ramet_tests::{BOOT_LIMIT, TEMPLATE, World, contains, until};
use std::time::Duration;

pub(crate) const CASES: &[Case] = &[("lifecycle::a_stopped_child_stays_so", a_stopped_child_stays_so)];

fn a_stopped_child_stays_so(world: &World) -> Result<()> {
    world.ok(["fork", TEMPLATE, "--name", "keeper"])?;
    contains(&world.fails(["start", "keeper"])?, "keeper is running already")?;
    // Whether a guest heeds its power button is the image's business; stopped it is either way.
    world.ok(["stop", "keeper", "--timeout", "20s"])?;
    ensure!(world.json(&["show", "keeper"])?["state"] == "stopped");
    contains(&world.fails(["ssh", "keeper", "--", "true"])?, "is not running")?;
    contains(&world.ok(["stop", "keeper"])?, "already")?;
    world.remove(&["keeper"])?;
    world.nothing_left()
}

/// A cold boot, nested in an emulated host.
const BOOT: Duration = Duration::from_secs(300);

/// What a child answers in the same way for as long as it is there.
const WHO: &str = "uname -n; cat /etc/machine-id /sys/class/net/e*/address /etc/ssh/ssh_host_ed25519_key.pub";
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// Has a running child boot twice, by stop and start and by a reboot from inside. Fails unless it then is who it was, of
/// whom `more` is true.
pub(super) fn stays_who_it_is(world: &World, child: &str, more: impl Fn() -> Result<()>) -> Result<()> {
    let who = world.ssh(child, WHO)?;
    let booted_after = |last: &str| {
        let boot = until(BOOT, || {
            let boot = world.ssh(child, BOOT_ID)?;
            ensure!(boot != last, "{child} has not booted again");
            Ok(boot)
        })?;
        let now = world.ssh(child, WHO)?;
        ensure!(now == who, "{child} is now:\n{now}\nand was:\n{who}");
        more()?;
        Ok::<_, anyhow::Error>(boot)
    };
    let first = world.ssh(child, BOOT_ID)?;
    world.ok(["stop", child, "--timeout", "120s"])?;
    let started = world.json(&["start", child, "--timeout", BOOT_LIMIT])?;
    ensure!(started[0]["boot_ms"].as_u64() > Some(0), "{started}");
    let second = booted_after(&first)?;
    world.ssh(child, "systemctl --no-block reboot")?;
    booted_after(&second)?;
    Ok(())
}
