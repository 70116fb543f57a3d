//! A disk that gets full in the middle: the error says so, and nothing is left.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet::qemu::process::largest_file;
use ramet_tests::{BOOT_LIMIT, TEMPLATE, World, contains, succeeded};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

pub(crate) const CASES: &[Case] = &[
    ("disk_full::a_fork_leaves_nothing", a_fork_leaves_nothing),
    ("disk_full::a_create_leaves_nothing", a_create_leaves_nothing),
    ("disk_full::what_a_child_can_write_is_limited", what_a_child_can_write_is_limited),
];

/// A small file system, in memory, mounted over a directory until it is dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(size: &str, over: &'a Path) -> Result<Self> {
        let options = format!("size={size},mode=0700");
        succeeded(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(over))?;
        Ok(Self(over))
    }

    /// Leaves no byte free.
    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.0.join("filler"))?;
        let zeros = vec![0; 1 << 20];
        while filler.write(&zeros).is_ok() {}
        Ok(())
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Lazily: what a failed case has left there must not keep it.
        if let Err(error) = succeeded(Command::new("umount").arg("--lazy").arg(self.0)) {
            eprintln!("{error:?}");
        }
    }
}

fn a_fork_leaves_nothing(world: &World) -> Result<()> {
    let children = world.state_dir().join("children");
    // Room for one record of two, for records, for one overlay of two, for overlays that cannot grow far. What is
    // asked for beforehand is the space of the state directory itself, so all of these begin.
    for size in ["4k", "64k", "300k", "700k", "2m"] {
        let small = Small::mount(size, &children)?;
        let told = world.fails(["fork", TEMPLATE, "--count", "2", "--name-prefix", "full"])?;
        let clean = || -> Result<()> {
            contains(&told, "the file system of ")?;
            contains(&told, "make room there, then try again")?;
            world.nothing_left()
        };
        clean().with_context(|| format!("with {size}"))?;
        drop(small);
    }
    Ok(())
}

fn a_create_leaves_nothing(world: &World) -> Result<()> {
    const RAM: u64 = 256 << 20;
    let disk = world.images.join("plain.qcow2");
    // What is asked for beforehand, and so little besides that it is soon gone.
    let tight = RAM + fs::metadata(&disk)?.len() + (16 << 20);
    for (size, fill_at, why) in [
        (tight, "copying the disk", "No space left on device"),
        (1500 << 20, "booting the parent", "QEMU has paused the guest, since the file system of "),
    ] {
        let state = tempfile::tempdir()?;
        let small = Small::mount(&size.to_string(), state.path())?;
        let mut create = Command::new("ramet");
        create.arg("--state-dir").arg(state.path()).args([
            "template",
            "create",
            "full",
            "--timeout",
            BOOT_LIMIT,
        ]);
        create.args(["--memory", "256M", "--disk"]).arg(&disk).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut create = create.spawn().context("ramet")?;
        let mut told = Vec::new();
        for line in BufReader::new(create.stderr.take().context("stderr")?).lines() {
            let line = line?;
            if line.contains(fill_at) {
                small.fill()?;
            }
            told.push(line);
        }
        let told = told.join("\n");
        ensure!(create.wait()?.code() == Some(1), "{told}");
        contains(&told, why)?;
        contains(&told, "make room there")?;
        let left: Vec<_> = fs::read_dir(state.path().join("templates"))?.collect();
        ensure!(left.is_empty(), "{left:?}");
        let processes = Command::new("pgrep").args(["-f", "-name full,"]).output()?;
        ensure!(processes.stdout.is_empty(), "{processes:?}");
    }
    Ok(())
}

fn what_a_child_can_write_is_limited(world: &World) -> Result<()> {
    world.ok(["fork", TEMPLATE, "--name", "limited"])?;
    let template = world.json(&["template", "show", TEMPLATE])?;
    let largest = largest_file(template["disk_size"].as_u64().context("disk_size")?, 0);
    let [pid] = world.processes()?[..] else { anyhow::bail!("not one process") };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let limit = limits.lines().find(|line| line.starts_with("Max file size")).unwrap_or_default();
    let values: Vec<_> = limit.split_whitespace().skip(3).take(2).collect();
    let largest = largest.to_string();
    ensure!(values == [&largest, &largest], "{largest} is not in: {limit}");
    world.remove(&["limited"])?;
    world.nothing_left()
}
