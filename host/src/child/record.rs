//! What is recorded of a child, in its `child.json`.

use crate::{
    fs::{self, AtPath, FsError},
    identity::ChildIdentity,
    name::Name,
};
use ramet_proto::{Evidence, domain::JoinEvidence};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::SystemTime};

/// The version of the record that this build writes and reads.
const VERSION: u32 = 1;

/// What is known of a child. Written before each effect that it tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the record's form.
    pub version: u32,
    /// The child.
    pub name: Name,
    /// What it was forked from.
    pub template: Name,
    /// The pool that its identity is leased from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// Who it is to be, or is.
    pub identity: ChildIdentity,
    /// The context id it has, or had when it last ran.
    pub cid: u32,
    /// How far it is.
    pub stage: Stage,
    /// When its fork began, milliseconds since 1970-01-01T00:00:00Z.
    pub started_ms: u64,
    /// How long its fork took.
    pub timings_ms: Timings,
    /// What it read back from its system when it got its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What it found when it tried its domain account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<JoinEvidence>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It has a name, an identity and a directory.
    Reserved,
    /// Its virtual CPUs run; it is held at the gate.
    Resumed,
    /// Its identity is in force and verified; its gate is open.
    Identified,
    /// Its boot is complete.
    Ready,
    /// It did not get its identity and was ended.
    Failed,
}

/// Milliseconds from the start of the fork to each stop line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Virtual CPUs run.
    pub resumed: Option<u64>,
    /// The host holds the child's verified report.
    pub identified: Option<u64>,
    /// sshd accepts and getty prompts.
    pub ready: Option<u64>,
    /// The domain accepted the child's account; left out for children that are in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<u64>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// It is damaged.
    #[error("the record {path} cannot be parsed: remove the child (ramet rm)")]
    Parse {
        /// The record.
        path: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error(
        "the record {path} has version {version}, this ramet reads {VERSION}: use the ramet that wrote it"
    )]
    Version {
        /// The record.
        path: String,
        /// Its version.
        version: u32,
    },
}

impl Record {
    /// The record of a child that nothing is made of yet but its directory.
    #[must_use]
    pub fn new(name: Name, template: Name, identity: ChildIdentity, started_ms: u64) -> Self {
        Self {
            version: VERSION,
            name,
            template,
            pool: None,
            identity,
            cid: 0,
            stage: Stage::Reserved,
            started_ms,
            timings_ms: Timings::default(),
            evidence: None,
            joined: None,
            failure: None,
        }
    }

    /// Reads the record in `dir`.
    pub fn read(dir: &Path) -> Result<Self, RecordError> {
        let path = dir.join(super::files::RECORD);
        let bytes = std::fs::read(&path).at("read", &path)?;
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|source| RecordError::Parse { path: path.display().to_string(), source })?;
        if record.version != VERSION {
            return Err(RecordError::Version { path: path.display().to_string(), version: record.version });
        }
        Ok(record)
    }

    /// Writes the record into `dir`.
    pub fn write(&self, dir: &Path) -> Result<(), FsError> {
        let path = dir.join(super::files::RECORD);
        let bytes = serde_json::to_vec_pretty(self).map_err(std::io::Error::from).at("write", &path)?;
        fs::replace(&path, &bytes)
    }

    /// Milliseconds since the fork began, by the wall clock.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        now_ms().saturating_sub(self.started_ms)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::identity::{IdentityFile, InUse, complete};

    /// A record to test with.
    pub(crate) fn record(name: &str) -> Record {
        let name: Name = name.parse().unwrap();
        let identity = complete(&name, 1, &IdentityFile::default(), &InUse::default()).unwrap();
        Record::new(name, "debian".parse().unwrap(), identity, now_ms())
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let record = record("web-1");
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), record);
    }

    #[test]
    fn a_record_that_is_damaged_or_newer_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("child.json");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Record::read(dir.path()), Err(RecordError::Parse { .. })));
        let newer = Record { version: 2, ..record("web-1") };
        newer.write(dir.path()).unwrap();
        assert!(matches!(Record::read(dir.path()), Err(RecordError::Version { version: 2, .. })));
    }
}
