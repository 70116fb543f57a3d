//! QEMU: its command line, its process, and its control socket.

pub mod argv;
pub mod img;
mod partitions;
pub mod process;
pub mod qmp;
pub mod version;

use std::{fs::File, io, os::fd::AsRawFd as _, path::Path};
use tokio::net::UnixStream;

/// The program. Found on PATH.
pub const QEMU: &str = "qemu-system-x86_64";

/// Connects to a socket of the VM in `dir`. By way of a descriptor, since the path of a socket may have no more than
/// 107 bytes (unix(7)), and those of directories may. QEMU makes its sockets by relative paths for the same reason.
pub async fn connect(dir: &Path, socket: &str) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{socket}", dir.as_raw_fd())).await
}

/// Files of a VM, relative to its directory, which is also QEMU's working directory.
pub mod files {
    /// The disk (of a template) or the overlay on it (of a child).
    pub const DISK: &str = "disk.qcow2";
    /// Control socket (QMP).
    pub const QMP: &str = "qmp.sock";
    /// The first serial port, to attach to.
    pub const CONSOLE: &str = "console.sock";
    /// What the guest wrote to its first serial port.
    pub const CONSOLE_LOG: &str = "console.log";
    /// What QEMU itself wrote.
    pub const LOG: &str = "qemu.log";
    /// QEMU's process id.
    pub const PID: &str = "qemu.pid";
    /// Locked by QEMU for as long as it lives.
    pub const ALIVE: &str = "alive";
}
