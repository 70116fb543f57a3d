//! machine-id(5).

use super::ApplyError;
use crate::{root::Root, system::System};
use ramet_proto::{MachineId, message::Identity};

const PATH: &str = "etc/machine-id";

/// Copies of it: D-Bus's own where it is a file and no link, and systemd's own while /etc could not be written
/// (systemd-machine-id-commit.service(8)).
const COPIES: &[&str] = &["var/lib/dbus/machine-id", "run/machine-id"];

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    let bytes = format!("{}\n", identity.machine_id).into_bytes();
    system
        .uncover(&root.outside(PATH))
        .map_err(|error| ApplyError::System("unmount what lies over /etc/machine-id", error))?;
    root.replace(PATH, &bytes, 0o444)?;
    for copy in COPIES {
        if root.is_regular(copy)? {
            root.replace(copy, &bytes, 0o444)?;
        }
    }
    Ok(())
}

/// What the file says.
pub(super) fn read(root: &Root) -> Result<MachineId, ApplyError> {
    let text = root.read_text(PATH)?.ok_or_else(|| ApplyError::Missing(format!("/{PATH} is not there")))?;
    text.trim_end().parse().map_err(|error| ApplyError::Mismatch(format!("/{PATH}: {error}")))
}
