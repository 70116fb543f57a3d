//! vsock(7): context ids, leased from the kernel, and connections that a guest can tell from those of any user.

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, VsockAddr, getsockopt, sockopt::SocketError,
};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};
use tokio::io::unix::AsyncFd;
use tokio_vsock::VsockStream;

/// The device through which guests get vsock.
pub const DEVICE: &str = "/dev/vhost-vsock";

mod ioctl {
    #![allow(missing_docs)]
    // linux/vhost.h: VHOST_VSOCK_SET_GUEST_CID is _IOW(VHOST_VIRTIO, 0x60, __u64).
    nix::ioctl_write_ptr!(vhost_vsock_set_guest_cid, 0xaf, 0x60, u64);
}

/// A CID that no other VM of this host has for as long as the descriptor is open, whoever makes the VMs: the kernel
/// refuses a CID that is taken, so it needs no lease of our own and none can leak.
#[derive(Debug)]
pub struct ReservedCid {
    cid: u32,
    device: File,
}

/// Why no CID was to be had.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The device cannot be opened.
    #[error(
        "cannot open {DEVICE}: load the module (modprobe vhost_vsock) and run as root or in the group kvm"
    )]
    Device(#[source] io::Error),
    /// The kernel gives none.
    #[error("the kernel gives no vsock context id")]
    Cid(#[source] io::Error),
    /// No randomness.
    #[error("the system has no random numbers")]
    Random,
}

impl ReservedCid {
    /// Takes a CID at random. Not the lowest free one: a dial meant for a VM that has just died must not reach the
    /// next.
    pub fn take() -> Result<Self, VsockError> {
        Self::take_other_than(None)
    }

    /// The same, but never `taken`.
    pub fn take_other_than(taken: Option<u32>) -> Result<Self, VsockError> {
        let device =
            File::options().read(true).write(true).open(Path::new(DEVICE)).map_err(VsockError::Device)?;
        for _ in 0..64 {
            let random = getrandom::u32().map_err(|_| VsockError::Random)?;
            // 0 to 2 are reserved, VMADDR_CID_ANY is the highest; small ones are what people give by hand.
            let cid = (random & 0x7fff_ffff) | 0x10_0000;
            if Some(cid) == taken {
                continue;
            }
            // SAFETY: the descriptor is open and the argument points to the u64 that the ioctl reads.
            #[allow(unsafe_code)]
            let result = unsafe { ioctl::vhost_vsock_set_guest_cid(device.as_raw_fd(), &u64::from(cid)) };
            match result {
                Ok(_) => return Ok(Self { cid, device }),
                Err(nix::Error::EADDRINUSE) => {}
                Err(error) => return Err(VsockError::Cid(error.into())),
            }
        }
        Err(VsockError::Cid(io::ErrorKind::AddrInUse.into()))
    }

    /// The CID.
    #[must_use]
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// The descriptor that holds the CID.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.device.into()
    }
}

/// The ports that only a process with `CAP_NET_BIND_SERVICE` can dial from, and that leave the lower half to listeners.
const SOURCE_PORTS: std::ops::Range<u32> = 512..1024;

/// Why a guest could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A source port that proves who dials is not to be had.
    #[error(
        "cannot dial from a vsock port below 1024, and guests heed no other: run as root, or with the capability \
         CAP_NET_BIND_SERVICE"
    )]
    SourcePort(#[source] io::Error),
    /// There is nobody, or not yet.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Dials `port` of the guest `cid` from a port below 1024: a guest takes an identity from no user of the host who
/// happens to reach its vsock.
pub async fn dial(cid: u32, port: u32) -> Result<VsockStream, DialError> {
    let socket = bound_socket().map_err(DialError::SourcePort)?;
    match socket::connect(socket.as_raw_fd(), &VsockAddr::new(cid, port)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => {}
        Err(error) => return Err(io::Error::from(error).into()),
    }
    // SAFETY: the socket is owned by the AsyncFd, and closed after it is deregistered.
    #[allow(unsafe_code)]
    let socket = unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)?;
    // Connected, or not: either makes it writable (connect(2), EINPROGRESS).
    let _ = socket.writable().await?;
    match getsockopt(socket.get_ref(), SocketError).map_err(io::Error::from)? {
        0 => Ok(VsockStream::new(vsock::VsockStream::from(socket.into_inner()))?),
        error => Err(io::Error::from_raw_os_error(error).into()),
    }
}

/// Whether guests can be dialled from here.
pub fn check_source_port() -> Result<(), DialError> {
    bound_socket().map(drop).map_err(DialError::SourcePort)
}

fn bound_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    // Not from the lowest on: commands that run side by side would try the same ones.
    let count = SOURCE_PORTS.end - SOURCE_PORTS.start;
    let first = getrandom::u32().unwrap_or_default() % count;
    for n in 0..count {
        let port = SOURCE_PORTS.start + (first + n) % count;
        match socket::bind(socket.as_raw_fd(), &VsockAddr::new(vsock::VMADDR_CID_ANY, port)) {
            Err(nix::Error::EADDRINUSE) => {}
            bound => return bound.map(|()| socket).map_err(io::Error::from),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
