//! `ramet-agent doctor`: what in a system, or in an image, is open or will not work.
//!
//! Each check looks at files only, so that it works on an image's root as well as on a system that runs.

use super::{
    DROP_IN, FOR_ALL, GateError, SHADOWS, Scope, Survey, Verdict, check, generator, links, lists,
    ordered_before, unit_file, units,
};
use crate::{
    apply, boot,
    config::{Config, KeyKind},
    error::chain,
    root::{FileError, Root},
};
use ramet_proto::message::{Finding, Grade};
use serde_json::json;
use std::process::ExitCode;

fn finding(grade: Grade, what: String, fix: &str) -> Finding {
    Finding::new(grade, &what, fix)
}

type Findings = Result<Vec<Finding>, FileError>;

/// Prints what is found; exits with 1 if any of it is open or broken.
pub(crate) fn run(root: &Root, json: bool) -> Result<ExitCode, FileError> {
    let findings = examine(root)?;
    let bad = findings.iter().any(|finding| finding.grade != Grade::Note);
    if json {
        let list: Vec<_> =
            findings.iter().map(|f| json!({ "grade": f.grade, "what": f.what, "fix": f.fix })).collect();
        println!("{}", json!({ "ok": !bad, "findings": list }));
    } else {
        for finding in &findings {
            println!("{:6}  {}\n        {}", finding.grade.to_string(), finding.what, finding.fix);
        }
        println!("{}", if bad { "not fit to be a template" } else { "fine" });
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything that is found.
pub(crate) fn examine(root: &Root) -> Findings {
    let mut findings = Vec::new();
    match check(root) {
        Ok(()) => {}
        Err(GateError::File(error)) => return Err(error),
        Err(error) => {
            findings.push(finding(Grade::Open, error.to_string(), "the agent refuses to open as it is"));
        }
    }
    match Survey::of(root, Scope::Running) {
        Ok(survey) => {
            findings.extend(gate_unit(root, &survey)?);
            findings.extend(verdicts(&survey));
            findings.extend(ordering(&survey));
            findings.extend(keygen(root, &survey)?);
        }
        Err(GateError::File(error)) => return Err(error),
        Err(error) => {
            findings.push(finding(Grade::Broken, chain(&error), "correct it: the agent refuses to open"));
        }
    }
    let checks =
        [generator_installed, own_drop_ins, command_line, autologin, password, sysrq, left_over, vsock];
    for check in checks {
        findings.extend(check(root)?);
    }
    // Settings that cannot be read were told above.
    findings.extend(Config::load(root).map(|config| apply::check(root, &config)).unwrap_or_default());
    Ok(findings)
}

/// The agent's unit is the one that is shipped, and is started.
fn gate_unit(root: &Root, survey: &Survey) -> Findings {
    let mut found = Vec::new();
    let replace = "remove it; settings belong into /etc/ramet/agent.toml";
    let Some(unit) = survey.units.get(boot::UNIT) else {
        let what = format!("there is no {}, or it is masked: nothing that waits will ever start", boot::UNIT);
        return Ok(vec![finding(Grade::Broken, what, "install it, or `systemctl unmask` it")]);
    };
    if !unit.path.starts_with("usr/lib/") && !unit.path.starts_with("lib/") {
        found.push(finding(Grade::Open, format!("/{} replaces the agent's unit", unit.path), replace));
    }
    for directory in ["etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system"] {
        for file in root.names(&format!("{directory}/{}.d", boot::UNIT))? {
            let what = format!("/{directory}/{}.d/{file} changes the agent's unit", boot::UNIT);
            found.push(finding(Grade::Open, what, replace));
        }
    }
    if !root.exists("etc/systemd/system/sysinit.target.wants/ramet-agent.service")? {
        let what =
            format!("{} is not enabled: it starts only with the first unit that waits for it", boot::UNIT);
        found.push(finding(Grade::Note, what, "systemctl preset ramet-agent.service"));
    }
    Ok(found)
}

/// The generator is there and is the agent.
fn generator_installed(root: &Root) -> Findings {
    let elsewhere =
        ["etc", "run", "usr/local/lib"].map(|dir| format!("{dir}/systemd/system-generators/ramet-gate"));
    for path in elsewhere {
        if root.exists(&path)? {
            let what = format!("/{path} takes the place of the generator: the agent will not open");
            return Ok(vec![finding(Grade::Broken, what, "remove it")]);
        }
    }
    Ok(if root.exists(&generator::PATH[1..])? {
        Vec::new()
    } else {
        let what = format!("there is no {}: the agent will not open", generator::PATH);
        vec![finding(Grade::Broken, what, "link it to the agent, ../../../sbin/ramet-agent")]
    })
}

/// Nobody else's drop-in lets a unit go, a template's instances included.
fn own_drop_ins(root: &Root) -> Findings {
    let mut found = Vec::new();
    for directory in
        ["etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"]
    {
        for name in root.names(directory)? {
            let Some(unit) = name.strip_suffix(".d") else { continue };
            let path = format!("{directory}/{name}/{DROP_IN}");
            let gate = unit == boot::UNIT;
            if gate || path == FOR_ALL || SHADOWS.contains(&path.as_str()) || !root.exists(&path)? {
                continue;
            }
            if !units::holds(&root.read_lossy(&path).ok().flatten().unwrap_or_default()) {
                let what = format!("/{path} lets its unit start before the gate");
                found.push(finding(
                    Grade::Open,
                    what,
                    "remove it, and name the unit in before_gate if it may",
                ));
            }
        }
    }
    Ok(found)
}

/// What starts before the gate may.
fn verdicts(survey: &Survey) -> Vec<Finding> {
    let mut found = Vec::new();
    for (unit, verdict) in survey.plan() {
        if verdict == Verdict::Named && lists::has(lists::WAYS_IN, unit) && !links::is_early(unit, &verdict) {
            let what = format!("before_gate names {unit}, which lets somebody in or shows an identity");
            found.push(finding(Grade::Open, what, "take it out of /etc/ramet/agent.toml"));
        } else if verdict == Verdict::Early && !lists::has(lists::HARMLESS, unit) {
            let what = format!(
                "{unit} starts early (DefaultDependencies=no), before the gate; it is not known here"
            );
            let fix = "name it in before_gate if it may, or hold it with a 50-ramet-gate.conf of its own";
            found.push(finding(Grade::Open, what, fix));
        }
    }
    found
}

/// What waits does not hold what should not.
fn ordering(survey: &Survey) -> Vec<Finding> {
    let plan = survey.plan();
    let cycles = ordered_before(&survey.units, &plan, &generator::waits_for());
    let cycles = cycles.into_iter().map(|(unit, goal)| {
        let what = format!(
            "{unit} waits and is ordered before {goal}, which the gate waits for: this will not boot"
        );
        finding(Grade::Broken, what, "name it in before_gate, or take away its Before=")
    });
    let targets = ["sysinit.target", "sockets.target", "timers.target", "paths.target", "basic.target"];
    let slow = ordered_before(&survey.units, &plan, &targets.map(str::to_owned));
    let slow = slow.into_iter().map(|(unit, target)| {
        let what = format!(
            "{unit} waits and is ordered before {target}: if it is enabled, all the rest of boot waits, too"
        );
        finding(Grade::Note, what, "nothing is open, but children take longer; without the unit they do not")
    });
    cycles.chain(slow).collect()
}

/// ssh-keygen(1) is there if keys are wanted that the agent does not make itself.
fn keygen(root: &Root, survey: &Survey) -> Findings {
    let wanted = survey.config.ssh_host_keys.iter().find(|kind| **kind != KeyKind::Ed25519);
    Ok(match wanted {
        Some(kind) if !root.exists("usr/bin/ssh-keygen")? => {
            let what = format!("ssh_host_keys has {kind}, which takes ssh-keygen, and there is none");
            vec![finding(Grade::Broken, what, "install openssh-client or openssh, or take it out")]
        }
        Some(_) | None => Vec::new(),
    })
}

/// The kernel's command lines: of this boot, and of the next ones.
fn command_line(root: &Root) -> Findings {
    let mut lines = Vec::new();
    for path in ["proc/cmdline", "etc/kernel/cmdline"] {
        lines.extend(root.read_lossy(path)?.map(|line| (path.to_owned(), line)));
    }
    let mut menus = vec!["boot/grub/grub.cfg".to_owned(), "boot/grub2/grub.cfg".to_owned()];
    for entry in root.names("boot/loader/entries")? {
        menus.push(format!("boot/loader/entries/{entry}"));
    }
    for path in menus {
        for line in root.read_lossy(&path)?.unwrap_or_default().lines() {
            let first = line.split_ascii_whitespace().next().unwrap_or_default();
            if first.starts_with("linux") || first == "options" {
                lines.push((path.clone(), line.to_owned()));
            }
        }
    }
    let mut found: Vec<Finding> = Vec::new();
    for (path, line) in &lines {
        for word in line.split_ascii_whitespace() {
            let Some((grade, why)) = parameter(word) else { continue };
            let what = format!("/{path} has {word}: {why}");
            if !found.iter().any(|other| other.what.as_str() == what) {
                found.push(finding(grade, what, "take it off the kernel's command line"));
            }
        }
    }
    Ok(found)
}

/// What a parameter of the kernel's command line does to the gate (kernel-command-line(7), initramfs-tools(7),
/// dracut.cmdline(7)).
fn parameter(word: &str) -> Option<(Grade, &'static str)> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "init" if !matches!(value, "/sbin/init" | "/lib/systemd/systemd" | "/usr/lib/systemd/systemd") => {
            Some((Grade::Open, "another program runs in place of systemd, without a gate"))
        }
        "rdinit" | "rd.break" | "rd.shell" | "break" => {
            Some((Grade::Open, "it may give a shell before systemd is there"))
        }
        "systemd.mask" if value == boot::UNIT => Some((Grade::Broken, "nothing that waits will ever start")),
        "systemd.unit" | "rescue" | "emergency" | "single" | "s" | "S" | "1" => {
            Some((Grade::Note, "it boots to another target; shells there wait at the gate"))
        }
        "systemd.debug_shell" | "systemd.debug-shell" => {
            Some((Grade::Note, "its shell waits at the gate, then is root's"))
        }
        _ => None,
    }
}

