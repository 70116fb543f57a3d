//! Names by which storage knows this machine: iSCSI (RFC 7143, section 4.2.7) and `NVMe` (NVM Express Base Specification,
//! "`NVMe` Qualified Names", "Host Identifier": one goes with the other, and no two hosts share either).

use super::{ApplyError, hostname::replaceable, ids, random, random_uuid};
use crate::{root::Root, system::System};
use ramet_proto::{message::Finding, text::to_hex};

const INITIATOR: &str = "etc/iscsi/initiatorname.iscsi";
const ISCSID: &str = "usr/sbin/iscsid";

/// What iscsi-iname(8) of Debian begins a name with.
const PREFIX: &str = "iqn.1993-08.org.debian:01";

const NVME: &str = "etc/nvme";
const HOSTNQN: &str = "etc/nvme/hostnqn";
const HOSTID: &str = "etc/nvme/hostid";

pub(super) fn apply<S: System>(root: &Root, system: &S) -> Result<(), ApplyError> {
    ids::apply(root, system)?;
    let before = text(INITIATOR, root)?;
    if root.exists(INITIATOR)? || (root.exists("etc/iscsi")? && root.exists(ISCSID)?) {
        let before = before.as_deref().and_then(initiator).unwrap_or_default();
        let prefix = before.rsplit_once(':').map_or(PREFIX, |(prefix, _)| prefix);
        let text = format!("InitiatorName={prefix}:{}\n", to_hex(&random::<6>(system)?));
        root.replace(INITIATOR, text.as_bytes(), 0o600)?;
    }
    if root.exists(NVME)? {
        // Not what `nvme gen-hostnqn` makes: that prefers the SMBIOS UUID, which stays the template's.
        let uuid = random_uuid(system)?;
        root.replace(HOSTNQN, format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}\n").as_bytes(), 0o644)?;
        root.replace(HOSTID, format!("{uuid}\n").as_bytes(), 0o644)?;
    }
    Ok(())
}

fn text(path: &str, root: &Root) -> Result<Option<String>, ApplyError> {
    Ok(ids::content(path, root)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The names there are.
pub(super) fn values(root: &Root) -> Result<Vec<(String, String)>, ApplyError> {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let found = [
        ("iscsi_initiator", text(INITIATOR, root)?.as_deref().and_then(initiator).map(str::to_owned)),
        ("nvme_hostnqn", text(HOSTNQN, root)?.map(first_line)),
        ("nvme_hostid", text(HOSTID, root)?.map(first_line)),
    ];
    let found = found.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(found.chain(ids::values(root)?).collect())
}

/// That nothing is left of what goes.
pub(super) fn verify(root: &Root) -> Result<(), ApplyError> {
    ids::verify(root)
}

/// The name in the file of open-iscsi, which may have comments and `GenerateName=yes` instead.
fn initiator(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("InitiatorName=")).map(str::trim)
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    for path in [INITIATOR, HOSTNQN, HOSTID] {
        found.extend(replaceable(path, root)?);
    }
    found.extend(ids::check(root)?);
    // What cannot be read would end each child.
    values(root)?;
    Ok(found)
}
