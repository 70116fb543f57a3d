//! `soak`: proofs that take too long for every change. Each step of an identity is left out once, in a copy of the source, and
//! the test that docs/identity.md names for it has to fail; and images are made as docs/images.md tells ([`made`]).

use std::fs;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::build::PROFILE;
use crate::config::Config;
use crate::made;
use crate::place::Place;
use crate::sys::{self, Step};

/// What is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Each step of an identity is left out once, and its test fails
    Steps,
    /// Images made with virt-customize and mkosi as docs/images.md tells are forked on real VMs
    Images,
}

/// Where the steps are taken one after the other, and what is put behind that.
const LOOP: (&str, &str) = ("guest/src/apply/mod.rs", "    for (step, apply) in steps() {\n");

/// Where the others are, which are no members of that list: what stands there, and what takes its place.
const OTHERS: [(&str, &str, &str); 2] = [
    (
        "manager",
        "manager::apply(order.identity, boot_id::read(root)?, order.stale, system)",
        "manager::ask(system)",
    ),
    ("site", "site::apply(order.identity, root, config)", "Ok(Vec::new())"),
];

/// Proves one part, or all; of it only what contains `word`.
pub(crate) fn run(
    config: &Config,
    place: Option<Place>,
    part: Option<Part>,
    word: Option<&str>,
) -> Result<ExitCode> {
    let parts = part.as_ref().map_or(Part::value_variants(), std::slice::from_ref);
    for part in parts {
        let status = match part {
            Part::Steps => leave_out(config, word)?,
            Part::Images => made::run(config, place, word)?,
        };
        if status != ExitCode::SUCCESS {
            return Ok(status);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves out each step that contains `word`, or all.
fn leave_out(config: &Config, word: Option<&str>) -> Result<ExitCode> {
    let document =
        fs::read_to_string(config.root.join("docs/identity.md")).context("cannot read docs/identity.md")?;
    let steps = steps(&document);
    ensure!(!steps.is_empty(), "docs/identity.md has no table of steps");
    let copy = tempfile::tempdir().context("cannot create a temporary folder")?;
    copy_source(config, copy.path())?;
    let source = copy.path().join(LOOP.0);
    let whole = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let mut unnoticed = Vec::new();
    let wanted = steps.iter().filter(|(name, _)| word.is_none_or(|word| name.contains(word)));
    let mut count = 0;
    for (name, test) in wanted {
        let step = Step::begin(format!("an agent without {name}: {test}"));
        fs::write(&source, without(&whole, name)?)?;
        build(config, copy.path())?;
        if passes(config, copy.path(), test)? {
            eprintln!("xtask: {test} passes without {name}");
            unnoticed.push(*name);
        }
        count += 1;
        step.done();
    }
    ensure!(count > 0, "no step's name has that word");
    if !unnoticed.is_empty() {
        bail!("{} of {count} steps are missed by nobody: {}", unnoticed.len(), unnoticed.join(", "));
    }
    println!("{count} steps were left out, one at a time, and the test of each failed");
    Ok(ExitCode::SUCCESS)
}

/// The steps and their tests, of the table in the document.
fn steps(document: &str) -> Vec<(&str, &str)> {
    let table = document.split("\n## ").find(|part| part.starts_with("The steps")).unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.filter_map(|line| {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        Some((cells.next()?, cells.nth(1)?))
    })
    .collect()
}

/// The source without a step.
fn without(whole: &str, step: &str) -> Result<String> {
    let skip =
        format!("{}        if step.word() == \"{step}\" {{\n            continue;\n        }}\n", LOOP.1);
    let other = OTHERS.iter().find(|(name, ..)| *name == step);
    let (from, to) = other.map_or((LOOP.1, &*skip), |(_, from, to)| (*from, *to));
    ensure!(whole.matches(from).count() == 1, "{} has not once {from:?}, where {step} is left out", LOOP.0);
    Ok(whole.replace(from, to))
}

/// What git knows of the checkout, as it is now.
fn copy_source(config: &Config, to: &Path) -> Result<()> {
    let mut list = std::process::Command::new("git");
    let files = sys::output(list.current_dir(&config.root).args(["ls-files", "-z"]))?;
    for file in files.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(file).context("a file's name is no UTF-8")?;
        let (from, to) = (config.root.join(name), to.join(name));
        if from.is_file() {
            fs::create_dir_all(to.parent().context("a file is in no folder")?)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

fn cargo(config: &Config, copy: &Path) -> std::process::Command {
    let mut cargo = sys::cargo(config);
    cargo.current_dir(copy).env("CARGO_TARGET_DIR", config.target.join("soak"));
    cargo.args(["test", "--quiet", "--profile", PROFILE, "-p", "ramet-agent", "--bin", "ramet-agent"]);
    cargo
}

/// An agent that does not compile proves nothing.
fn build(config: &Config, copy: &Path) -> Result<()> {
    sys::run(
        cargo(config, copy).arg("--no-run").env("RUSTFLAGS", "-A warnings -C target-feature=+crt-static"),
    )
}

fn passes(config: &Config, copy: &Path, test: &str) -> Result<bool> {
    let mut run = cargo(config, copy);
    run.env("RUSTFLAGS", "-A warnings -C target-feature=+crt-static").args(["--", "--exact", test]);
    let output = run.stdin(Stdio::null()).output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains("running 1 test"), "there is no test {test}: {said}");
    Ok(output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/identity.md");
    const SOURCE: &str = include_str!("../../guest/src/apply/mod.rs");

    #[test]
    fn every_step_of_the_document_can_be_left_out() {
        let steps = steps(DOCUMENT);
        assert!(steps.len() >= 15, "{steps:?}");
        for (step, test) in steps {
            assert!(test.contains("::tests::"), "{step}: {test}");
            assert_ne!(without(SOURCE, step).unwrap(), SOURCE, "{step}");
        }
    }
}
