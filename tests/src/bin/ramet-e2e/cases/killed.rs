//! A fork that is interrupted or killed at any moment: `ls` tells the truth, `rm` cleans, nothing leaks.

use crate::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use ramet_tests::{Background, TEMPLATE, World};
use std::{
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

pub(crate) const CASES: &[Case] = &[
    ("killed::a_killed_fork_is_told_and_cleaned", a_killed_fork_is_told_and_cleaned),
    ("killed::an_interrupted_fork_leaves_nothing", an_interrupted_fork_leaves_nothing),
    ("killed::a_killed_create_is_cleaned_by_the_next", a_killed_create_is_cleaned_by_the_next),
];

/// Moments of a fork, in milliseconds from its start: before and after each stage, whatever the host's speed.
const MOMENTS: [u64; 9] = [20, 150, 300, 500, 800, 1200, 1800, 2600, 4000];

fn a_killed_fork_is_told_and_cleaned(world: &World) -> Result<()> {
    for moment in MOMENTS {
        let mut command = world.ramet(["fork", TEMPLATE, "--name", "victim"]);
        let fork = Background::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        sleep(Duration::from_millis(moment));
        let status = fork.end(Signal::SIGKILL)?;
        let listed = world.json(&["ls"])?;
        let running = world.processes()?;
        match listed.as_array().map_or(&[][..], Vec::as_slice) {
            [] => ensure!(running.is_empty(), "after {moment} ms {running:?} run and nothing is listed"),
            [child] => {
                let state = child["state"].as_str().unwrap_or_default();
                let truth = match state {
                    // A process that only just starts is not in the list of processes yet.
                    "interrupted" => running.len() <= 1,
                    "identified" | "ready" => running.len() == 1,
                    _ => false,
                };
                ensure!(truth, "after {moment} ms ({status}) {running:?} run: {child}");
                world.remove(&["victim"])?;
            }
            more => anyhow::bail!("{more:?}"),
        }
        world.nothing_left()?;
    }
    Ok(())
}

fn an_interrupted_fork_leaves_nothing(world: &World) -> Result<()> {
    for moment in MOMENTS {
        let mut command = world.ramet(["fork", TEMPLATE, "--count", "2", "--name-prefix", "victim"]);
        let fork = Background::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        sleep(Duration::from_millis(moment));
        let status = fork.end(Signal::SIGINT)?;
        ensure!(!status.success(), "after {moment} ms: {status}");
        world.nothing_left()?;
    }
    Ok(())
}

fn a_killed_create_is_cleaned_by_the_next(world: &World) -> Result<()> {
    for step in ["copying the disk", "booting the parent"] {
        let (create, _said) = create_as_far_as(world, step)?;
        create.end(Signal::SIGKILL)?;
        let listed = world.json(&["template", "ls"])?;
        ensure!(listed.as_array().is_some_and(|all| all.len() == 1), "half a template is listed: {listed}");
    }
    // It finds the parent that the last one left, ends it, and is interrupted itself.
    let (create, _said) = create_as_far_as(world, "booting the parent")?;
    ensure!(!create.end(Signal::SIGINT)?.success(), "an interrupted create succeeded");
    let left: Vec<_> =
        std::fs::read_dir(world.state_dir().join("templates"))?.filter_map(Result::ok).collect();
    ensure!(left.len() == 1, "something is left of the template: {left:?}");
    let processes = Command::new("pgrep").args(["-f", "-name victim,"]).output()?;
    ensure!(processes.stdout.is_empty(), "{processes:?}");
    Ok(())
}

/// Starts to make a template, and returns when that is in the middle of a step; with what it has still to say.
fn create_as_far_as(world: &World, step: &str) -> Result<(Background, impl BufRead)> {
    let disk = world.images.join("plain.qcow2");
    let mut command = world.ramet(["template", "create", "victim", "--memory", "256M", "--disk"]);
    let (said, stderr) = io::pipe()?;
    let create = Background::spawn(command.arg(disk).stdout(Stdio::null()).stderr(stderr))?;
    // It has the other writing end.
    drop(command);
    let mut said = BufReader::new(said);
    let mut line = String::new();
    while !line.contains(step) {
        line.clear();
        ensure!(said.read_line(&mut line)? > 0, "it has ended before {step}");
    }
    sleep(Duration::from_secs(2));
    Ok((create, said))
}
