//! Where a machine keeps what proves to a domain who it is, by what is usual and by what its configuration says: keytabs,
//! Samba's secrets, tickets, and what was learned from domain controllers.
//!
//! All of it is the template's, and goes from every child, member or not.

use super::{
    ApplyError,
    conf::{Conf, inside},
    keytab, samba, sssd,
};
use crate::root::Root;
use std::collections::BTreeSet;
use zeroize::Zeroizing;

/// How deep below /etc copies of keytabs are looked for.
const DEPTH: usize = 3;

/// The largest file that may be a keytab: an entry takes a hundred bytes.
const MAX_KEYTAB: u64 = 1 << 20;

/// How often a link may lead to another (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// Where tickets are, and how the names of their files begin: those of programs that run as root (krb5.conf(5),
/// `default_ccache_name`), of rpc.gssd(8) and of gssproxy(8).
const TICKETS: &[(&str, &str)] = &[
    ("tmp", "krb5cc"),
    ("run/user/0", "krb5cc"),
    ("run/user/0/krb5cc", ""),
    ("var/lib/gssproxy/clients", "krb5cc"),
];

/// The places of one root.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Keytabs of the machine.
    pub(super) keytabs: BTreeSet<String>,
    /// Keytabs that Samba's server reads, and nobody else.
    pub(super) dedicated: BTreeSet<String>,
    /// Keytabs that may be of anybody: a client's, and such as have the name of one.
    pub(super) others: BTreeSet<String>,
    pub(super) samba: samba::Directories,
    /// Files with tickets besides the usual ones, and directories of such.
    tickets: BTreeSet<String>,
    /// What of the configuration cannot be followed.
    pub(super) unclear: Vec<String>,
    /// Samba reads another file than the one that the agent writes to.
    pub(super) other_smb_conf: bool,
}

impl Places {
    pub(super) fn find(root: &Root) -> Result<Self, ApplyError> {
        let mut places = Self::default();
        places.keytabs.insert(keytab::PATH.to_owned());
        places.kerberos(Conf::kerberos(root));
        places.sssd(Conf::sssd(root));
        places.samba(Conf::samba(root));
        let mut named = BTreeSet::new();
        names_of_keytabs(root, "etc", DEPTH, &mut named)?;
        names_of_keytabs(root, "root", 0, &mut named)?;
        names_of_keytabs(root, "var/kerberos/krb5/user", 1, &mut named)?;
        names_of_keytabs(root, "var/lib/sss/keytabs", 0, &mut named)?;
        for directory in &places.samba.private {
            names_of_keytabs(root, directory, 0, &mut named)?;
        }
        named.retain(|path| !places.keytabs.contains(path));
        places.others.extend(named);
        Ok(places)
    }

    fn kerberos(&mut self, conf: Conf) {
        for value in conf.all("default_keytab_name") {
            match file(value, &["FILE", "WRFILE"]) {
                File::At(path) => drop(self.keytabs.insert(path)),
                File::No => {}
                File::Unclear => self.unclear("default_keytab_name", value),
            }
        }
        for value in conf.all("default_client_keytab_name") {
            match file(value, &["FILE", "WRFILE"]) {
                File::At(path) => drop(self.others.insert(path)),
                File::No => {}
                File::Unclear => self.unclear("default_client_keytab_name", value),
            }
        }
        for value in conf.all("default_ccache_name") {
            match file(value, &["FILE", "DIR"]) {
                File::At(path) => drop(self.tickets.insert(path)),
                File::No => {}
                File::Unclear => self.unclear("default_ccache_name", value),
            }
        }
        self.unclear.extend(conf.unclear);
    }

    fn sssd(&mut self, conf: Conf) {
        // sssd-krb5(5), sssd-ldap(5); sssd-ad(5) and sssd-ipa(5) take both.
        for name in ["krb5_keytab", "ldap_krb5_keytab"] {
            for value in conf.all(name) {
                match file(value, &["FILE", "WRFILE"]) {
                    File::At(path) => drop(self.keytabs.insert(path)),
                    File::No => {}
                    File::Unclear => self.unclear(name, value),
                }
            }
        }
        self.unclear.extend(conf.unclear);
    }

