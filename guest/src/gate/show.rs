//! `ramet-agent gate show`: what starts before the gate and why, and what waits.

use super::{
    GateError, Held, Scope, Survey, Verdict,
    specifiers::{self, Asks, Uses},
};
use crate::{
    error::chain,
    root::{FileError, Root},
};
use serde_json::json;
use std::{fmt::Write, process::ExitCode};

/// Prints what becomes of each unit in `root`.
pub(crate) fn run(root: &Root, json: bool) -> Result<ExitCode, FileError> {
    match Survey::of(root, Scope::Running) {
        Ok(survey) if json => println!("{}", for_programs(&survey)),
        Ok(survey) => print!("{}", for_people(&survey)),
        Err(GateError::File(error)) => return Err(error),
        Err(error) => {
            crate::log!("ramet-agent: {}", chain(&error));
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn why(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Gate => "the gate".into(),
        Verdict::Named => "named in /etc/ramet/agent.toml".into(),
        Verdict::Harmless(why) => format!("early: {why}"),
        Verdict::Ends => "early: only what ends the machine's run starts it".into(),
        Verdict::Needed(by) => format!("early, not known: the gate waits for {by}, which is after it"),
        Verdict::Own(drop_in) => format!("/{}", drop_in.path),
        Verdict::Held(Held::AsAll) => String::new(),
        Verdict::Held(Held::Network) => "reached over a network".into(),
        Verdict::Held(Held::WayIn(why)) => format!("early, but {why}"),
        Verdict::Held(Held::Unknown) => "early, not known to be harmless".into(),
    }
}

/// What systemd remembers, each with the units that make it.
fn remembered(uses: &Uses, asks: &Asks) -> Vec<(&'static str, Vec<String>)> {
    vec![
        ("host", uses.host.clone()),
        ("machine_id", [&uses.machine_id[..], &asks.machine_id].concat()),
        ("boot_id", [&uses.boot_id[..], &asks.boot_id].concat()),
    ]
}

fn for_people(survey: &Survey) -> String {
    let verdicts = &survey.plan.verdicts;
    let width = verdicts.keys().map(String::len).max().unwrap_or_default();
    let (mut before, mut held) = (String::new(), String::new());
    for (unit, verdict) in verdicts {
        let text = if verdict.holds() { &mut held } else { &mut before };
        let line = format!("  {unit:width$}  {}", why(verdict));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let mut text = format!(
        "start before the gate:\n{before}wait:\n{held}  every other service, too, as soon as there is one\n"
    );
    for (what, units) in remembered(&specifiers::uses(&survey.units), &specifiers::asks(survey)) {
        if !units.is_empty() {
            let what = what.replace('_', "-");
            let _ = writeln!(text, "make systemd remember the {what}:\n  {}", units.join("\n  "));
        }
    }
    text
}

fn for_programs(survey: &Survey) -> serde_json::Value {
    let (mut before, mut held) = (Vec::new(), Vec::new());
    for (unit, verdict) in &survey.plan.verdicts {
        let list = if verdict.holds() { &mut held } else { &mut before };
        list.push(json!({ "unit": unit, "why": why(verdict) }));
    }
    let remembered = remembered(&specifiers::uses(&survey.units), &specifiers::asks(survey));
    let remembered: serde_json::Map<String, serde_json::Value> =
        remembered.into_iter().map(|(what, units)| (what.to_owned(), json!(units))).collect();
    json!({ "before_gate": before, "held": held, "remembered": remembered })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn both_sides_are_told_with_reasons() {
        let image = Image::new();
        image.unit("dbus.service", "");
        image.unit("app.service", "");
        image.unit("systemd-udevd.service", "DefaultDependencies=no");
        image.unit("auditd.service", "DefaultDependencies=no");
        image.unit("vendor.service", "DefaultDependencies=no");
        image.unit("unlock.service", "DefaultDependencies=no\nBefore=local-fs.target");
        image.link("etc/systemd/system/own.service.d/50-ramet-gate.conf", "/dev/null");
        image.unit("own.service", "");
        image.file("usr/lib/systemd/system/who.service", "[Service]\nExecStart=/x %H\n");
        image.link("etc/systemd/system/default.target.wants/who.service", "/x/who.service");
        image.unit("default.target", "");
        let survey = Survey::of(&image.root, Scope::Running).unwrap();
        let text = for_people(&survey);
        let (before, rest) = text.split_once("wait:\n").unwrap();
        for expected in [
            "  dbus.service           named in /etc/ramet/agent.toml\n",
            "  own.service            /etc/systemd/system/own.service.d/50-ramet-gate.conf\n",
            "  systemd-udevd.service  early: it finds devices and loads their drivers\n",
            "  unlock.service         early, not known: the gate waits for local-fs.target, which is after it\n",
            "  ramet-agent.service    the gate\n",
        ] {
            assert!(before.contains(expected), "{text}");
        }
        for expected in [
            "  app.service\n",
            "  auditd.service         early, but it writes this machine's name or id down as it starts\n",
            "  vendor.service         early, not known to be harmless\n",
            "make systemd remember the host:\n  who.service\n",
        ] {
            assert!(rest.contains(expected), "{text}");
        }
        let json = for_programs(&survey);
        assert_eq!(json["held"][0], json!({ "unit": "app.service", "why": "" }));
        assert_eq!(json["before_gate"][0]["unit"], "dbus.service");
        assert_eq!(json["remembered"], json!({ "host": ["who.service"], "machine_id": [], "boot_id": [] }));
    }

    #[test]
    fn settings_that_cannot_be_read_are_an_error() {
        let image = Image::new();
        image.file("etc/ramet/agent.toml", "x");
        assert!(matches!(Survey::of(&image.root, Scope::Running), Err(GateError::Config(_))));
        assert_eq!(run(&image.root, true).unwrap(), ExitCode::FAILURE);
    }
}
