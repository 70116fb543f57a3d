use super::*;
use proptest::prelude::*;
use std::{fs, os::unix::fs::symlink, path::PathBuf};

/// A root with ramet-agent's files.
pub(super) struct Image {
    pub(super) root: Root,
    dir: tempfile::TempDir,
}

impl Image {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Self { root: Root::open(dir.path()).unwrap(), dir };
        for (path, text) in [
            (FOR_ALL, include_str!("../../rootfs/usr/lib/systemd/system/service.d/50-ramet-gate.conf")),
            (
                "usr/lib/systemd/system/ramet-agent.service",
                include_str!("../../rootfs/usr/lib/systemd/system/ramet-agent.service"),
            ),
        ] {
            image.file(path, text);
        }
        image.file(&generator::PATH[1..], "");
        image.file("run/.keep", "");
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub(super) fn bytes(&self, path: &str, bytes: &[u8]) {
        fs::write(self.path(path), bytes).unwrap();
    }

    pub(super) fn file(&self, path: &str, text: &str) {
        self.bytes(path, text.as_bytes());
    }

    pub(super) fn link(&self, path: &str, to: &str) {
        symlink(to, self.path(path)).unwrap();
    }

    /// A unit as a package brings it: what follows `[Unit]`.
    pub(super) fn unit(&self, name: &str, text: &str) {
        self.file(&format!("usr/lib/systemd/system/{name}"), &format!("[Unit]\n{text}\n"));
    }

    /// Has boot start that unit.
    pub(super) fn want(&self, name: &str) {
        self.link(&format!("etc/systemd/system/default.target.wants/{name}"), &format!("/x/{name}"));
        self.unit("default.target", "");
    }

    fn verdicts(&self) -> BTreeMap<String, Verdict> {
        let survey = Survey::of(&self.root, Scope::Installed).unwrap();
        survey.plan.verdicts
    }
}

const EARLY: &str = "DefaultDependencies=no";

#[test]
fn all_wait_but_the_known_and_the_named() {
    let image = Image::new();
    image.file(
        "etc/ramet/agent.toml",
        "before_gate = [\"named.service\", \"named.socket\", \"in@x.service\"]",
    );
    for (name, text) in [
        ("dbus.service", ""),
        ("in@.service", ""),
        ("named.service", ""),
        ("unknown.service", ""),
        ("named.socket", "[Socket]\nListenStream=9"),
        ("web.socket", "[Socket]\nListenStream=80"),
        ("local.socket", "[Socket]\nListenStream=/run/local"),
        ("systemd-udevd.service", EARLY),
        ("systemd-fsck@.service", EARLY),
        ("vendor-early.service", EARLY),
        ("systemd-of-next-year.service", EARLY),
    ] {
        image.unit(name, text);
    }
    let verdicts = image.verdicts();
    let harmless = |unit| Verdict::Harmless(lists::why(lists::HARMLESS, unit).unwrap());
    let expected = [
        ("dbus.service", Verdict::Held(Held::AsAll)),
        ("in@.service", Verdict::Held(Held::AsAll)),
        ("in@x.service", Verdict::Named),
        ("named.service", Verdict::Named),
        ("named.socket", Verdict::Named),
        ("ramet-agent.service", Verdict::Gate),
        ("systemd-fsck@.service", harmless("systemd-fsck@.service")),
        ("systemd-of-next-year.service", Verdict::Held(Held::Unknown)),
        ("systemd-udevd.service", harmless("systemd-udevd.service")),
        ("unknown.service", Verdict::Held(Held::AsAll)),
        ("vendor-early.service", Verdict::Held(Held::Unknown)),
        ("web.socket", Verdict::Held(Held::Network)),
    ];
    assert_eq!(verdicts, expected.map(|(name, verdict)| (name.to_owned(), verdict)).into());
}

