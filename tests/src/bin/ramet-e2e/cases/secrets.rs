//! Passwords and keys go through `ramet`, and to nobody who is not meant.

use crate::Case;
use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use ramet_tests::{Background, TEMPLATE, World, contains, succeeded};
use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};

pub(crate) const CASES: &[Case] = &[
    ("secrets::a_crash_leaves_no_core_file", a_crash_leaves_no_core_file),
    ("secrets::qemu_has_no_password_of_the_store", qemu_has_no_password_of_the_store),
];

/// Whatever makes `ramet` crash, the kernel writes nothing of it to a disk.
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

/// Whoever leaves a guest is in its QEMU, which has the environment of `ramet` but for that.
fn qemu_has_no_password_of_the_store(world: &World) -> Result<()> {
    let mut fork = world.ramet(["fork", TEMPLATE, "--name", "confined"]);
    fork.env("RAMET_STORE", "postgres://ramet:of-a-store@127.0.0.1:1/none");
    fork.env("PGPASSWORD", "of-a-store").env("NOT_SECRET", "known");
    succeeded(&mut fork)?;
    let [pid] = world.processes()?[..] else { bail!("not one process") };
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    let environment = String::from_utf8_lossy(&environment).replace('\0', "\n");
    contains(&environment, "NOT_SECRET=known")?;
    ensure!(!environment.contains("of-a-store"), "{environment}");
    world.remove(&["confined"])?;
    world.nothing_left()
}
