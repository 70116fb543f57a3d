//! The units that are shipped: whatever lets somebody in, or shows an identity, waits for the gate.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ROOTFS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rootfs");

fn units() -> PathBuf {
    Path::new(ROOTFS).join("usr/lib/systemd/system")
}

/// What the unit's drop-in says, as systemd would read it. A link that leads nowhere, or out of the tree, would be
/// passed over by systemd without a word, and the unit would not wait.
fn drop_in(unit: &str, name: &str) -> String {
    let path = units().join(format!("{unit}.d")).join(name);
    let real = path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        real.starts_with(Path::new(ROOTFS).canonicalize().unwrap()),
        "{} leaves the tree",
        path.display()
    );
    assert!(fs::read_link(&path).unwrap().is_relative(), "{} is not relative", path.display());
    fs::read_to_string(real).unwrap()
}

#[test]
fn every_way_in_waits_for_the_gate_and_stays_shut_when_it_fails() {
    let held = [
        "getty@.service",
        "serial-getty@.service",
        "console-getty.service",
        "container-getty@.service",
        "ssh.service",
        "sshd.service",
        "ssh@.service",
        "sshd@.service",
        "ssh.socket",
        "sshd.socket",
        // Made by systemd-ssh-generator(8).
        "sshd-vsock.socket",
        "sshd-unix-local.socket",
        "sshd-unix-export.socket",
        "sshd-vsock@.service",
        "sshd-unix-local@.service",
        "sshd-unix-export@.service",
        "sshd-generated@.service",
        "sshd-extra-.socket",
        "sshd-extra-.service",
        "systemd-user-sessions.service",
        "user@.service",
        "systemd-networkd.service",
        "NetworkManager.service",
        "networking.service",
        "display-manager.service",
        "cron.service",
        "sssd.service",
        "winbind.service",
        "smbd.service",
        "nmbd.service",
        "qemu-guest-agent.service",
        "emergency.service",
        "rescue.service",
        "debug-shell.service",
    ];
    for unit in held {
        let text = drop_in(unit, "50-ramet-gate.conf");
        for setting in ["Requires=ramet-agent.service", "After=ramet-agent.service"] {
            assert!(text.lines().any(|line| line.starts_with(setting)), "{unit} lacks {setting}");
        }
        if unit.ends_with(".socket") {
            assert!(text.contains("\nDefaultDependencies=no\n"), "{unit} would hold sockets.target");
        }
    }
}

#[test]
fn every_drop_in_leads_somewhere() {
    let mut seen = BTreeSet::new();
    for unit in fs::read_dir(units()).unwrap() {
        let unit = unit.unwrap().file_name().into_string().unwrap();
        if let Some(unit) = unit.strip_suffix(".d") {
            for entry in fs::read_dir(units().join(format!("{unit}.d"))).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(drop_in(unit, &name).starts_with('#'), "{unit}/{name}");
                seen.insert(name);
            }
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn the_gate_fails_closed() {
    let unit = fs::read_to_string(units().join("ramet-agent.service")).unwrap();
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
}

/// systemd's own opinion of the unit, with a root of its own. No ordering cycle, no unknown setting.
#[test]
fn systemd_takes_the_unit() {
    let root = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(format!("{ROOTFS}/.")).arg(root.path()).status().unwrap();
    assert!(copied.success());
    let program = root.path().join("usr/sbin/ramet-agent");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_ramet-agent"), program).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.arg(format!("--root={}", root.path().display())).args([
        "--man=no",
        "verify",
        "ramet-agent.service",
    ]);
    let Ok(output) = verify.output() else {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // What the unit is ordered after is not in this root.
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("ramet")).collect();
    assert!(complaints.is_empty(), "{said}");
}

#[test]
fn arguments() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ramet-agent")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["--version"]), (Some(0), format!("ramet-agent {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(run(&["--help"]).1.contains("Usage"));
    assert_eq!(run(&[]), (Some(2), String::new()));
    assert_eq!(run(&["serve", "--now"]).0, Some(2));
}
