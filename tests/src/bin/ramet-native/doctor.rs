//! What the doctor says of each root, pinned in `images/NAME/doctor.txt`.

use crate::setting::Setting;
use anyhow::{Context, Result, bail, ensure};
use std::{fs, process::Command};

/// Roots whose packages Debian changes from week to week: what is said of them is shown, and fails nothing.
const MOVING: &[&str] = &["sid"];

/// Compares, or writes what is said now. Says why it was not compared.
pub(crate) fn compare(setting: &Setting, name: &str) -> Result<Option<String>> {
    let root = setting.with_agent(name)?;
    let mut command = Command::new(&setting.made.agent);
    let output = command.args(["doctor", "--root"]).arg(&root).output().context("cannot run the agent")?;
    let code = output.status.code();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(code, Some(0 | 1)), "the doctor ended with {}: {said}", output.status);
    let text = String::from_utf8(output.stdout)?.replace(root.to_str().unwrap_or_default(), "");
    let file = setting.made.images.join(name).join("doctor.txt");
    if setting.made.bless {
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        return Ok(None);
    }
    let pinned = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: `cargo xtask native --bless` makes it", file.display()))?;
    if pinned == text {
        return Ok(None);
    }
    let difference = difference(&pinned, &text);
    if MOVING.contains(&name) {
        return Ok(Some(format!("not as pinned, for this Debian moves:\n{difference}")));
    }
    bail!("not what {} has; if it is right, `cargo xtask native --bless`:\n{difference}", file.display())
}

/// The lines that only one of both has.
fn difference(pinned: &str, now: &str) -> String {
    let only = |sign: &str, these: &str, those: &str| {
        let lines = these.lines().filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("{sign} {line}")).collect::<Vec<_>>()
    };
    [only("-", pinned, now), only("+", now, pinned)].concat().join("\n")
}
