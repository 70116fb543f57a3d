//! SSH host keys: the template's go, the child's own are made after the reseed, where sshd looks for them and of the kinds
//! it is configured for (`sshd_config(5)`, `HostKey`).
//!
//! Ed25519 keys, which every child gets, are made here: starting ssh-keygen(1) would take half the time that a whole
//! identity takes. Other kinds are left to it.

mod checks;
mod config;
mod keys;
mod others;
mod sshd;

pub(super) use checks::check;
pub(super) use config::{Line, Who};
pub(super) use others::has_dropbear;
pub(super) use sshd::{Sshd, installed};

use super::ApplyError;
use crate::{
    config::{Config, KeyKind},
    root::{FileError, Root},
    system::System,
};
use keys::{Kind, Told};
use ramet_proto::{
    SshPublicKey,
    message::{Finding, Grade, Identity},
};

const DIRECTORY: &str = "etc/ssh";

/// The keys that sshd looks for if nothing is said (`servconf.c`, `fill_default_server_options`).
const DEFAULTS: &[KeyKind] = &[KeyKind::Rsa, KeyKind::Ecdsa, KeyKind::Ed25519];

/// What the keys of a child are to be.
#[derive(Default)]
struct Plan {
    wanted: Vec<(String, Kind)>,
    /// The template's: keys, public keys and certificates.
    old: Vec<String>,
    findings: Vec<Finding>,
}

impl Plan {
    fn find(&mut self, grade: Grade, what: &str, fix: &str) {
        if !self.findings.iter().any(|other| other.what.as_str() == what) {
            self.findings.push(Finding::new(grade, what, fix));
        }
    }

    fn of(root: &Root, config: &Config, sshd: &[Sshd]) -> Result<Self, ApplyError> {
        let mut plan = Self::default();
        for directory in directories(sshd) {
            for name in root.names(directory)?.into_iter().filter(|name| is_host_key(name)) {
                let path = format!("{directory}/{name}");
                if root.is_dir(&path)? {
                    let what = format!("/{path} is a directory: what is in it stays in each child");
                    plan.find(Grade::Note, &what, "remove it from the image if it has keys");
                } else {
                    plan.old.push(path);
                }
            }
        }
        for one in sshd {
            plan.add(root, config, one)?;
        }
        let mut old = Vec::new();
        for path in std::mem::take(&mut plan.old) {
            // A link to one that is wanted stays as well.
            let is_wanted = |path: &str| plan.wanted.iter().any(|(wanted, _)| *wanted == path);
            if !is_wanted(&path) && !is_wanted(&behind_links(root, &path)?) {
                old.push(path);
            }
        }
        plan.old = old;
        Ok(plan)
    }

    fn add(&mut self, root: &Root, config: &Config, sshd: &Sshd) -> Result<(), ApplyError> {
        let settings = &sshd.settings;
        if let Some(line) = settings.first("hostkeyagent").filter(|line| !is_none(line)) {
            let what = format!(
                "{}: HostKeyAgent keeps host keys where the agent makes none: every child would offer the template's",
                line.at
            );
            self.find(Grade::Fatal, &what, "take the line out: each child gets keys of its own in files");
        }
        for line in settings.global("hostcertificate").filter(|line| !is_none(line)) {
            self.old.push(behind_links(root, &below_root(line.text(0)?))?);
            let what = format!(
                "{}: the host certificate vouches for a key that goes, and goes with it: children offer plain keys",
                line.at
            );
            self.find(
                Grade::Note,
                &what,
                "have each child's key signed by a program in /etc/ramet/appliers.d",
            );
        }
        let mut lines = settings.global("hostkey").peekable();
        if lines.peek().is_none() {
            for kind in &config.ssh_host_keys {
                let path = place(root, &format!("{}/ssh_host_{kind}_key", sshd.directory))?;
                // Its size is kept if it is the same kind.
                let kind = match keys::told(root, &path) {
                    Told::Kind(found) if found.kind == *kind => found,
                    Told::Kind(_) | Told::Dsa | Told::Unknown => Kind { kind: *kind, bits: None },
                };
                self.want(root, path, kind, "ssh_host_keys in agent.toml")?;
            }
        }
        let mut at_all = false;
        for line in lines.filter(|line| !is_none(line)) {
            let path = place(root, &below_root(line.text(0)?))?;
            match keys::told(root, &path) {
                Told::Kind(kind) => {
                    at_all = true;
                    self.want(root, path, kind, &line.at)?;
                }
                Told::Dsa => {
                    self.old.extend([format!("{path}.pub"), path.clone()]);
                    let what = format!("{}: /{path} is a DSA key, and none is made", line.at);
                    let grade = if at_all { Grade::Note } else { Grade::Broken };
                    self.find(grade, &what, "take the line out");
                }
                Told::Unknown => {
                    self.old.extend([format!("{path}.pub"), path.clone()]);
                    let what = format!(
                        "{}: neither /{path} nor its name tells of which kind the host key is to be",
                        line.at
                    );
                    let fix =
                        "name it after its kind (ed25519, ecdsa, rsa), or make one there with ssh-keygen";
                    self.find(Grade::Fatal, &what, fix);
                }
            }
        }
        Ok(())
    }

