//! Host keys of other servers: dropbear(8) and tinysshd(8).
//!
//! Both are given keys of the kinds that the template has, in the same files. Ed25519 keys are made here.

use super::keys::{self, Kind, Told, public, small, string};
use crate::{
    apply::{ApplyError, ssh::sshd},
    config::KeyKind,
    limits::programs,
    process::Run,
    root::{FileError, Root},
    system::System,
};
use ramet_proto::{
    SshPublicKey,
    message::{Finding, Grade},
};
use std::collections::{BTreeMap, BTreeSet};

const DROPBEAR: &[&str] = &["usr/sbin/dropbear", "usr/bin/dropbear", "usr/local/sbin/dropbear"];
/// What starts it at boot.
const DROPBEAR_STARTS: &[&str] = &[
    "usr/lib/systemd/system/dropbear.service",
    "usr/lib/systemd/system/dropbear@.service",
    "etc/systemd/system/dropbear.service",
    "etc/init.d/dropbear",
];
const DROPBEARKEY: &[&str] = &["usr/bin/dropbearkey", "usr/local/bin/dropbearkey"];
const DROPBEAR_KEYS: &str = "etc/dropbear";
const DROPBEAR_SETTINGS: &[&str] = &["etc/default/dropbear", "etc/sysconfig/dropbear", "etc/conf.d/dropbear"];

/// Where tinysshd has its keys, and the names of their halves.
const TINYSSH: &[&str] = &["etc/tinyssh/sshkeydir", "etc/tinyssh"];
const TINYSSHD: &str = "usr/sbin/tinysshd";
const TINYSSH_SECRET: &str = ".ed25519.sk";
const TINYSSH_PUBLIC: &str = "ed25519.pk";

/// Keys that end up in an initrd, where no agent reaches them.
const INITRD: &[&str] = &[
    "etc/dropbear/initramfs",
    "etc/dropbear-initramfs",
    "etc/initramfs-tools/etc/dropbear",
    "etc/tinyssh-initramfs",
    "etc/tinyssh/initramfs",
];
/// The same of dracut-sshd.
const INITRD_FILES: &[&str] = &["root/.ssh/dracut_ssh_host_", "etc/ssh/dracut_ssh_host_"];

/// Whether tinysshd(8) takes the file for a secret key.
fn is_secret(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end == "sk")
}

/// Whether there is a dropbear(8), which reads `~/.ssh/authorized_keys` and nothing else.
pub(in crate::apply) fn has_dropbear(root: &Root) -> Result<bool, FileError> {
    any(root, DROPBEAR)
}

