//! SSH host keys: the template's go, the child's own are generated after the reseed (sshd(8), FILES).

use super::ApplyError;
use crate::{config::Config, root::Root, system::System};
use ramet_proto::{SshPublicKey, message::Identity};

const DIRECTORY: &str = "etc/ssh";
const SSHD: &str = "usr/sbin/sshd";
const SSH_KEYGEN: &str = "usr/bin/ssh-keygen";

pub(super) fn apply<S: System>(
    identity: &Identity,
    root: &Root,
    system: &S,
    config: &Config,
) -> Result<(), ApplyError> {
    // Certificates as well: they vouch for the keys that go.
    for name in
        root.names(DIRECTORY)?.iter().filter(|name| name.starts_with("ssh_host_") && name.contains("_key"))
    {
        root.remove(&format!("{DIRECTORY}/{name}"))?;
    }
    if !root.exists(SSHD)? {
        return Ok(());
    }
    if !root.exists(SSH_KEYGEN)? {
        return Err(ApplyError::Missing(format!("there is /{SSHD}, but no /{SSH_KEYGEN} to make its keys")));
    }
    let comment = format!("root@{}", identity.hostname);
    for kind in &config.ssh_host_keys {
        let file = root.outside(&format!("{DIRECTORY}/ssh_host_{kind}_key"));
        system
            .generate_host_key(*kind, &comment, &file)
            .map_err(|error| ApplyError::System("generate an SSH host key", error))?;
    }
    Ok(())
}

/// The public host keys, in the order of their files' names.
pub(crate) fn public_keys(root: &Root) -> Result<Vec<SshPublicKey>, ApplyError> {
    let mut keys = Vec::new();
    for name in root.names(DIRECTORY)? {
        if name.starts_with("ssh_host_") && name.ends_with("_key.pub") {
            let path = format!("{DIRECTORY}/{name}");
            let text = root.read(&path)?.unwrap_or_default();
            keys.push(text.parse().map_err(|error| ApplyError::Mismatch(format!("/{path}: {error}")))?);
        }
    }
    Ok(keys)
}

/// That there is a key of each kind that is to be, and none of the template's.
pub(super) fn verify(
    keys: &[SshPublicKey],
    inherited: &[SshPublicKey],
    root: &Root,
    config: &Config,
) -> Result<(), ApplyError> {
    if let Some(key) = keys.iter().find(|key| inherited.contains(key)) {
        return Err(ApplyError::Mismatch(format!(
            "the {} host key is still the template's",
            key.algorithm()
        )));
    }
    let expected = if root.exists(SSHD)? { config.ssh_host_keys.len() } else { 0 };
    if keys.len() != expected {
        return Err(ApplyError::Mismatch(format!("{} SSH host keys, not {expected}", keys.len())));
    }
    for kind in config.ssh_host_keys.iter().take(expected) {
        let path = format!("{DIRECTORY}/ssh_host_{kind}_key");
        if !root.is_regular(&path)? {
            return Err(ApplyError::Missing(format!("/{path} is not there")));
        }
    }
    Ok(())
}
