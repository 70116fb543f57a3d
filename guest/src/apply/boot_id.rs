//! The boot id (random(4), `boot_id`), which the kernel makes once and never again: a file of the agent's is mounted over
//! the kernel's, as systemd-nspawn(1) does for containers. On a machine that booted by itself this would not be needed and
//! does no harm, so there is one way for both.

use super::{ApplyError, random_uuid};
use crate::{
    root::{RUNTIME, Root},
    system::System,
};
use ramet_proto::BootId;
use std::fmt::Write;

const KERNELS: &str = "proc/sys/kernel/random/boot_id";
const OURS: &str = "run/ramet-agent/boot_id";

/// What systemd-tmpfiles(8) leaves alone: directories of services that have a /tmp of their own, which are named with the
/// boot id that the service manager went by when they started. `systemd-tmp.conf` has these lines for the id of now only.
const KEPT: &str = "run/tmpfiles.d/ramet-boot-id.conf";

pub(super) fn apply<S: System>(root: &Root, system: &S) -> Result<(), ApplyError> {
    if let Some(id) = read(root)? {
        keep(&id.to_string().replace('-', ""), root)?;
    }
    let id = random_uuid(system)?;
    root.make_dir(RUNTIME, 0o755)?;
    root.replace(OURS, format!("{id}\n").as_bytes(), 0o444)?;
    system
        .cover(&root.outside(OURS), &root.outside(KERNELS))
        .map_err(|error| ApplyError::System("mount a boot id over the kernel's", error))
}

/// Has what is named with the boot id `id` be left alone.
fn keep(id: &str, root: &Root) -> Result<(), ApplyError> {
    let mut text = root.read_text(KEPT)?.unwrap_or_default();
    if text.contains(id) {
        return Ok(());
    }
    for directory in ["/tmp", "/var/tmp"] {
        let private = format!("{directory}/systemd-private-{id}-*");
        // Writing to a String does not fail.
        let _ = write!(text, "x {private}\nX {private}/tmp\n");
    }
    root.make_dir("run/tmpfiles.d", 0o755)?;
    Ok(root.replace(KEPT, text.as_bytes(), 0o644)?)
}

/// What the kernel's file shows.
pub(super) fn read(root: &Root) -> Result<Option<BootId>, ApplyError> {
    let Some(text) = root.read_text(KERNELS)? else { return Ok(None) };
    text.trim_end().parse().map(Some).map_err(|error| ApplyError::Mismatch(format!("/{KERNELS}: {error}")))
}

/// That `shown` is the agent's and not the template's.
pub(super) fn verify(
    shown: Option<BootId>,
    inherited: Option<BootId>,
    root: &Root,
) -> Result<(), ApplyError> {
    let ours = root.read_text(OURS)?.and_then(|text| text.trim_end().parse::<BootId>().ok());
    match shown {
        None => Err(ApplyError::Missing(format!("/{KERNELS} is not there"))),
        Some(id) if shown == inherited || shown != ours => {
            Err(ApplyError::Mismatch(format!("the boot id is {id}, not the one that was mounted")))
        }
        Some(_) => Ok(()),
    }
}
