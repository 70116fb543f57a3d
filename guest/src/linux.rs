//! [`System`] on a real Linux with systemd.

use crate::{
    boot::{self, BootWatch, Job, parse_jobs},
    entropy,
    limits::programs,
    manager_bus,
    netlink::{Interface, Netlink, NetlinkError},
    process::{self, Run},
    system::System,
    trim, warm,
};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        signal::{Signal, kill},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime, clock_settime},
    unistd::Pid,
};
use ramet_proto::{Hostname, MacAddr};
use sd_notify::NotifyState;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::Path,
    process::Command,
};

/// The processes of journald and networkd (cgroups(7)).
const JOURNALD: &str = "/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs";
const NETWORKD: &str = "/sys/fs/cgroup/system.slice/systemd-networkd.service/cgroup.procs";

const NS_PER_SECOND: i64 = 1_000_000_000;

/// The machine this runs on.
pub(crate) struct Linux;

impl System for Linux {
    fn add_entropy(&self, seed: &[u8]) -> io::Result<()> {
        entropy::add(seed)
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(io::Error::from)
    }

    fn clock(&self) -> io::Result<i64> {
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
        // A clock past the year 2262 is wrong and no reason to end.
        Ok(now.tv_sec().saturating_mul(NS_PER_SECOND).saturating_add(now.tv_nsec()))
    }

    fn set_clock(&self, unix_time_ns: i64) -> io::Result<()> {
        let (seconds, nanoseconds) =
            (unix_time_ns.div_euclid(NS_PER_SECOND), unix_time_ns.rem_euclid(NS_PER_SECOND));
        Ok(clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, nanoseconds))?)
    }

    fn hostname(&self) -> io::Result<String> {
        Ok(nix::sys::utsname::uname()?.nodename().to_string_lossy().into_owned())
    }

    fn set_hostname(&self, name: &Hostname) -> io::Result<()> {
        Ok(nix::unistd::sethostname(name.as_str())?)
    }

    fn uncover(&self, path: &Path) -> io::Result<()> {
        while covered(&fs::read("/proc/self/mountinfo")?, path) {
            umount2(path, MntFlags::MNT_DETACH)?;
        }
        Ok(())
    }

    fn cover(&self, file: &Path, over: &Path) -> io::Result<()> {
        self.uncover(over)?;
        let none = None::<&str>;
        mount(Some(file), over, none, MsFlags::MS_BIND, none)?;
        // Only a second call heeds flags.
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(mount(none, over, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none)?)
    }

    fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        Netlink::connect()?.interfaces()
    }

    fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        Netlink::connect()?.set_down(index)
    }

    fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        Netlink::connect()?.set_mac(index, mac)
    }

    fn flush(&self, index: u32) -> Result<(), NetlinkError> {
        Netlink::connect()?.flush(index)
    }

    fn run(&self, run: &Run<'_>) -> io::Result<String> {
        process::run(run)
    }

    fn unit_description(&self, unit: &str) -> io::Result<String> {
        manager_bus::description(unit, programs::SYSTEMCTL).or_else(|_| {
            let arguments = ["show", "--property=Description", "--value", unit];
            process::run(&Run::new("systemctl", &arguments, programs::SYSTEMCTL))
        })
    }

    fn local_cid(&self) -> io::Result<u32> {
        vsock::get_local_cid()
    }

    fn jobs(&self) -> io::Result<Vec<Job>> {
        let mut command = Command::new("systemctl");
        command.args(["list-jobs", "--no-legend", "--plain", "--no-pager"]);
        Ok(parse_jobs(&process::output(&mut command, programs::SYSTEMCTL)?))
    }

    fn devices_settled(&self) -> io::Result<bool> {
        let mut command = Command::new("udevadm");
        command.args(["settle", "--timeout=1"]);
        match process::output(&mut command, programs::SYSTEMCTL) {
            Ok(_) => Ok(true),
            // It ran, and ended with its status for "not yet".
            Err(error) if error.kind() == io::ErrorKind::Other => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn warm(&self, units: &[&str]) {
        warm::warm(units);
    }

    fn trim(&self) {
        trim::trim(Path::new("/"));
    }

    fn open_gate(&self) -> io::Result<()> {
        // sd_notify(3) is silent where nobody listens, and then boot would never go on and nobody know why.
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Err(io::Error::other("not started by systemd: there is no NOTIFY_SOCKET"));
        }
        sd_notify::notify(&[NotifyState::Ready, NotifyState::Status("The gate is open.")])
    }

    fn restart_journal(&self) -> io::Result<()> {
        // journald's unit has Restart=always, and systemd keeps its sockets and streams for it meanwhile. Asked to end, it
        // would go on for seconds beside the rest of boot, and log that into the template's journal.
        if signal(JOURNALD, Signal::SIGKILL)? {
            return Ok(());
        }
        // It is in a slice of its own, or is being started just now. One that is not there at all has no main process.
        let mut kill = Command::new("systemctl");
        kill.args(["kill", "--kill-who=main", "--signal=KILL", "systemd-journald.service"]);
        process::output(&mut kill, programs::SYSTEMCTL).map(drop)
    }

    fn reload_network(&self) -> io::Result<()> {
        signal(NETWORKD, Signal::SIGHUP).map(drop)
    }

    fn watch_boot(&self) -> io::Result<BootWatch> {
        // With version 1 or both, systemd's slices are somewhere below.
        let mounted = statfs(boot::CGROUPS).map_err(io::Error::from)?.filesystem_type();
        if mounted != CGROUP2_SUPER_MAGIC {
            return Err(io::Error::other(
                "/sys/fs/cgroup has no control groups of version 2 alone (systemd.unified_cgroup_hierarchy)",
            ));
        }
        BootWatch::on(Path::new(boot::CGROUPS))
    }

    fn console(&self, line: &str) {
        crate::log!("{line}");
        // Not through journald's forwarding alone: when the reason is shown, power-off is already under way. A console
        // nobody reads must not make this wait.
        let console = OpenOptions::new().write(true).custom_flags(CONSOLE_FLAGS).open("/dev/console");
        if let Ok(mut console) = console {
            let _ = console.write_all(format!("ramet-agent: {line}\r\n").as_bytes());
        }
    }
}

