//! The kernel's random pool, and the files that carry randomness from boot to boot.

use super::{ApplyError, hostname::replaceable};
use crate::{root::Root, system::System};
use ramet_proto::message::{Finding, Grade, Identity};
use zeroize::Zeroizing;

/// The least seed, in bytes: what the kernel's generator takes for its key (random(4)).
const LEAST: usize = 32;

/// systemd-random-seed.service(8) credits or mixes this into the pool at boot. Siblings must not share it.
const SEED: &str = "var/lib/systemd/random-seed";

/// The key systemd-creds(1) encrypts with. systemd makes a new one when it needs it; nothing of the template's can
/// be allowed to be read with it by every child.
const CREDENTIAL_SECRET: &str = "var/lib/systemd/credential.secret";

/// Where systemd looks for encrypted credentials, and where units are (systemd.exec(5), systemd.unit(5)).
const CREDENTIALS: &[&str] = &[
    "etc/credstore.encrypted",
    "run/credstore.encrypted",
    "usr/local/lib/credstore.encrypted",
    "usr/lib/credstore.encrypted",
];
const UNITS: &[&str] =
    &["etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"];

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

/// What an identity would meet: what is encrypted with a key that no child has.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    for path in [SEED, CREDENTIAL_SECRET] {
        if path == CREDENTIAL_SECRET || root.exists(path)? {
            found.extend(replaceable(path, root)?);
        }
    }
    if !root.exists(CREDENTIAL_SECRET)? {
        return Ok(found);
    }
    let fix = "give it to children past the gate, or encrypt it with the TPM's key or none (systemd-creds(1), --with-key=)";
    let mut tell = |path: String| {
        let what = format!(
            "/{path} is encrypted with /{CREDENTIAL_SECRET}, which goes from every child: it cannot be read there"
        );
        found.push(Finding::new(Grade::Broken, &what, fix));
    };
    for directory in CREDENTIALS {
        root.names(directory)?.iter().for_each(|name| tell(format!("{directory}/{name}")));
    }
    for directory in UNITS {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            let files = if name.strip_suffix(".d").is_some() && root.is_dir(&path)? {
                root.names(&path)?.iter().map(|name| format!("{path}/{name}")).collect()
            } else {
                vec![path]
            };
            // What cannot be read is no setting: links to /dev/null, directories of wants.
            for file in files.into_iter().filter(|file| root.is_regular(file).unwrap_or(false)) {
                for credential in encrypted(&root.read_lossy(&file)?.unwrap_or_default()) {
                    tell(format!("{file}: {credential}"));
                }
            }
        }
    }
    Ok(found)
}

/// The lines of a unit that have a credential decrypted, without the credential.
fn encrypted(unit: &str) -> Vec<String> {
    let named = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let is_one = matches!(key.trim(), "LoadCredentialEncrypted" | "SetCredentialEncrypted");
        let name = value.trim().split(':').next().unwrap_or_default();
        (is_one && !name.is_empty()).then(|| format!("{}={name}", key.trim()))
    };
    unit.lines().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_encrypted_credential_that_dies_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let files = [
            ("etc/credstore.encrypted/tok", "x"),
            (
                "etc/systemd/system/a.service",
                "[Service]\n LoadCredentialEncrypted = tok\n#LoadCredentialEncrypted=no\n",
            ),
            (
                "usr/lib/systemd/system/b.service.d/c.conf",
                "[Service]\nSetCredentialEncrypted=pw:AAAA\nLoadCredential=d\n",
            ),
        ];
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", dir.path().join("etc/systemd/system/x.service")).unwrap();
        assert!(check(&root).unwrap().is_empty(), "without the key they are encrypted with another");
        fs::create_dir_all(dir.path().join("var/lib/systemd")).unwrap();
        fs::write(dir.path().join(CREDENTIAL_SECRET), "secret").unwrap();
        let found = check(&root).unwrap();
        let named = [
            "/etc/credstore.encrypted/tok ",
            "a.service: LoadCredentialEncrypted=tok ",
            "c.conf: SetCredentialEncrypted=pw ",
        ];
        assert_eq!(found.len(), named.len(), "{found:?}");
        for (finding, name) in found.iter().zip(named) {
            assert!(finding.grade == Grade::Broken && finding.what.as_str().contains(name), "{finding:?}");
        }
    }
}
