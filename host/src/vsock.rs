//! Context ids of vsock(7), leased from the kernel.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

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
        let device =
            File::options().read(true).write(true).open(Path::new(DEVICE)).map_err(VsockError::Device)?;
        for _ in 0..64 {
            let random = getrandom::u32().map_err(|_| VsockError::Random)?;
            // 0 to 2 are reserved, VMADDR_CID_ANY is the highest; small ones are what people give by hand.
            let cid = (random & 0x7fff_ffff) | 0x10_0000;
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