    fn samba(&mut self, conf: Conf) {
        let is_read =
            conf.last("kerberosmethod").is_some_and(|value| value.eq_ignore_ascii_case(b"dedicated keytab"));
        for value in conf.all("dedicatedkeytabfile").filter(|value| !value.is_empty()) {
            match file(value, &["FILE", "WRFILE"]) {
                File::At(path) => {
                    self.dedicated.extend(is_read.then(|| path.clone()));
                    self.keytabs.insert(path);
                }
                File::No => {}
                File::Unclear => self.unclear("dedicated keytab file", value),
            }
        }
        for value in conf.all("syncmachinepasswordtokeytab") {
            for path in synced(value) {
                match inside(path) {
                    Some(path) => drop(self.keytabs.insert(path)),
                    None => self.unclear("sync machine password to keytab", value),
                }
            }
        }
        for (name, is_private) in samba::DIRECTORIES {
            for value in conf.all(name).filter(|value| !value.is_empty()) {
                match inside(value) {
                    Some(path) if *is_private => drop(self.samba.private.insert(path)),
                    Some(path) => drop(self.samba.caches.insert(path)),
                    None => self.unclear(name, value),
                }
            }
        }
        self.other_smb_conf = conf.last("configfile").is_some_and(|value| !value.is_empty());
        self.unclear.extend(conf.unclear);
    }

    fn unclear(&mut self, name: &str, value: &[u8]) {
        self.unclear.push(format!("{name} = {}", String::from_utf8_lossy(value)));
    }

    /// Removes what is the template's.
    pub(super) fn forget(&self, root: &Root) -> Result<(), ApplyError> {
        // First the copies: which they are is known as long as the machine's own are there.
        for path in self.copies(root)? {
            remove_all(root, &path)?;
        }
        for path in &self.keytabs {
            remove_all(root, path)?;
        }
        self.samba.forget(root)?;
        sssd::forget(root)?;
        for (directory, start) in TICKETS {
            remove_in(root, directory, start)?;
        }
        for path in &self.tickets {
            remove_in(root, path, "")?;
            remove_all(root, path)?;
        }
        Ok(())
    }

    /// What would be removed and is there.
    pub(super) fn present(&self, root: &Root) -> Result<Vec<String>, ApplyError> {
        let mut present = self.copies(root)?;
        present.extend(self.keytabs.iter().cloned());
        present.extend(self.samba.with_account(root)?);
        present.extend(self.samba.files());
        present.extend(self.tickets.iter().cloned());
        for (directory, start) in TICKETS.iter().chain(sssd::CACHES) {
            let names = root.names(directory)?;
            present.extend(
                names.iter().filter(|name| name.starts_with(start)).map(|name| format!("{directory}/{name}")),
            );
        }
        let mut found = Vec::new();
        for path in present {
            found.extend(chain_of(root, &path)?);
        }
        Ok(found)
    }

    /// The keytabs among the others that hold a key of the machine, under whatever name.
    fn copies(&self, root: &Root) -> Result<Vec<String>, ApplyError> {
        let mut own = Vec::new();
        for path in &self.keytabs {
            own.extend(read(root, path)?);
        }
        let own: Vec<_> = own.iter().flat_map(|bytes| keytab::entries(bytes).unwrap_or_default()).collect();
        let mut copies = Vec::new();
        for path in &self.others {
            let Some(bytes) = read(root, path)? else { continue };
            let entries = keytab::entries(&bytes).unwrap_or_default();
            let is_own = |one: &keytab::Entry<'_>| {
                one.is_machine() || own.iter().any(|other| !one.key.is_empty() && other.key == one.key)
            };
            if entries.iter().any(is_own) {
                copies.push(path.clone());
            }
        }
        Ok(copies)
    }

    /// The keytabs that stay, and what is known of each.
    pub(super) fn left(&self, root: &Root) -> Result<Vec<(String, Left)>, ApplyError> {
        let copies = self.copies(root)?;
        let mut left = Vec::new();
        for path in self.others.iter().filter(|path| !copies.contains(path)) {
            let claims = path.rsplit('.').next() == Some("keytab");
            let Some(bytes) = read(root, path)? else {
                if claims && root.is_regular(path)? {
                    left.push((path.clone(), Left::Unread));
                }
                continue;
            };
            match keytab::entries(&bytes) {
                Ok(entries) => {
                    left.extend(entries.first().map(|one| (path.clone(), Left::Of(one.principal.clone()))));
                }
                Err(_) if claims && !bytes.is_empty() => left.push((path.clone(), Left::Unread)),
                Err(_) => {}
            }
        }
        Ok(left)
    }
}

