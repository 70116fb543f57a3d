//! systemd-networkd before the gate.
//!
//! Starting it is a good part of what a child would wait for, and it learns nothing of an identity as long as it manages no
//! link. So it starts in the template, after `ramet-links.service` has told it to leave every link alone. The agent takes
//! that back as it opens the gate, and has networkd read its settings again.

use super::{Order, Plan, Units, Verdict, unit_file::UnitName};
use crate::root::{FileError, Root};

pub(crate) const UNIT: &str = "systemd-networkd.service";

/// The setting that leaves every link alone. Of all that match a link the first counts (systemd.network(5)).
pub(crate) const HOLD: &str = "run/systemd/network/00-00-ramet-gate.network";

/// Marks that links are not held any more in this boot: `ramet-links.service` heeds it.
pub(crate) const FREE: &str = "run/ramet-agent/links-are-free";

/// networkd's drop-in for its start before the gate.
pub(super) const EARLY: &str = include_str!("../../rootfs/usr/lib/ramet-agent/network-is-early.conf");

/// What the gate's own drop-in says besides. Told to read its settings while it starts, networkd would end.
pub(super) const GATE_AFTER: &str = "\n[Unit]\nAfter=systemd-networkd.service\n";

/// What would else be reached in the template, and with it file systems of a network.
pub(super) const TARGET: (&str, &str) = (
    "network.target",
    "# Waits for the gate, though networkd does not.\n[Unit]\nAfter=ramet-agent.service\n",
);

/// What nothing that waits must be ordered before: the gate waits for networkd, which waits for this.
const WAITED_FOR: [&str; 2] = [UNIT, "network-pre.target"];

/// Where networkd's settings are.
const SETTINGS: [&str; 4] = [
    "etc/systemd/network",
    "run/systemd/network",
    "usr/local/lib/systemd/network",
    "usr/lib/systemd/network",
];

/// Where netplan's settings are: it makes settings of networkd out of them, devices among these, while generators run.
const NETPLAN: [&str; 3] = ["etc/netplan", "run/netplan", "usr/lib/netplan"];

/// Parameters of the kernel that `systemd-network-generator.service` makes devices of.
const PARAMETERS: [&str; 4] = ["bond=", "bridge=", "team=", "vlan="];

/// Whether networkd, which the settings name, can start before the gate.
pub(super) fn can_be_early(
    root: &Root,
    units: &Units,
    order: &Order,
    before_gate: &[UnitName],
) -> Result<bool, FileError> {
    if !before_gate.iter().any(|unit| unit.as_str() == UNIT) {
        return Ok(false);
    }
    // Older ones do not read their settings again on SIGHUP (systemd.service(5), Type=notify-reload).
    if !units.get(UNIT).is_some_and(|unit| unit.reloads) {
        return Ok(false);
    }
    if waits_for_the_gate(units, order, before_gate) {
        return Ok(false);
    }
    for directory in NETPLAN {
        if !root.names(directory)?.is_empty() {
            return Ok(false);
        }
    }
    let command_line = root.read_lossy("proc/cmdline")?.unwrap_or_default();
    let makes_device = |word: &str| PARAMETERS.iter().any(|parameter| word.starts_with(parameter));
    if command_line.split_ascii_whitespace().any(makes_device) {
        return Ok(false);
    }
    for directory in SETTINGS {
        for name in root.names(directory)? {
            // A device of its own comes up at once, perhaps with an address made of the machine-id (systemd.netdev(5)).
            let is_device = name.ends_with(".netdev");
            let counts_first = name.ends_with(".network") && Some(name.as_str()) < HOLD.rsplit('/').next();
            if is_device || counts_first {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Whether networkd is started after something that waits, or the gate after network.target, which waits where networkd
/// does not: either would be a cycle.
fn waits_for_the_gate(units: &Units, order: &Order, before_gate: &[UnitName]) -> bool {
    let others: Vec<UnitName> = before_gate.iter().filter(|unit| unit.as_str() != UNIT).cloned().collect();
    let plan = Plan::of(units, order, &others);
    let waits = |unit: &str| {
        unit == crate::boot::UNIT || (unit != UNIT && plan.verdicts.get(unit).is_some_and(Verdict::holds))
    };
    let before = order.walk(units, &WAITED_FOR.map(str::to_owned), waits);
    let target = TARGET.0;
    before.units().any(|unit| waits(unit) || unit == target) || plan.before.has(target)
}

/// Whether `verdict` is that networkd starts before the gate, links left alone.
pub(super) fn is_early(unit: &str, verdict: &Verdict) -> bool {
    unit == UNIT && *verdict == Verdict::Named
}

#[cfg(test)]
mod tests {
    use super::super::{Scope, Survey, tests::Image};
    use super::*;

    fn early(change: impl FnOnce(&Image)) -> bool {
        let image = Image::new();
        image.unit(UNIT, "DefaultDependencies=no\nAfter=network-pre.target\n[Service]\nType=notify-reload");
        image.file("etc/systemd/network/80-dhcp.network", "");
        change(&image);
        let survey = Survey::of(&image.root, Scope::Installed).unwrap();
        survey.plan.verdicts.iter().any(|(unit, verdict)| is_early(unit, verdict))
    }

    #[test]
    fn it_is_early_where_links_can_be_held() {
        assert!(early(|_| {}));
        assert!(early(
            |image| image.unit("nftables.service", "DefaultDependencies=no\nBefore=network-pre.target")
        ));
        assert!(
            !early(|image| image.unit("fw.service", "DefaultDependencies=no\nBefore=network-pre.target")),
            "not known to be harmless, so it waits"
        );
        assert!(!early(|image| image.file("etc/ramet/agent.toml", "before_gate = []")), "not named");
        assert!(!early(|image| image.unit(UNIT, "[Service]\nType=notify")), "of before systemd 253");
        assert!(!early(|image| image.unit("firewall.service", "Before=network-pre.target")), "a cycle");
        assert!(!early(|image| image.unit("cloud.service", &format!("Before={UNIT}"))), "a cycle");
        // F9: held a is before early b, and that before networkd.
        assert!(!early(|image| {
            image.unit("a.service", "Before=nftables.service");
            image.unit("nftables.service", "DefaultDependencies=no\nBefore=network-pre.target");
        }));
        assert!(!early(|image| {
            image.unit("lock.service", "DefaultDependencies=no\nBefore=data.mount");
            image.file("etc/fstab", "/dev/x /data ext4 nofail,x-systemd.before=network-pre.target\n");
        }));
        assert!(!early(|image| image.unit("x.mount", "After=network.target")), "the gate would wait for it");
        assert!(!early(|image| image.file("etc/systemd/network/br0.netdev", "")));
        assert!(!early(|image| image.file("usr/lib/systemd/network/00-00-first.network", "")));
        assert!(!early(|image| image.file("etc/netplan/50-bridge.yaml", "")), "netplan may make devices");
        assert!(early(|image| image.file("proc/cmdline", "quiet rd.bridge=no")));
        assert!(!early(|image| image.file("proc/cmdline", "quiet bridge=br0:ens3")));
        let own = "etc/systemd/system/systemd-networkd.service.d/50-ramet-gate.conf";
        assert!(!early(|image| image.link(own, "/dev/null")), "its own drop-in decides");
    }
}
