//! Disk images, through qemu-img.

use super::partitions;
use serde::Deserialize;
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// The program. Found on PATH.
pub const QEMU_IMG: &str = "qemu-img";

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImgError {
    /// qemu-img is not installed.
    #[error("{QEMU_IMG} is not on PATH: install it (Debian, Ubuntu: apt install qemu-utils)")]
    NotInstalled,
    /// qemu-img could not be run.
    #[error("cannot run {QEMU_IMG}")]
    Run(#[source] io::Error),
    /// The image cannot be read.
    #[error("cannot read the disk image {}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not an image.
    #[error("{} is not a disk image: {why}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// qemu-img failed.
    #[error("{QEMU_IMG} cannot {action}: {why}")]
    Failed {
        /// What it was to do, as a verb.
        action: &'static str,
        /// In its words.
        why: String,
    },
}

/// What qemu-img says of an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// `qcow2`, `raw`, ...
    pub format: String,
    /// Bytes as the guest sees them.
    pub virtual_size: u64,
    /// Bytes on the host's disk.
    pub actual_size: u64,
}

/// Checks that `path` is a disk image and says what it is.
pub async fn inspect(path: &Path) -> Result<Info, ImgError> {
    let read = |source| ImgError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    if !file.metadata().map_err(read)?.is_file() {
        return Err(ImgError::NotAnImage { path: path.to_owned(), why: "it is not a regular file".into() });
    }
    let args = ["info".as_ref(), "--output=json".as_ref(), path.as_os_str()];
    let info = match run("read the image", args).await {
        Ok(json) => serde_json::from_slice::<Info>(&json).map_err(|error| error.to_string()),
        Err(ImgError::Failed { why, .. }) => Err(why),
        Err(error) => return Err(error),
    };
    let info = info.map_err(|why| ImgError::NotAnImage { path: path.to_owned(), why })?;
    if info.format == "raw" && !has_boot_signature(&file) {
        let why = "it is in no known format, and as a raw image it has no boot signature (55 aa at byte 510)";
        return Err(ImgError::NotAnImage { path: path.to_owned(), why: why.into() });
    }
    Ok(info)
}

/// Every file is a raw image to qemu-img; a disk that boots has at least this.
fn has_boot_signature(file: &File) -> bool {
    let mut signature = [0; 2];
    file.read_exact_at(&mut signature, 510).is_ok() && signature == [0x55, 0xaa]
}

/// Whether a firmware of the BIOS kind finds nothing to start on the disk of the image `path`, and UEFI does. `scratch` is
/// a file for its beginning, which is made and removed.
pub async fn boots_by_uefi_only(path: &Path, scratch: &Path) -> Result<bool, ImgError> {
    let argument = |name: &str, path: &Path| {
        let mut argument = OsString::from(name);
        argument.push(path);
        argument
    };
    let (from, to) = (argument("if=", path), argument("of=", scratch));
    let args = ["dd", "-O", "raw", "bs=65536", "count=1"].map(OsStr::new);
    run("read the beginning of the image", args.into_iter().chain([&*from, &*to])).await?;
    let read = |source| ImgError::Read { path: scratch.to_owned(), source };
    let head = std::fs::read(scratch).map_err(read)?;
    std::fs::remove_file(scratch).map_err(read)?;
    Ok(partitions::boots_by_uefi_only(&head))
}

/// Copies the image `from` to `to`, as qcow2 and with everything below it.
pub async fn convert(from: &Path, to: &Path) -> Result<(), ImgError> {
    let args = ["convert".as_ref(), "-O".as_ref(), "qcow2".as_ref(), from.as_os_str(), to.as_os_str()];
    run("copy the image", args).await.map(drop)
}

/// Makes an empty qcow2 overlay `to` of `size` bytes on `backing`, which need not be there yet.
pub async fn create_overlay(backing: &str, size: u64, to: &Path) -> Result<(), ImgError> {
    let size = size.to_string();
    let args = ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing].map(OsStr::new);
    let args = args.into_iter().chain([to.as_os_str(), size.as_ref()]);
    run("make an overlay", args).await.map(drop)
}

async fn run<'a>(
    action: &'static str,
    args: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Vec<u8>, ImgError> {
    let output = Command::new(QEMU_IMG).args(args).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ImgError::NotInstalled,
        _ => ImgError::Run(error),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let why = text.trim().trim_start_matches("qemu-img: ").replace('\n', "; ");
    Err(ImgError::Failed { action, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn how_an_image_boots_is_seen_in_any_format() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let raw = path("raw");
        let mut disk = partitions::tests::uefi_only();
        disk.resize(1 << 20, 0);
        std::fs::write(&raw, &disk).unwrap();
        let qcow2 = path("a=b,c.qcow2");
        match convert(&raw, &qcow2).await {
            Err(ImgError::NotInstalled) => return eprintln!("skipped: there is no {QEMU_IMG}"),
            converted => converted.unwrap(),
        }
        for image in [&raw, &qcow2] {
            assert!(boots_by_uefi_only(image, &path("head")).await.unwrap());
            assert!(!path("head").exists());
        }
        disk[0] = 0xeb;
        std::fs::write(&raw, &disk).unwrap();
        assert!(!boots_by_uefi_only(&raw, &path("head")).await.unwrap());
    }
}