/// A console that asks for no password.
fn autologin(root: &Root) -> Findings {
    let mut found = Vec::new();
    for directory in ["etc/systemd/system", "usr/lib/systemd/system"] {
        for unit in root.names(directory)?.iter().filter(|name| name.contains("getty")) {
            let path = format!("{directory}/{unit}");
            let drop_ins = root.names(&path).unwrap_or_default();
            let mut files: Vec<_> = drop_ins.iter().map(|file| format!("{path}/{file}")).collect();
            files.push(path);
            for file in files {
                let text = root.read_lossy(&file).ok().flatten().unwrap_or_default();
                let is_set = |s: &unit_file::Setting| {
                    s.key == "ExecStart"
                        && s.value.split_ascii_whitespace().any(|w| w.starts_with("--autologin") || w == "-a")
                };
                if unit_file::settings(&text).iter().any(is_set) {
                    let what = format!("/{file} logs somebody in without a password, once the gate is open");
                    found.push(finding(Grade::Note, what, "remove it unless whoever has the console may"));
                }
            }
        }
    }
    Ok(found)
}

/// root has no empty password (shadow(5)).
fn password(root: &Root) -> Findings {
    let shadow = root.read_lossy("etc/shadow")?.unwrap_or_default();
    let empty = shadow.lines().any(|line| line.starts_with("root::"));
    let what = || {
        finding(
            Grade::Open,
            "root's password is empty: past the gate, a console is enough".into(),
            "passwd --lock root",
        )
    };
    Ok(empty.then(what).into_iter().collect())
}

