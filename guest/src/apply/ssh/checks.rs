//! What of an image's SSH servers every child would meet.

use super::{
    Plan, Sshd, behind_links, config, directories, installed, is_host_key, is_none, keys, others, sshd,
};
use crate::{
    apply::ApplyError,
    config::{Config, KeyKind},
    root::{FileError, Root},
};
use ramet_proto::message::{Finding, Grade};

/// Units that would make keys, and that the agent's drop-in keeps from it.
const DROP_IN: &str = "50-ramet-keys.conf";

/// What makes host keys that are missing, of each kind that OpenSSH knows: at the start of sshd (openSUSE), at the first
/// boot (Raspberry Pi OS), at an upgrade.
const MAKERS: &[&str] = &[
    "ssh-keygen -A",
    "ssh-keygen -v -A",
    "sshd-gen-keys-start",
    "sshd-keygen-start",
    "dpkg-reconfigure openssh-server",
];

/// Where Debian's package makes the default keys that are missing when it is upgraded.
const POSTINST: &str = "var/lib/dpkg/info/openssh-server.postinst";

/// What an identity would meet.
pub(in crate::apply) fn check(root: &Root, config: &Config) -> Result<Vec<Finding>, ApplyError> {
    let sshd = installed(root)?;
    let plan = Plan::of(root, config, &sshd)?;
    let mut found = Vec::new();
    for path in plan.old.iter().chain(plan.wanted.iter().map(|(path, _)| path)) {
        let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
        for path in [path, parent] {
            if root.is_immutable(path)? {
                let what = format!("/{path} is immutable: the template's host keys would stay");
                push(&mut found, Grade::Fatal, &what, "chattr -i it in the image");
            }
        }
    }
    for one in &sshd {
        found.extend(one.settings.faults.iter().map(|fault| {
            Finding::new(
                Grade::Broken,
                &format!("sshd would not start: {fault}"),
                "correct it; sshd -t tells",
            )
        }));
        kinds(root, &plan, one, &mut found)?;
    }
    found.extend(plan.findings);
    copies(root, &sshd, &mut found)?;
    if !sshd.is_empty() {
        makers(root, config, &sshd, &mut found)?;
    }
    found.extend(others::check(root)?);
    Ok(found)
}

fn push(found: &mut Vec<Finding>, grade: Grade, what: &str, fix: &str) {
    if !found.iter().any(|other| other.what.as_str() == what) {
        found.push(Finding::new(grade, what, fix));
    }
}

/// That sshd will use a key of those kinds at all.
fn kinds(root: &Root, plan: &Plan, sshd: &Sshd, found: &mut Vec<Finding>) -> Result<(), ApplyError> {
    if plan.wanted.is_empty() {
        return Ok(());
    }
    let kinds: Vec<_> = plan.wanted.iter().map(|(_, kind)| kind.kind).collect();
    let fips = root.exists("etc/system-fips")?
        || root.read_lossy("proc/sys/crypto/fips_enabled")?.is_some_and(|text| text.trim() == "1");
    if fips && kinds.iter().all(|kind| *kind == KeyKind::Ed25519) {
        let what = "FIPS mode is on and has no Ed25519: sshd would have no host key";
        push(
            found,
            Grade::Broken,
            what,
            "ssh_host_keys = [\"ecdsa\"] in /etc/ramet/agent.toml, or HostKey lines",
        );
    }
    if let Some(line) = sshd.settings.first("hostkeyalgorithms") {
        let value = line.arguments.first().map_or(&b""[..], Vec::as_slice);
        let is_used = |kind: &KeyKind| {
            let names: &[&[u8]] = match kind {
                KeyKind::Ed25519 => &[b"ssh-ed25519"],
                KeyKind::Ecdsa => &[b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521"],
                KeyKind::Rsa => &[b"rsa-sha2-512", b"rsa-sha2-256", b"ssh-rsa"],
            };
            match value.split_first() {
                Some((b'+' | b'^', _)) | None => true,
                Some((b'-', without)) => names.iter().any(|name| config::list(name, without) != Some(true)),
                Some(_) => names.iter().any(|name| config::list(name, value) == Some(true)),
            }
        };
        if !kinds.iter().any(is_used) {
            let what = format!("{}: HostKeyAlgorithms has none of the kinds of keys a child gets", line.at);
            push(
                found,
                Grade::Broken,
                &what,
                "name such a kind in ssh_host_keys of /etc/ramet/agent.toml, or in HostKey",
            );
        }
    }
    Ok(())
}

/// Private keys under names that no sshd knows: of no use to a sibling, but in each of them.
fn copies(root: &Root, sshd: &[Sshd], found: &mut Vec<Finding>) -> Result<(), ApplyError> {
    let paths = super::offered_paths(root, sshd)?;
    for directory in directories(sshd) {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            if is_host_key(&name) || paths.contains(&path) || !root.is_regular(&path)? {
                continue;
            }
            let head = keys::small(root, &path).unwrap_or_default();
            if head.starts_with(b"-----BEGIN ")
                && head[..head.len().min(64)].windows(11).any(|w| w == b"PRIVATE KEY")
            {
                let what = format!("/{path} is a private key that no sshd offers: each child has a copy");
                push(found, Grade::Note, &what, "remove it from the image if it is nobody's");
            }
        }
    }
    Ok(())
}

/// What makes keys of which the host is not told.
fn makers(root: &Root, config: &Config, sshd: &[Sshd], found: &mut Vec<Finding>) -> Result<(), ApplyError> {
    let by_default = sshd.iter().any(|one| one.settings.global("hostkey").all(is_none));
    if !by_default || config.ssh_host_keys.len() >= super::DEFAULTS.len() {
        return Ok(());
    }
    let fix = "name rsa, ecdsa and ed25519 in ssh_host_keys of /etc/ramet/agent.toml, or in HostKey lines of sshd_config \
               only those that there are to be";
    for path in unit_files(root)? {
        let text = root.read_lossy(&path).ok().flatten().unwrap_or_default();
        let runs = |line: &str| {
            line.trim_start().starts_with("Exec") && MAKERS.iter().any(|maker| line.contains(maker))
        };
        if text.lines().any(runs) {
            let what = format!("/{path} makes the host keys that are missing: keys the host is not told of");
            push(found, Grade::Broken, &what, fix);
        }
    }
    if root.exists(POSTINST)? {
        let what = "an upgrade of openssh-server makes the host keys that are missing: keys the host is not told of, \
                    and ramet verify will say so";
        push(found, Grade::Note, what, fix);
    }
    Ok(())
}

/// The files of services, without those that the agent keeps from making keys.
fn unit_files(root: &Root) -> Result<Vec<String>, FileError> {
    let directories = sshd::unit_directories(root)?;
    let mut files = Vec::new();
    for directory in &directories {
        for name in root.names(directory)?.into_iter().filter(|name| name.ends_with(".service")) {
            let kept = directories
                .iter()
                .any(|other| root.exists(&format!("{other}/{name}.d/{DROP_IN}")).unwrap_or_default());
            if !kept {
                files.push(behind_links(root, &format!("{directory}/{name}"))?);
            }
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}
