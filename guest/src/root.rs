//! The file system the appliers work on, as an open directory.
//!
//! Every path is resolved below that directory, symbolic links included (openat2(2), `RESOLVE_IN_ROOT`), so the same
//! code works on `/` in a guest and on a temporary directory in a test.

mod attributes;

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The agent's own directory of this boot, below the root.
pub(crate) const RUNTIME: &str = "run/ramet-agent";

/// The most bytes read from one file: the largest hosts(5) that people have are a tenth of it. A larger file is an error,
/// and never cut.
const MAX_FILE: u64 = 64 << 20;

/// How often a path is looked up again whose walk the kernel broke off, since something was renamed or mounted meanwhile
/// (openat2(2), `EAGAIN`): boot is full of both.
const LOOKUPS: usize = 100;

/// An operation on a file failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub(crate) struct FileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl FileError {
    /// Whether the system said `errno`.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.source.raw_os_error() == Some(errno as i32)
    }
}

/// An open root directory.
pub(crate) struct Root {
    dir: OwnedFd,
    base: PathBuf,
}

impl Root {
    /// The root directory at `base`.
    pub(crate) fn open(base: &Path) -> Result<Self, FileError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(base, flags, Mode::empty()).map_err(failed("open", base))?;
        Ok(Self { dir, base: base.to_owned() })
    }

    /// `path` as a program that is started outside this handle has to name it.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// What the file at `path` holds, or `None` where there is none. One over 64 MiB is an error.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, FileError> {
        let Some(fd) = optional(self.at(path, OFlag::O_RDONLY)).map_err(failed("open", path))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = File::from(fd)
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .and_then(|_| if bytes.len() as u64 > MAX_FILE { Err(Errno::EFBIG.into()) } else { Ok(()) });
        read.map_err(|source| FileError { what: "read", path: path.into(), source })?;
        Ok(Some(bytes))
    }

    /// Up to `length` bytes of the file at `path` from `offset` on, or `None` where there is no file: for what is large.
    pub(crate) fn read_part(
        &self,
        path: &str,
        offset: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, FileError> {
        let Some(fd) = optional(self.at(path, OFlag::O_RDONLY)).map_err(failed("open", path))? else {
            return Ok(None);
        };
        let (mut file, mut bytes) = (File::from(fd), Vec::new());
        let read = file.seek(SeekFrom::Start(offset));
        let read = read.and_then(|_| file.take(length as u64).read_to_end(&mut bytes));
        read.map_err(|source| FileError { what: "read", path: path.into(), source })?;
        Ok(Some(bytes))
    }

    /// As [`Root::read`], of a file that has to be UTF-8: one of the agent's own.
    pub(crate) fn read_text(&self, path: &str) -> Result<Option<String>, FileError> {
        let text = self.read(path)?.map(String::from_utf8).transpose();
        text.map_err(|error| FileError {
            what: "read",
            path: path.into(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })
    }

    /// As [`Root::read`], but what is no UTF-8 is replaced: for what is looked at and not written back.
    pub(crate) fn read_lossy(&self, path: &str) -> Result<Option<String>, FileError> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Where the symbolic link at `path` leads, or `None` where there is none.
    pub(crate) fn link(&self, path: &str) -> Result<Option<String>, FileError> {
        let link = self.parent(path).and_then(|(dir, name)| readlinkat(&dir, name));
        match link {
            // Something that is no link.
            Err(Errno::EINVAL) => Ok(None),
            link => Ok(optional(link)
                .map_err(failed("follow", path))?
                .map(|to| to.to_string_lossy().into_owned())),
        }
    }

    /// Whether there is something at `path`, a symbolic link that leads nowhere included.
    pub(crate) fn exists(&self, path: &str) -> Result<bool, FileError> {
        Ok(self.stat(path)?.is_some())
    }

    /// Whether there is a regular file, not a symbolic link to one, at `path`.
    pub(crate) fn is_regular(&self, path: &str) -> Result<bool, FileError> {
        Ok(self.stat(path)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFREG))
    }

    /// Whether there is a directory, not a symbolic link to one, at `path`.
    pub(crate) fn is_dir(&self, path: &str) -> Result<bool, FileError> {
        Ok(self.stat(path)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFDIR))
    }

    /// Whether there is a file or directory, not a symbolic link, at `path` that belongs to who runs this and that
    /// nobody else can write.
    pub(crate) fn is_private(&self, path: &str) -> Result<bool, FileError> {
        Ok(self.stat(path)?.is_some_and(|stat| {
            matches!(kind(&stat), SFlag::S_IFREG | SFlag::S_IFDIR)
                && stat.st_uid == Uid::effective().as_raw()
                && stat.st_mode & 0o022 == 0
        }))
    }

    /// Whether the file at `path` has an executable bit.
    pub(crate) fn is_executable(&self, path: &str) -> Result<bool, FileError> {
        Ok(self.stat(path)?.is_some_and(|stat| stat.st_mode & 0o111 != 0))
    }

    /// The length of the file at `path`, or `None` where there is none.
    pub(crate) fn len(&self, path: &str) -> Result<Option<u64>, FileError> {
        Ok(self.stat(path)?.map(|stat| u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// The names in the directory at `path`, sorted; none where there is no such directory.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, FileError> {
        Ok(self.entries(path)?.into_iter().map(|(name, _)| name).collect())
    }

    /// The same, each with whether it is a directory, as far as the directory tells: for who looks at many.
    pub(crate) fn entries(&self, path: &str) -> Result<Vec<(String, Option<bool>)>, FileError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let Some(fd) = optional(self.at(path, flags)).map_err(failed("open", path))? else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        for entry in Dir::from_fd(fd).map_err(failed("list", path))? {
            let entry = entry.map_err(failed("list", path))?;
            let name = entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | ".."));
            let is_dir = entry.file_type().map(|kind| kind == nix::dir::Type::Directory);
            entries.extend(name.map(|name| (name.to_owned(), is_dir)));
        }
        entries.sort();
        Ok(entries)
    }

    /// Removes the file at `path`; says whether there was one.
    pub(crate) fn remove(&self, path: &str) -> Result<bool, FileError> {
        let removed =
            self.parent(path).and_then(|(dir, name)| unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir));
        Ok(optional(removed).map_err(failed("remove", path))?.is_some())
    }

    /// Puts a file with `bytes` at `path`, all at once: whoever looks sees the old file or the new one. A file that
    /// is there keeps its mode, owner and extended attributes, its access list and security label among them (xattr(7));
    /// a new one gets `mode`. It is not on the disk until [`Root::sync`].
    pub(crate) fn replace(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), FileError> {
        self.put(path, bytes, mode, false)
    }

    /// As [`Root::replace`], for a file whose content is the image's but for some lines: what replaces it is on the disk
    /// before it does, so that no power cut leaves an empty one.
    pub(crate) fn edit(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), FileError> {
        self.put(path, bytes, mode, true)
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32, durably: bool) -> Result<(), FileError> {
        let before = self.stat(path)?.filter(|stat| kind(stat) == SFlag::S_IFREG);
        let (dir, name) = self.parent(path).map_err(failed("open the directory of", path))?;
        let temporary = format!(".{}.ramet-new", name.display());
        // Left behind by a power cut: this name is nobody else's.
        optional(unlinkat(&dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir))
            .map_err(failed("remove", path))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&dir, temporary.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(failed("create a file next to", path))?;
        let mut file = File::from(fd);
        let put = (|| -> io::Result<()> {
            file.write_all(bytes)?;
            let mut mode = mode;
            if let Some(stat) = before {
                fchown(&file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
                let old = nix::fcntl::openat(&dir, name, FOR_ATTRIBUTES, Mode::empty())?;
                attributes::copy(&old, &file)?;
                mode = stat.st_mode & 0o7777;
            }
            fchmod(&file, Mode::from_bits_truncate(mode))?;
            if durably { file.sync_data() } else { Ok(()) }
        })();
        let put = put.map_err(|source| FileError { what: "write", path: path.into(), source });
        let put = put
            .and_then(|()| renameat(&dir, temporary.as_str(), &dir, name).map_err(failed("replace", path)));
        if put.is_err() {
            let _ = unlinkat(&dir, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        put
    }

    /// Whether the file or directory at `path` can be neither replaced nor removed, whoever tries (chattr(1), `i` and
    /// `a`). Not where the file system has no such flags.
    pub(crate) fn is_immutable(&self, path: &str) -> Result<bool, FileError> {
        if self.stat(path)?.is_none_or(|stat| !matches!(kind(&stat), SFlag::S_IFREG | SFlag::S_IFDIR)) {
            return Ok(false);
        }
        let fd = self.at(path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW).map_err(failed("open", path))?;
        Ok(attributes::is_immutable(&fd))
    }

    /// Writes `text` to the file at `path`, which is there and stays the same file: one of /proc/sys, for one.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), FileError> {
        let fd = self.at(path, OFlag::O_WRONLY | OFlag::O_TRUNC).map_err(failed("open", path))?;
        let written = File::from(fd).write_all(text.as_bytes());
        written.map_err(|source| FileError { what: "write", path: path.into(), source })
    }

    /// Gives the file or directory at `path`, not what a symbolic link there leads to, to `uid` and `gid`, with `mode`.
    pub(crate) fn give(&self, path: &str, uid: u32, gid: u32, mode: u32) -> Result<(), FileError> {
        let fd = self.at(path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW).map_err(failed("open", path))?;
        fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed("give away", path))?;
        fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(failed("set the mode of", path))
    }

    /// Owner, group and mode of the regular file, no symbolic link to one, at `path`.
    pub(crate) fn owner(&self, path: &str) -> Result<Option<(u32, u32, u32)>, FileError> {
        let stat = self.stat(path)?.filter(|stat| kind(stat) == SFlag::S_IFREG);
        Ok(stat.map(|stat| (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)))
    }

    /// Renames a file within its directory, and the new name is on the disk when this returns (rename(2), fsync(2)).
    pub(crate) fn rename_durably(&self, from: &str, to: &str) -> Result<(), FileError> {
        let renamed = self.parent(from).and_then(|(dir, name)| {
            let to = Path::new(to).file_name().ok_or(Errno::EINVAL)?;
            renameat(&dir, name, &dir, to)?;
            nix::unistd::fsync(&dir)
        });
        renamed.map_err(failed("rename", from))
    }

    /// Makes the directory at `path` with `mode`, unless it is there.
    pub(crate) fn make_dir(&self, path: &str, mode: u32) -> Result<(), FileError> {
        let mode = Mode::from_bits_truncate(mode);
        let made = self.parent(path).and_then(|(dir, name)| nix::sys::stat::mkdirat(&dir, name, mode));
        match made {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(failed("make the directory", path)(error)),
        }
    }

    /// Waits until everything written so far is on the disk: /etc and /var may be file systems of their own.
    #[allow(clippy::unused_self, reason = "what it syncs is reached through this handle")]
    pub(crate) fn sync(&self) {
        nix::unistd::sync();
    }

    fn stat(&self, path: &str) -> Result<Option<FileStat>, FileError> {
        let stat =
            self.parent(path).and_then(|(dir, name)| fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW));
        optional(stat).map_err(failed("look at", path))
    }

    /// The directory of `path`, open, and the name in it. The last component is never followed.
    fn parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let path = Path::new(path);
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((self.at(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, name))
    }

    fn at(&self, path: impl AsRef<Path>, flags: OFlag) -> Result<OwnedFd, Errno> {
        // A FIFO or a terminal planted under a name must not make this wait.
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        for _ in 0..LOOKUPS {
            match openat2(&self.dir, path.as_ref(), how) {
                Err(Errno::EAGAIN) => std::thread::yield_now(),
                found => return found,
            }
        }
        openat2(&self.dir, path.as_ref(), how)
    }
}

