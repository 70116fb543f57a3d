//! The kernel's random pool, and the files that carry randomness from boot to boot.

use super::ApplyError;
use crate::{root::Root, system::System};
use ramet_proto::message::Identity;
use zeroize::Zeroizing;

/// The least seed, in bytes: what the kernel's generator takes for its key (random(4)).
const LEAST: usize = 32;

/// systemd-random-seed.service(8) credits or mixes this into the pool at boot. Siblings must not share it.
const SEED: &str = "var/lib/systemd/random-seed";

/// The key systemd-creds(1) encrypts with. systemd makes a new one when it needs it; nothing of the template's can
/// be allowed to be read with it by every child.
const CREDENTIAL_SECRET: &str = "var/lib/systemd/credential.secret";

/// Seeds the pool first of all: every step after this may draw from it.
pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    let seed = identity.entropy.expose();
    if seed.len() < LEAST {
        return Err(ApplyError::Malformed(format!("{} bytes of entropy (at least: {LEAST})", seed.len())));
    }
    system.add_entropy(seed).map_err(|error| ApplyError::System("seed the kernel's random pool", error))?;
    if let Some(length) = root.len(SEED)? {
        let length = usize::try_from(length).unwrap_or(0).clamp(LEAST, 512);
        let mut bytes = Zeroizing::new(vec![0; length]);
        system.random(&mut bytes).map_err(|error| ApplyError::System("draw random bytes", error))?;
        root.replace(SEED, &bytes, 0o600)?;
    }
    root.remove(CREDENTIAL_SECRET)?;
    Ok(())
}
