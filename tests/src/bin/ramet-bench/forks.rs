//! Cold boots, and forks instead of them.

use crate::{RUNS, report::Report, restores};
use anyhow::{Context as _, Result};
use ramet_tests::{BOOT_LIMIT, World};
use serde_json::Value;
use std::fmt::Write as _;

/// The name of a template, and its RAM.
pub(crate) type Template = (&'static str, &'static str);

/// What cold boots are compared with.
pub(crate) const SMALL: &str = "small";

/// The templates that are forked from.
pub(crate) const TEMPLATES: [Template; 3] = [(SMALL, "512M"), (restores::TEMPLATE, "2G"), ("large", "4G")];

/// Makes a template.
pub(crate) fn make(world: &World, (name, memory): &Template) -> Result<()> {
    eprintln!("bench: making the template {name}, {memory}");
    world.create_template("debian", name, memory, &["bridge=ramete2e0"])
}

/// Cold boots, and forks from each template.
pub(crate) fn boots_and_forks(world: &World, report: &mut Report) -> Result<()> {
    world.ok(["fork", SMALL, "--name", "cold"])?;
    world.ok(["stop", "cold", "--timeout", "120s"])?;
    // In turns, so that whatever else the machine does falls on all alike; the first turn warms up. There and back, since
    // the fork that comes first after a cold boot is slower than those after it, whatever its template.
    let mut cold = Vec::new();
    let mut runs: [[Vec<u64>; 5]; 3] = Default::default();
    for run in 0..=RUNS {
        let started: Value = world.json(&["start", "cold", "--timeout", BOOT_LIMIT])?;
        let cold_ms = started[0]["boot_ms"].as_u64().context("a figure")?;
        let mut turn = format!("bench: turn {run} of {RUNS}: cold boot {cold_ms} ms; forks to ready:");
        world.ok(["stop", "cold", "--timeout", "120s"])?;
        // What it has written is not for a fork to wait for.
        nix::unistd::sync();
        if run > 0 {
            cold.push(cold_ms);
        }
        let mut order = [0, 1, 2];
        if run % 2 == 0 {
            order.reverse();
        }
        for index in order {
            let (of_template, (template, _)) = (&mut runs[index], TEMPLATES[index]);
            let forked = world.json(&["fork", template, "--name", "one"])?;
            let shown = world.json(&["show", "one"])?;
            let times = ["resumed", "identified", "ready"].map(|line| forked[0]["timings_ms"][line].as_u64());
            let memory = ["private_dirty", "shared"]
                .map(|part| shown["memory"][part].as_u64().map(|bytes| bytes >> 20));
            world.remove(&["one"])?;
            let _ = write!(turn, " {template} {} ms", times[2].context("a figure")?);
            if run > 0 {
                for (values, value) in of_template.iter_mut().zip(times.into_iter().chain(memory)) {
                    values.push(value.context("a figure")?);
                }
            }
        }
        eprintln!("{turn}");
    }
    world.remove(&["cold"])?;
    let cold = report.add("cold boot to ready, 512M", "ms", cold);
    let mut forks = Vec::new();
    for ([resumed, identified, ready, private, shared], (_, memory)) in runs.into_iter().zip(TEMPLATES) {
        report.add(&format!("fork to resumed, {memory}"), "ms", resumed);
        let identified = report.add(&format!("fork to identified, {memory}"), "ms", identified);
        let ready = report.add(&format!("fork to ready, {memory}"), "ms", ready);
        let private = report.add(&format!("private memory at ready, {memory}"), "MiB", private);
        report.add(&format!("shared memory at ready, {memory}"), "MiB", shared);
        forks.push((identified, ready, private));
    }
    let (identified, ready, private) = forks[0];
    report.at_least("cold boot to ready : fork to identified", (cold, identified), 30.0);
    report.at_least("cold boot to ready : fork to ready", (cold, ready), 10.0);
    report.at_most("fork to identified, 4 GiB : 512 MiB", (forks[2].0, identified), 1.25);
    report.at_most("private MiB of an idle child, QEMU included : 1", (private, 1), 60.0);
    Ok(())
}

/// Eight forks side by side.
pub(crate) fn at_once(world: &World, report: &mut Report) -> Result<()> {
    let mut runs: [Vec<u64>; 3] = Default::default();
    for _ in 0..RUNS {
        let forked = world.json(&["fork", SMALL, "--count", "8"])?;
        let forked = forked.as_array().context("an array")?;
        for (values, stop_line) in runs.iter_mut().zip(["resumed", "identified", "ready"]) {
            let last = forked.iter().filter_map(|child| child["timings_ms"][stop_line].as_u64()).max();
            values.push(last.context("a figure")?);
        }
        let names: Vec<&str> = forked.iter().filter_map(|child| child["name"].as_str()).collect();
        world.remove(&names)?;
    }
    for (values, stop_line) in runs.into_iter().zip(["resumed", "identified", "ready"]) {
        report.add(&format!("8 forks at once, the last to {stop_line}, 512M"), "ms", values);
    }
    Ok(())
}