/// A file whose attributes are asked for must not be waited for either.
const FOR_ATTRIBUTES: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// "Is not there" as a value.
fn optional<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(what: &'static str, path: impl AsRef<Path>) -> impl FnOnce(Errno) -> FileError {
    let path = path.as_ref().to_owned();
    move |errno| FileError { what, path, source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let (dir, root) = root();
        root.replace("new", b"a", 0o600).unwrap();
        root.replace("new", b"b", 0o644).unwrap();
        assert_eq!(root.read("new").unwrap().as_deref(), Some(&b"b"[..]));
        let mode = std::fs::metadata(dir.path().join("new")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        root.rename_durably("new", "renamed").unwrap();
        assert_eq!(root.names(".").unwrap(), ["renamed"], "no temporary file stays");
    }

    #[test]
    fn what_is_absent_is_no_error() {
        let (_dir, root) = root();
        assert_eq!(root.read("a/b").unwrap(), None);
        assert!(!root.exists("a/b").unwrap());
        assert!(!root.remove("a/b").unwrap());
        assert!(root.names("a").unwrap().is_empty());
        assert!(root.replace("a/b", b"", 0o644).is_err(), "no directory is made in passing");
        root.make_dir("a", 0o700).unwrap();
        root.make_dir("a", 0o700).unwrap();
        root.replace("a/b", b"", 0o644).unwrap();
        assert!(root.remove("a/b").unwrap());
    }

    #[test]
    fn links_are_resolved_below_the_root_and_never_leave_it() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("/etc", dir.path().join("alias")).unwrap();
        symlink("../../../../../../etc", dir.path().join("up")).unwrap();
        root.replace("alias/x", b"1", 0o644).unwrap();
        root.replace("up/x", b"2", 0o644).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("etc/x")).unwrap(), "2");
        symlink("/nowhere", dir.path().join("etc/dangling")).unwrap();
        assert!(root.exists("etc/dangling").unwrap());
        assert!(!root.is_regular("etc/dangling").unwrap());
        root.replace("etc/dangling", b"3", 0o644).unwrap();
        assert!(root.is_regular("etc/dangling").unwrap(), "a link is replaced, not followed");
    }
}
