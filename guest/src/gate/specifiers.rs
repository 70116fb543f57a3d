//! What systemd itself would remember of the template.
//!
//! PID 1 expands specifiers as it loads a unit (systemd.unit(5)), and it loads all that boot is going to start before the
//! gate: what waits there with `%H` in a setting would start with the template's name. Reloading makes it read them
//! again. An id it asks for once and keeps; only re-executing makes it ask again.

use super::{Scope, Survey, Verdict, units::Units};
use crate::root::{FileError, Root};
use std::collections::BTreeSet;

/// What is loaded in each boot: what starts, what ends it, and what is there without anybody asking.
const LOADED: &[&str] = &[
    "default.target",
    "-.slice",
    "system.slice",
    "sysinit.target",
    "emergency.target",
    "rescue.target",
    "shutdown.target",
    "local-fs.target",
    "ctrl-alt-del.target",
];

/// Units whose settings name the machine by specifiers, of those that a boot loads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// `%H`, `%l`, `%q`.
    pub(crate) host: Vec<String>,
    /// `%m`: PID 1 remembers it from then on.
    pub(crate) machine_id: Vec<String>,
    /// `%b`: PID 1 remembers it from then on.
    pub(crate) boot_id: Vec<String>,
}

/// Units for which PID 1 asks for an id before the gate, and remembers it from then on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// `FixedRandomDelay=`, `LogNamespace=`, `ConditionHost=` with an id.
    pub(crate) machine_id: Vec<String>,
    /// `PrivateTmp=` and `DynamicUser=`.
    pub(crate) boot_id: Vec<String>,
}

/// The units whose settings name the machine.
pub(crate) fn used(root: &Root, scope: Scope) -> Result<Uses, FileError> {
    Ok(uses(&super::units::load(root, scope)?))
}

pub(super) fn uses(units: &Units) -> Uses {
    let mut uses = Uses::default();
    for unit in loaded(units).iter().filter_map(|name| units.get(name)) {
        let name = || unit.name.clone();
        uses.host.extend(unit.specifiers.host.then(name));
        uses.machine_id.extend(unit.specifiers.machine_id.then(name));
        uses.boot_id.extend(unit.specifiers.boot_id.then(name));
    }
    uses
}

pub(super) fn asks(survey: &Survey) -> Asks {
    let mut asks = Asks::default();
    for unit in loaded(&survey.units).iter().filter_map(|name| survey.units.get(name)) {
        // What is neither a service nor a socket starts when its turn comes, gate or not.
        let waits = survey.verdict(&unit.name).is_some_and(Verdict::holds);
        let name = || unit.name.clone();
        let id = unit.asks.machine_id || (unit.asks.machine_id_at_start && !waits);
        asks.machine_id.extend(id.then(name));
        asks.boot_id.extend((unit.asks.boot_id_at_start && !waits).then(name));
    }
    asks
}