/// The magic `SysRq` key, as it is now and as it will be set (sysctl.d(5)).
fn sysrq(root: &Root) -> Findings {
    let mut set = Vec::new();
    if let Some(value) = root.read_lossy("proc/sys/kernel/sysrq")? {
        set.push(("proc/sys/kernel/sysrq".to_owned(), value.trim().to_owned()));
    }
    for directory in ["etc/sysctl.d", "run/sysctl.d", "usr/lib/sysctl.d"] {
        for file in root.names(directory)? {
            let path = format!("{directory}/{file}");
            for line in root.read_lossy(&path)?.unwrap_or_default().lines() {
                let Some((key, value)) = line.split_once('=') else { continue };
                if key.trim().trim_start_matches('-').replace('/', ".") == "kernel.sysrq" {
                    set.push((path.clone(), value.trim().to_owned()));
                }
            }
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
fn left_over(root: &Root) -> Findings {
    if root.exists("var/lib/ramet-agent/identity.toml")? {
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
fn vsock(root: &Root) -> Findings {
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

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    fn grades(image: &Image) -> Vec<(Grade, String)> {
        examine(&image.root).unwrap().into_iter().map(|f| (f.grade, f.what.to_string())).collect()
    }

    /// An image with nothing to tell.
    fn fine() -> Image {
        let image = Image::new();
        image.link(
            "etc/systemd/system/sysinit.target.wants/ramet-agent.service",
            "/usr/lib/systemd/system/ramet-agent.service",
        );
        image.file("etc/machine-id", "uninitialized\n");
        image.file("usr/lib/modules/6.12/modules.builtin", "kernel/fs/ext4/ext4.ko\n");
        image.file("usr/lib/modules/6.12/kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko.xz", "");
        image.file(
            "boot/grub/grub.cfg",
            "set init=none\n\tlinux /vmlinuz root=PARTUUID=1 rw quiet console=ttyS0\n",
        );
        image.unit("dbus.service", "");
        image.unit("systemd-udevd.service", "DefaultDependencies=no");
        image
    }

    #[test]
    fn a_good_image_is_fine() {
        assert_eq!(grades(&fine()), []);
        assert_eq!(run(&fine().root, true).unwrap(), ExitCode::SUCCESS);
    }

    /// One change to a good image, and the one thing that is found.
    #[test]
    fn each_fault_is_found() {
        use Grade::{Broken, Note, Open};
        type Change = (fn(&Image), Grade, &'static str);
        let changes: &[Change] = &[
            (|i| i.file("etc/ramet/agent.toml", "x"), Broken, "agent.toml is not right"),
            (|i| i.file("etc/ramet/agent.toml", "before_gate = [\"getty@.service\"]"), Note, ""),
            (|i| i.link("etc/systemd/system/ramet-agent.service", "/dev/null"), Broken, "masked"),
            (|i| i.file("etc/systemd/system/ramet-agent.service", ""), Open, "replaces the agent's unit"),
            (
                |i| i.file("etc/systemd/system/ramet-agent.service.d/x.conf", ""),
                Open,
                "changes the agent's unit",
            ),
            (
                |i| i.file("usr/lib/systemd/system/service.d/50-ramet-gate.conf", ""),
                Open,
                "does not hold services",
            ),
            (|i| i.file("etc/systemd/system/service.d/50-ramet-gate.conf", ""), Open, "takes the place of"),
            (
                |i| i.link("etc/systemd/system-generators/ramet-gate", "/dev/null"),
                Broken,
                "takes the place of the gen",
            ),
            (
                |i| i.link("etc/systemd/system/a@b.service.d/50-ramet-gate.conf", "/dev/null"),
                Open,
                "lets its unit start",
            ),
            (|i| i.unit("vendor.service", "DefaultDependencies=no"), Open, "not known here"),
            (
                |i| i.unit("cloud-x.service", "DefaultDependencies=no\nBefore=local-fs.target"),
                Broken,
                "will not boot",
            ),
            (
                |i| i.unit("x.socket", "Before=sockets.target\n[Socket]\nListenStream=22"),
                Note,
                "the rest of boot waits",
            ),
            (|i| i.file("etc/kernel/cmdline", "root=/dev/vda init=/bin/sh"), Open, "has init=/bin/sh"),
            (|i| i.file("boot/loader/entries/a.conf", "options rd.break\n"), Open, "has rd.break"),
            (
                |i| i.file("boot/grub2/grub.cfg", " linux /v systemd.mask=ramet-agent.service\n"),
                Broken,
                "ever start",
            ),
            (|i| i.file("proc/cmdline", "systemd.unit=rescue.target quiet"), Note, "shells there wait"),
            (
                |i| {
                    i.file(
                        "etc/systemd/system/getty@tty1.service.d/a.conf",
                        "[Service]\nExecStart=-/sbin/agetty --autologin root",
                    );
                },
                Note,
                "without a password",
            ),
            (|i| i.file("etc/shadow", "root::19000:0:99999:7:::\n"), Open, "password is empty"),
            (
                |i| i.file("usr/lib/sysctl.d/50-default.conf", "# c\n-kernel.sysrq = 0x01b6\n"),
                Note,
                "has 0x01b6 for kernel.sysrq",
            ),
            (|i| i.file("etc/ssh/ssh_host_rsa_key", "k"), Note, "etc/ssh/ssh_host_rsa_key is in the image"),
            (|i| i.file("etc/machine-id", "0123456789abcdef0123456789abcdef"), Note, "etc/machine-id is in"),
            (|i| i.file("etc/krb5.keytab", "k"), Note, "etc/krb5.keytab is in the image"),
            (|i| i.file("usr/lib/modules/5.9/modules.builtin", ""), Broken, "kernel 5.9 has no vmw_vsock"),
            (|i| i.file("etc/ramet/agent.toml", "ssh_host_keys = [\"rsa\"]"), Broken, "takes ssh-keygen"),
        ];
        for (change, grade, what) in changes {
            let image = fine();
            change(&image);
            let found = grades(&image);
            if what.is_empty() {
                assert_eq!(found, [], "what is named and not there is nothing");
            } else {
                assert!(
                    matches!(&found[..], [(g, w)] if g == grade && w.contains(what)),
                    "{what}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn a_way_in_may_not_be_named() {
        let image = fine();
        image.file("etc/ramet/agent.toml", "before_gate = [\"ssh.service\", \"vendor.service\"]");
        image.unit("ssh.service", "");
        image.unit("vendor.service", "DefaultDependencies=no");
        let found = grades(&image);
        assert!(
            matches!(&found[..], [(Grade::Open, what)] if what.contains("names ssh.service")),
            "{found:?}"
        );
        assert_eq!(run(&image.root, false).unwrap(), ExitCode::FAILURE);
    }

    #[test]
    fn a_child_has_its_own() {
        let image = fine();
        image.file("etc/ssh/ssh_host_ed25519_key", "k");
        image.file("var/lib/ramet-agent/identity.toml", "");
        assert_eq!(grades(&image), []);
    }
}
