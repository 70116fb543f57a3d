//! What was measured, and what that says.

use anyhow::{Result, ensure};
use serde::Serialize;
use std::{fs, path::Path};

/// One measurement.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    unit: &'static str,
    median: u64,
    runs: Vec<u64>,
}

/// What two measurements of this run say together.
#[derive(Debug, Serialize)]
struct Ratio {
    what: &'static str,
    value: f64,
    /// What it is to be: at least or at most.
    goal: String,
    reached: bool,
}

/// Figures of one run on one machine.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
}

impl Report {
    /// A report of this machine, about nothing yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { machine: machine()?, figures: Vec::new(), ratios: Vec::new() })
    }

    /// Adds a measurement, and says its median.
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, mut runs: Vec<u64>) -> u64 {
        runs.sort_unstable();
        let median = runs.get(runs.len() / 2).copied().unwrap_or_default();
        eprintln!("bench: {what}: {median} {unit} {runs:?}");
        self.figures.push(Figure { what: what.to_owned(), unit, median, runs });
        median
    }

    pub(crate) fn at_least(&mut self, what: &'static str, measured: (u64, u64), goal: f64) {
        let value = quotient(measured);
        self.ratios.push(Ratio { what, value, goal: format!("at least {goal}"), reached: value >= goal });
    }

    pub(crate) fn at_most(&mut self, what: &'static str, measured: (u64, u64), goal: f64) {
        let value = quotient(measured);
        self.ratios.push(Ratio { what, value, goal: format!("at most {goal}"), reached: value <= goal });
    }

    /// Prints the report as Markdown, and as JSON into a file if one is named. Fails if a goal was missed.
    pub(crate) fn close(&self, json: Option<&Path>) -> Result<()> {
        println!("{}\n\n| what | median | runs |\n|---|---|---|", self.machine);
        for figure in &self.figures {
            println!("| {} | {} {} | {:?} |", figure.what, figure.median, figure.unit, figure.runs);
        }
        println!("\n| ratio | measured | goal | |\n|---|---|---|---|");
        for ratio in &self.ratios {
            let verdict = if ratio.reached { "reached" } else { "missed" };
            println!("| {} | {:.2} | {} | {verdict} |", ratio.what, ratio.value, ratio.goal);
        }
        if let Some(path) = json {
            fs::write(path, serde_json::to_vec_pretty(self)?)?;
        }
        let missed = self.ratios.iter().filter(|ratio| !ratio.reached).count();
        ensure!(missed == 0, "{missed} goals were missed");
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds and MiB are far below 2^52")]
fn quotient((dividend, divisor): (u64, u64)) -> f64 {
    (dividend as f64 / divisor.max(1) as f64 * 100.0).round() / 100.0
}

fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown CPU");
    let cpus = std::thread::available_parallelism()?;
    let emulated = if cpuinfo.contains("hypervisor") { ", itself a VM" } else { "" };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{cpus} × {model}{emulated}, Linux {}", kernel.trim()))
}