/// All that PID 1 loads as it boots: what is started, and whatever that names, be it only for the order.
fn loaded(units: &Units) -> BTreeSet<String> {
    // Without a default.target boot goes where the kernel's command line says.
    let mut from = LOADED.to_vec();
    if units.get("default.target").is_none() {
        from.extend(["graphical.target", "multi-user.target"]);
    }
    units.closure(&from, |unit| {
        let lists = [&unit.pulls, &unit.names, &unit.after, &unit.before, &unit.triggers];
        lists.into_iter().flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    fn image() -> Image {
        let image = Image::new();
        image.unit("graphical.target", "Requires=multi-user.target");
        image.unit("multi-user.target", "Wants=basic.target");
        image.unit("basic.target", "Wants=timers.target");
        image.link("usr/lib/systemd/system/default.target", "graphical.target");
        image
    }

    fn wanted(image: &Image, name: &str, text: &str) {
        image.file(&format!("etc/systemd/system/{name}"), text);
        image.link(&format!("etc/systemd/system/multi-user.target.wants/{name}"), &format!("../{name}"));
    }

    #[test]
    fn units_that_boot_loads_and_that_name_the_machine_are_found() {
        let image = image();
        wanted(&image, "who.service", "[Service]\nEnvironment=NODE=%H ID=%m\nExecStart=/x %b\n");
        wanted(&image, "percent.service", "[Service]\nExecStart=/bin/date +%%H:%%m\n");
        wanted(&image, "named.socket", "[Socket]\nListenStream=/run/%l.sock\n");
        wanted(&image, "triggers.timer", "[Timer]\nOnCalendar=daily\nUnit=by-timer.service\n");
        image.file("etc/systemd/system/by-timer.service", "[Service]\nExecStart=/x --name=%q\n");
        wanted(&image, "plain.service", "[Unit]\nAfter=only-named.service\n[Service]\nExecStart=/x\n");
        image.file("etc/systemd/system/only-named.service", "[Service]\nExecStart=/x %H\n");
        image.file("etc/systemd/system/plain.service.d/x.conf", "[Service]\nStateDirectory=a/%m\n");
        image.file("etc/systemd/system/nobody-wants.service", "[Service]\nExecStart=/x %H\n");
        wanted(&image, "inst@.service", "[Service]\nExecStart=/x %i %H\n");
        image.link("etc/systemd/system/multi-user.target.wants/inst@a.service", "../inst@.service");
        let uses = used(&image.root, Scope::Installed).unwrap();
        let host = ["by-timer.service", "inst@.service", "named.socket", "only-named.service", "who.service"];
        assert_eq!(uses.host, host);
        assert_eq!(uses.machine_id, ["plain.service", "who.service"]);
        assert_eq!(uses.boot_id, ["who.service"]);
    }

    #[test]
    fn a_plain_image_uses_none() {
        assert_eq!(used(&image().root, Scope::Installed).unwrap(), Uses::default());
        assert_eq!(asks(&Survey::of(&image().root, Scope::Installed).unwrap()), Asks::default());
    }

    #[test]
    fn what_makes_systemd_ask_for_an_id_before_the_gate() {
        let image = image();
        wanted(&image, "systemd-logind.service", "[Service]\nPrivateTmp=yes\nExecStart=/x\n");
        wanted(&image, "held.service", "[Service]\nPrivateTmp=yes\nDynamicUser=yes\nExecStart=/x\n");
        wanted(
            &image,
            "systemd-resolved.service",
            "[Unit]\nDefaultDependencies=no\n[Service]\nPrivateTmp=disconnected\nExecStart=/x\n",
        );
        wanted(&image, "fixed.timer", "[Timer]\nOnCalendar=daily\nFixedRandomDelay=true\n");
        wanted(&image, "loose.timer", "[Timer]\nOnCalendar=daily\nRandomizedDelaySec=1h\n");
        wanted(&image, "space.service", "[Service]\nLogNamespace=space\nExecStart=/x\n");
        let id = "0123456789abcdef0123456789abcdef";
        wanted(&image, "only-here.target", &format!("[Unit]\nConditionHost=!{id}\n"));
        wanted(&image, "by-name.target", "[Unit]\nConditionHost=golden\n");
        wanted(&image, "waits.service", &format!("[Unit]\nConditionHost={id}\n[Service]\nExecStart=/x\n"));
        image.unit("systemd-journald@.socket", "DefaultDependencies=no");
        let journald = "[Service]\nLogsDirectory=journal/%m.%i\nExecStart=/x\n";
        image.file("usr/lib/systemd/system/systemd-journald@.service", journald);
        assert_eq!(used(&image.root, Scope::Installed).unwrap().machine_id, ["systemd-journald@.service"]);
        let asks = asks(&Survey::of(&image.root, Scope::Installed).unwrap());
        assert_eq!(asks.machine_id, ["fixed.timer", "only-here.target", "space.service"]);
        assert_eq!(asks.boot_id, ["systemd-logind.service"]);
    }
}
