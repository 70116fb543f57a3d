//! `ramet-agent doctor`: what in a system, or in an image, is open or will not work.
//!
//! Each check looks at files only, so that it works on an image's root as well as on a system that runs.

use super::{
    FOR_ALL, GateError, Held, Scope, Survey, Verdict, check, command_line, credentials, dbus, generator,
    image, links, lists, logins, shadows, undone, unit, units,
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

pub(super) fn finding(grade: Grade, what: impl AsRef<str>, fix: &str) -> Finding {
    Finding::new(grade, what.as_ref(), fix)
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
            findings.extend(image::shells(root, &survey)?);
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
    for directory in units::installed(root)?.into_iter().filter(|directory| !is_of_the_package(directory)) {
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
    for directory in units::installed(root)? {
        for name in root.names(directory)? {
            let Some(unit) = name.strip_suffix(".d") else { continue };
            let path = format!("{directory}/{name}/{}", units::FILE);
            let gate = unit == boot::UNIT;
            // Also where /lib is a directory of its own.
            if gate || FOR_ALL.ends_with(&path) || shadows.contains(&path) || !root.exists(&path)? {
                continue;
            }
            if !unit::holds(&root.read_lossy(&path).ok().flatten().unwrap_or_default()) {
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
            // An initrd's cannot be seen from here, and have no gate.
            Verdict::Needed(_) if survey.units.get(unit).is_some_and(|unit| unit.of_initrd) => {}
            Verdict::Needed(_) => {
                let way = survey.plan.before.way(unit).join(", ");
                let started = survey.are_started(unit);
                let what = format!(
                    "{unit} starts before the gate and is not known to be harmless: it is ordered before {way}, which \
                     the gate waits for{}",
                    if started { "" } else { "; nothing in the image starts them all" }
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
        let started = survey.are_started(unit);
        // Nor do breakpoints of systemd start by themselves, and the parameter that starts them is looked for.
        let idle =
            unit.starts_with("breakpoint-") || survey.units.get(unit).is_some_and(|unit| unit.of_initrd);
        if idle && !started {
            continue;
        }
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
        let fix =
            "name it in before_gate if it may start in the template, or mask it, or take away its Before=";
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
mod tests;
