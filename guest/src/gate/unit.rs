//! A unit, as far as the gate has to understand it.

use super::unit_file::{Specifiers, is_network, of_path};
use crate::ini::{Setting, boolean, settings};

/// What units there are, but for devices, which have no files, and scopes, which are made by programs.
const KINDS: &[&str] =
    &["service", "socket", "target", "mount", "automount", "swap", "path", "timer", "slice"];

/// A drop-in about the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DropIn {
    /// Below the root.
    pub(super) path: String,
    /// Whether it holds its unit.
    pub(super) holds: bool,
}

/// What PID 1 does for a unit that makes it remember an id of the machine, which it does not forget (sd-id128(3) keeps
/// both for the process's life).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    /// As it loads it: `FixedRandomDelay=` is drawn from the machine-id, and a namespace of the journal is named by it.
    pub(super) machine_id: bool,
    /// As it starts it: an id among `ConditionHost=` is compared.
    pub(super) machine_id_at_start: bool,
    /// As it starts it: `PrivateTmp=` is named by the boot id.
    pub(super) boot_id_at_start: bool,
}

/// A unit.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting")]
pub(super) struct Unit {
    pub(super) name: String,
    /// Other names of it; its drop-ins may be under any.
    pub(super) aliases: Vec<String>,
    /// Below the root.
    pub(super) path: String,
    /// `DefaultDependencies=no`.
    pub(super) early: bool,
    /// It starts in an initrd only, which has units of its own.
    pub(super) of_initrd: bool,
    /// A socket that is reached from outside.
    pub(super) network: bool,
    /// A service that reads its settings again on SIGHUP: `Type=notify-reload`.
    pub(super) reloads: bool,
    pub(super) before: Vec<String>,
    pub(super) after: Vec<String>,
    /// What is started with it: `Wants=` and its like, and links in `.wants`.
    pub(super) pulls: Vec<String>,
    /// What else it names, and is loaded with it.
    pub(super) names: Vec<String>,
    /// What a socket, timer, path or automount starts.
    pub(super) triggers: Vec<String>,
    /// What its settings say of the machine.
    pub(super) specifiers: Specifiers,
    pub(super) asks: Asks,
    /// Its own drop-in about the gate, if it has one.
    pub(super) drop_in: Option<DropIn>,
}

