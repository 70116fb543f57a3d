//! Locks on files that die with whoever holds them, however that is.
//!
//! They are open file description locks (fcntl(2), `F_OFD_SETLK`): a process inherits them with the descriptor, and
//! whether one is held can be asked without taking it, so that a look never gets in the way of work.

use crate::fs::{AtPath, FsError};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use std::{fs::File, io, path::Path};

/// Takes the lock on `path` if it is free; `None` if somebody holds it. The file is made if it is not there.
pub fn attempt(path: &Path) -> Result<Option<File>, FsError> {
    let file = open(path)?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole(libc::F_WRLCK))) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
        Err(error) => Err(io::Error::from(error)).at("lock", path),
    }
}

/// Waits for the lock on `path`. The file is made if it is not there.
pub fn wait(path: &Path) -> Result<File, FsError> {
    let file = open(path)?;
    loop {
        match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole(libc::F_WRLCK))) {
            Ok(_) => return Ok(file),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error)).at("lock", path),
        }
    }
}

/// Whether somebody holds the lock on `path`; nobody does if the file is not there.
pub fn is_held(path: &Path) -> Result<bool, FsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).at("open", path),
    };
    let mut lock = whole(libc::F_WRLCK);
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(io::Error::from)
        .at("look at the lock on", path)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn open(path: &Path) -> Result<File, FsError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .at("open", path)
}

/// A lock of the given kind on the whole file.
fn whole(kind: i32) -> libc::flock {
    let l_type = i16::try_from(kind).unwrap_or_default();
    libc::flock { l_type, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_a_look_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let held = attempt(&path).unwrap();
        assert!(held.is_some());
        assert!(is_held(&path).unwrap());
        assert!(attempt(&path).unwrap().is_none());
        drop(held);
        assert!(!is_held(&path).unwrap());
        assert!(attempt(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_goes_with_the_last_copy_of_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = attempt(&path).unwrap().unwrap();
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(is_held(&path).unwrap());
        drop(copy);
        assert!(!is_held(&path).unwrap());
    }
}
