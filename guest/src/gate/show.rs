//! `ramet-agent gate show`: what starts before the gate and why, and what waits.

use super::{GateError, Scope, Survey, Verdict};
use crate::{
    error::chain,
    root::{FileError, Root},
};
use serde_json::json;
use std::{fmt::Write, process::ExitCode};

/// Prints what becomes of each unit in `root`.
pub(crate) fn run(root: &Root, json: bool) -> Result<ExitCode, FileError> {
    match survey(root) {
        Ok(text) if !json => print!("{}", text.0),
        Ok(text) => println!("{}", text.1),
        Err(GateError::File(error)) => return Err(error),
        Err(error) => {
            crate::log!("ramet-agent: {}", chain(&error));
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The same for people, and for programs.
fn survey(root: &Root) -> Result<(String, serde_json::Value), GateError> {
    let survey = Survey::of(root, Scope::Running)?;
    let plan = survey.plan();
    let width = plan.keys().map(|unit| unit.len()).max().unwrap_or_default();
    let (mut before, mut held) = (String::new(), String::new());
    let (mut before_json, mut held_json) = (Vec::new(), Vec::new());
    for (unit, verdict) in &plan {
        let why = match verdict {
            Verdict::Gate => "the gate".to_owned(),
            Verdict::Named => "named in /etc/ramet/agent.toml".to_owned(),
            Verdict::Early => "early: DefaultDependencies=no".to_owned(),
            Verdict::Own { path, .. } => format!("/{path}"),
            Verdict::Held => String::new(),
        };
        let (text, list) =
            if verdict.holds() { (&mut held, &mut held_json) } else { (&mut before, &mut before_json) };
        let line = format!("  {unit:width$}  {why}");
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
        list.push(json!({ "unit": unit, "why": why }));
    }
    let text = format!(
        "start before the gate:\n{before}wait:\n{held}  every other service, too, as soon as there is one\n"
    );
    Ok((text, json!({ "before_gate": before_json, "held": held_json })))
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
        image.link("etc/systemd/system/own.service.d/50-ramet-gate.conf", "/dev/null");
        image.unit("own.service", "");
        let (text, json) = survey(&image.root).unwrap();
        let (before, held) = text.split_once("wait:\n").unwrap();
        for expected in [
            "  dbus.service           named in /etc/ramet/agent.toml\n",
            "  own.service            /etc/systemd/system/own.service.d/50-ramet-gate.conf\n",
            "  systemd-udevd.service  early: DefaultDependencies=no\n",
            "  ramet-agent.service    the gate\n",
        ] {
            assert!(before.contains(expected), "{text}");
        }
        assert!(held.starts_with("  app.service\n"), "{text}");
        assert_eq!(json["held"], json!([{ "unit": "app.service", "why": "" }]));
        assert_eq!(json["before_gate"][0]["unit"], "dbus.service");
    }

    #[test]
    fn settings_that_cannot_be_read_are_an_error() {
        let image = Image::new();
        image.file("etc/ramet/agent.toml", "x");
        assert!(matches!(survey(&image.root), Err(GateError::Config(_))));
        assert_eq!(run(&image.root, true).unwrap(), ExitCode::FAILURE);
    }
}