impl Unit {
    pub(super) fn new(name: &str, path: &str) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), ..Self::default() }
    }

    /// Its type, such as `service`.
    pub(super) fn kind(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(_, kind)| kind)
    }

    pub(super) fn is_service(&self) -> bool {
        self.kind() == "service"
    }

    pub(super) fn apply(&mut self, text: &str) {
        for setting in settings(text) {
            self.network |= is_network(&setting);
            self.specifiers.add(Specifiers::of(&setting));
            self.set(&setting);
        }
    }

    fn set(&mut self, setting: &Setting) {
        let on = || !matches!(boolean(&setting.value), Some(false)) && !setting.value.is_empty();
        match (setting.section.as_str(), setting.key.as_str()) {
            ("Unit", "DefaultDependencies") => {
                self.early = boolean(&setting.value).map_or(self.early, |default| !default);
            }
            ("Unit", "Before") => self.before.extend(words(setting)),
            ("Unit", "After") | ("Service", "Sockets") => self.after.extend(words(setting)),
            ("Unit", "Wants" | "Requires" | "BindsTo" | "Upholds") => self.pulls.extend(words(setting)),
            (
                "Unit",
                "Requisite"
                | "PartOf"
                | "Conflicts"
                | "OnFailure"
                | "OnSuccess"
                | "JoinsNamespaceOf"
                | "PropagatesReloadTo"
                | "ReloadPropagatedFrom"
                | "PropagatesStopTo"
                | "StopPropagatedFrom",
            ) => self.names.extend(words(setting)),
            ("Unit", "RequiresMountsFor" | "WantsMountsFor") => {
                self.after.extend(words(setting).flat_map(|path| mounts_of(&path)));
            }
            ("Unit", "ConditionHost" | "AssertHost") => {
                let id = setting.value.trim_start_matches(['|', '!', ' ']);
                let digits = id.bytes().filter(|b| *b != b'-');
                self.asks.machine_id_at_start |=
                    digits.clone().count() == 32 && digits.clone().all(|b| b.is_ascii_hexdigit());
            }
            ("Unit", "ConditionPathExists" | "AssertPathExists") => {
                self.of_initrd |= setting.value == "/etc/initrd-release";
            }
            ("Service", "Type") => {
                self.reloads = setting.value == "notify-reload";
                if setting.value == "dbus" {
                    self.after.push("dbus.socket".into());
                }
            }
            ("Socket", "Service") | ("Timer" | "Path", "Unit") => self.triggers.extend(words(setting)),
            ("Timer", "FixedRandomDelay") => self.asks.machine_id = on(),
            (_, "Slice") => {
                self.after.extend(words(setting));
                self.pulls.extend(words(setting));
            }
            // A private directory that is no one's but this service's has no name (systemd.exec(5), "disconnected").
            (_, "PrivateTmp") => {
                self.asks.boot_id_at_start = on() && setting.value != "disconnected";
            }
            (_, "DynamicUser") => self.asks.boot_id_at_start |= on(),
            (_, "LogNamespace") => {
                self.asks.machine_id = !setting.value.is_empty();
                self.names.push(format!("systemd-journald@{}.socket", setting.value));
            }
            _ => {}
        }
    }

    /// What systemd adds by itself (the sections AUTOMATIC DEPENDENCIES of systemd.service(5) and the others), as far as
    /// the order is concerned.
    pub(super) fn complete(&mut self) {
        let (stem, kind) = self.name.rsplit_once('.').unwrap_or((&self.name, ""));
        let (stem, kind) = (stem.to_owned(), kind.to_owned());
        let service = format!("{stem}.service");
        let (after, before): (&[&str], &[&str]) = match kind.as_str() {
            "service" => (&["sysinit.target", "basic.target"], &[]),
            "socket" => (&["sysinit.target"], &["sockets.target"]),
            "timer" => (&["sysinit.target"], &["timers.target"]),
            "path" => (&["sysinit.target"], &["paths.target"]),
            // Those of files; what fstab(5) says is added where it is read.
            "mount" | "automount" => (&["local-fs-pre.target"], &["local-fs.target"]),
            "swap" => (&[], &["swap.target"]),
            _ => (&[], &[]),
        };
        // One that waits at the gate has none of these (gate-socket.conf).
        if !self.early && !self.network {
            self.after.extend(after.iter().map(|unit| (*unit).to_owned()));
            self.before.extend(before.iter().map(|unit| (*unit).to_owned()));
        }
        match kind.as_str() {
            "socket" | "timer" | "path" if self.triggers.is_empty() => self.triggers.push(service),
            "automount" => self.triggers.push(format!("{stem}.mount")),
            "slice" => {
                if let Some((parent, _)) = stem.trim_end_matches('-').rsplit_once('-') {
                    self.after.push(format!("{parent}.slice"));
                }
            }
            _ => {}
        }
        // One that is late itself is not waited for by what is early: they are not started together.
        if self.early || kind == "automount" {
            self.before.extend(self.triggers.clone());
        }
    }
}

fn words(setting: &Setting) -> impl Iterator<Item = String> {
    setting.value.split_ascii_whitespace().map(|word| word.trim_matches('"').to_owned())
}

/// The mounts that a path is below, itself included.
pub(super) fn mounts_of(path: &str) -> Vec<String> {
    let mut mounts = Vec::new();
    let mut path = path.trim_end_matches('/');
    while !path.is_empty() {
        mounts.push(of_path(path, "mount"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    mounts
}

/// Whether a drop-in holds its unit.
pub(super) fn holds(text: &str) -> bool {
    let settings = settings(text);
    let names_gate = |key| {
        settings
            .iter()
            .any(|s| s.section == "Unit" && s.key == key && words(s).any(|word| word == crate::boot::UNIT))
    };
    names_gate("Requires") && names_gate("After")
}

pub(super) fn has_kind(name: &str, kind: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, found)| !stem.is_empty() && found == kind)
}

/// Not a bare ".service".
pub(super) fn is_unit(name: &str) -> bool {
    KINDS.iter().any(|kind| has_kind(name, kind))
}

/// A unit's name, or a type: "service.d" is for all services.
pub(super) fn may_have_drop_ins(name: &str) -> bool {
    is_unit(name) || KINDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_in_holds_by_its_unit_section_only() {
        let both = "Requires=x ramet-agent.service\nAfter=ramet-agent.service";
        assert!(holds(&format!("[Unit]\n{both}")));
        assert!(!holds(&format!("[Service]\n{both}")) && !holds(both));
        assert!(!holds("[Unit]\nAfter=ramet-agent.service\n[Service]\nRequires=ramet-agent.service"));
    }
}
