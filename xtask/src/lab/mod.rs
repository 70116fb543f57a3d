//! The lab: a VM under emulation in which KVM and vhost-vsock are real.
//!
//! One per checkout, its state in `target/lab`, and for `cargo xtask test` a second one beside it, in `target/lab-2`. It is
//! left up after a command, as a real host would be, and its disk is an overlay over the cached one, so templates survive
//! `lab down`.
//!
//! ```text
//! target/lab/  lock         held while the lab is started or stopped
//!              disk.qcow2   overlay of the cached disk
//!              lab.json     port, and key of the disk underneath
//!              pid          QEMU's
//!              serial.log   the lab's console
//!              ssh          control socket of the shared connection
//!              programs/    what the lab sees as /binaries
//! ```

mod plan;
mod process;
mod ssh;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use self::process::Process;
use self::ssh::Connection;
use crate::config::Config;
use crate::images::{self, LabDisk};
use crate::sys::{self, Lock, Step};
use crate::tools::{Tools, User, inside};

/// A boot takes 15 s on two idle cores; a machine busy with builds may need many times that.
const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// A lab full of busy VMs is slow to answer. To start it again would end them all, so that is the last resort.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// How long the lab may take to write its disk back before it is stopped anyway.
const SYNC_DEADLINE: Duration = Duration::from_secs(30);

/// A lab that is up.
#[derive(Debug)]
pub(crate) struct Lab {
    connection: Connection,
}

/// What `lab.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// Of the lab's sshd on 127.0.0.1.
    port: u16,
    /// Cached artifact that the overlay lies over.
    disk: PathBuf,
}

impl Lab {
    /// A command for the lab's root shell. Each argument arrives unchanged; standard streams and exit status are the
    /// remote command's.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        self.connection.command(arguments)
    }

    /// The same with a terminal, for a command that talks to a person.
    pub(crate) fn interactive<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        self.connection.interactive(arguments)
    }

    /// A login shell.
    pub(crate) fn shell(&self) -> Command {
        self.interactive(&["bash", "-l"])
    }
}

/// The running lab, started first if need be.
pub(crate) fn ensure_up(config: &Config) -> Result<Lab> {
    let folder = &config.lab;
    let _lock = Lock::take(&folder.join("lock"), "it starts or stops the lab")?;
    sys::need(&["/usr/bin/ssh"], &["openssh-client"])?;
    let tools = Tools::ensure(config)?;
    let disk = images::lab_disk(config, &tools)?;

    let state = read_state(folder);
    if let (Some(state), Some(process)) = (&state, Process::find(folder)) {
        if state.disk == disk.folder {
            let lab = Lab { connection: Connection::new(folder, &disk.folder, state.port) };
            if lab.connection.answers_in_the_end(ANSWER_DEADLINE) {
                return Ok(lab);
            }
            eprintln!("xtask: the lab (pid {}) does not answer, so it is started again", process.pid());
        }
        process.stop()?;
    }
    if state.is_some_and(|state| state.disk != disk.folder) {
        eprintln!("xtask: the lab's recipe changed: it starts with a new disk, without what was on the old");
        remove_overlay(folder)?;
    }
    start(config, &tools, &disk)
}

/// Stops the lab. Its disk stays unless `wipe` is set.
pub(crate) fn down(config: &Config, wipe: bool) -> Result<()> {
    let folder = &config.lab;
    let _lock = Lock::take(&folder.join("lock"), "it starts or stops the lab")?;
    match Process::find(folder) {
        None => eprintln!("xtask: no lab is up in {}", folder.display()),
        Some(process) => {
            let step = Step::begin(format!("stopping the lab (pid {})", process.pid()));
            if let Some(state) = read_state(folder) {
                let connection = Connection::new(folder, &state.disk, state.port);
                connection.sync(SYNC_DEADLINE);
                connection.close();
            }
            process.stop()?;
            step.done();
        }
    }
    if wipe {
        remove_overlay(folder)?;
    }
    Ok(())
}

/// Whether this machine has room for two labs now, none of which is up yet.
pub(crate) fn two_fit() -> Result<bool> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(plan::two_fit(&fs::read_to_string("/proc/meminfo")?, cpus))
}

/// Whether the lab's process runs.
pub(crate) fn is_up(config: &Config) -> bool {
    Process::find(&config.lab).is_some()
}

