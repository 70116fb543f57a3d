//! Static addresses, in the configuration of the network service that is in charge of the NIC. It starts past the gate and
//! finds them there; a systemd-networkd that runs already reads its settings again then.
//!
//! NICs are matched by the address or the name they have now. Their permanent address (`PermanentMACAddress=`, and
//! `mac-address=` of `NetworkManager`) stays the template's.

mod ifupdown;
mod interfaces;
mod netplan;
mod network_manager;
mod networkd;
mod owner;
mod paths;
mod resolv_conf;
mod units;

use super::ApplyError;
use crate::{
    error::chain,
    netlink::Interface,
    root::{FileError, Root},
    system::System,
};
use owner::{Owners, Service};
use ramet_proto::{
    MacAddr,
    message::{Finding, Grade, Identity},
    network::IpConfig,
};
use std::fmt::{Display, Write};

/// The first line of each of the agent's files. By it they are known, not by their names.
const NOTE: &str = "# Written by ramet-agent for this machine alone.\n";

/// A NIC with a static configuration.
struct Nic<'a> {
    name: &'a str,
    other_names: &'a [String],
    mac: MacAddr,
    /// Its address in the template, which stays its permanent one.
    parent: MacAddr,
    ip: &'a IpConfig,
}

impl Nic<'_> {
    /// Whether `text` is an address of it, now or for good.
    fn has(&self, text: &str) -> bool {
        text.replace('-', ":").parse::<MacAddr>().is_ok_and(|mac| mac == self.mac || mac == self.parent)
    }

    /// All its names.
    fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name).chain(self.other_names.iter().map(String::as_str))
    }

    /// That it cannot have static addresses, and why.
    fn refused(&self, why: &str) -> ApplyError {
        ApplyError::Mismatch(format!("no static addresses for {}: {why}", self.name))
    }
}

/// A file to be written.
#[derive(Debug, PartialEq, Eq)]
struct Planned {
    path: String,
    bytes: Vec<u8>,
    mode: u32,
    /// It is the image's but for some lines.
    edit: bool,
}

impl Planned {
    fn new(path: String, bytes: Vec<u8>, mode: u32) -> Self {
        Self { path, bytes, mode, edit: false }
    }
}

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    // Before anything changes: it may be refused.
    let interfaces = system.interfaces()?;
    let nics = nics(identity, &interfaces)?;
    let files = plan(root, &nics)?;
    forget(root, &files)?;
    for file in files {
        if let Some((directory, _)) = file.path.rsplit_once('/') {
            make_dirs(root, directory)?;
        }
        if file.edit {
            root.edit(&file.path, &file.bytes, file.mode)?;
        } else {
            root.replace(&file.path, &file.bytes, file.mode)?;
        }
    }
    Ok(())
}

pub(super) fn verify(identity: &Identity, root: &Root, interfaces: &[Interface]) -> Result<(), ApplyError> {
    for file in plan(root, &nics(identity, interfaces)?)? {
        if root.read(&file.path)?.as_ref() != Some(&file.bytes) {
            return Err(ApplyError::Mismatch(format!("/{} is not as it was written", file.path)));
        }
    }
    Ok(())
}

/// Takes away what an earlier identity left, but for what is going to be written.
fn forget(root: &Root, files: &[Planned]) -> Result<(), ApplyError> {
    let is_planned = |path: &str| files.iter().any(|file| file.path == path);
    let mut directories = vec![
        (networkd::DIRECTORY.to_owned(), &networkd::STARTS[..]),
        (network_manager::DIRECTORY.to_owned(), &[network_manager::START]),
        (ifupdown::DIRECTORY.to_owned(), &[ifupdown::START]),
    ];
    // Where nothing can be read nothing was written.
    if let Ok(config) = network_manager::Config::load(root)
        && config.profiles() != network_manager::DIRECTORY
    {
        directories.push((config.profiles(), &[network_manager::START]));
    }
    for (directory, starts) in directories {
        for name in root.names(&directory).unwrap_or_default() {
            let path = format!("{directory}/{name}");
            if starts.iter().any(|start| name.starts_with(start))
                && !is_planned(&path)
                && is_ours(root, &path)
            {
                root.remove(&path)?;
            }
        }
    }
    // A plan for ifupdown is one for all files of the image's.
    if !files.iter().any(|file| file.path.starts_with(ifupdown::DIRECTORY)) {
        ifupdown::restore(root)?;
    }
    Ok(())
}

/// The NICs that get static addresses.
fn nics<'a>(identity: &'a Identity, interfaces: &'a [Interface]) -> Result<Vec<Nic<'a>>, ApplyError> {
    let mut nics = Vec::new();
    for nic in &identity.nics {
        if let Some(ip) = &nic.ip {
            let found = interfaces.iter().find(|one| one.physical && one.mac == Some(nic.mac));
            let found = found.ok_or_else(|| ApplyError::Missing(format!("no interface is {}", nic.mac)))?;
            nics.push(Nic {
                name: &found.name,
                other_names: &found.other_names,
                mac: nic.mac,
                parent: nic.parent,
                ip,
            });
        }
    }
    Ok(nics)
}

