//! What an image has, lacks, or has left over.

use super::{Findings, Survey, finding, undone};
use crate::{
    ini::{Setting, boolean, settings},
    root::Root,
};
use ramet_proto::message::Grade;

/// Nobody is asked at a console. systemd-firstboot is not, by a drop-in of the agent's; what asks for users is held, and
/// asks in each child, where it keeps everybody out until somebody answers.
pub(super) fn questions(root: &Root, survey: &Survey) -> Findings {
    const ASKS: [&str; 2] = ["systemd-homed-firstboot.service", "initial-setup.service"];
    let id = root.read_lossy("etc/machine-id")?;
    let first_boot = id.is_none_or(|id| id.trim() == "uninitialized");
    let mut found = Vec::new();
    for unit in ASKS.iter().filter(|unit| survey.is_started(unit)) {
        // The other does not heed the machine-id.
        if first_boot || *unit != ASKS[0] {
            let what = format!("{unit} asks at each child's console, and boot waits for the answer");
            found.push(finding(Grade::Broken, what, &format!("systemctl mask {unit}")));
        }
    }
    Ok(found)
}

/// Shells of root's that take no password: past the gate, or when systemd crashes (systemd-system.conf(5)).
pub(super) fn shells(root: &Root, survey: &Survey) -> Findings {
    let mut found = Vec::new();
    if survey.is_started("debug-shell.service") {
        let what = "debug-shell.service is enabled: past the gate, a console is root's without a password";
        found.push(finding(Grade::Note, what, "systemctl disable debug-shell.service"));
    }
    let mut files = Vec::new();
    for directory in ["etc", "run", "usr/local/lib", "usr/lib"] {
        let file = format!("{directory}/systemd/system.conf");
        files.extend(root.names(&format!("{file}.d"))?.into_iter().map(|name| format!("{file}.d/{name}")));
        files.push(file);
    }
    for file in files {
        let text = root.read_lossy(&file).ok().flatten().unwrap_or_default();
        let on =
            |s: &Setting| s.section == "Manager" && s.key == "CrashShell" && boolean(&s.value) == Some(true);
        if settings(&text).iter().any(on) {
            let what = format!(
                "/{file} has CrashShell=yes: if systemd crashes there is a shell of root's, gate or not"
            );
            found.push(finding(Grade::Open, what, "take it out"));
        }
    }
    Ok(found)
}

/// The magic `SysRq` key, as it is now and as it will be set (sysctl.d(5)).
pub(super) fn sysrq(root: &Root) -> Findings {
    let mut set = Vec::new();
    if let Some(value) = root.read_lossy("proc/sys/kernel/sysrq")? {
        set.push(("proc/sys/kernel/sysrq".to_owned(), value.trim().to_owned()));
    }
    for (path, key, value) in undone::sysctls(root)? {
        if key == "kernel.sysrq" {
            set.push((path, value));
        }
    }
    let on = set.into_iter().filter(|(_, value)| value != "0");
    Ok(on
        .map(|(path, value)| {
            let what =
                format!("/{path} has {value} for kernel.sysrq: a console can end programs, the agent too");
            finding(
                Grade::Note,
                what,
                "nothing opens, the machine powers off; kernel.sysrq = 0 in /etc/sysctl.d",
            )
        })
        .collect())
}

/// What two machines must not share. In a machine that has an identity these are its own.
pub(super) fn left_over(root: &Root) -> Findings {
    // What a parent that runs has made of them itself, each child replaces: that says nothing of the image.
    if root.exists("var/lib/ramet-agent/identity.toml")? || root.exists("run/systemd/system")? {
        return Ok(Vec::new());
    }
    let keys = root
        .names("etc/ssh")?
        .into_iter()
        .filter(|name| name.starts_with("ssh_host_") && name.ends_with("_key"));
    let mut paths: Vec<_> = keys.map(|name| format!("etc/ssh/{name}")).collect();
    for path in [
        "etc/machine-id",
        "etc/krb5.keytab",
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
    ] {
        if root
            .read_lossy(path)
            .ok()
            .flatten()
            .is_some_and(|text| !matches!(text.trim(), "" | "uninitialized"))
        {
            paths.push(path.to_owned());
        }
    }
    let fix = "children get their own, or none; empty it if the image is also used otherwise";
    Ok(paths.into_iter().map(|path| finding(Grade::Note, format!("/{path} is in the image"), fix)).collect())
}

/// The kernels have the driver through which the host reaches the agent.
pub(super) fn vsock(root: &Root) -> Findings {
    const DRIVER: &str = "vmw_vsock_virtio_transport";
    let is_driver = |path: &str| {
        path.rsplit('/')
            .next()
            .and_then(|name| name.strip_prefix(DRIVER))
            .is_some_and(|rest| rest.starts_with(".ko"))
    };
    let mut found = Vec::new();
    for kernel in root.names("usr/lib/modules")? {
        let directory = format!("usr/lib/modules/{kernel}");
        // Without this list it is no kernel's directory, but what was left of one.
        let Some(built_in) = root.read_lossy(&format!("{directory}/modules.builtin"))? else { continue };
        let modules = root.names(&format!("{directory}/kernel/net/vmw_vsock"))?;
        if !built_in.lines().chain(modules.iter().map(String::as_str)).any(is_driver) {
            let what = format!("kernel {kernel} has no {DRIVER}: the host will not reach the agent");
            found.push(finding(Grade::Broken, what, "install the rest of its modules, or another kernel"));
        }
    }
    Ok(found)
}