/// Prints what is known of the lab; succeeds when it is up and answers.
pub(crate) fn status(config: &Config) -> ExitCode {
    let folder = &config.lab;
    let (Some(state), Some(process)) = (read_state(folder), Process::find(folder)) else {
        println!("down\nfolder {}", folder.display());
        return ExitCode::FAILURE;
    };
    let answers = Connection::new(folder, &state.disk, state.port).answers(ANSWER_DEADLINE);
    println!("{}", if answers { "up" } else { "does not answer" });
    println!("pid {}\nssh port {} on 127.0.0.1", process.pid(), state.port);
    println!("console {}", folder.join("serial.log").display());
    println!("disk {} over {}", folder.join("disk.qcow2").display(), state.disk.display());
    if answers { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(config: &Config, tools: &Tools, disk: &LabDisk) -> Result<Lab> {
    let folder = &config.lab;
    let step = Step::begin("booting the lab (it stays up: `cargo xtask lab down` stops it)");
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).with_context(|| format!("cannot create {}", programs.display()))?;
    let overlay = folder.join("disk.qcow2");
    if !overlay.exists() {
        let base = inside(&disk.folder.join("lab.qcow2"));
        let mut create = tools.command(User::Caller, "qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(base).arg(inside(&overlay));
        sys::run(&mut create).context("cannot create the lab's disk")?;
    }

    let mut tried = Vec::new();
    // Between finding a free port and QEMU's use of it somebody else may take it.
    let port = loop {
        let port = free_port()?;
        let plan = plan::Plan {
            memory_mib: plan::memory_mib(&fs::read_to_string("/proc/meminfo")?),
            boot: inside(&disk.folder),
            state: inside(folder),
            programs: inside(&programs),
            artifacts: inside(&config.cache),
            port,
        };
        write_state(folder, &State { port, disk: disk.folder.clone() })?;
        let log = folder.join("qemu.log");
        if launch(tools, &plan, &log)? {
            break port;
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        tried.push(port);
        if tried.len() == 3 || !said.contains("host forwarding") {
            bail!("QEMU for the lab did not start (ports tried: {tried:?}): {}", said.trim());
        }
    };

    let lab = Lab { connection: Connection::new(folder, &disk.folder, port) };
    wait_until_it_answers(&lab, folder)?;
    step.done();
    Ok(lab)
}

/// Starts QEMU in the background; it outlives this process. False when it did not start.
fn launch(tools: &Tools, plan: &plan::Plan, log: &Path) -> Result<bool> {
    let log = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut qemu = tools.command(User::Caller, "qemu-system-x86_64");
    qemu.args(plan.arguments()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(qemu.status().context("cannot start QEMU for the lab")?.success())
}

fn wait_until_it_answers(lab: &Lab, folder: &Path) -> Result<()> {
    let deadline = Instant::now() + BOOT_DEADLINE;
    while !lab.connection.answers(BOOT_DEADLINE) {
        let problem = if Process::find(folder).is_none() {
            "its QEMU ended"
        } else if Instant::now() > deadline {
            "it did not answer in time"
        } else {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        let console = fs::read(folder.join("serial.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<_> = console.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        let qemu = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
        bail!("the lab did not come up: {problem}. QEMU said: {}\nEnd of its console:\n{tail}", qemu.trim());
    }
    Ok(())
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

fn read_state(folder: &Path) -> Option<State> {
    serde_json::from_slice(&fs::read(folder.join("lab.json")).ok()?).ok()
}

fn write_state(folder: &Path, state: &State) -> Result<()> {
    let path = folder.join("lab.json");
    fs::write(&path, serde_json::to_vec(state)?).with_context(|| format!("cannot write {}", path.display()))
}

fn remove_overlay(folder: &Path) -> Result<()> {
    for name in ["disk.qcow2", "lab.json"] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {name} in {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Prepares the lab for a command and runs it. Sent along with each, so that the lab's disk need not be made again when
/// it changes.
const RUN: &str = include_str!("run.sh");

/// Arguments that run a command in the lab by way of [`RUN`].
pub(crate) fn run_arguments(
    now: Duration,
    programs: &str,
    files: &[(String, PathBuf)],
    variables: &[(OsString, OsString)],
    command: &[OsString],
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["sh", "-c", RUN, "run", &format!("{}.{:03}", now.as_secs(), now.subsec_millis()), programs]
            .map(OsString::from)
            .into();
    let pair = |name: &OsStr, value: &OsStr| {
        let mut pair = name.to_os_string();
        pair.push("=");
        pair.push(value);
        pair
    };
    arguments.extend(files.iter().map(|(name, path)| pair(OsStr::new(name), path.as_os_str())));
    arguments.push("--".into());
    arguments.extend(variables.iter().map(|(name, value)| pair(name, value)));
    arguments.push("--".into());
    arguments.extend_from_slice(command);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_spelled_for_the_script_in_the_lab() {
        let arguments = run_arguments(
            Duration::from_millis(1_700_000_000_042),
            "abc",
            &[("plain.qcow2".into(), "plain-1/plain.qcow2".into())],
            &[("RUST_LOG".into(), "debug".into())],
            &["echo".into(), "--".into()],
        );
        let expected = "run 1700000000.042 abc plain.qcow2=plain-1/plain.qcow2 -- RUST_LOG=debug -- echo --";
        assert_eq!(arguments[3..].join(OsStr::new(" ")), expected);
    }
}
