//! SSH host keys: the template's go, the child's own are generated after the reseed (sshd(8), FILES).
//!
//! Ed25519 keys, which every child gets, are made here: starting ssh-keygen(1) would take half the time that a whole
//! identity takes. Other kinds are left to it.

use super::ApplyError;
use crate::{
    config::{Config, KeyKind},
    process::Run,
    root::Root,
    system::System,
};
use ramet_proto::{
    SshPublicKey,
    message::{Finding, Identity},
};
use ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};
use std::time::Duration;
use zeroize::Zeroizing;

const DIRECTORY: &str = "etc/ssh";
const SSHD: &str = "usr/sbin/sshd";
const SSH_KEYGEN: &str = "usr/bin/ssh-keygen";

/// How long one ssh-keygen may take: RSA on a slow machine.
const KEYGEN_LIMIT: Duration = Duration::from_mins(1);

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
    let comment = format!("root@{}", identity.hostname);
    for kind in &config.ssh_host_keys {
        let path = format!("{DIRECTORY}/ssh_host_{kind}_key");
        match kind {
            KeyKind::Ed25519 => ed25519(&path, &comment, root, system)?,
            KeyKind::Ecdsa | KeyKind::Rsa if root.exists(SSH_KEYGEN)? => {
                let kind = kind.to_string();
                let arguments = ["-q", "-t", &kind, "-N", "", "-C", &comment, "-f", &format!("/{path}")];
                system
                    .run(&Run::new("ssh-keygen", &arguments, KEYGEN_LIMIT))
                    .map_err(|error| ApplyError::System("generate an SSH host key", error))?;
            }
            KeyKind::Ecdsa | KeyKind::Rsa => {
                return Err(ApplyError::Missing(format!(
                    "no /{SSH_KEYGEN} to make a host key of kind {kind}"
                )));
            }
        }
    }
    Ok(())
}

/// Makes an Ed25519 key from 32 random bytes (RFC 8032, section 5.1.5), in the files and forms of ssh-keygen(1).
fn ed25519<S: System>(path: &str, comment: &str, root: &Root, system: &S) -> Result<(), ApplyError> {
    let mut seed = Zeroizing::new([0; 32]);
    system.random(&mut *seed).map_err(|error| ApplyError::System("draw random bytes", error))?;
    let formed = |error: ssh_key::Error| {
        ApplyError::System("form an SSH host key", std::io::Error::other(error.to_string()))
    };
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    let key = PrivateKey::new(pair, comment).map_err(formed)?;
    let public = key.public_key().to_openssh().map_err(formed)?;
    root.replace(path, key.to_openssh(LineEnding::LF).map_err(formed)?.as_bytes(), 0o600)?;
    Ok(root.replace(&format!("{path}.pub"), format!("{public}\n").as_bytes(), 0o644)?)
}

/// The public host keys, in the order of their files' names.
pub(crate) fn public_keys(root: &Root) -> Result<Vec<SshPublicKey>, ApplyError> {
    let mut keys = Vec::new();
    for name in root.names(DIRECTORY)? {
        if name.starts_with("ssh_host_") && name.ends_with("_key.pub") {
            let path = format!("{DIRECTORY}/{name}");
            let text = root.read_text(&path)?.unwrap_or_default();
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

/// What an identity would meet.
pub(super) fn check(_root: &Root, _config: &Config) -> Result<Vec<Finding>, ApplyError> {
    Ok(Vec::new())
}
