//! What a template is: its manifest, checked before anything in it is believed.

use super::digest::{Digest, digest_bytes};
use crate::{
    admission::CpuModel,
    fs::{self, AtPath, FsError},
    net::NetSpec,
    qemu::version::QemuVersion,
};
use ramet_proto::{MacAddr, message::Finding, text::Text};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

/// The version of the manifest that this build writes and reads.
pub const VERSION: u32 = 1;

const FORMAT: &str = "ramet-template";

/// The most bytes of a manifest.
const MAX: u64 = 256 * 1024;

/// What a template is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// When it was made, seconds since 1970-01-01T00:00:00Z.
    pub created: u64,
    /// The QEMU that made it; a fork needs this one or a newer one.
    pub qemu: QemuVersion,
    /// Versioned machine type.
    pub machine: String,
    /// The CPU it ran on; a fork needs the same.
    pub cpu: CpuModel,
    /// Bytes of RAM.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Bytes of its disk, as the guest sees it.
    pub disk_size: u64,
    /// Its NICs, in order.
    pub nics: Vec<TemplateNic>,
    /// The agent's version.
    pub agent: Text,
    /// The version of the protocol that its agent speaks; templates of before this was kept do not have it, nor what
    /// follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u16>,
    /// What its agent can do besides ([`ramet_proto::FEATURES`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Text>,
    /// The parent's context id: a child that was given it would not notice that it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<u32>,
    /// What its agent found in it, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// The files beside the manifest.
    pub files: Files,
}

/// A NIC of the parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateNic {
    /// Its address in the parent; never seen on a wire.
    pub mac: MacAddr,
    /// What the children's NIC is connected to.
    pub net: NetSpec,
}

/// The files of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// RAM.
    pub ram: FileRecord,
    /// Device state.
    pub state: FileRecord,
    /// Disk.
    pub disk: FileRecord,
    /// Empty overlay.
    pub overlay: FileRecord,
}

/// A file as it was when the template was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Bytes.
    pub size: u64,
    /// Time of last change, nanoseconds since 1970-01-01T00:00:00Z.
    pub mtime_ns: i64,
    /// Of the content.
    pub digest: Digest,
}

/// Size and time of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// Time of last change, nanoseconds since 1970-01-01T00:00:00Z.
    pub mtime_ns: i64,
}

impl FileRecord {
    /// Size and time of the file at `path`.
    pub fn stat(path: &Path) -> Result<Stat, FsError> {
        let metadata = std::fs::metadata(path).at("read", path)?;
        Ok(Stat { size: metadata.len(), mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() })
    }

    /// The file at `path` as it is now, every byte read.
    pub fn of(path: &Path) -> Result<Self, FsError> {
        let Stat { size, mtime_ns } = Self::stat(path)?;
        Ok(Self { size, mtime_ns, digest: super::digest::digest(path)? })
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It is far larger than any manifest.
    #[error("the manifest is larger than {MAX} bytes")]
    TooLarge,
    /// It is not one.
    #[error("the manifest cannot be parsed")]
    Parse(#[source] serde_json::Error),
    /// It is of something else.
    #[error("the manifest is not one of {FORMAT}")]
    Format,
    /// It is of a newer version.
    #[error("the manifest has version {0}, this ramet reads {VERSION}: use a newer ramet")]
    Version(u32),
    /// It was changed.
    #[error("the manifest was altered: its digest does not match")]
    Altered,
}

/// The version and digest are checked before the body is looked at.
#[derive(Serialize, Deserialize)]
struct Envelope {
    format: String,
    version: u32,
    digest: Digest,
    body: Box<RawValue>,
}

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(MAX + 1).read_to_end(&mut bytes)).at("read", path)?;
        if bytes.len() as u64 > MAX {
            return Err(ManifestError::TooLarge);
        }
        Self::parse(&bytes)
    }

    /// Writes the manifest to `path`, after all it describes.
    pub fn write(&self, path: &Path) -> Result<(), ManifestError> {
        Ok(fs::replace(path, &self.to_bytes()?)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Header {
            format: String,
            version: u32,
        }
        let header: Header = serde_json::from_slice(bytes).map_err(ManifestError::Parse)?;
        if header.format != FORMAT {
            return Err(ManifestError::Format);
        }
        if header.version != VERSION {
            return Err(ManifestError::Version(header.version));
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(ManifestError::Parse)?;
        if digest_bytes(envelope.body.get().as_bytes()) != envelope.digest {
            return Err(ManifestError::Altered);
        }
        serde_json::from_str(envelope.body.get()).map_err(ManifestError::Parse)
    }

    fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        let body = serde_json::value::to_raw_value(self).map_err(ManifestError::Parse)?;
        let digest = digest_bytes(body.get().as_bytes());
        let envelope = Envelope { format: FORMAT.to_owned(), version: VERSION, digest, body };
        serde_json::to_vec(&envelope).map_err(ManifestError::Parse)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::template::findings;
    use ramet_proto::message::Grade;

    /// A manifest to test with.
    pub(crate) fn manifest() -> Manifest {
        let file = |size| FileRecord { size, mtime_ns: 7, digest: digest_bytes(b"x") };
        Manifest {
            created: 1_700_000_000,
            qemu: "10.0.2".parse().unwrap(),
            machine: "pc-q35-10.0".into(),
            cpu: CpuModel { vendor: "AuthenticAMD".into(), model: "EPYC".into(), flags: vec!["avx2".into()] },
            memory: 1 << 30,
            cpus: 1,
            disk_size: 4 << 30,
            nics: vec![TemplateNic { mac: "52:54:00:00:00:01".parse().unwrap(), net: NetSpec::User }],
            agent: Text::new("0.1.0"),
            protocol: Some(2),
            features: vec![Text::new("steps")],
            cid: Some(0x10_0007),
            findings: vec![Finding::new(Grade::Open, "what", "fix")],
            files: Files { ram: file(1 << 30), state: file(400_000), disk: file(1), overlay: file(196_616) },
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest();
        assert_eq!(Manifest::parse(&manifest.to_bytes().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn a_manifest_of_before_there_were_findings_is_read() {
        let before = Manifest { protocol: None, features: vec![], cid: None, findings: vec![], ..manifest() };
        let bytes = before.to_bytes().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for field in ["protocol", "features", "cid", "findings"] {
            assert!(!text.contains(&format!("\"{field}\"")), "{field}");
        }
        assert_eq!(Manifest::parse(&bytes).unwrap(), before);
    }

    #[test]
    fn the_longest_findings_fit() {
        let text = "\"".repeat(Text::MAX);
        let findings = vec![Finding::new(Grade::Note, &text, &text); findings::MAX + 1];
        assert!(
            Manifest { findings, ..manifest() }.to_bytes().unwrap().len() < usize::try_from(MAX).unwrap()
        );
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let bytes = manifest().to_bytes().unwrap();
        for index in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[index] ^= 1;
            assert!(Manifest::parse(&altered).is_err(), "byte {index}");
        }
        for end in 0..bytes.len() {
            assert!(Manifest::parse(&bytes[..end]).is_err(), "truncated to {end}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let newer = br#"{"format":"ramet-template","version":2,"body":{"something":"else"}}"#;
        let error = Manifest::parse(newer).unwrap_err();
        assert_eq!(error.to_string(), "the manifest has version 2, this ramet reads 1: use a newer ramet");
        let other = br#"{"format":"something","version":1}"#;
        assert!(matches!(Manifest::parse(other), Err(ManifestError::Format)));
    }
}
