//! File operations whose errors name the file, and writes that survive a crash.

use nix::fcntl::{FallocateFlags, fallocate};
use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// An operation on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FsError {
    /// What was tried, as a verb: `read`, `create`.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl FsError {
    /// Whether the file or directory is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Names the file in an [`io::Error`].
pub trait AtPath<T> {
    /// `action` is a verb: what was tried on `path`.
    fn at(self, action: &'static str, path: &Path) -> Result<T, FsError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FsError> {
        self.map_err(|source| FsError { action, path: path.to_owned(), source })
    }
}

/// Replaces `path` by `bytes`: after a crash it holds the old content or the new, never a mixture. The file is
/// readable by its owner only.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_added_extension("tmp");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().at("write", &temporary).inspect_err(|_| {
        // Half a file is of no use, least of all on a full disk.
        let _ = fs::remove_file(&temporary);
    })?;
    fs::rename(&temporary, path).at("replace", path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes `path` with `bytes` in it, whole or not at all, unless it is there: of several who do so at once one succeeds,
/// and the others leave what that one made. The file is readable by its owner only.
pub fn create_once(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(error.error),
            Ok(_) | Err(_) => Ok(()),
        }
    };
    write().at("create", path)?;
    sync_dir(dir)
}

/// Makes renames and removals in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<(), FsError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// Whether there is no room left where `dir` is, not even for the first files of a child. Found out by trying: the
/// number of free blocks (statvfs(3)) tells nothing of quotas.
#[must_use]
pub fn is_full(dir: &Path) -> bool {
    const ROOM: i64 = 1 << 20;
    let tried = tempfile::tempfile_in(dir)
        .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, ROOM)?))
        .map_err(|error| error.kind());
    matches!(tried, Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Removes a directory tree so that whoever lists its parent sees it whole or not at all: it is renamed to a hidden
/// name first, and [`sweep`] finishes what a crash left.
pub fn remove_tree(dir: &Path) -> Result<(), FsError> {
    match hide(dir) {
        // Not even for another name is there room.
        Err(error) if error.source.kind() == io::ErrorKind::StorageFull => remove_hidden(dir),
        hidden => remove_hidden(&hidden?),
    }
}

/// The first half of [`remove_tree`]: fast, and afterwards the name is free.
pub fn hide(dir: &Path) -> Result<PathBuf, FsError> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).at("remove", dir);
    };
    let mut hidden = std::ffi::OsString::from(REMOVING);
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let hidden = parent.join(hidden);
    fs::rename(dir, &hidden).at("remove", dir)?;
    sync_dir(parent)?;
    Ok(hidden)
}

/// The second half of [`remove_tree`], of what [`hide`] has hidden.
pub fn remove_hidden(dir: &Path) -> Result<(), FsError> {
    loop {
        match fs::remove_dir_all(dir) {
            // Somebody else removes it too, and was faster with some part of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && dir.exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result.at("remove", dir),
        }
    }
}

/// The hidden name under which the directory `name` is made, to be renamed when it is whole.
#[must_use]
pub fn unfinished(parent: &Path, name: &str) -> PathBuf {
    parent.join(format!("{MAKING}{name}"))
}

/// Removes what an interrupted [`remove_tree`] left in `parent`, and what was made under an [`unfinished`] name and
/// never became whole. Nobody else may be making something there.
pub fn sweep(parent: &Path) -> Result<(), FsError> {
    for entry in fs::read_dir(parent).at("list", parent)? {
        let path = entry.at("list", parent)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(REMOVING) || name.starts_with(MAKING) {
            remove_hidden(&path)?;
        }
    }
    Ok(())
}

const REMOVING: &str = ".removing-";
const MAKING: &str = ".making-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_system_with_room_is_not_full() {
        assert!(!is_full(tempfile::tempdir().unwrap().path()));
        assert!(!is_full(Path::new("/nonexistent")));
    }

    #[test]
    fn errors_name_the_file() {
        let error = replace(Path::new("/nonexistent/x"), b"").unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nonexistent/x.tmp");
        assert!(error.is_not_found());
    }

    #[test]
    fn sweep_finishes_an_interrupted_removal_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".removing-web-1.42/sub")).unwrap();
        fs::create_dir(dir.path().join("web-2")).unwrap();
        fs::create_dir(unfinished(dir.path(), "web-3")).unwrap();
        sweep(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(dir.path().join("web-2").exists());
        remove_tree(&dir.path().join("web-2")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
