//! A fork that is interrupted or killed at any moment: `ls` tells the truth, `rm` cleans, nothing leaks.

use crate::Case;
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use ramet_tests::{Background, TEMPLATE, World, contains};
use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};

pub(crate) const CASES: &[Case] = &[
    ("killed::a_killed_fork_is_told_and_cleaned", a_killed_fork_is_told_and_cleaned),
    ("killed::an_interrupted_fork_leaves_nothing", an_interrupted_fork_leaves_nothing),
    ("killed::a_crash_leaves_no_core_file", a_crash_leaves_no_core_file),
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

/// Passwords and keys go through `ramet`: whatever makes it crash, the kernel writes none of them to a disk.
fn a_crash_leaves_no_core_file(world: &World) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let crash = |command: &Command| -> Result<ExitStatus> {
        let mut cored = Command::new("sh");
        cored.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).arg(command.get_program());
        cored.args(command.get_args()).current_dir(&directory).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Background::spawn(&mut cored)?;
        sleep(Duration::from_millis(300));
        let status = process.end(Signal::SIGABRT)?;
        ensure!(status.signal() == Some(Signal::SIGABRT as i32), "{command:?}: {status}");
        Ok(status)
    };
    ensure!(crash(Command::new("sleep").arg("60"))?.core_dumped(), "this host writes no core files at all");
    let status = crash(&world.ramet(["fork", TEMPLATE, "--name", "victim"]))?;
    ensure!(!status.core_dumped(), "{status}");
    world.clear()?;
    world.nothing_left()
}

fn a_killed_create_is_cleaned_by_the_next(world: &World) -> Result<()> {
    let disk = world.images.join("plain.qcow2");
    let disk = disk.to_str().unwrap_or_default();
    // While it copies the disk, and while the parent boots.
    for moment in [1, 20] {
        let mut command = world.ramet(["template", "create", "victim", "--memory", "256M", "--disk", disk]);
        let create = Background::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        sleep(Duration::from_secs(moment));
        create.end(Signal::SIGKILL)?;
        let listed = world.json(&["template", "ls"])?;
        ensure!(listed.as_array().is_some_and(|all| all.len() == 1), "half a template is listed: {listed}");
    }
    // It finds the parent that the last one left, ends it, and is interrupted itself.
    let mut command = world.ramet(["template", "create", "victim", "--memory", "256M", "--disk", disk]);
    let create = Background::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    sleep(Duration::from_secs(15));
    ensure!(!create.end(Signal::SIGINT)?.success(), "an interrupted create succeeded");
    let left: Vec<_> =
        std::fs::read_dir(world.state_dir().join("templates"))?.filter_map(Result::ok).collect();
    ensure!(left.len() == 1, "something is left of the template: {left:?}");
    let processes = Command::new("pgrep").args(["-f", "-name victim,"]).output()?;
    contains(&format!("{processes:?}"), "stdout: \"\"")
}
