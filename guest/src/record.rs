//! The record of a completed individual, on its own disk: with it, a reboot passes the gate without the host.

use crate::root::{FileError, Root};
use ramet_proto::{Hostname, InstanceId, MacAddr, MachineId, domain::DomainAccount, message::Identity};
use serde::{Deserialize, Serialize};

const DIRECTORY: &str = "var/lib/ramet-agent";
const PATH: &str = "var/lib/ramet-agent/identity.toml";

/// Where it waits until it counts.
const PENDING: &str = "var/lib/ramet-agent/identity.toml.pending";

/// The form of the record this build writes and reads.
const FORMAT: u32 = 1;

/// The record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("/{PATH} is not a record of this agent's: {0}")]
    Form(String),
    #[error("/{PATH} has format {0}, and this agent knows {FORMAT}")]
    Format(u32),
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

    /// The record in `root`, if there is one.
    pub(crate) fn load(root: &Root) -> Result<Option<Self>, RecordError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Some(text) = root.read_text(PATH)? else { return Ok(None) };
        let form = |error: toml::de::Error| RecordError::Form(error.message().to_owned());
        let Format { format } = toml::from_str(&text).map_err(form)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        toml::from_str(&text).map(Some).map_err(form)
    }

    /// Writes it where it does not count yet: a disk that is full or cannot be written shows now.
    pub(crate) fn write(&self, root: &Root) -> Result<(), RecordError> {
        let text = toml::to_string(self).map_err(RecordError::Encode)?;
        root.make_dir(DIRECTORY, 0o700)?;
        Ok(root.replace(PENDING, text.as_bytes(), 0o600)?)
    }

    /// Makes what was written count, once everything it stands for is on the disk: after a power cut there is a whole
    /// individual or none.
    pub(crate) fn commit(root: &Root) -> Result<(), RecordError> {
        root.sync();
        Ok(root.rename_durably(PENDING, PATH)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib")).unwrap();
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
            Record::commit(&root).unwrap();
            assert_eq!(Record::load(&root).unwrap(), Some(record));
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
