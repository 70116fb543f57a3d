//! How far the guest's service manager has come.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
};

/// The agent's own unit.
pub(crate) const UNIT: &str = "ramet-agent.service";

/// A job in the service manager's queue (systemctl(1), `list-jobs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) unit: String,
    pub(crate) running: bool,
}

/// The jobs in what `systemctl list-jobs --no-legend --plain` prints: number, unit, type and state on each line.
pub(crate) fn parse_jobs(text: &str) -> Vec<Job> {
    let fields = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    fields
        .filter_map(|fields| match fields[..] {
            [number, unit, _, state] if number.bytes().all(|b| b.is_ascii_digit()) => {
                Some(Job { unit: unit.to_owned(), running: state == "running" })
            }
            _ => None,
        })
        .collect()
}

/// The units that are being started right now, the gate aside.
pub(crate) fn busy(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().filter(|job| job.running && job.unit != UNIT).map(|job| job.unit.as_str()).collect()
}

/// The units that will start once the gate is open.
pub(crate) fn waiting(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().filter(|job| !job.running).map(|job| job.unit.as_str()).collect()
}

/// What a watch saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BootState {
    /// Still booting.
    Starting,
    /// Every job is done, well or not.
    Complete,
    /// The watch ended without knowing; set up another one.
    Lost,
}

/// A watch on the end of boot that can be waited for with poll(2): a pipe that says a state when there is one.
#[derive(Debug)]
pub(crate) struct BootWatch {
    output: File,
    child: Option<Child>,
    text: Vec<u8>,
}

impl BootWatch {
    /// Watches with `systemctl is-system-running --wait`, which prints the state once boot is complete.
    pub(crate) fn systemd() -> io::Result<Self> {
        let mut child = Command::new("systemctl")
            .args(["is-system-running", "--wait"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("systemctl has no output"))?;
        Ok(Self { output: File::from(OwnedFd::from(output)), child: Some(child), text: Vec::new() })
    }

    /// Looks, without waiting.
    pub(crate) fn look(&mut self) -> io::Result<BootState> {
        let mut chunk = [0; 64];
        loop {
            let mut fds = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::ZERO)? == 0 {
                return Ok(BootState::Starting);
            }
            let count = self.output.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            self.text.extend_from_slice(&chunk[..count]);
            if self.text.len() > 4096 {
                break;
            }
        }
        if let Some(mut child) = self.child.take() {
            // It has closed its output: it is at its end.
            let _ = child.wait();
        }
        Ok(state(&String::from_utf8_lossy(&self.text)))
    }
}

impl Drop for BootWatch {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl AsFd for BootWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

/// The meaning of what `systemctl is-system-running` prints. In `maintenance` a rescue shell is what booted.
fn state(text: &str) -> BootState {
    match text.trim() {
        "running" | "degraded" | "maintenance" => BootState::Complete,
        _ => BootState::Lost,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    /// A watch, and the end it is told through.
    pub(crate) fn watch() -> (BootWatch, io::PipeWriter) {
        let (output, input) = io::pipe().unwrap();
        (BootWatch { output: File::from(OwnedFd::from(output)), child: None, text: Vec::new() }, input)
    }

    #[test]
    fn jobs_as_systemctl_prints_them() {
        let text = "  60 getty.target                       start waiting\n\
                    123 serial-getty@ttyS0.service         start waiting\n\
                     61 ramet-agent.service                start running\n\
                     77 dbus.service                       start running\n\
                    No jobs running.\n";
        let jobs = parse_jobs(text);
        assert_eq!(jobs.len(), 4);
        assert_eq!(busy(&jobs), ["dbus.service"]);
        assert_eq!(waiting(&jobs), ["getty.target", "serial-getty@ttyS0.service"]);
        assert!(parse_jobs("").is_empty());
    }

    #[test]
    fn a_watch_tells_the_end_of_boot_once_it_is_there() {
        for (text, expected) in
            [("running\n", BootState::Complete), ("degraded\n", BootState::Complete), ("", BootState::Lost)]
        {
            let (mut watch, mut input) = watch();
            assert_eq!(watch.look().unwrap(), BootState::Starting);
            input.write_all(text.as_bytes()).unwrap();
            assert_eq!(watch.look().unwrap(), BootState::Starting, "until its end");
            drop(input);
            assert_eq!(watch.look().unwrap(), expected);
        }
    }

    #[test]
    fn offline_or_stopping_is_not_complete() {
        for text in ["offline", "stopping", "starting", "unknown"] {
            assert_eq!(state(text), BootState::Lost, "{text}");
        }
    }
}
