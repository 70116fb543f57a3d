//! Keys and their files: what kind one is, its public half, and making one.

use crate::{
    apply::{ApplyError, random},
    config::KeyKind,
    limits::programs,
    process::Run,
    root::{FileError, Root},
    system::System,
};
use base64ct::{Base64, Encoding as _};
use nix::unistd::{Gid, Uid};
use ramet_proto::SshPublicKey;
use ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, KeypairData},
};
use zeroize::Zeroizing;

const SSH_KEYGEN: &[&str] = &["usr/bin/ssh-keygen", "usr/local/bin/ssh-keygen"];

/// No key of a host is larger; what is, is none.
const MAX_KEY: u64 = 64 << 10;

/// A kind of key, and its size if that is not the program's own choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) kind: KeyKind,
    pub(super) bits: Option<usize>,
}

/// Whether there is an ssh-keygen(1).
pub(super) fn has_keygen(root: &Root) -> Result<bool, FileError> {
    SSH_KEYGEN.iter().try_fold(false, |found, path| Ok(found || root.exists(path)?))
}

/// What can be told of the key that is, or is to be, in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Kind(Kind),
    /// DSA, which OpenSSH and Dropbear no longer make.
    Dsa,
    Unknown,
}

/// The kind of the key at `path`: by its public half, else by its own form, else by its name.
pub(super) fn told(root: &Root, path: &str) -> Told {
    let public = public_blob(root, path).or_else(|| {
        let text = small(root, &format!("{path}.pub"))?;
        let base64 = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1)?;
        Base64::decode_vec(str::from_utf8(base64).ok()?).ok()
    });
    if let Some(told) = public.as_deref().and_then(kind_of_blob) {
        return told;
    }
    let head = small(root, path).unwrap_or_default();
    let head = String::from_utf8_lossy(&head[..head.len().min(64)]).into_owned();
    let plain = |kind| Told::Kind(Kind { kind, bits: None });
    let name = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    if head.starts_with("-----BEGIN RSA ") {
        plain(KeyKind::Rsa)
    } else if head.starts_with("-----BEGIN EC ") {
        plain(KeyKind::Ecdsa)
    } else if head.starts_with("-----BEGIN DSA ") {
        Told::Dsa
    } else if name.contains("ed25519") {
        plain(KeyKind::Ed25519)
    } else if name.contains("ecdsa") {
        plain(KeyKind::Ecdsa)
    } else if name.contains("rsa") {
        plain(KeyKind::Rsa)
    } else if name.contains("dsa") || name.contains("dss") {
        Told::Dsa
    } else {
        Told::Unknown
    }
}

/// The kind of a public key (RFC 4253, section 6.6; RFC 5656, section 3.1).
pub(super) fn kind_of_blob(blob: &[u8]) -> Option<Told> {
    let mut rest = blob;
    let (kind, bits) = match string(&mut rest)? {
        b"ssh-ed25519" => (KeyKind::Ed25519, None),
        b"ssh-rsa" => {
            string(&mut rest)?;
            let modulus = string(&mut rest)?;
            (KeyKind::Rsa, Some(modulus.iter().skip_while(|byte| **byte == 0).count() * 8))
        }
        b"ecdsa-sha2-nistp256" => (KeyKind::Ecdsa, Some(256)),
        b"ecdsa-sha2-nistp384" => (KeyKind::Ecdsa, Some(384)),
        b"ecdsa-sha2-nistp521" => (KeyKind::Ecdsa, Some(521)),
        b"ssh-dss" => return Some(Told::Dsa),
        _ => return None,
    };
    // What ssh-keygen makes by itself is not less than these.
    let own = match kind {
        KeyKind::Rsa => 3072,
        KeyKind::Ecdsa => 256,
        KeyKind::Ed25519 => 0,
    };
    Some(Told::Kind(Kind { kind, bits: bits.filter(|bits| *bits > own) }))
}

/// The public key that sshd offers for the key at `path`; `None` where there is none. It is the one in the private key:
/// sshd does not need the other file.
pub(super) fn offered(root: &Root, path: &str) -> Result<Option<SshPublicKey>, ApplyError> {
    if !root.is_regular(path)? {
        return Ok(None);
    }
    if let Some(key) = public_blob(root, path).and_then(|blob| public(&blob)) {
        return Ok(Some(key));
    }
    let text = small(root, &format!("{path}.pub")).unwrap_or_default();
    let parsed = String::from_utf8_lossy(&text).parse();
    parsed.map(Some).map_err(|error| ApplyError::Mismatch(format!("the public key of /{path}: {error}")))
}

