//! A site's own appliers: programs that do what the agent does not know of. They run in the order of their names, each with
//! the identity as JSON on its standard input, without what is secret in it, and print what they have made as lines
//! `key=value`. What is printed is evidence: no two siblings may show the same.

use super::ApplyError;
use crate::{config::Config, process, root::Root};
use ramet_proto::{
    Hostname, InstanceId, MachineId, Sid,
    domain::DomainAccount,
    login::UserKeys,
    message::{Finding, Grade, Identity, NicIdentity, UniqueValue},
    text::Text,
};
use serde::Serialize;
use std::process::Command;

const DIRECTORY: &str = "etc/ramet/appliers.d";

/// The most lines of evidence of one applier.
const MAX_LINES: usize = 32;

/// The most bytes of evidence of all appliers: with the rest it has to fit into one message (`frame::MAX_BODY`, 64 KiB).
const MAX_BYTES: usize = 24 << 10;

/// What an applier is told.
#[derive(Serialize)]
struct Public<'a> {
    instance_id: InstanceId,
    hostname: &'a Hostname,
    machine_id: MachineId,
    nics: &'a [NicIdentity],
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_sid: &'a Option<Sid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a DomainAccount>,
    authorized_keys: &'a [UserKeys],
    unix_time_ns: i64,
}

pub(super) fn apply(
    identity: &Identity,
    root: &Root,
    config: &Config,
) -> Result<Vec<UniqueValue>, ApplyError> {
    let names = root.names(DIRECTORY)?;
    let mut values = Vec::new();
    if names.is_empty() {
        return Ok(values);
    }
    let Identity { instance_id, machine_id, unix_time_ns, .. } = *identity;
    let Identity { hostname, nics, machine_sid, authorized_keys, .. } = identity;
    let domain = identity.domain.as_ref().map(|domain| &domain.account);
    let public = Public {
        instance_id,
        hostname,
        machine_id,
        nics,
        machine_sid,
        domain,
        authorized_keys,
        unix_time_ns,
    };
    let input = serde_json::to_vec(&public)
        .map_err(|error| ApplyError::System("form what appliers are told", error.into()))?;
    if let Some(what) = untrusted(root, DIRECTORY)? {
        return Err(ApplyError::Mismatch(what));
    }
    for name in names {
        let path = format!("{DIRECTORY}/{name}");
        if let Some(what) = unfit(root, &path)? {
            return Err(ApplyError::Mismatch(what));
        }
        let mut command = Command::new(root.outside(&path));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/");
        let said = process::filter(&mut command, &input, config.site_applier_timeout())
            .map_err(|error| ApplyError::System("run an applier of the site", error))?;
        values.extend(evidence(&name, &said).map_err(|why| ApplyError::Mismatch(format!("/{path} {why}")))?);
        let bytes = size(&values)?;
        if bytes > MAX_BYTES {
            return Err(ApplyError::Mismatch(format!(
                "/{path} and those before it printed evidence of {bytes} bytes, and {MAX_BYTES} is the most of all: print a \
                 digest instead"
            )));
        }
    }
    Ok(values)
}

/// How long `values` are in a message.
fn size(values: &[UniqueValue]) -> Result<usize, ApplyError> {
    let bytes = serde_json::to_vec(values);
    Ok(bytes.map_err(|error| ApplyError::System("form the evidence of appliers", error.into()))?.len())
}

/// What others can write, others can have run as root.
fn untrusted(root: &Root, path: &str) -> Result<Option<String>, ApplyError> {
    let is_trusted = root.is_private(path)?;
    Ok((!is_trusted)
        .then(|| format!("/{path} does not belong to root, is a link, or can be written by others")))
}

/// Why the applier at `path` is not run.
fn unfit(root: &Root, path: &str) -> Result<Option<String>, ApplyError> {
    let what = untrusted(root, path)?;
    if what.is_some() || root.is_regular(path)? && root.is_executable(path)? {
        return Ok(what);
    }
    Ok(Some(format!("/{path} is not an executable file")))
}

/// The evidence that the applier `name` has printed.
fn evidence(name: &str, said: &str) -> Result<Vec<UniqueValue>, String> {
    let mut values = Vec::<UniqueValue>::new();
    for line in said.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("printed {line:?}, not key=value"))?;
        let is_key = (1..=64).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let safe = Text::new(value);
        if !is_key || value.is_empty() || safe.as_str() != value {
            return Err(format!("printed {line:?}: a key or value that is none"));
        }
        let name = Text::new(&format!("site/{name}/{key}"));
        if values.iter().any(|other| other.name == name) || values.len() == MAX_LINES {
            return Err(format!("printed {key} twice, or more than {MAX_LINES} lines"));
        }
        values.push(UniqueValue { name, value: safe });
    }
    Ok(values)
}

/// What an identity would meet: a README, a file that a package's upgrade has put aside, one that lost its mode. None is
/// passed over, since it may be an applier that is meant to run.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    if root.exists(DIRECTORY)? && !root.is_dir(DIRECTORY)? {
        let what =
            format!("/{DIRECTORY} is not a directory: nothing in it would be run, or every child ends there");
        return Ok(vec![Finding::new(Grade::Fatal, &what, "make it a directory of root's, or remove it")]);
    }
    let names = root.names(DIRECTORY)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let of_directory = untrusted(root, DIRECTORY)?.map(|what| (what, "chown root and chmod go-w it"));
    let mut found: Vec<_> = of_directory.into_iter().collect();
    for name in &names {
        let path = format!("{DIRECTORY}/{name}");
        let fix = "remove it, or make it an applier: root's, executable, written by nobody else (chown root, chmod 755)";
        if let Some(what) = unfit(root, &path)? {
            found.push((what, fix));
        } else if let Some(what) = not_a_program(root, &path)? {
            found.push((what, fix));
        }
    }
    Ok(found
        .into_iter()
        .map(|(what, fix)| {
            Finding::new(Grade::Fatal, &format!("every child would end at its appliers: {what}"), fix)
        })
        .collect())
}

