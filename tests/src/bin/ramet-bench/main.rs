//! How long a fork takes, beside what it replaces, in one run on one image. `cargo xtask bench` runs it where KVM and
//! vhost-vsock are real.
//!
//! Every figure is the median of several runs and named with its stop line: resumed, identified, ready, joined.

mod forks;
mod leases;
mod members;
mod report;
mod restores;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use ramet::pool::StoreUrl;
use ramet_tests::World;
use report::Report;
use std::path::PathBuf;

/// Of each measurement of VMs.
const RUNS: usize = 5;

/// Measures, prints tables in Markdown on standard output, and fails if a goal is missed
#[derive(Parser)]
struct Cli {
    /// What is measured
    #[arg(required = true)]
    parts: Vec<Part>,
    /// A PostgreSQL server on which leases are measured, too
    #[arg(long, value_name = "URL")]
    postgres: Option<StoreUrl>,
    /// Write the figures as JSON into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a lease of an identity costs
    Leases,
    /// Cold boots, and forks from templates of three sizes
    Forks,
    /// A restore that copies all RAM
    Restores,
    /// Eight forks side by side
    AtOnce,
    /// Members of a domain
    Members,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut report = Report::new()?;
    let measured = measure(&cli, &mut report);
    // What was measured before something failed is not lost.
    let closed = report.close(cli.json.as_deref());
    measured.and(closed)
}

fn measure(cli: &Cli, report: &mut Report) -> Result<()> {
    let is_asked_for = |part| cli.parts.contains(&part);
    if is_asked_for(Part::Leases) {
        leases::leases(cli.postgres.as_ref().context("leases need --postgres")?, report)?;
    }
    if cli.parts.iter().all(|part| *part == Part::Leases) {
        return Ok(());
    }
    let world = World::make()?;
    for template in &forks::TEMPLATES {
        if is_asked_for(Part::Forks)
            || is_asked_for(Part::AtOnce) && template.0 == forks::SMALL
            || is_asked_for(Part::Restores) && template.0 == restores::TEMPLATE
        {
            forks::make(&world, template)?;
        }
    }
    if is_asked_for(Part::Forks) {
        forks::boots_and_forks(&world, report)?;
    }
    if is_asked_for(Part::Restores) {
        restores::restores(&world, report)?;
    }
    if is_asked_for(Part::AtOnce) {
        forks::at_once(&world, report)?;
    }
    if is_asked_for(Part::Members) {
        members::members(&world, report)?;
    }
    Ok(())
}