/// What is known of a keytab.
pub(super) enum Left {
    /// Its first principal.
    Of(String),
    /// Nothing.
    Unread,
}

/// What a file may hold that could be a keytab: not a directory, and no larger than one.
fn read(root: &Root, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ApplyError> {
    let is_link = root.link(path)?.is_some();
    if !is_link && (!root.is_regular(path)? || root.len(path)?.is_some_and(|length| length > MAX_KEYTAB)) {
        return Ok(None);
    }
    match root.read(path) {
        Ok(bytes) => Ok(bytes.map(Zeroizing::new)),
        // Where the link leads is something else.
        Err(_) if is_link => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a value with a type before it names (MIT krb5, "keytab definition" and that of caches).
enum File {
    At(String),
    /// No file: memory, the kernel's keyrings, a daemon.
    No,
    Unclear,
}

fn file(value: &[u8], kinds: &[&str]) -> File {
    let Ok(value) = std::str::from_utf8(value) else { return File::Unclear };
    let path = match value.split_once(':') {
        Some((kind, path)) if kinds.contains(&kind) => path,
        Some(("MEMORY" | "KEYRING" | "KCM" | "API" | "MSLSA", _)) => return File::No,
        _ => value,
    };
    // krb5.conf(5), "PARAMETER EXPANSION", for a program that root runs.
    let path = path
        .replace("%{TEMP}", "/tmp")
        .replace("%{uid}", "0")
        .replace("%{euid}", "0")
        .replace("%{username}", "root")
        .replace("%{null}", "");
    inside(path.as_bytes()).map_or(File::Unclear, File::At)
}

/// The files in `sync machine password to keytab` of smb.conf(5): a list, each with a colon and more behind it.
fn synced(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Options of one file have commas, too, but no slash at their beginning.
    value
        .split(|byte| byte.is_ascii_whitespace() || b",;\"".contains(byte))
        .filter(|word| word.starts_with(b"/"))
        .map(|word| word.split(|byte| *byte == b':').next().unwrap_or(word))
}

/// Files whose path has the word in it.
fn names_of_keytabs(
    root: &Root,
    directory: &str,
    depth: usize,
    found: &mut BTreeSet<String>,
) -> Result<(), ApplyError> {
    for (name, is_dir) in root.entries(directory)? {
        let path = format!("{directory}/{name}");
        let is_dir = is_dir.map_or_else(|| root.is_dir(&path), Ok)?;
        if path.to_ascii_lowercase().contains("keytab") && !is_dir {
            found.insert(path);
        } else if depth > 0 && is_dir {
            names_of_keytabs(root, &path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// What is at `path`, and what links there lead to, one after the other; directories are none of it.
pub(super) fn chain_of(root: &Root, path: &str) -> Result<Vec<String>, ApplyError> {
    let mut chain = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = root.link(&path)?;
        if link.is_none() && !root.is_regular(&path)? {
            break;
        }
        chain.push(path.clone());
        let Some(to) = link else { break };
        path = match to.strip_prefix('/') {
            Some(to) => to.to_owned(),
            None => path.rsplit_once('/').map_or(to.clone(), |(directory, _)| format!("{directory}/{to}")),
        };
    }
    Ok(chain)
}

/// Removes the file at `path`, and if it is a link, the file that it leads to.
pub(super) fn remove_all(root: &Root, path: &str) -> Result<(), ApplyError> {
    // The last first: whoever is interrupted finds the way again.
    for path in chain_of(root, path)?.iter().rev() {
        root.remove(path)?;
    }
    Ok(())
}

/// Removes the files in `directory` whose names begin with `start`.
pub(super) fn remove_in(root: &Root, directory: &str, start: &str) -> Result<(), ApplyError> {
    for name in root.names(directory)?.iter().filter(|name| name.starts_with(start)) {
        let path = format!("{directory}/{name}");
        if !root.is_dir(&path)? {
            root.remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
