//! `native`: the agent in the roots of real guests, booted as containers, on this machine and without a VM.
//!
//! The cases are the program `ramet-native` of tests/. It runs as root in mount, process and network namespaces of its own,
//! so that nothing is left of its containers, mounts and links, however it ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::build::{self, PROFILE, Programs};
use crate::config::Config;
use crate::images::Guest;
use crate::roots::{self, Root};
use crate::sys::{self, Step};
use crate::{package, run as site};

/// The program with the cases.
pub(crate) const PROGRAM: &str = "ramet-native";

/// Recipes that no VM is made of: guests of kinds that others have.
const MORE_ROOTS: &[&str] = &["cloud", "dropbear", "server", "sid"];

/// Builds what is needed and tries the cases that `arguments` name, or all.
pub(crate) fn run(config: &Config, word: Option<&str>, bless: bool) -> Result<ExitCode> {
    let programs = build::programs(config, &[PROGRAM])?;
    // Of all roots: the doctor's words are pinned of each.
    let arguments = if bless { Some("doctor::") } else { word };
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    cases(config, &programs, bless, &arguments)
}

/// The same with programs that are built.
pub(crate) fn cases(
    config: &Config,
    programs: &Programs,
    bless: bool,
    arguments: &[OsString],
) -> Result<ExitCode> {
    need_tools()?;
    let package = package::ensure(config, programs)?;
    let tests = agent_tests(config)?;
    let roots = roots(config)?;
    let paths: BTreeMap<&str, &Path> =
        roots.iter().map(|(name, root)| (*name, root.path.as_path())).collect();
    let setting = json!({
        "agent": programs.named("ramet-agent").context("the agent is not built")?,
        "package": package,
        "tests": tests,
        "images": config.root.join("images"),
        "roots": paths,
        "bless": bless,
    });
    let file = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    serde_json::to_writer(&file, &setting)?;

    let program = programs.named(PROGRAM).context("the cases are not built")?;
    let mut variable = OsString::from("RAMET_NATIVE_SETTING=");
    variable.push(file.path());
    let step = Step::begin("the agent in roots of guests, booted as containers");
    let mut command = sys::as_root("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--net", "env"]).args(site::variables()).arg(variable).arg(program).args(arguments);
    let status = command.status().context("cannot start unshare")?;
    step.done();
    Ok(sys::exit_code(status))
}

/// What containers take, which machines for building have seldom.
fn need_tools() -> Result<()> {
    sys::need(
        &["/usr/bin/systemd-nspawn", "/usr/bin/nsenter", "/usr/bin/ssh-keygen"],
        &["systemd-container", "util-linux", "openssh-client"],
    )?;
    sys::need(&["/usr/bin/chattr", "/usr/bin/find"], &["e2fsprogs", "findutils"])?;
    if ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"].iter().any(|path| Path::new(path).exists()) {
        return Ok(());
    }
    sys::need(&["/usr/sbin/ip"], &["iproute2"])
}

/// Every root there is a recipe of, one after the other: each that is missing keeps two processors busy.
fn roots(config: &Config) -> Result<Vec<(&'static str, Root)>> {
    let guests = Guest::value_variants().iter().map(|guest| (guest.name(), guest.root(config)));
    let more = MORE_ROOTS.iter().map(|name| (*name, roots::guest(config, name)));
    guests.chain(more).map(|(name, root)| Ok((name, root?))).collect()
}

/// The program with the agent's tests: in a container one of them is the agent.
fn agent_tests(config: &Config) -> Result<PathBuf> {
    let mut cargo = sys::cargo(config);
    cargo.args(["test", "--no-run", "--profile", PROFILE, "-p", "ramet-agent", "--bin", "ramet-agent"]);
    let lines = sys::output(cargo.args(["--quiet", "--message-format", "json"]))?;
    executable(&lines).context("cargo does not say where the agent's tests are")
}

/// The program that a test is, in cargo's messages.
fn executable(lines: &[u8]) -> Option<PathBuf> {
    let messages = lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let tests = |message: Value| {
        let is_test = message["profile"]["test"].as_bool()? && message["target"]["name"] == "ramet-agent";
        is_test.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages.filter_map(tests).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_that_no_vm_is_made_of_names_itself() {
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        for name in MORE_ROOTS {
            let hostname = std::fs::read_to_string(images.join(name).join("root/etc/hostname"));
            assert_eq!(hostname.expect("a hostname").trim(), *name);
        }
    }

    #[test]
    fn the_tests_are_found_in_what_cargo_says() {
        let said = br#"{"reason":"compiler-artifact","target":{"name":"ramet_proto"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"ramet-agent"},"profile":{"test":true},"executable":"/t/ramet_agent-1"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(said), Some("/t/ramet_agent-1".into()));
        assert_eq!(executable(b""), None);
    }
}