    fn want(&mut self, root: &Root, path: String, kind: Kind, at: &str) -> Result<(), ApplyError> {
        if self.wanted.iter().any(|(wanted, _)| *wanted == path) {
            return Ok(());
        }
        let in_the_way = root.is_dir(&path)? || root.is_dir(&format!("{path}.pub"))?;
        if in_the_way || !has_directory(root, &path)? {
            let what = format!(
                "{at}: no host key can be made at /{path}: {}",
                if in_the_way { "there is a directory in its place" } else { "its directory is not there" }
            );
            self.find(Grade::Fatal, &what, "make the directory in the image, or correct the path");
        }
        if kind.kind != KeyKind::Ed25519 && !keys::has_keygen(root)? {
            let what = format!("{at}: a host key of kind {} takes ssh-keygen, and there is none", kind.kind);
            self.find(Grade::Fatal, &what, "install openssh-client or openssh, or want ed25519 only");
        }
        // The public halves of keys are only read, but a certificate beside the key would be offered.
        self.old.push(format!("{path}-cert.pub"));
        self.wanted.push((path, kind));
        Ok(())
    }
}

/// Where keys are by default: of every sshd, and of one that is not there.
fn directories(sshd: &[Sshd]) -> Vec<&str> {
    let mut all = vec![DIRECTORY];
    all.extend(sshd.iter().map(|one| &*one.directory).filter(|directory| *directory != DIRECTORY));
    all.dedup();
    all
}

/// Certificates as well: they vouch for the keys that go. And copies: `ssh_host_rsa_key.bak`.
fn is_host_key(name: &str) -> bool {
    name.starts_with("ssh_host_") && name.contains("_key")
}

fn is_none(line: &Line) -> bool {
    line.arguments.first().is_none_or(|value| value.eq_ignore_ascii_case(b"none"))
}

/// A path of sshd's, which starts in `/`, and whose `~` is root's home.
fn below_root(path: &str) -> String {
    match path.strip_prefix("~/") {
        Some(rest) => format!("root/{rest}"),
        None => path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/"),
    }
}

/// Where the key at `path` is, or is made: behind links, unless they lead nowhere.
fn place(root: &Root, path: &str) -> Result<String, FileError> {
    let behind = behind_links(root, path)?;
    Ok(if has_directory(root, &behind)? { behind } else { path.to_owned() })
}

fn has_directory(root: &Root, path: &str) -> Result<bool, FileError> {
    match path.rsplit_once('/') {
        Some((parent, _)) => root.is_dir(&behind_links(root, parent)?),
        None => Ok(true),
    }
}

/// Where `path` leads: the file behind it is what counts, and a link stays what it is.
pub(super) fn behind_links(root: &Root, path: &str) -> Result<String, FileError> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let Some(to) = root.link(&path)? else { break };
        path = if let Some(to) = to.strip_prefix('/') {
            to.trim_start_matches('/').to_owned()
        } else {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            format!("{parent}/{to}").trim_start_matches('/').to_owned()
        };
    }
    Ok(path)
}

