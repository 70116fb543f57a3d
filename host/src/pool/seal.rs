//! Passwords at rest: sealed with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), each for one account and one version of
//! its keys, so that a sealed password put elsewhere in the store does not open.

use crate::fs::{AtPath, FsError, create_once};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use ramet_proto::{
    Secret,
    text::{from_hex, to_hex},
};
use std::{fmt, fs::File, io::Read as _, os::unix::fs::PermissionsExt as _, path::PathBuf};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY: usize = 32;

/// Bytes of a nonce. So many are safe to be random, however many passwords are sealed.
const NONCE: usize = 24;

/// The name of the key among a service's credentials (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "ramet-pool-key";

/// Where the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In this file, which is made when the key is first needed.
    Made(PathBuf),
    /// In this file, which somebody else has made.
    File(PathBuf),
    /// In this credential of a service. systemd guards it, with an access control list where the user is not root.
    Credential(PathBuf),
    /// Nobody has said where.
    Missing,
}

impl KeySource {
    /// The credential of the service that this process is, if it has one of that name.
    #[must_use]
    pub fn credential() -> Option<Self> {
        let path = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL);
        path.exists().then_some(Self::Credential(path))
    }
}

/// Why there is no key, or it opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Nobody has said where it is.
    #[error("machine passwords of this store need a key: name its file (--key-file, RAMET_KEY_FILE)")]
    Missing,
    /// The file cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Others can read it.
    #[error("others than its owner can read the key {path}: chmod 600 {path}", path = .0.display())]
    Exposed(PathBuf),
    /// It is no key.
    #[error(
        "the key {path} is not {KEY} bytes long: make one with (umask 077; head -c {KEY} /dev/urandom > {path})",
        path = .0.display()
    )]
    Size(PathBuf),
    /// It is the key of another store.
    #[error("the key {} is not the one that this store's passwords are sealed with: use that one", .0.display())]
    WrongKey(PathBuf),
    /// A sealed password does not open with the right key.
    #[error("a sealed password in the store is damaged: give its account another (ramet domain reset)")]
    Damaged,
    /// No randomness.
    #[error("the system has no random numbers")]
    Random,
}

/// A key, and where it came from.
pub struct SealingKey {
    cipher: XChaCha20Poly1305,
    path: PathBuf,
}

impl SealingKey {
    /// Reads the key from its source.
    pub fn load(source: &KeySource) -> Result<Self, SealError> {
        let (path, guarded) = match source {
            KeySource::Missing => return Err(SealError::Missing),
            KeySource::File(path) => (path, false),
            KeySource::Credential(path) => (path, true),
            KeySource::Made(path) => {
                if !path.exists() {
                    let mut key = Zeroizing::new([0; KEY]);
                    getrandom::fill(key.as_mut_slice()).map_err(|_| SealError::Random)?;
                    create_once(path, key.as_slice())?;
                }
                (path, false)
            }
        };
        let file = File::open(path).at("read the key", path)?;
        let mode = file.metadata().at("read the key", path)?.permissions().mode();
        if !guarded && mode & 0o077 != 0 {
            return Err(SealError::Exposed(path.clone()));
        }
        // One byte more than a key tells that it is too long. A vector that grew would leave copies behind.
        let mut key = Zeroizing::new(Vec::with_capacity(KEY + 1));
        file.take(KEY as u64 + 1).read_to_end(&mut key).at("read the key", path)?;
        let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| SealError::Size(path.clone()))?;
        Ok(Self { cipher, path: path.clone() })
    }

    /// `secret` as text that only this key opens, and only for the same `purpose`.
    pub fn seal(&self, secret: &[u8], purpose: &str) -> Result<String, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let payload = Payload { msg: secret, aad: purpose.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Damaged)?;
        Ok(to_hex(&nonce) + &to_hex(&sealed))
    }

    /// What was sealed for `purpose`.
    pub fn open(&self, sealed: &str, purpose: &str) -> Result<Secret, SealError> {
        let bytes = from_hex(sealed).ok_or(SealError::Damaged)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(SealError::Damaged)?;
        let payload = Payload { msg: sealed, aad: purpose.as_bytes() };
        let secret = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Damaged)?;
        Ok(Secret::new(secret))
    }

    /// Fails unless this key has sealed `check`, a text of [`SealingKey::new_check`].
    pub(super) fn verify(&self, check: &str) -> Result<(), SealError> {
        self.open(check, CHECK).map(drop).map_err(|_| SealError::WrongKey(self.path.clone()))
    }

    /// A text by which the key is known again.
    pub(super) fn new_check(&self) -> Result<String, SealError> {
        self.seal(b"", CHECK)
    }
}

const CHECK: &str = "key check";

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn key_in(dir: &Path) -> SealingKey {
        SealingKey::load(&KeySource::Made(dir.join("pool-key"))).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_purpose() {
        let dir = tempfile::tempdir().unwrap();
        let key = key_in(dir.path());
        let sealed = key.seal(b"hunter2", "a").unwrap();
        assert_eq!(key_in(dir.path()).open(&sealed, "a").unwrap().expose(), b"hunter2");
        assert!(matches!(key.open(&sealed, "b"), Err(SealError::Damaged)));
        assert_ne!(key.seal(b"hunter2", "a").unwrap(), sealed);
        let other = tempfile::tempdir().unwrap();
        assert!(key_in(other.path()).open(&sealed, "a").is_err());
        assert!(key_in(other.path()).verify(&key.new_check().unwrap()).is_err());
        key.verify(&key.new_check().unwrap()).unwrap();
    }

    #[test]
    fn anything_altered_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = key_in(dir.path());
        let sealed = key.seal(b"hunter2", "a").unwrap();
        for at in 0..sealed.len() {
            let mut altered = sealed.clone().into_bytes();
            altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
            assert!(key.open(&String::from_utf8(altered).unwrap(), "a").is_err(), "at {at}");
            assert!(key.open(&sealed[..at], "a").is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_that_others_read_or_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let load = || SealingKey::load(&KeySource::File(path.clone()));
        assert!(matches!(load(), Err(SealError::Fs(error)) if error.is_not_found()));
        for (bytes, mode, exposed) in
            [(KEY, 0o640, true), (KEY, 0o604, true), (KEY - 1, 0o600, false), (KEY + 1, 0o600, false)]
        {
            fs::write(&path, vec![7; bytes]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load().unwrap_err();
            assert_eq!(matches!(error, SealError::Exposed(_)), exposed, "{bytes} {mode:o}");
            assert_eq!(matches!(error, SealError::Size(_)), !exposed, "{bytes} {mode:o}");
        }
        assert!(matches!(SealingKey::load(&KeySource::Missing), Err(SealError::Missing)));
        let made = dir.path().join("made");
        SealingKey::load(&KeySource::Made(made.clone())).unwrap();
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_byte_of_the_key_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool-key");
        assert_eq!(format!("{:?}", key_in(dir.path())), format!("SealingKey({})", path.display()));
    }
}
