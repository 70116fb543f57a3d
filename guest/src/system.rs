//! What the agent asks of the guest's kernel and service manager, behind one trait, so that everything else is tested
//! without a VM.

use crate::{
    boot::{BootWatch, Job},
    netlink::{Interface, NetlinkError},
    process::Run,
};
use ramet_proto::{Hostname, MacAddr};
use std::{io, path::Path};

/// The guest's kernel and service manager.
pub(crate) trait System {
    /// Mixes `seed` into the kernel's random pool, credited with all its bits, and makes every generator reseed from
    /// it at once (random(4): `RNDADDENTROPY`, `RNDRESEEDCRNG`).
    fn add_entropy(&self, seed: &[u8]) -> io::Result<()>;
    /// Fills `bytes` from getrandom(2).
    fn random(&self, bytes: &mut [u8]) -> io::Result<()>;
    /// `CLOCK_REALTIME`, in nanoseconds since 1970-01-01T00:00:00Z.
    fn clock(&self) -> io::Result<i64>;
    /// Steps `CLOCK_REALTIME` (`clock_settime(2)`).
    fn set_clock(&self, unix_time_ns: i64) -> io::Result<()>;
    /// uname(2)'s nodename.
    fn hostname(&self) -> io::Result<String>;
    /// sethostname(2).
    fn set_hostname(&self, name: &Hostname) -> io::Result<()>;
    /// Takes away whatever is mounted over the file `path`.
    fn uncover(&self, path: &Path) -> io::Result<()>;
    /// Mounts `file`, read-only, over the file `over`, in place of what is mounted there (mount(2), `MS_BIND`). Services
    /// see it, too, but for those with a /proc of their own.
    fn cover(&self, file: &Path, over: &Path) -> io::Result<()>;
    /// Every network interface.
    fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError>;
    /// Makes the interface administratively down.
    fn set_down(&self, index: u32) -> Result<(), NetlinkError>;
    /// Gives the interface a link-layer address.
    fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError>;
    /// Takes every address of IP from the interface.
    fn flush(&self, index: u32) -> Result<(), NetlinkError>;
    /// What a program prints, once it has ended well. One that fails or takes too long is an error with what it said
    /// last.
    fn run(&self, run: &Run<'_>) -> io::Result<String>;
    /// The description of a unit, which the service manager loads for that.
    fn unit_description(&self, unit: &str) -> io::Result<String>;
    /// The guest's own context id (vsock(7), `IOCTL_VM_SOCKETS_GET_LOCAL_CID`).
    fn local_cid(&self) -> io::Result<u32>;
    /// The service manager's queue.
    fn jobs(&self) -> io::Result<Vec<Job>>;
    /// Whether every device found so far has its driver and its name; waits a moment for it (udevadm(8), `settle`).
    fn devices_settled(&self) -> io::Result<bool>;
    /// Brings into the page cache what starting `units` reads from the disk. A help, so nothing fails.
    fn warm(&self, units: &[&str]);
    /// Tells the disk which blocks are unused (`FITRIM`, as fstrim(8) does). A help, so nothing fails.
    fn trim(&self);
    /// Opens the gate: tells the service manager that the agent's unit is started (`sd_notify(3)`, `READY=1`).
    fn open_gate(&self) -> io::Result<()>;
    /// Has journald started again, without waiting for it: it keeps the machine-id and the boot id it began with.
    fn restart_journal(&self) -> io::Result<()>;
    /// Has systemd-networkd read its settings again, if it runs; does not wait for it.
    fn reload_network(&self) -> io::Result<()>;
    /// A watch on the end of boot.
    fn watch_boot(&self) -> io::Result<BootWatch>;
    /// Shows a line on the console and in the journal.
    fn console(&self, line: &str);
}