/// What is to be written; the same again once it is.
fn plan(root: &Root, nics: &[Nic<'_>]) -> Result<Vec<Planned>, ApplyError> {
    if nics.is_empty() {
        return Ok(Vec::new());
    }
    let owners = Owners::load(root)?;
    let mut files = Vec::new();
    let mut owned = Vec::new();
    for nic in nics {
        let service = owners.of(nic)?;
        owned.push((service, nic));
        match service {
            Service::Networkd => files.push(networkd::planned(root, nic)?),
            Service::NetworkManager => files.push(network_manager::planned(root, &owners.manager, nic)?),
            Service::Ifupdown => {}
        }
    }
    files.extend(resolv_conf::planned(root, &owners, &owned)?);
    let by_ifupdown: Vec<_> =
        owned.iter().filter(|(service, _)| *service == Service::Ifupdown).map(|(_, nic)| *nic).collect();
    files.extend(owners.interfaces.planned(root, &by_ifupdown)?);
    for file in &files {
        let directory = file.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        for path in [file.path.as_str(), directory] {
            if root.is_immutable(path)? {
                return Err(ApplyError::Mismatch(format!(
                    "static addresses cannot be written: /{path} is immutable (chattr(1)); take the flag away in the \
                     image"
                )));
            }
        }
    }
    Ok(files)
}

/// Whether the file at `path` is the agent's. One that cannot be read is not.
fn is_ours(root: &Root, path: &str) -> bool {
    root.is_regular(path).unwrap_or(false)
        && root.read(path).is_ok_and(|bytes| bytes.is_some_and(|bytes| bytes.starts_with(NOTE.as_bytes())))
}

/// A name for a file of the agent's, which is not that of one of the image's.
fn free(root: &Root, directory: &str, stem: &str, end: &str) -> Result<String, FileError> {
    let mut path = format!("{directory}/{stem}{end}");
    let mut n = 2;
    while root.exists(&path)? && !is_ours(root, &path) {
        path = format!("{directory}/{stem}-{n}{end}");
        n += 1;
    }
    Ok(path)
}

/// Makes a directory and those above it.
fn make_dirs(root: &Root, path: &str) -> Result<(), FileError> {
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        if !root.exists(&path[..end])? {
            root.make_dir(&path[..end], 0o755)?;
        }
    }
    Ok(())
}

/// A line for each of `values`.
fn each<T: Display>(text: &mut String, key: &str, values: &[T]) {
    for value in values {
        let _ = writeln!(text, "{key}{value}");
    }
}

/// One line for all of `values`, if there are any.
fn list<T: Display>(text: &mut String, key: &str, values: &[T], separator: &str) {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    if !values.is_empty() {
        let _ = writeln!(text, "{key}{}", values.join(separator));
    }
}

/// Where the kernel shows interfaces.
const NET: &str = "sys/class/net";

/// What an identity would meet. Whether one has static addresses is not known yet, so nothing here is more than a note,
/// but for what would stop one that has none.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    // Addresses of RFC 5737 for each NIC there is, or that the image's settings name.
    let ip = serde_json::from_str(r#"{"addresses":["192.0.2.1/24"],"dns":["192.0.2.53"]}"#);
    let ip: IpConfig = ip.map_err(|error| ApplyError::Malformed(error.to_string()))?;
    let unknown =
        MacAddr::new([2, 0, 0, 0, 0, 1]).map_err(|error| ApplyError::Malformed(error.to_string()))?;
    let mut found = Vec::new();
    let owners = match Owners::load(root) {
        Ok(owners) => owners,
        Err(error) => return Ok(vec![note(&error)]),
    };
    let mut names = Vec::new();
    for name in root.names(NET)? {
        if root.exists(&format!("{NET}/{name}/device"))? {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.extend(owners.interfaces.interfaces());
    }
    if names.is_empty() {
        // In an image at rest it can only be said that none of the services that are there is enabled.
        if owners.any() || !owners.installed()? {
            return Ok(found);
        }
        names.push("a NIC".into());
    }
    for name in &names {
        let mac =
            root.read_lossy(&format!("{NET}/{name}/address"))?.and_then(|text| text.trim().parse().ok());
        let mac = mac.unwrap_or(unknown);
        if let Err(error) = plan(root, &[Nic { name, other_names: &[], mac, parent: mac, ip: &ip }]) {
            found.push(note(&error));
        }
    }
    found.dedup();
    Ok(found)
}

fn note(error: &ApplyError) -> Finding {
    let what = format!("an identity with static addresses ([[ip]]) would be refused: {}", chain(error));
    Finding::new(Grade::Note, &what, "correct it if identities of this template have some")
}

#[cfg(test)]
mod tests;
