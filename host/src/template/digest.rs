//! Digests of large files with holes.

use crate::fs::{AtPath, FsError};
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
    path::Path,
};

/// The digest of a file: BLAKE3 over its length and its blocks of 64 KiB that are not all zero, each with its number.
/// So holes cost nothing and a copy with other holes has the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(blake3::Hash);

const BLOCK: u64 = 64 * 1024;

/// The digest of the file at `path`.
pub fn digest(path: &Path) -> Result<Digest, FsError> {
    let file = File::open(path).at("read", path)?;
    digest_file(&file).at("read", path)
}

/// The digest of bytes in memory, for small files.
#[must_use]
pub fn digest_bytes(bytes: &[u8]) -> Digest {
    Digest(blake3::hash(bytes))
}

fn digest_file(file: &File) -> io::Result<Digest> {
    let len = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&len.to_le_bytes());
    let mut buffer = vec![0; usize::try_from(BLOCK).unwrap_or(usize::MAX)];
    let mut number = 0;
    while let Some(offset) = next_data(file, number * BLOCK)? {
        number = offset / BLOCK;
        let size = usize::try_from(BLOCK.min(len - number * BLOCK)).unwrap_or(usize::MAX);
        let block = &mut buffer[..size];
        file.read_exact_at(block, number * BLOCK)?;
        if block.iter().any(|&byte| byte != 0) {
            hasher.update(&number.to_le_bytes());
            hasher.update(block);
        }
        number += 1;
    }
    Ok(Digest(hasher.finalize()))
}

/// Where the next data begins at or after `offset`; `None` past the last (lseek(2), `SEEK_DATA`).
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    match lseek(file.as_fd(), offset, Whence::SeekData) {
        Ok(data) => Ok(u64::try_from(data).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives back the space of what was set aside in the file at `path` and never written (fallocate(2)).
pub fn dig_holes(path: &Path) -> Result<(), FsError> {
    let dig = || -> io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let mut offset = 0;
        while offset < len {
            let data = next_data(&file, offset)?.unwrap_or(len);
            if data > offset {
                let signed = |bytes: u64| i64::try_from(bytes).map_err(io::Error::other);
                let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                match fallocate(&file, flags, signed(offset)?, signed(data - offset)?) {
                    // A file system that cannot: the space stays set aside.
                    Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let hole = lseek(file.as_fd(), i64::try_from(data).map_err(io::Error::other)?, Whence::SeekHole);
            match hole {
                Ok(hole) => offset = u64::try_from(hole).map_err(io::Error::other)?,
                Err(Errno::ENXIO) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    };
    dig().at("dig holes into", path)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_hex())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = blake3::HexError;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        blake3::Hash::from_hex(hex).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_never_written_is_given_back() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        let file = File::create(&path).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, 8 << 20).unwrap();
        file.write_all_at(&[7; 4096], 3 << 20).unwrap();
        let before = digest(&path).unwrap();
        dig_holes(&path).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 8 << 20);
        assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
        assert_eq!(digest(&path).unwrap(), before);
    }

    #[test]
    fn holes_do_not_matter_and_every_byte_does() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, write: &dyn Fn(&File)| {
            let path = dir.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_len(1 << 20).unwrap();
            write(&file);
            digest(&path).unwrap()
        };
        let hole = make("hole", &|_| {});
        let zeros = make("zeros", &|file| file.write_all_at(&vec![0; 1 << 20], 0).unwrap());
        let one = make("one", &|file| file.write_all_at(&[1], 300_000).unwrap());
        let moved = make("moved", &|file| file.write_all_at(&[1], 300_000 + BLOCK).unwrap());
        let longer = make("longer", &|file| file.set_len((1 << 20) + 1).unwrap());
        assert_eq!(hole, zeros);
        for (a, b) in [(hole, one), (one, moved), (hole, longer)] {
            assert_ne!(a, b);
        }
    }
}
