//! `ramet doctor`

use super::output;
use serde::Serialize;
use std::{path::Path, process::ExitCode};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    /// Whether this host can fork.
    ok: bool,
    checks: &'a [ramet::doctor::Check],
}

pub(crate) fn run(state_dir: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let checks = ramet::doctor::examine(state_dir);
    let ok = checks.iter().all(|check| check.ok || !check.required);
    if args.json {
        output::json(&Report { ok, checks: &checks })?;
    } else {
        for check in &checks {
            let mark = match (check.ok, check.required) {
                (true, _) => "ok  ",
                (false, true) => "FAIL",
                (false, false) => "warn",
            };
            output::print(&format!("{mark} {}: {}", check.name, check.detail))?;
            if let Some(fix) = check.fix {
                output::print(&format!("     -> {fix}"))?;
            }
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