#[test]
fn an_early_way_in_waits_under_any_of_its_names() {
    let image = Image::new();
    let names = [
        "auditd.service",
        "breakpoint-pre-basic.service",
        "brltty.service",
        "debug-shell.service",
        "dm.service",
        "emergency.service",
        "iwpmd.service",
        "kdump.service",
        "mdmonitor.service",
        "networking.service",
        "nfsdcld.service",
        "ovs-vswitchd.service",
        "ovsdb-server.service",
        "systemd-networkd.service",
    ];
    for name in names {
        image.unit(name, &format!("{EARLY}\nBefore=sysinit.target"));
    }
    image.link("etc/systemd/system/display-manager.service", "/usr/lib/systemd/system/dm.service");
    let verdicts = image.verdicts();
    for name in names {
        assert!(matches!(verdicts[name], Verdict::Held(Held::WayIn(_))), "{name}: {:?}", verdicts[name]);
    }
    assert_eq!(verdicts.len(), names.len() + 1);
}

/// On Fedora dbus.service is another name of dbus-broker.service, which reads the machine-id when it starts.
#[test]
fn naming_an_alias_lets_nothing_go() {
    let image = Image::new();
    image.unit("dbus-broker.service", "DefaultDependencies=false\nBefore=basic.target");
    image.link("usr/lib/systemd/system/dbus.service", "dbus-broker.service");
    assert!(image.verdicts()["dbus-broker.service"].holds());
}

#[test]
fn a_units_own_drop_in_decides() {
    let image = Image::new();
    image.unit("a.service", EARLY);
    image.unit("b-c.service", "");
    image.file(
        "usr/lib/systemd/system/a.service.d/50-ramet-gate.conf",
        "[Unit]\nRequires=ramet-agent.service\nAfter=x ramet-agent.service",
    );
    // systemd reads those of a prefix, too.
    image.link("etc/systemd/system/b-.service.d/50-ramet-gate.conf", "/dev/null");
    let verdicts = image.verdicts();
    assert!(verdicts["a.service"].holds());
    let path = "etc/systemd/system/b-.service.d/50-ramet-gate.conf".to_owned();
    assert_eq!(verdicts["b-c.service"], Verdict::Own(DropIn { path, holds: false }));
}

/// F5: whatever the gate waits for is not held, however many units and of whatever type are in between.
#[test]
fn an_unknown_one_that_the_gate_needs_is_let_go() {
    let image = Image::new();
    image.unit("direct.service", "DefaultDependencies=no\nBefore=local-fs.target");
    image.unit("first.service", "DefaultDependencies=no\nBefore=second.service");
    image.unit("second.service", "DefaultDependencies=no\nBefore=some.target");
    image.unit("some.target", "DefaultDependencies=no\nBefore=data.mount");
    image.unit("unlock.service", EARLY);
    image.file("etc/fstab", "/dev/x /data ext4 x-systemd.requires=unlock.service\n");
    image.unit("settle.service", EARLY);
    image.unit("udev-again.service", EARLY);
    image.link("usr/lib/systemd/system/udev-alias.service", "udev-again.service");
    image.unit("systemd-udevd.service", "DefaultDependencies=no\nAfter=udev-alias.service");
    image.unit("beside.service", "DefaultDependencies=no\nBefore=sysinit.target");
    let verdicts = image.verdicts();
    let by = |unit: &str| Verdict::Needed(unit.to_owned());
    assert_eq!(verdicts["direct.service"], by("local-fs.target"));
    assert_eq!(verdicts["first.service"], by("second.service"));
    assert_eq!(verdicts["second.service"], by("some.target"));
    assert_eq!(verdicts["unlock.service"], by("data.mount"));
    assert_eq!(verdicts["udev-again.service"], by("systemd-udevd.service"));
    assert_eq!(verdicts["beside.service"], Verdict::Held(Held::Unknown));
    assert_eq!(verdicts["settle.service"], Verdict::Held(Held::Unknown));
}

