//! The lab's QEMU process, found by its pidfile.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long QEMU may take to end when asked, before it is killed, and again after that.
const DEADLINE: Duration = Duration::from_secs(10);

/// A running QEMU.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfile: String,
}

impl Process {
    /// The lab's QEMU, if it runs.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        let path = folder.join("pid");
        let pid = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        let process = Self { pid, pidfile: crate::tools::inside(&path).display().to_string() };
        process.runs().then_some(process)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it; returns when it is gone.
    pub(crate) fn stop(self) -> Result<()> {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let deadline = Instant::now() + DEADLINE;
            while self.runs() {
                if Instant::now() > deadline {
                    break;
                }
                let _ = kill(Pid::from_raw(self.pid), signal);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if self.runs() {
            bail!("the lab's QEMU (pid {}) survives SIGKILL: end it by hand, then try again", self.pid);
        }
        Ok(())
    }

    /// Whether the pid is alive and still this lab's QEMU: pids are used again.
    fn runs(&self) -> bool {
        let read = || -> Result<bool> {
            let line = fs::read(format!("/proc/{}/cmdline", self.pid)).context("no such process")?;
            Ok(line.split(|byte| *byte == 0).any(|argument| argument == self.pidfile.as_bytes()))
        };
        read().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_of_something_else_is_not_the_lab() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(Process::find(dir.path()).is_none());
        fs::write(dir.path().join("pid"), std::process::id().to_string()).expect("a file");
        assert!(Process::find(dir.path()).is_none());
    }
}