/// Why the kernel would not run what is at `path` (execve(2), `ENOEXEC` and `ENOENT`).
fn not_a_program(root: &Root, path: &str) -> Result<Option<String>, ApplyError> {
    let bytes = root.read(path)?.unwrap_or_default();
    if bytes.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let Some(line) = bytes.strip_prefix(b"#!") else {
        return Ok(Some(format!("/{path} is no program: it begins with neither #! nor an ELF header")));
    };
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let interpreter = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
    let below = interpreter.trim_start_matches('/');
    if !below.is_empty() && root.exists(below)? {
        return Ok(None);
    }
    Ok(Some(format!("/{path} is run by {interpreter:?}, which is not there")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
    };
    use tempfile::TempDir;

    const SCRIPT: &str = "#!/bin/sh\n";

    fn site(files: &[(&str, &str, u32)]) -> (TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let appliers = dir.path().join(DIRECTORY);
        fs::create_dir_all(&appliers).unwrap();
        for (name, text, mode) in files {
            let path = appliers.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/sh"), "").unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn found(root: &Root) -> Vec<String> {
        let found = check(root).unwrap();
        assert!(found.iter().all(|one| one.grade == Grade::Fatal), "{found:?}");
        found.into_iter().map(|one| one.what.to_string()).collect()
    }

    #[test]
    fn what_is_no_applier_is_told_when_the_template_is_made() {
        let (_dir, root) = site(&[
            ("10-salt", SCRIPT, 0o755),
            ("10-salt.dpkg-dist", SCRIPT, 0o644),
            ("20-open", SCRIPT, 0o757),
            ("30-empty", "", 0o755),
            ("40-python", "#! /usr/bin/python3 -u\n", 0o755),
            ("50-nobody", "#!", 0o755),
            ("60-program", "\x7fELF", 0o755),
            ("README", "Appliers run here.\n", 0o644),
        ]);
        let found = found(&root);
        let bad = ["10-salt.dpkg-dist", "20-open", "30-empty", "40-python", "50-nobody", "README"];
        assert_eq!(found.len(), bad.len(), "{found:?}");
        for (what, name) in found.iter().zip(bad) {
            assert!(what.contains(&format!("/{DIRECTORY}/{name} ")), "{what}");
        }
    }

    /// A directory, a link, somebody else's, and what is missing.
    #[test]
    fn an_applier_that_is_not_as_expected_is_named_or_is_none() {
        let (dir, root) = site(&[]);
        assert_eq!(found(&root), [""; 0]);
        let appliers = dir.path().join(DIRECTORY);
        fs::create_dir(appliers.join("a")).unwrap();
        symlink("/bin/true", appliers.join("b")).unwrap();
        symlink("/nowhere", appliers.join("c")).unwrap();
        assert_eq!(found(&root).len(), 3);
        if nix::unistd::Uid::effective().is_root() {
            let (dir, root) = site(&[("10-salt", SCRIPT, 0o755)]);
            chown(dir.path().join(DIRECTORY).join("10-salt"), Some(1000), None).unwrap();
            assert!(found(&root)[0].contains("does not belong to root"));
        }
        let (dir, root) = site(&[("10-salt", SCRIPT, 0o755)]);
        fs::set_permissions(dir.path().join(DIRECTORY), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(found(&root)[0].contains("/etc/ramet/appliers.d does not"));
        fs::remove_dir_all(dir.path().join(DIRECTORY)).unwrap();
        assert_eq!(found(&root), [""; 0]);
        fs::write(dir.path().join(DIRECTORY), "").unwrap();
        assert!(found(&root)[0].contains("is not a directory"));
    }

    #[test]
    fn what_appliers_print_fits_into_a_message() {
        let lines =
            |n: usize| (0..MAX_LINES).fold(String::new(), |all, k| format!("{all}k{k}={}\n", "v".repeat(n)));
        let values = evidence("10-salt", &lines(512)).unwrap();
        assert!(size(&values).unwrap() < MAX_BYTES, "one that prints the most is heard");
        let text = format!("cat <<.\n{}.\n", lines(512));
        let (_dir, root) =
            site(&[("10-a", &format!("{SCRIPT}{text}"), 0o755), ("20-b", &format!("{SCRIPT}{text}"), 0o755)]);
        let identity = crate::apply::tests::identity();
        let error = apply(&identity, &root, &Config::default()).unwrap_err().to_string();
        assert!(error.contains("20-b and those before it printed evidence of"), "{error}");
    }

    #[test]
    fn lines_of_evidence() {
        let values = evidence("10-salt", "minion_id=a=b\n\nfoo.bar-1=ä c\n").unwrap();
        let values: Vec<_> = values.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
        assert_eq!(values, [("site/10-salt/minion_id", "a=b"), ("site/10-salt/foo.bar-1", "ä c")]);
        assert!(evidence("x", "").unwrap().is_empty());
        let many = (0..33).fold(String::new(), |text, n| format!("{text}k{n}=v\n"));
        let long = format!("k={}", "v".repeat(513));
        for bad in ["hello", "=v", "k=", "a b=v", "k=\x1b[2J", "k=1\nk=2", &many, &long] {
            assert!(evidence("x", bad).is_err(), "{bad:?}");
        }
    }
}
