//! `ramet-agent doctor`: what in a system, or in an image, is open or will not work.
//!
//! Each check looks at files only, so that it works on an image's root as well as on a system that runs.

use super::{
    FOR_ALL, GateError, Held, Scope, Survey, Verdict, check, command_line, credentials, dbus, generator,
    image, links, lists, logins, shadows, undone, units,
};
use crate::{
    apply, boot,
    config::Config,
    error::chain,
    root::{FileError, Root},
};
use ramet_proto::message::{Finding, Grade};
use serde_json::json;
use std::process::ExitCode;

pub(super) fn finding(grade: Grade, what: String, fix: &str) -> Finding {
    Finding::new(grade, &what, fix)
}

pub(super) type Findings = Result<Vec<Finding>, FileError>;

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
            findings.extend(names(&survey));
            findings.extend(dbus::services(root, &survey)?);
            findings.extend(image::questions(root, &survey)?);
            findings.extend(image::keygen(root, &survey)?);
        }
        Err(GateError::File(error)) => return Err(error),
        Err(error) => {
            findings.push(finding(Grade::Broken, chain(&error), "correct it: the agent refuses to open"));
        }
    }
    let checks = [
        generator_installed,
        own_drop_ins,
        command_line::check,
        credentials::check,
        undone::by_sysctl,
        undone::by_tmpfiles,
        logins::automatic,
        logins::passwords,
        image::sysrq,
        image::left_over,
        image::vsock,
    ];
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
    if !is_of_the_package(&unit.path) {
        found.push(finding(Grade::Open, format!("/{} replaces the agent's unit", unit.path), replace));
    }
    for directory in units::INSTALLED.iter().filter(|directory| !is_of_the_package(directory)) {
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

/// Whether a path is where packages put units, and the agent its own.
fn is_of_the_package(path: &str) -> bool {
    path.starts_with("usr/lib/") || path.starts_with("lib/")
}

/// Nobody else's drop-in lets a unit go, a template's instances and what has a prefix included.
fn own_drop_ins(root: &Root) -> Findings {
    let shadows: Vec<String> = shadows().collect();
    let mut found = Vec::new();
    for directory in units::INSTALLED {
        for name in root.names(directory)? {
            let Some(unit) = name.strip_suffix(".d") else { continue };
            let path = format!("{directory}/{name}/{}", units::FILE);
            let gate = unit == boot::UNIT;
            if gate || FOR_ALL.ends_with(&path) || shadows.contains(&path) || !root.exists(&path)? {
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
    for (unit, verdict) in &survey.plan.verdicts {
        match verdict {
            Verdict::Named if links::is_early(unit, verdict) => {}
            Verdict::Named => {
                if let Some(why) = lists::why(lists::WAYS_IN, unit) {
                    let what = format!("before_gate in /etc/ramet/agent.toml names {unit}, but {why}");
                    found.push(finding(Grade::Open, what, "take it out of /etc/ramet/agent.toml"));
                }
            }
            Verdict::Needed(_) => {
                let way = survey.plan.before.way(unit).join(", ");
                let started = survey.is_started(unit);
                let what = format!(
                    "{unit} starts before the gate and is not known to be harmless: it is ordered before {way}, which \
                     the gate waits for{}",
                    if started { "" } else { "; nothing in the image starts it" }
                );
                let fix = "name it in before_gate if it may, or take away its Before= so that it waits";
                found.push(finding(if started { Grade::Open } else { Grade::Note }, what, fix));
            }
            Verdict::Gate
            | Verdict::Held(Held::AsAll | Held::Network | Held::WayIn(_) | Held::Unknown)
            | Verdict::Own(_)
            | Verdict::Harmless(_)
            | Verdict::Ends => {}
        }
    }
    found
}

/// What waits does not hold what should not.
fn ordering(survey: &Survey) -> Vec<Finding> {
    let mut found = Vec::new();
    for unit in survey.plan.cycles() {
        let way = survey.plan.before.way(unit).join(", ");
        let started = survey.is_started(unit);
        let why = match survey.plan.verdicts.get(unit) {
            Some(Verdict::Held(Held::WayIn(why))) => format!(" ({why})"),
            _ => String::new(),
        };
        let what = if started {
            format!(
                "{unit} waits{why} and is ordered before {way}, which the gate waits for: this will not boot"
            )
        } else {
            format!(
                "{unit} waits{why} and is ordered before {way}, which the gate waits for: started, it is a cycle"
            )
        };
        let fix = "name it in before_gate if it may start in the template, or take away its Before=";
        found.push(finding(if started { Grade::Broken } else { Grade::Note }, what, fix));
    }
    let targets = ["sysinit.target", "sockets.target", "timers.target", "paths.target", "basic.target"];
    let direct = survey.order.walk(&survey.units, &targets.map(str::to_owned), |_| true);
    for (unit, verdict) in &survey.plan.verdicts {
        if verdict.holds() && direct.has(unit) && survey.is_started(unit) {
            let target = direct.way(unit).join(", ");
            let what =
                format!("{unit} waits and is ordered before {target}: all the rest of boot waits, too");
            let fix = "nothing is open, but children take longer; without the unit they do not";
            found.push(finding(Grade::Note, what, fix));
        }
    }
    found
}

/// What `before_gate` names is there.
fn names(survey: &Survey) -> Vec<Finding> {
    let defaults = Config::default().before_gate;
    let mut found = Vec::new();
    for name in survey.config.before_gate.iter().filter(|name| !defaults.contains(name)) {
        let name = name.as_str();
        let why = match survey.units.get(name) {
            Some(unit)
                if unit.name == name || super::unit_file::template(name).as_ref() == Some(&unit.name) =>
            {
                continue;
            }
            Some(unit) => format!("that is another name of {}, and only a unit's own counts", unit.name),
            None if survey.units.is_masked(name) => "that is masked".to_owned(),
            None => "there is no such unit".to_owned(),
        };
        let what =
            format!("before_gate in /etc/ramet/agent.toml names {name}, but {why}: it lets nothing go");
        found.push(finding(Grade::Note, what, "correct it, or take it out"));
    }
    found
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
        use Grade::{Broken, Fatal, Note, Open};
        type Change = (fn(&Image), Grade, &'static str);
        let changes: &[Change] = &[
            (|i| i.file("etc/ramet/agent.toml", "x"), Broken, "agent.toml is not right"),
            (|i| i.file("etc/ramet/agent.toml", "before_gate = [\"getty@.service\"]"), Note, "no such unit"),
            (|i| i.file("etc/ramet/agent.toml", "before_gate = [\"logind.service\"]"), Note, "no such unit"),
            (
                |i| {
                    i.link("etc/systemd/system/bus.service", "/usr/lib/systemd/system/dbus.service");
                    i.file("etc/ramet/agent.toml", "before_gate = [\"bus.service\"]");
                },
                Note,
                "another name of dbus.service",
            ),
            (|i| i.link("etc/systemd/system/ramet-agent.service", "/dev/null"), Broken, "masked"),
            (|i| i.file("etc/systemd/system/ramet-agent.service", ""), Broken, "masked"),
            (
                |i| i.file("etc/systemd/system/ramet-agent.service", "[Unit]"),
                Open,
                "replaces the agent's unit",
            ),
            (
                |i| i.file("run/systemd/transient/ramet-agent.service.d/x.conf", ""),
                Open,
                "changes the agent's unit",
            ),
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
            (
                |i| i.link("etc/systemd/system/a-.service.d/50-ramet-gate.conf", "/dev/null"),
                Open,
                "lets its unit start",
            ),
            (|i| i.unit("vendor.service", "DefaultDependencies=no"), Note, ""),
            (
                |i| {
                    i.unit("vendor.service", "DefaultDependencies=no\nBefore=local-fs.target");
                    i.want("vendor.service");
                },
                Open,
                "vendor.service starts before the gate and is not known to be harmless: it is ordered before local-fs",
            ),
            (
                |i| i.unit("vendor.service", "DefaultDependencies=no\nBefore=local-fs.target"),
                Note,
                "nothing in the image starts it",
            ),
            (
                |i| {
                    i.unit("cloud-x.service", "DefaultDependencies=no\nBefore=local-fs.target");
                    i.want("cloud-x.service");
                },
                Broken,
                "will not boot",
            ),
            (
                |i| i.unit("cloud-x.service", "DefaultDependencies=no\nBefore=local-fs.target"),
                Note,
                "started, it is a cycle",
            ),
            (
                |i| {
                    i.unit("x.socket", "Before=sockets.target\n[Socket]\nListenStream=22");
                    i.want("x.socket");
                },
                Note,
                "the rest of boot waits",
            ),
            (
                |i| {
                    i.unit("systemd-homed-firstboot.service", "");
                    i.want("systemd-homed-firstboot.service");
                },
                Broken,
                "asks at each child's console",
            ),
            (|i| i.file("etc/credstore/system.hostname", "golden"), Fatal, "be golden again after a reboot"),
            (|i| i.file("proc/cmdline", "systemd.hostname=golden"), Fatal, "be golden again after a reboot"),
            (|i| i.file("proc/cmdline", "systemd.break=pre-basic"), Open, "in the way of boot"),
            (|i| i.file("usr/lib/sysctl.d/x.conf", "kernel.hostname=golden"), Fatal, "be golden again"),
            (|i| i.file("etc/tmpfiles.d/x.conf", "w /etc/hostname - - - - golden"), Fatal, "at each boot"),
            (
                |i| {
                    i.file("usr/share/dbus-1/system-services/x.service", "[D-BUS Service]\nExec=/usr/bin/x\n")
                },
                Note,
                "has no SystemdService=",
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
            (|i| i.file("etc/shadow", "root::19000:0:99999:7:::\n"), Open, "password of root is empty"),
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
                assert_eq!(found, [], "what waits is nothing to tell");
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
            matches!(&found[..], [(Grade::Open, what)] if what.contains("names ssh.service, but it lets somebody in")),
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