/// A public key as a line.
pub(super) fn public(blob: &[u8]) -> Option<SshPublicKey> {
    let algorithm = String::from_utf8(string(&mut &*blob)?.to_vec()).ok()?;
    format!("{algorithm} {}", Base64::encode_string(blob)).parse().ok()
}

/// The public key within a private one in OpenSSH's form, which is not encrypted there (OpenSSH, `PROTOCOL.key`).
pub(super) fn public_blob(root: &Root, path: &str) -> Option<Vec<u8>> {
    let file = small(root, path)?;
    let text = str::from_utf8(&file).ok()?;
    let (_, rest) = text.split_once("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let (base64, _) = rest.split_once("-----END OPENSSH PRIVATE KEY-----")?;
    let base64: Zeroizing<String> = Zeroizing::new(base64.split_ascii_whitespace().collect());
    let bytes = Zeroizing::new(Base64::decode_vec(&base64).ok()?);
    let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    for _cipher_and_kdf in 0..3 {
        string(&mut rest)?;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*count) == 1).then_some(())?;
    Some(string(&mut rest)?.to_vec())
}

/// A string of the SSH protocol at the beginning of `bytes` (RFC 4251, section 5).
pub(super) fn string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (found, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(found)
}

/// A file that can be a key's. What cannot be read is none: the template's are about to go.
pub(super) fn small(root: &Root, path: &str) -> Option<Zeroizing<Vec<u8>>> {
    let fits = root.len(path).ok().flatten().is_some_and(|len| len <= MAX_KEY);
    if fits { root.read(path).ok().flatten().map(Zeroizing::new) } else { None }
}

/// Makes a key at `path` in place of the one that is there.
pub(super) fn make<S: System>(
    path: &str,
    kind: Kind,
    comment: &str,
    root: &Root,
    system: &S,
) -> Result<(), ApplyError> {
    match kind.kind {
        KeyKind::Ed25519 => ed25519(path, comment, root, system),
        KeyKind::Ecdsa | KeyKind::Rsa => {
            // It would ask whether to overwrite them.
            root.remove(path)?;
            root.remove(&format!("{path}.pub"))?;
            let (kind, bits) = (kind.kind.to_string(), kind.bits.map(|bits| bits.to_string()));
            let mut arguments = vec!["-q", "-t", &kind];
            arguments.extend(bits.iter().flat_map(|bits| ["-b", bits]));
            let file = format!("/{path}");
            arguments.extend(["-N", "", "-C", comment, "-f", &file]);
            system
                .run(&Run::new("ssh-keygen", &arguments, programs::KEYGEN))
                .map_err(|error| ApplyError::System("generate an SSH host key", error))?;
            Ok(())
        }
    }
}

/// Makes an Ed25519 key from 32 random bytes (RFC 8032, section 5.1.5), in the files and forms of ssh-keygen(1).
fn ed25519<S: System>(path: &str, comment: &str, root: &Root, system: &S) -> Result<(), ApplyError> {
    let pair = draw(system)?;
    let formed = |error: ssh_key::Error| {
        ApplyError::System("form an SSH host key", std::io::Error::other(error.to_string()))
    };
    let key = PrivateKey::new(KeypairData::Ed25519(pair), comment).map_err(formed)?;
    let public = key.public_key().to_openssh().map_err(formed)?;
    put(root, path, key.to_openssh(LineEnding::LF).map_err(formed)?.as_bytes(), 0o600)?;
    Ok(put(root, &format!("{path}.pub"), format!("{public}\n").as_bytes(), 0o644)?)
}

/// A new pair of keys.
pub(super) fn draw<S: System>(system: &S) -> Result<Ed25519Keypair, ApplyError> {
    Ok(Ed25519Keypair::from_seed(&Zeroizing::new(random::<32>(system)?)))
}

/// Puts a file in place of the one that is there, whose security label it keeps, but not its owner or mode: a private key
/// that others can read is none to sshd.
pub(super) fn put(root: &Root, path: &str, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    root.replace(path, bytes, mode)?;
    root.give(path, Uid::effective().as_raw(), Gid::effective().as_raw(), mode)
}
