//! QEMU's process: started detached, found again by anyone, ended for sure.
//!
//! A VM's process is found through its directory alone, whatever became of the command that started it. QEMU
//! inherits a locked descriptor of `alive`, so the kernel itself answers whether it lives: no process id is
//! trusted that a stranger may have been given meanwhile.

use super::{QEMU, argv::VHOST_FD, files};
use crate::{
    console,
    fs::{AtPath, FsError},
    lock,
    vsock::ReservedCid,
};
use command_fds::{CommandFdExt as _, FdMapping};
use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal,
    },
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How long QEMU may take to go once it was killed.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// Why QEMU did not run or did not end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It is not installed.
    #[error("{QEMU} is not on PATH: install QEMU 8.2 or newer (Debian, Ubuntu: apt install qemu-system-x86)")]
    NotInstalled,
    /// It could not be started.
    #[error("cannot start {QEMU}")]
    Spawn(#[source] io::Error),
    /// It is there but not for long.
    #[error("QEMU ended at once ({status}): {log}")]
    Exited {
        /// Its exit status.
        status: ExitStatus,
        /// The end of what it printed.
        log: String,
    },
    /// It already runs.
    #[error("a VM is already running in {}", .0.display())]
    Running(PathBuf),
    /// It was killed and is still there.
    #[error("the QEMU process of {} does not end, look at it with: fuser -v {}/alive", .0.display(), .0.display())]
    Unkillable(PathBuf),
}

/// A QEMU process that this command has started.
#[derive(Debug)]
pub struct Process {
    child: Child,
    dir: PathBuf,
}

impl Process {
    /// Starts QEMU in `dir` with `argv`. It outlives this command, unless it is killed. No file that it writes grows
    /// past `largest` bytes.
    ///
    /// The descriptor in `cid` goes over to QEMU, and the CID with it.
    pub fn spawn(
        dir: &Path,
        argv: &[OsString],
        cid: ReservedCid,
        largest: u64,
    ) -> Result<Self, ProcessError> {
        let alive =
            lock::attempt(&dir.join(files::ALIVE))?.ok_or_else(|| ProcessError::Running(dir.to_owned()))?;
        for stale in [files::PID, files::QMP, files::CONSOLE] {
            match fs::remove_file(dir.join(stale)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).at("remove", &dir.join(stale))?;
                }
                _ => {}
            }
        }
        let log_path = dir.join(files::LOG);
        let log = File::create(&log_path).at("create", &log_path)?;
        let mut command = Command::new(QEMU);
        command
            .args(argv)
            // They may hold a database's password, and whoever leaves a guest is in this process.
            .env_remove("RAMET_STORE")
            .env_remove("PGPASSWORD")
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().at("open", &log_path)?)
            .stderr(log)
            // Not the terminal's foreground group: Ctrl-C is for ramet, which undoes in order.
            .process_group(0)
            .fd_mappings(vec![
                FdMapping { parent_fd: alive.into(), child_fd: ALIVE_FD },
                FdMapping { parent_fd: cid.into_fd(), child_fd: VHOST_FD },
            ])
            .map_err(|collision| ProcessError::Spawn(io::Error::other(collision)))?;
        limit_files(&mut command, largest);
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ProcessError::NotInstalled,
            _ => ProcessError::Spawn(error),
        })?;
        Ok(Self { child, dir: dir.to_owned() })
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if QEMU has ended, with what it said.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait().map_err(ProcessError::Spawn)? {
            None => Ok(()),
            Some(status) => {
                let log = console::tail(&self.dir.join(files::LOG), 5).join("; ");
                let log = if log.is_empty() { "it printed nothing".to_owned() } else { log };
                Err(ProcessError::Exited { status, log })
            }
        }
    }

    /// Ends QEMU without asking and waits until it is gone.
    pub fn kill(mut self) -> Result<(), ProcessError> {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        Ok(())
    }
}

const ALIVE_FD: i32 = 3;

/// The most bytes that one file of a VM needs: its disk of `disk` bytes with every cluster written and qcow2's tables,
/// or its RAM file of `ram` bytes (0 if it has none). A guest that writes to its serial port for ever would otherwise
/// fill the host's disk with `console.log`.
#[must_use]
pub fn largest_file(disk: u64, ram: u64) -> u64 {
    const LOGS: u64 = 64 << 20;
    disk.saturating_add(disk / 100).saturating_add(LOGS).max(ram)
}

/// Makes a write that would take a file past `bytes` fail in `command`, with EFBIG.
fn limit_files(command: &mut Command, bytes: u64) {
    let limit = move || {
        // Less, if this process may not write as much itself: only root could raise that.
        let bytes = getrlimit(Resource::RLIMIT_FSIZE)?.1.min(bytes);
        setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
        // Or the write would kill QEMU. What is ignored stays so over execve(2).
        // SAFETY: no handler is installed.
        #[allow(unsafe_code)]
        unsafe { signal::signal(signal::Signal::SIGXFSZ, signal::SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes three system calls and touches no memory but its own stack.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(limit);
    }
}

/// Whether QEMU lives in `dir`, and as which process: `None` inside while it is only just starting.
pub fn running(dir: &Path) -> Result<Option<Option<u32>>, FsError> {
    if !lock::is_held(&dir.join(files::ALIVE))? {
        return Ok(None);
    }
    let pid = match fs::read_to_string(dir.join(files::PID)) {
        Ok(text) => text.trim().parse().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).at("read", &dir.join(files::PID)),
    };
    Ok(Some(pid))
}

/// Ends QEMU in `dir` if it lives and waits until it is gone.
pub async fn kill(dir: &Path) -> Result<(), ProcessError> {
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        match running(dir)? {
            None => return Ok(()),
            // Alive a moment ago and only QEMU holds the lock: the id is its own. Until it has written its id,
            // there is nothing to aim at.
            Some(Some(pid)) => {
                let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
                // The only expected failure: it has just ended.
                let _ = signal::kill(pid, signal::Signal::SIGKILL);
            }
            Some(None) => {}
        }
        if Instant::now() > deadline {
            return Err(ProcessError::Unkillable(dir.to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_has_room_for_the_disk_and_for_ram() {
        const GIB: u64 = 1 << 30;
        assert_eq!(largest_file(100 * GIB, 0), 101 * GIB + (64 << 20));
        assert_eq!(largest_file(GIB, 16 * GIB), 16 * GIB);
        assert_eq!(largest_file(u64::MAX, 0), u64::MAX);
    }

    #[test]
    fn a_write_past_the_limit_fails_and_kills_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 3000 /dev/zero > log; echo $?"]).current_dir(dir.path());
        limit_files(&mut command, 1000);
        let output = command.output().unwrap();
        assert_eq!(output.stdout, b"1\n", "{output:?}");
        assert_eq!(fs::metadata(dir.path().join("log")).unwrap().len(), 1000);
    }
}