const CONSOLE_FLAGS: i32 = nix::fcntl::OFlag::O_NONBLOCK.bits()
    | nix::fcntl::OFlag::O_NOCTTY.bits()
    | nix::fcntl::OFlag::O_CLOEXEC.bits();

/// Sends `signal` to the processes of a service; says whether it has any.
fn signal(processes: &str, signal: Signal) -> io::Result<bool> {
    let members = match fs::read_to_string(processes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result?,
    };
    for pid in members.lines() {
        let pid = pid.parse().map_err(io::Error::other)?;
        match kill(Pid::from_raw(pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(!members.is_empty())
}

/// Whether `mountinfo` (`proc_pid_mountinfo(5)`: the fifth field is the mount point) has something mounted on `path`.
fn covered(mountinfo: &[u8], path: &Path) -> bool {
    let mut lines = mountinfo.split(|byte| *byte == b'\n');
    lines.any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    #[test]
    fn the_kernel_answers() {
        assert!(Linux.clock().unwrap() > 1_700_000_000 * NS_PER_SECOND);
        assert!(!Linux.hostname().unwrap().is_empty());
        let mut samples = [[0; 32]; 2];
        for sample in &mut samples {
            Linux.random(sample).unwrap();
        }
        assert_ne!(samples[0], samples[1]);
    }

    /// Runs `test` on a thread whose mounts nobody else sees.
    fn with_mounts_of_its_own(test: impl FnOnce() + Send + 'static) {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: mounting takes root");
            return;
        }
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn a_file_covers_another_and_cannot_be_written() {
        with_mounts_of_its_own(|| {
            let dir = tempfile::tempdir().unwrap();
            let ours = dir.path().join("boot_id");
            fs::write(&ours, "ours").unwrap();
            let kernels = Path::new("/proc/sys/kernel/random/boot_id");
            Linux.cover(&ours, kernels).unwrap();
            assert_eq!(fs::read_to_string(kernels).unwrap(), "ours");
            assert_eq!(fs::write(kernels, "x").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
            fs::write(&ours, "below it can").unwrap();
            umount2(kernels, MntFlags::MNT_DETACH).unwrap();
        });
    }

    #[test]
    fn a_file_mounted_over_is_uncovered_and_the_rest_left_alone() {
        with_mounts_of_its_own(|| {
            let dir = tempfile::tempdir().unwrap();
            let (below, above) = (dir.path().join("below"), dir.path().join("above"));
            fs::write(&below, "below").unwrap();
            fs::write(&above, "above").unwrap();
            for _ in 0..2 {
                mount(Some(&above), &below, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            }
            // /proc/self is the process; the thread's own mounts are in its own directory.
            let mine = fs::read("/proc/thread-self/mountinfo").unwrap();
            assert!(covered(&mine, &below) && !covered(&mine, &above));
            for _ in 0..2 {
                umount2(&below, MntFlags::MNT_DETACH).unwrap();
            }
            assert!(!covered(&fs::read("/proc/thread-self/mountinfo").unwrap(), &below));
            assert_eq!(fs::read_to_string(&below).unwrap(), "below");
        });
        Linux.uncover(Path::new("/nothing/is/mounted/here")).unwrap();
    }
}