pub(super) fn apply<S: System>(
    identity: &Identity,
    root: &Root,
    system: &S,
    config: &Config,
) -> Result<(), ApplyError> {
    let sshd = installed(root)?;
    let plan = Plan::of(root, config, &sshd)?;
    for path in &plan.old {
        if !root.is_dir(path)? {
            root.remove(path)?;
        }
    }
    if let Some(fatal) = plan.findings.iter().find(|finding| finding.grade == Grade::Fatal) {
        for (path, _) in plan.wanted.iter().filter(|(path, _)| root.is_regular(path).is_ok_and(|is| is)) {
            root.remove(path)?;
        }
        return Err(ApplyError::Missing(format!("{}: {}", fatal.what, fatal.fix)));
    }
    let comment = format!("root@{}", identity.hostname);
    for (path, kind) in &plan.wanted {
        keys::make(path, *kind, &comment, root, system)?;
    }
    others::apply(root, system)
}

/// The files of the keys that sshd offers, if they are there.
fn offered_paths(root: &Root, sshd: &[Sshd]) -> Result<Vec<String>, ApplyError> {
    let mut paths = Vec::new();
    for one in sshd {
        let mut lines = one.settings.global("hostkey").peekable();
        if lines.peek().is_none() {
            for kind in DEFAULTS {
                paths.push(place(root, &format!("{}/ssh_host_{kind}_key", one.directory))?);
            }
        }
        for line in lines.filter(|line| !is_none(line)) {
            paths.push(place(root, &below_root(line.text(0)?))?);
        }
    }
    let mut once = Vec::new();
    for path in paths {
        if !once.contains(&path) {
            once.push(path);
        }
    }
    Ok(once)
}

/// The public host keys that this machine's servers offer.
pub(crate) fn public_keys(root: &Root) -> Result<Vec<SshPublicKey>, ApplyError> {
    let mut keys = Vec::new();
    for path in offered_paths(root, &installed(root)?)? {
        keys.extend(keys::offered(root, &path)?);
    }
    keys.extend(others::public_keys(root)?);
    Ok(keys)
}

/// What there is of the template's host keys: public halves, as lines. What cannot be read is about to go, too.
pub(super) fn inherited(root: &Root) -> Result<Vec<Vec<u8>>, ApplyError> {
    let sshd = installed(root)?;
    let mut paths = offered_paths(root, &sshd)?;
    for directory in directories(&sshd) {
        let names = root.names(directory)?.into_iter().filter(|name| is_host_key(name));
        paths.extend(names.map(|name| format!("{directory}/{name}")));
    }
    let mut found = Vec::new();
    for path in paths {
        let within = keys::public_blob(root, &path).and_then(|blob| keys::public(&blob));
        found.extend(within.map(|key| key.to_string().into_bytes()));
        // Of a name that is a public key's already there is no other.
        for public in [format!("{path}.pub"), path] {
            let is_public = |bytes: &&[u8]| bytes.starts_with(b"ssh-") || bytes.starts_with(b"ecdsa-");
            let bytes = keys::small(root, &public);
            found.extend(bytes.as_deref().map(Vec::as_slice).filter(is_public).map(<[u8]>::to_vec));
        }
    }
    found.extend(others::public_keys(root)?.iter().map(|key| key.to_string().into_bytes()));
    Ok(found)
}

/// That there is a key of each kind at each path that is to have one, and none of the template's.
pub(super) fn verify(
    keys: &[SshPublicKey],
    inherited: &[Vec<u8>],
    root: &Root,
    config: &Config,
) -> Result<(), ApplyError> {
    for key in keys {
        let line = key.to_string();
        let base64 = line.split(' ').nth(1).unwrap_or_default().as_bytes();
        let is_here = |text: &Vec<u8>| text.split(u8::is_ascii_whitespace).any(|word| word == base64);
        if inherited.iter().any(is_here) {
            return Err(ApplyError::Mismatch(format!(
                "the {} host key is still the template's",
                key.algorithm()
            )));
        }
    }
    let sshd = installed(root)?;
    let wanted = Plan::of(root, config, &sshd)?.wanted;
    for (path, _) in &wanted {
        if !root.is_regular(path)? {
            return Err(ApplyError::Missing(format!("/{path} is not there")));
        }
    }
    let others = others::public_keys(root)?.len();
    if keys.len() != wanted.len() + others {
        let expected = wanted.len() + others;
        return Err(ApplyError::Mismatch(format!("{} SSH host keys, not {expected}", keys.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