fn any(root: &Root, paths: &[&str]) -> Result<bool, FileError> {
    for path in paths {
        if root.exists(path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Dropbear's key files: those in its directory, and those its settings name.
fn dropbear(root: &Root) -> Result<Vec<String>, FileError> {
    let names = root.names(DROPBEAR_KEYS)?.into_iter().filter(|name| name.contains("host_key"));
    let mut paths: BTreeSet<String> = names.map(|name| format!("{DROPBEAR_KEYS}/{name}")).collect();
    let mut variables = BTreeMap::new();
    for path in DROPBEAR_SETTINGS {
        sshd::assign(root, path, &mut variables);
    }
    for (name, value) in &variables {
        let is_file = name.ends_with("KEY") && name.starts_with("DROPBEAR_");
        let mut words = value.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let glued = word.strip_prefix("-r");
            let named = match glued {
                Some("") => words.next(),
                Some(path) => Some(path),
                None => is_file.then_some(word),
            };
            paths.extend(named.map(|path| path.trim_start_matches('/').to_owned()));
        }
    }
    let mut found = Vec::new();
    for path in paths.into_iter().filter(|path| !path.is_empty()) {
        let path = super::behind_links(root, &path)?;
        if root.is_regular(&path)? {
            found.push(path);
        }
    }
    Ok(found)
}

/// The public half of a key in Dropbear's form: the fields of the public key, then the secret ones; of Ed25519 both in one.
fn dropbear_public(file: &[u8]) -> Option<Vec<u8>> {
    let mut rest = file;
    let algorithm = string(&mut rest)?;
    if algorithm == b"ssh-ed25519" {
        let pair = string(&mut rest)?;
        let public = pair.get(32..64)?;
        return Some(fields(&[algorithm, public]));
    }
    let more = match algorithm {
        b"ssh-dss" => 4,
        _ => 2,
    };
    for _ in 0..more {
        string(&mut rest)?;
    }
    Some(file[..file.len() - rest.len()].to_vec())
}

/// Strings of the SSH protocol.
fn fields(fields: &[&[u8]]) -> Vec<u8> {
    fields.iter().fold(Vec::new(), |mut all, field| {
        all.extend(u32::try_from(field.len()).unwrap_or_default().to_be_bytes());
        all.extend_from_slice(field);
        all
    })
}

fn dropbear_told(root: &Root, path: &str) -> Told {
    let public = small(root, path).and_then(|file| dropbear_public(&file));
    public.as_deref().and_then(keys::kind_of_blob).unwrap_or_else(|| keys::told(root, path))
}

pub(super) fn apply<S: System>(root: &Root, system: &S) -> Result<(), ApplyError> {
    let (there, maker) = (has_dropbear(root)?, any(root, DROPBEARKEY)?);
    for path in dropbear(root)? {
        match dropbear_told(root, &path) {
            Told::Kind(Kind { kind: KeyKind::Ed25519, .. }) if there => {
                let pair = keys::draw(system)?;
                let both = zeroize::Zeroizing::new(fields(&[b"ssh-ed25519", &pair.to_bytes()[..]]));
                keys::put(root, &path, &both, 0o600)?;
            }
            Told::Kind(Kind { kind, bits }) if there && maker => {
                root.remove(&path)?;
                let (file, kind, bits) =
                    (format!("/{path}"), kind.to_string(), bits.map(|bits| bits.to_string()));
                let mut arguments = vec!["-t", &kind, "-f", &file];
                arguments.extend(bits.iter().flat_map(|bits| ["-s", bits]));
                system
                    .run(&Run::new("dropbearkey", &arguments, programs::KEYGEN))
                    .map_err(|error| ApplyError::System("generate a host key of dropbear", error))?;
                if !root.is_regular(&path)? {
                    return Err(ApplyError::Missing(format!("dropbearkey made no /{path}")));
                }
            }
            // The template's goes in any case.
            Told::Kind(Kind { kind, .. }) => {
                root.remove(&path)?;
                if there {
                    return Err(ApplyError::Missing(format!(
                        "no dropbearkey to make /{path} of kind {kind}: install dropbear-bin, or take the key out of the image"
                    )));
                }
            }
            Told::Dsa | Told::Unknown => {
                root.remove(&path)?;
            }
        }
        // Made for people; it would be the old one's.
        root.remove(&format!("{path}.pub"))?;
    }
    for directory in TINYSSH {
        let (secret, public) =
            (format!("{directory}/{TINYSSH_SECRET}"), format!("{directory}/{TINYSSH_PUBLIC}"));
        for name in root.names(directory)? {
            if is_secret(&name) && name != TINYSSH_SECRET {
                root.remove(&format!("{directory}/{name}"))?;
                root.remove(&format!("{directory}/{}", name.trim_start_matches('.').replace(".sk", ".pk")))?;
            }
        }
        if root.exists(&secret)? {
            let pair = keys::draw(system)?;
            keys::put(root, &secret, &zeroize::Zeroizing::new(pair.to_bytes())[..], 0o600)?;
            keys::put(root, &public, &pair.public.0, 0o644)?;
        }
    }
    Ok(())
}

/// The public keys of these servers.
pub(super) fn public_keys(root: &Root) -> Result<Vec<SshPublicKey>, ApplyError> {
    let mut found = Vec::new();
    for path in dropbear(root)? {
        // What cannot be read as a key is none that dropbear offers.
        found.extend(small(root, &path).and_then(|file| public(&dropbear_public(&file)?)));
    }
    for directory in TINYSSH {
        let key = small(root, &format!("{directory}/{TINYSSH_PUBLIC}"));
        found.extend(key.and_then(|key| public(&fields(&[b"ssh-ed25519", &key]))));
    }
    Ok(found)
}

const INITRD_FIX: &str = "take SSH out of the initrd (update-initramfs, dracut), or make its keys and the initrd anew in each child";

pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    let (there, maker) = (has_dropbear(root)?, any(root, DROPBEARKEY)?);
    if there && any(root, DROPBEAR_STARTS)? && dropbear(root)?.is_empty() {
        let what = "dropbear has no host key yet: it makes one in each child, which the host is not told of";
        let fix = "make it in the image, dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key: children get others";
        found.push(Finding::new(Grade::Note, what, fix));
    }
    for path in dropbear(root)? {
        match dropbear_told(root, &path) {
            Told::Kind(Kind { kind: KeyKind::Ed25519, .. }) => {}
            Told::Kind(Kind { kind, .. }) if there && !maker => {
                let what =
                    format!("/{path} is a key of kind {kind}, which takes dropbearkey, and there is none");
                found.push(Finding::new(Grade::Fatal, &what, "install dropbear-bin, or remove the key"));
            }
            Told::Kind(_) => {}
            Told::Dsa | Told::Unknown => {
                let what = format!("/{path} is removed from each child: no key of its kind can be made");
                found.push(Finding::new(
                    Grade::Note,
                    &what,
                    "dropbear offers its other keys; remove this one",
                ));
            }
        }
    }
    let mut secrets = TINYSSH.iter().map(|directory| root.exists(&format!("{directory}/{TINYSSH_SECRET}")));
    if root.exists(TINYSSHD)? && !secrets.try_fold(false, |found, one| one.map(|one| found || one))? {
        let what = "tinysshd has no host key yet: it makes one in each child, which the host is not told of";
        let fix = "make it in the image, tinysshd-makekey /etc/tinyssh/sshkeydir: children get others";
        found.push(Finding::new(Grade::Note, what, fix));
    }
    for directory in INITRD {
        for name in root.names(directory)? {
            if name.contains("host_key") || is_secret(&name) {
                found.push(in_initrd(&format!("{directory}/{name}")));
            }
        }
    }
    if let Some(path) = with_keys_of_etc(root)? {
        let what =
            format!("/{path} puts host keys into the initrd: every child starts with the same ones there");
        found.push(Finding::new(Grade::Open, &what, INITRD_FIX));
    }
    for start in INITRD_FILES {
        let (directory, start) = start.rsplit_once('/').unwrap_or((".", start));
        for name in root.names(directory)? {
            if name.starts_with(start) && !name.contains(".pub") {
                found.push(in_initrd(&format!("{directory}/{name}")));
            }
        }
    }
    Ok(found)
}

/// Servers that are put into an initrd with the keys that are in /etc when it is made.
fn with_keys_of_etc(root: &Root) -> Result<Option<String>, FileError> {
    let dracut = "usr/lib/dracut/modules.d";
    if let Some(name) = root.names(dracut)?.into_iter().find(|name| name.ends_with("sshd")) {
        return Ok(Some(format!("{dracut}/{name}")));
    }
    let hooks = root.read_lossy("etc/mkinitcpio.conf")?.unwrap_or_default();
    let is_ssh = |line: &str| {
        let mut words = line.split(|char: char| !char.is_ascii_alphanumeric());
        line.trim_start().starts_with("HOOKS") && words.any(|word| matches!(word, "dropbear" | "tinyssh"))
    };
    Ok(hooks.lines().any(is_ssh).then(|| "etc/mkinitcpio.conf".to_owned()))
}

fn in_initrd(path: &str) -> Finding {
    let what = format!("/{path} is a host key for the initrd: every child starts with the same one there");
    Finding::new(Grade::Open, &what, INITRD_FIX)
}
