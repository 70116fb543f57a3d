//! The record of a completed individual: on its own disk, where with it a reboot passes the gate without the host, and in
//! /run, where it tells who this machine is in this boot.

use crate::root::{FileError, RUNTIME, Root};
use ramet_proto::{Hostname, InstanceId, MacAddr, MachineId, domain::DomainAccount, message::Identity};
use serde::{Deserialize, Serialize};

const DIRECTORY: &str = "var/lib/ramet-agent";
const PATH: &str = "var/lib/ramet-agent/identity.toml";

/// Where it waits until it counts.
const PENDING: &str = "var/lib/ramet-agent/identity.toml.pending";

/// Who this machine is in this boot.
const PRESENT: &str = "run/ramet-agent/identity.toml";

/// The form of the record this build writes and reads.
const FORMAT: u32 = 1;

/// The record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("/{0} is not a record of this agent's: {1}")]
    Form(&'static str, String),
    #[error("/{0} has format {1}, and this agent knows {FORMAT}")]
    Format(&'static str, u32),
    #[error("cannot form the record")]
    Encode(#[source] toml::ser::Error),
}

/// Who this machine has become. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    pub(crate) instance_id: InstanceId,
    hostname: Hostname,
    machine_id: MachineId,
    pub(crate) macs: Vec<MacAddr>,
    /// The computer account, of a member of a domain. Records of before there were any do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<DomainAccount>,
}

impl Record {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self {
            format: FORMAT,
            instance_id: identity.instance_id,
            hostname: identity.hostname.clone(),
            machine_id: identity.machine_id,
            macs: identity.nics.iter().map(|nic| nic.mac).collect(),
            domain: identity.domain.as_ref().map(|domain| domain.account.clone()),
        }
    }

    /// The record on the disk, if there is one.
    pub(crate) fn load(root: &Root) -> Result<Option<Self>, RecordError> {
        Self::read(root, PATH)
    }

    /// Who this machine is in this boot, if its gate is open.
    pub(crate) fn present(root: &Root) -> Result<Option<Self>, RecordError> {
        Self::read(root, PRESENT)
    }

    fn read(root: &Root, path: &'static str) -> Result<Option<Self>, RecordError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Some(text) = root.read_text(path)? else { return Ok(None) };
        let form = |error: toml::de::Error| RecordError::Form(path, error.message().to_owned());
        let Format { format } = toml::from_str(&text).map_err(form)?;
        if format != FORMAT {
            return Err(RecordError::Format(path, format));
        }
        toml::from_str(&text).map(Some).map_err(form)
    }

    /// Writes it where it does not count yet: a disk that is full or cannot be written shows now.
    pub(crate) fn write(&self, root: &Root) -> Result<(), RecordError> {
        let text = toml::to_string(self).map_err(RecordError::Encode)?;
        root.make_dir(DIRECTORY, 0o700)?;
        Ok(root.replace(PENDING, text.as_bytes(), 0o600)?)
    }

    /// Says that this is who the machine is in this boot.
    pub(crate) fn show(&self, root: &Root) -> Result<(), RecordError> {
        let text = toml::to_string(self).map_err(RecordError::Encode)?;
        root.make_dir(RUNTIME, 0o755)?;
        Ok(root.replace(PRESENT, text.as_bytes(), 0o644)?)
    }

    /// Makes what was written count, once everything it stands for is on the disk: after a power cut there is a whole
    /// individual or none. Where nothing of this individual waits, nothing is done.
    pub(crate) fn commit(&self, root: &Root) -> Result<(), RecordError> {
        if Self::read(root, PENDING)?.as_ref() != Some(self) {
            return Ok(());
        }
        root.sync();
        Ok(root.rename_durably(PENDING, PATH)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for path in ["var/lib", "run"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let (_dir, root) = root();
        assert_eq!(Record::load(&root).unwrap(), None);
        for identity in [crate::apply::tests::identity(), crate::apply::domain::tests::member()] {
            let record = Record::of(&identity);
            let before = Record::load(&root).unwrap();
            for _ in 0..2 {
                record.write(&root).unwrap();
                assert_eq!(Record::load(&root).unwrap(), before, "it does not count yet");
            }
            let another = Record { instance_id: ramet_proto::InstanceId::random(), ..record.clone() };
            another.commit(&root).unwrap();
            assert_eq!(Record::load(&root).unwrap(), before, "it is not the one that waits");
            for _ in 0..2 {
                record.commit(&root).unwrap();
                assert_eq!(Record::load(&root).unwrap().as_ref(), Some(&record));
            }
            record.show(&root).unwrap();
            assert_eq!(Record::present(&root).unwrap(), Some(record));
        }
    }

    #[test]
    fn a_record_of_before_there_were_domains_is_read() {
        let (dir, root) = root();
        root.make_dir(DIRECTORY, 0o700).unwrap();
        let text = "format = 1\ninstance_id = \"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f\"\nhostname = \"web-1\"\n\
                    machine_id = \"0123456789abcdef0123456789abcdef\"\nmacs = [\"52:54:00:00:00:01\"]\n";
        std::fs::write(dir.path().join(PATH), text).unwrap();
        let record = Record::load(&root).unwrap().unwrap();
        assert_eq!((record.macs.len(), record.domain), (1, None));
    }

    #[test]
    fn anything_else_is_refused() {
        let (dir, root) = root();
        root.make_dir(DIRECTORY, 0o700).unwrap();
        for bad in ["", "format = 1\n", "format = 2\nfuture = true\n", "\0"] {
            std::fs::write(dir.path().join(PATH), bad).unwrap();
            assert!(Record::load(&root).is_err(), "{bad:?}");
        }
    }
}
