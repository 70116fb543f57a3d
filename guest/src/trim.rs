//! Telling a disk which blocks its file system does not use.

use nix::ioctl_readwrite;
use std::{fs::File, os::fd::AsRawFd, path::Path};

/// `struct fstrim_range` of `linux/fs.h`: bytes.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
    smallest: u64,
}

ioctl_readwrite!(
    /// `FITRIM`, as fstrim(8) uses it.
    fitrim,
    b'X',
    121,
    Range
);

/// Discards the unused blocks of the file system at `mount_point`. One that cannot (no such operation, no discard in
/// the disk) is as well off without, so the result does not matter.
pub(crate) fn trim(mount_point: &Path) {
    let Ok(directory) = File::open(mount_point) else { return };
    let mut range = Range { start: 0, length: u64::MAX, smallest: 0 };
    // SAFETY: the kernel reads and writes the range, which outlives the call.
    #[allow(unsafe_code)]
    let _ = unsafe { fitrim(directory.as_raw_fd(), &raw mut range) };
}