/// Held, it would have to be started while the gate goes down.
#[test]
fn what_only_ends_the_machines_run_does_not_wait() {
    let image = Image::new();
    for unit in ["at-end.service", "both.service", "plain.service"] {
        image.unit(unit, "DefaultDependencies=no\nBefore=shutdown.target");
        image.link(&format!("etc/systemd/system/poweroff.target.wants/{unit}"), "/x");
    }
    image.unit("poweroff.target", EARLY);
    image.unit("multi-user.target", "Wants=both.service");
    image.unit("plain.service", "Before=shutdown.target");
    let verdicts = image.verdicts();
    assert_eq!(verdicts["at-end.service"], Verdict::Ends);
    assert_eq!(verdicts["both.service"], Verdict::Held(Held::Unknown));
    assert_eq!(verdicts["plain.service"], Verdict::Held(Held::AsAll));
}

/// F9: a cycle is seen from either side, over any number of units, and under any name of theirs.
#[test]
fn cycles_are_seen_over_all_types() {
    let image = Image::new();
    image.unit("cloud-disk.service", "DefaultDependencies=no\nBefore=local-fs.target");
    image.unit("cloud-late.service", "DefaultDependencies=no\nBefore=sysinit.target");
    image.unit("iscsi.service", EARLY);
    image.unit("systemd-tmpfiles-setup.service", "DefaultDependencies=no\nAfter=iscsi.service");
    image.unit("late.service", "");
    image.file("etc/fstab", "/dev/x /data ext4 x-systemd.after=late.service\n");
    image.unit("nmb.service", "DefaultDependencies=no\nBefore=x.path");
    image.unit("x.path", "DefaultDependencies=no\nBefore=udev.service");
    image.unit("systemd-udevd.service", EARLY);
    image.link("usr/lib/systemd/system/udev.service", "systemd-udevd.service");
    let survey = Survey::of(&image.root, Scope::Installed).unwrap();
    let cycles: Vec<_> =
        survey.plan.cycles().map(|unit| (unit.as_str(), survey.plan.before.way(unit))).collect();
    let expected = [
        ("cloud-disk.service", vec!["local-fs.target"]),
        ("iscsi.service", vec!["systemd-tmpfiles-setup.service"]),
        ("late.service", vec!["data.mount", "local-fs.target"]),
        ("nmb.service", vec!["x.path", "systemd-udevd.service"]),
    ];
    assert_eq!(cycles, expected);
}

/// Nothing that somebody else sets for all services passes for the generator's mark.
#[test]
fn only_this_boots_mark_is_one() {
    let image = Image::new();
    let sound = |mark: Option<&str>| is_marked(&image.root, mark).unwrap();
    assert!(!sound(None) && !sound(Some("")) && !sound(Some("1")));
    image.file(generator::NONCE, "0123456789abcdef0123456789abcdef");
    assert!(sound(Some("0123456789abcdef0123456789abcdef")));
    assert!(!sound(Some("1")) && !sound(Some("set")) && !sound(None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However units are ordered: of the early ones, none that is merely unknown is in the way of what the gate waits
    /// for, and none is let go for another reason than to be in that way.
    #[test]
    fn no_unknown_unit_makes_a_cycle(
        units in prop::collection::vec((any::<bool>(), prop::collection::vec((0_usize..11, any::<bool>()), 0..3)), 8)
    ) {
        let image = Image::new();
        let goals = ["local-fs.target", "systemd-udevd.service", "systemd-journald.socket"];
        let name = |at: usize| goals.get(at.wrapping_sub(8)).map_or_else(|| format!("u{at}.service"), ToString::to_string);
        for (at, (early, orders)) in units.iter().enumerate() {
            let mut text = if *early { EARLY.to_owned() } else { String::new() };
            for (other, before) in orders {
                let key = if *before { "\nBefore=" } else { "\nAfter=" };
                text += key;
                text += &name(*other);
            }
            image.unit(&name(at), &text);
        }
        let survey = Survey::of(&image.root, Scope::Installed).unwrap();
        for unit in survey.plan.cycles() {
            prop_assert!(survey.plan.verdicts[unit] != Verdict::Held(Held::Unknown), "{unit}");
        }
        for (unit, verdict) in &survey.plan.verdicts {
            if let Verdict::Needed(_) = verdict {
                prop_assert!(survey.plan.before.way(unit).last().is_some_and(|last| goals.contains(last)));
            }
        }
    }
}
