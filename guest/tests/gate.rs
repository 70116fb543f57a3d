//! The files that are shipped, with a root of typical units around them: everything waits for the gate but what has to
//! start before it, and nothing is open when something is amiss.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOTFS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rootfs");
const AGENT: &str = env!("CARGO_BIN_EXE_ramet-agent");
const UNITS: &str = "usr/lib/systemd/system";

/// Units as Debian, Ubuntu and Fedora have them, in what matters here.
const EARLY: &[(&str, &str)] = &[
    ("systemd-udevd.service", "Before=sysinit.target"),
    ("systemd-journald.service", "Before=sysinit.target"),
    (
        "systemd-tmpfiles-setup.service",
        "After=local-fs.target systemd-sysusers.service\nBefore=sysinit.target",
    ),
    ("systemd-fsck@.service", "Before=shutdown.target"),
    ("systemd-resolved.service", "Before=sysinit.target network.target"),
    ("systemd-timesyncd.service", "Before=time-set.target sysinit.target"),
    ("systemd-poweroff.service", "After=shutdown.target umount.target final.target"),
    ("lvm2-monitor.service", "Before=local-fs-pre.target shutdown.target"),
    ("apparmor.service", "Before=sysinit.target"),
    ("nftables.service", "Before=network-pre.target shutdown.target"),
    // Nobody knows this one, but the gate cannot be reached without.
    (
        "vendor-disk.service",
        "Wants=vendor-key.service systemd-tmpfiles-setup.service\nAfter=vendor-key.service\n\
         Before=systemd-tmpfiles-setup.service vendor.mount",
    ),
    ("vendor-key.service", ""),
];
const EARLY_BUT_HELD: &[(&str, &str)] = &[
    (
        "systemd-networkd.service",
        "After=network-pre.target\nBefore=network.target multi-user.target\n[Service]\nType=notify-reload",
    ),
    ("systemd-networkd-wait-online.service", "Before=network-online.target"),
    ("networking.service", "After=local-fs.target\nBefore=network.target"),
    ("ifup@.service", ""),
    ("connman.service", "Before=network.target"),
    ("cloud-init-local.service", "Before=network-pre.target sysinit.target"),
    ("cloud-init.service", "Before=sysinit.target sshd.service"),
    ("open-vm-tools.service", "Before=cloud-init-local.service"),
    ("open-iscsi.service", "Before=remote-fs-pre.target"),
    ("iscsid.service", "Before=remote-fs-pre.target"),
    ("dbus-broker.service", "Before=basic.target"),
    ("rpcbind.service", "Before=remote-fs-pre.target"),
    ("ifupdown-wait-online.service", "Before=network-online.target"),
    ("debug-shell.service", ""),
    ("emergency.service", "Before=shutdown.target"),
    ("rescue.service", "Before=shutdown.target"),
    ("breakpoint-pre-basic.service", "Before=basic.target"),
    ("auditd.service", "After=local-fs.target\nBefore=sysinit.target shutdown.target"),
    ("brltty.service", "Before=sysinit.target"),
    ("iwpmd.service", "Before=sysinit.target network-pre.target"),
    ("kdump-tools.service", "Before=basic.target"),
    ("mdmonitor.service", ""),
    ("nfsdcld.service", ""),
    ("ovs-vswitchd.service", "Before=network.target networking.service"),
    ("ovsdb-server.service", "Before=network.target networking.service"),
    ("systemd-of-next-year.service", "Before=sysinit.target"),
    ("vendor-agent.service", "Before=sysinit.target"),
];
const HELD: &[(&str, &str)] = &[
    ("getty@.service", "After=systemd-user-sessions.service"),
    ("ssh.service", ""),
    ("sshd@.service", ""),
    ("NetworkManager.service", "Before=network.target"),
    ("gdm.service", ""),
    ("cron.service", ""),
    ("polkit.service", ""),
    ("an-app-nobody-thought-of.service", ""),
    ("ssh.socket", "Before=sockets.target\n[Socket]\nListenStream=22"),
    ("cockpit.socket", "[Socket]\nListenStream=9090"),
];
const OWNERS: &[(&str, &str)] = &[("dbus.service", ""), ("systemd-logind.service", "")];
const LET_BE: &[(&str, &str)] = &[("dbus.socket", "[Socket]\nListenStream=/run/dbus/system_bus_socket")];

/// A root with the shipped files and those units.
struct Image(tempfile::TempDir);

