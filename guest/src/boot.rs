//! How far the guest's service manager has come.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
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

/// The root of the control groups (cgroups(7)).
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

/// A slice without a member, which systemd starts last of all of boot. Its control group is how that is seen: no process
/// is started for it, and none has to listen to the service manager's bus, which tells of every unit that changes.
const LAST: &str = "ramet_ready.slice";

/// A watch on the end of boot that can be waited for with poll(2).
#[derive(Debug)]
pub(crate) struct BootWatch {
    inotify: Inotify,
    last: PathBuf,
}

impl BootWatch {
    /// Watches `cgroups`, which is [`CGROUPS`] outside of tests.
    pub(crate) fn on(cgroups: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(cgroups, AddWatchFlags::IN_CREATE)?;
        Ok(Self { inotify, last: cgroups.join(LAST) })
    }

    /// Whether boot is complete. Does not wait.
    pub(crate) fn is_complete(&self) -> bool {
        // What has changed does not matter, only that it is not told again.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        self.last.exists()
    }
}

impl AsFd for BootWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;

    /// Completes the boot that is watched in `cgroups`.
    pub(crate) fn complete(cgroups: &Path) {
        fs::create_dir(cgroups.join(LAST)).unwrap();
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
        let cgroups = tempfile::tempdir().unwrap();
        let watch = BootWatch::on(cgroups.path()).unwrap();
        let is_told = || {
            let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
        };
        assert!(!is_told() && !watch.is_complete());
        fs::create_dir(cgroups.path().join("system.slice")).unwrap();
        assert!(is_told() && !watch.is_complete() && !is_told());
        complete(cgroups.path());
        assert!(is_told() && watch.is_complete() && !is_told() && watch.is_complete());
        assert!(BootWatch::on(cgroups.path()).unwrap().is_complete(), "it was before");
        assert!(BootWatch::on(&cgroups.path().join("none")).is_err());
    }
}
