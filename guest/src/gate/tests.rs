use super::*;
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

    fn verdicts(&self) -> BTreeMap<String, Verdict> {
        let survey = Survey::of(&self.root, Scope::Installed).unwrap();
        survey.plan().into_iter().map(|(name, verdict)| (name.to_owned(), verdict)).collect()
    }
}

const EARLY: &str = "DefaultDependencies=no";

#[test]
fn all_wait_but_the_early_and_the_named() {
    let image = Image::new();
    image.file("etc/ramet/agent.toml", "before_gate = [\"named.service\", \"named.socket\"]");
    for (name, text) in [
        ("unknown.service", ""),
        ("dbus.service", ""),
        ("named.service", ""),
        ("named.socket", "[Socket]\nListenStream=9"),
        ("web.socket", "[Socket]\nListenStream=80"),
        ("local.socket", "[Socket]\nListenStream=/run/local"),
        ("systemd-udevd.service", EARLY),
        ("systemd-fsck@.service", EARLY),
        ("vendor-early.service", EARLY),
    ] {
        image.unit(name, text);
    }
    let verdicts = image.verdicts();
    let expected = [
        ("dbus.service", Verdict::Held),
        ("named.service", Verdict::Named),
        ("named.socket", Verdict::Named),
        ("ramet-agent.service", Verdict::Gate),
        ("systemd-fsck@.service", Verdict::Early),
        ("systemd-udevd.service", Verdict::Early),
        ("unknown.service", Verdict::Held),
        ("vendor-early.service", Verdict::Early),
        ("web.socket", Verdict::Held),
    ];
    assert_eq!(verdicts, expected.map(|(name, verdict)| (name.to_owned(), verdict)).into());
}

#[test]
fn an_early_way_in_waits_under_any_of_its_names() {
    let image = Image::new();
    for name in [
        "systemd-networkd.service",
        "emergency.service",
        "debug-shell.service",
        "networking.service",
        "dm.service",
    ] {
        image.unit(name, EARLY);
    }
    image.link("etc/systemd/system/display-manager.service", "/usr/lib/systemd/system/dm.service");
    let verdicts = image.verdicts();
    assert!(verdicts.iter().all(|(name, verdict)| verdict.holds() || name == boot::UNIT), "{verdicts:?}");
    assert_eq!(verdicts.len(), 6);
}

/// On Fedora dbus.service is another name of dbus-broker.service, which reads the machine-id when it starts.
#[test]
fn naming_an_alias_lets_nothing_go() {
    let image = Image::new();
    image.unit("dbus-broker.service", "DefaultDependencies=false\nBefore=basic.target");
    image.link("usr/lib/systemd/system/dbus.service", "dbus-broker.service");
    assert_eq!(image.verdicts()["dbus-broker.service"], Verdict::Held);
}

#[test]
fn a_units_own_drop_in_decides() {
    let image = Image::new();
    image.unit("a.service", EARLY);
    image.unit("b.service", "");
    image.file(
        "usr/lib/systemd/system/a.service.d/50-ramet-gate.conf",
        "[Unit]\nRequires=ramet-agent.service\nAfter=x ramet-agent.service",
    );
    image.link("etc/systemd/system/b.service.d/50-ramet-gate.conf", "/dev/null");
    let verdicts = image.verdicts();
    assert!(verdicts["a.service"].holds());
    let path = "etc/systemd/system/b.service.d/50-ramet-gate.conf".to_owned();
    assert_eq!(verdicts["b.service"], Verdict::Own { path, holds: false });
}

#[test]
fn cycles_are_seen_from_either_side() {
    let image = Image::new();
    image.unit("cloud-disk.service", "DefaultDependencies=no\nBefore=local-fs.target");
    image.unit("cloud-late.service", "DefaultDependencies=no\nBefore=sysinit.target");
    image.unit("iscsi.service", EARLY);
    image.unit("systemd-tmpfiles-setup.service", "DefaultDependencies=no\nAfter=iscsi.service");
    let survey = Survey::of(&image.root, Scope::Installed).unwrap();
    let cycles = ordered_before(&survey.units, &survey.plan(), &generator::waits_for());
    let expected =
        [("cloud-disk.service", "local-fs.target"), ("iscsi.service", "systemd-tmpfiles-setup.service")];
    assert_eq!(cycles, expected.map(|(unit, goal)| (unit, goal.to_owned())));
}