impl Image {
    fn new() -> Self {
        let image = Self(tempfile::tempdir().unwrap());
        let copied = Command::new("cp").arg("-a").arg(format!("{ROOTFS}/.")).arg(image.0.path()).status();
        assert!(copied.unwrap().success());
        fs::create_dir_all(image.path("usr/sbin")).unwrap();
        fs::copy(AGENT, image.path("usr/sbin/ramet-agent")).unwrap();
        for (units, more) in [
            (EARLY, "DefaultDependencies=no\n"),
            (EARLY_BUT_HELD, "DefaultDependencies=no\n"),
            (HELD, ""),
            (OWNERS, ""),
            (LET_BE, ""),
        ] {
            for (name, text) in units {
                image.unit(name, &format!("{more}{text}"));
            }
        }
        let mount = "[Unit]\nBefore=local-fs.target\n[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/vendor\n";
        fs::write(image.path(&format!("{UNITS}/vendor.mount")), mount).unwrap();
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn unit(&self, name: &str, text: &str) {
        let start = if name.ends_with(".service") { "[Service]\nExecStart=/bin/true\n" } else { "" };
        fs::write(self.path(&format!("{UNITS}/{name}")), format!("{start}[Unit]\n{text}\n")).unwrap();
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(AGENT).args(arguments).arg("--root").arg(self.0.path()).output().unwrap()
    }

    fn shown(&self, side: &str) -> BTreeSet<String> {
        let output = self.ask(&["gate", "show", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json[side].as_array().unwrap().iter().map(|unit| unit["unit"].as_str().unwrap().to_owned()).collect()
    }
}

fn names(lists: &[&[(&str, &str)]]) -> BTreeSet<String> {
    lists.iter().copied().flatten().map(|(name, _)| (*name).to_owned()).collect()
}

#[test]
fn everything_waits_but_the_early_and_the_owners() {
    let image = Image::new();
    let mut before = names(&[EARLY, OWNERS]);
    before.extend(["ramet-agent.service", "ramet-links.service"].map(str::to_owned));
    assert_eq!(image.shown("before_gate"), before);
    let mut held = names(&[EARLY_BUT_HELD, HELD]);
    held.extend(["ramet-observe.service", "ramet-probe.service"].map(str::to_owned));
    assert_eq!(image.shown("held"), held);
}

#[test]
fn a_fit_image_is_told_from_an_open_one() {
    let image = Image::new();
    let output = image.ask(&["doctor"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    // Let go without being known: a note until something starts it.
    let wants = image.path("etc/systemd/system/default.target.wants");
    fs::create_dir_all(&wants).unwrap();
    symlink("/x", wants.join("vendor-disk.service")).unwrap();
    fs::write(image.path(&format!("{UNITS}/default.target")), "[Unit]\n").unwrap();
    let output = image.ask(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("vendor-disk.service starts before the gate"));
    fs::remove_file(wants.join("vendor-disk.service")).unwrap();
    fs::create_dir_all(image.path("etc/systemd/system/ssh.service.d")).unwrap();
    symlink("/dev/null", image.path("etc/systemd/system/ssh.service.d/50-ramet-gate.conf")).unwrap();
    let output = image.ask(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("ssh.service.d/50-ramet-gate.conf lets its unit start")
    );
}

/// Runs the generator in the image, and returns the directory that it has written to: one of those that are searched when
/// nothing is running.
fn generate(image: &Image) -> PathBuf {
    let generated = image.path("run/systemd/system");
    fs::create_dir_all(&generated).unwrap();
    // Nothing is mounted there.
    let random = image.path("proc/sys/kernel/random");
    fs::create_dir_all(&random).unwrap();
    fs::write(random.join("uuid"), "01234567-89ab-4def-8123-456789abcdef\n").unwrap();
    let generator = Command::new("chroot")
        .arg(image.0.path())
        .args(["/usr/lib/systemd/system-generators/ramet-gate", "/run/systemd/system", "/x", "/x"])
        .output()
        .unwrap();
    assert!(generator.status.success(), "{generator:?}");
    generated
}

/// What systemd has to say of the image; nothing if it is not installed here.
fn verify(image: &Image) -> Option<String> {
    let mut verify = Command::new("systemd-analyze");
    verify.arg(format!("--root={}", image.0.path().display()));
    // Two that the gate may wait for, and one that waits for the gate.
    let units =
        ["systemd-tmpfiles-setup.service", "systemd-networkd.service", "vendor-disk.service", "ssh.service"];
    verify.args(["--man=no", "verify"]).args(units);
    verify.output().ok().map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What systemd itself makes of the shipped files and of the generator's: no unknown setting and no cycle, and that there
/// would be one if what the gate waits for had not been let go.
#[test]
fn systemd_reads_it_the_same_way() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: changing the root takes root");
        return;
    }
    for networkd_is_early in [false, true] {
        let image = Image::new();
        if networkd_is_early {
            // They are held, and networkd waits for them.
            for unit in ["cloud-init-local.service", "iwpmd.service"] {
                fs::remove_file(image.path(&format!("{UNITS}/{unit}"))).unwrap();
            }
        }
        let generated = generate(&image);
        assert_eq!(generated.join("network.target.d").exists(), networkd_is_early);
        let Some(said) = verify(&image) else {
            eprintln!("skipped: there is no systemd-analyze here");
            return;
        };
        let complaints: Vec<_> =
            said.lines().filter(|l| l.contains("ramet") || l.contains("cycle")).collect();
        assert!(complaints.is_empty(), "{said}");
        for unit in ["systemd-tmpfiles-setup.service", "vendor-key.service"] {
            let drop_in = generated.join(format!("{unit}.d/50-ramet-gate.conf"));
            let text = fs::read_to_string(&drop_in).unwrap();
            fs::remove_file(&drop_in).unwrap();
            let said = verify(&image).unwrap();
            assert!(said.contains("cycle"), "systemd does not read the drop-in of {unit}: {said}");
            fs::write(&drop_in, text).unwrap();
        }
    }
}

#[test]
fn every_link_leads_somewhere_in_the_tree() {
    fn walk(dir: &Path, links: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap() {
                kind if kind.is_symlink() => links.push(entry.path()),
                kind if kind.is_dir() => walk(&entry.path(), links),
                _ => {}
            }
        }
    }
    let image = Image::new();
    let mut links = Vec::new();
    walk(image.0.path(), &mut links);
    assert!(links.iter().any(|link| link.ends_with("system-generators/ramet-gate")));
    for link in links {
        let real = link.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", link.display()));
        assert!(
            real.starts_with(image.0.path().canonicalize().unwrap()),
            "{} leaves the tree",
            link.display()
        );
        assert!(fs::read_link(&link).unwrap().is_relative(), "{} is not relative", link.display());
    }
}

/// These are made by other generators, so that ours cannot see them.
#[test]
fn sockets_of_systemds_ssh_generator_wait() {
    let made =
        ["sshd-vsock.socket", "sshd-unix-local.socket", "sshd-unix-export.socket", "sshd-extra-.socket"];
    for unit in made {
        let text = fs::read_to_string(format!("{ROOTFS}/{UNITS}/{unit}.d/50-ramet-gate.conf")).unwrap();
        for setting in
            ["Requires=ramet-agent.service", "After=ramet-agent.service ", "DefaultDependencies=no"]
        {
            assert!(
                text.lines().any(|line| format!("{line} ").starts_with(setting)),
                "{unit} lacks {setting}"
            );
        }
    }
}

/// F7: with a machine-id of "uninitialized" it would ask for root's password, in the template.
#[test]
fn nobody_is_asked_at_the_console() {
    let text = format!("{ROOTFS}/{UNITS}/systemd-firstboot.service.d/60-ramet-no-questions.conf");
    let text = fs::read_to_string(text).unwrap();
    assert!(text.ends_with("[Service]\nExecStart=\nExecStart=systemd-firstboot\n"), "{text}");
}

#[test]
fn the_gate_fails_closed() {
    let unit = fs::read_to_string(format!("{ROOTFS}/{UNITS}/ramet-agent.service")).unwrap();
    for setting in [
        "Type=notify",
        "NotifyAccess=main",
        "FailureAction=poweroff-force",
        "TimeoutStartSec=infinity",
        "DefaultDependencies=no",
        "Restart=no",
        "WantedBy=sysinit.target",
    ] {
        assert!(unit.lines().any(|line| line == setting), "{setting}");
    }
    assert!(
        !unit.contains("Condition"),
        "a condition that does not hold lets through whatever requires the unit"
    );
    // Else it would wait for what is held when the generator has failed, and could not say so.
    assert!(!unit.contains("\nAfter="), "what the gate waits for is the generator's to say");
}

#[test]
fn arguments() {
    let run = |arguments: &[&str]| {
        let output = Command::new(AGENT).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["--version"]), (Some(0), format!("ramet-agent {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(run(&["--help"]).1.contains("Usage"));
    for wrong in [&[][..], &["serve", "--now"], &["gate"], &["gate", "show", "-x"], &["doctor", "--root"]] {
        assert_eq!(run(wrong), (Some(2), String::new()), "{wrong:?}");
    }
    let generator =
        Command::new(AGENT).arg0("/usr/lib/systemd/system-generators/ramet-gate").output().unwrap();
    assert_eq!(generator.status.code(), Some(2));
    assert_eq!(run(&["doctor", "--root", "/nowhere/at/all"]), (Some(1), String::new()));
}
