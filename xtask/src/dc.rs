//! `dc`: a command beside the domain controller of the tests, without a VM.
//!
//! The controller comes out of the lab's root, with a copy of the domain that was made with that root. Both have a
//! network of their own, so it disturbs nobody's, and several may run at once.

use std::env::current_exe;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::build::PROFILE;
use crate::config::{Config, TRIPLE};
use crate::run::variables;
use crate::sys;
use crate::tools::Tools;

/// Starts the controller, runs the command, ends the controller.
const BESIDE: &str = include_str!("dc.sh");

/// Runs `command` as root beside a domain controller and returns its status. `$RAMET_TEST_DC` names a TOML file that
/// tells where things are.
pub(crate) fn run(config: &Config, command: &[OsString]) -> Result<ExitCode> {
    let mut script = Tools::ensure(config)?.script(BESIDE);
    script.arg("env").args(variables()).args(command);
    Ok(sys::exit_code(script.status().context("cannot start the domain controller")?))
}

/// `cargo test` of what needs a domain controller. Only the tests themselves run beside it: cargo may need a network,
/// and the user who runs it.
pub(crate) fn tests(config: &Config) -> Result<Command> {
    let xtask = current_exe().context("cannot tell where xtask is")?;
    let runner = format!("target.{TRIPLE}.runner = [\"{}\", \"dc\", \"--\"]", xtask.display());
    let mut cargo = sys::cargo(config);
    cargo.args([
        "test",
        "--workspace",
        "--profile",
        PROFILE,
        "--quiet",
        "--jobs",
        "1",
        "--test",
        "directory",
    ]);
    cargo.args(["--config", &runner, "--", "--ignored"]);
    Ok(cargo)
}
