//! What a file has besides its content, owner and mode: extended attributes (xattr(7)), among them its access list
//! (`system.posix_acl_access`, acl(5)) and its security label (`security.selinux`), and the flags of chattr(1).

use rustix::{
    fs::{IFlags, XattrFlags, fgetxattr, flistxattr, fsetxattr, ioctl_getflags},
    io::Errno,
};
use std::{ffi::CStr, io, os::fd::AsFd};

/// What all names of a file, or one value, may take (xattr(7), "Limits").
const MAX: usize = 64 << 10;

/// Gives `to` every attribute that `from` has. Where the file system of either has none, nothing is done.
pub(super) fn copy(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let mut names = vec![0_u8; MAX];
    let length = match flistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        let Some(wanted) = value(from, name)? else { continue };
        // A label that the kernel has given the new file by itself cannot always be given again.
        if value(to, name)?.as_ref() != Some(&wanted) {
            fsetxattr(to, name, &wanted, XattrFlags::empty())?;
        }
    }
    Ok(())
}

fn value(file: &impl AsFd, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0_u8; MAX];
    match fgetxattr(file, name, &mut bytes) {
        Ok(length) => {
            bytes.truncate(length);
            Ok(Some(bytes))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether `file` has the flag `i` or `a` of chattr(1). No where its file system has no flags.
pub(super) fn is_immutable(file: &impl AsFd) -> bool {
    ioctl_getflags(file).is_ok_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND))
}
