//! What CI asks for: formatting, lints, dependencies, documentation.

use anyhow::{Context, Result};

use crate::build::PROFILE;
use crate::config::Config;
use crate::sys::{self, Step};

/// Runs all checks, and stops at the first that fails.
pub(crate) fn run(config: &Config) -> Result<()> {
    step(config, "format", &["fmt", "--all", "--check"], &[])?;
    step(
        config,
        "lints",
        &["clippy", "--quiet", "--workspace", "--profile", PROFILE, "--all-targets", "--", "-D", "warnings"],
        &[],
    )?;
    need_deny(config)?;
    // Offline: advisories would need a network, and would let a commit fail that changed nothing.
    step(
        config,
        "dependencies",
        &["deny", "--log-level", "error", "check", "licenses", "bans", "sources"],
        &[],
    )?;
    let strict = [("RUSTDOCFLAGS", "-D warnings")];
    step(
        config,
        "documentation",
        &["doc", "--quiet", "--workspace", "--profile", PROFILE, "--no-deps", "--document-private-items"],
        &strict,
    )
}

fn step(config: &Config, what: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let step = Step::begin(format!("checking {what}: cargo {}", arguments.join(" ")));
    sys::run(sys::cargo(config).args(arguments).envs(variables.iter().copied()))
        .with_context(|| format!("the check of {what} found something"))?;
    step.done();
    Ok(())
}

fn need_deny(config: &Config) -> Result<()> {
    if sys::output(sys::cargo(config).args(["deny", "--version"]).stderr(std::process::Stdio::null())).is_ok()
    {
        return Ok(());
    }
    let step = Step::begin("cargo-deny is missing, so installing it: cargo install --locked cargo-deny");
    // A development build: it compiles in half the time, and this tree is checked in a second either way.
    let mut install = sys::cargo(config);
    install.args(["install", "--locked", "--quiet", "--profile", "dev", "cargo-deny"]);
    sys::run(install.env("CARGO_PROFILE_DEV_DEBUG", "none"))
        .context("cannot install cargo-deny: install it yourself, then try again")?;
    step.done();
    Ok(())
}
