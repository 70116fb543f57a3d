//! interfaces(5). A stanza of the image's for the same interface would be applied besides the agent's, so it is made a
//! comment, and no longer one for an identity without static addresses.

use super::{NOTE, Nic, Planned, each, list};
use crate::{apply::ApplyError, root::Root};
use std::fmt::Write;

pub(super) const DIRECTORY: &str = "etc/network/interfaces.d";
const MAIN: &str = "etc/network/interfaces";

/// What the image's lines begin with while they do not count.
const MARK: &str = "#ramet# ";

/// The words that begin a stanza.
const STANZAS: &[&str] = &[
    "iface",
    "mapping",
    "auto",
    "source",
    "source-directory",
    "no-auto-down",
    "no-scripts",
    "rename",
    "template",
];

pub(super) fn stanzas(nic: &Nic<'_>) -> Planned {
    let mut text = format!("{NOTE}auto {}\n", nic.name);
    for (family, is_v4) in [("inet", true), ("inet6", false)] {
        let of_kind = |address: std::net::IpAddr| address.is_ipv4() == is_v4;
        let gateways: Vec<_> = nic.ip.gateways.iter().filter(|ip| of_kind(ip.get())).collect();
        let addresses = nic.ip.addresses.as_slice().iter().filter(|address| of_kind(address.ip()));
        for (n, address) in addresses.enumerate() {
            let _ = write!(text, "iface {} {family} static\n    address {address}\n", nic.name);
            if n == 0 {
                let (first, more) = gateways.split_at(gateways.len().min(1));
                each(&mut text, "    gateway ", first);
                let append = format!("    up ip route append default dev {} via ", nic.name);
                each(&mut text, &append, more);
            }
        }
    }
    // Of the last stanza; resolvconf(8) reads them.
    list(&mut text, "    dns-nameservers ", &nic.ip.dns, " ");
    list(&mut text, "    dns-search ", &nic.ip.search, " ");
    Planned { path: format!("{DIRECTORY}/ramet-{}", nic.name), text, mode: 0o644 }
}

/// The image's files with all their lines as the image has them.
pub(super) fn restore(root: &Root) -> Result<(), ApplyError> {
    for (path, text) in images_files(root)? {
        let restored = uncommented(&text);
        if restored != text {
            root.replace(&path, restored.as_bytes(), 0o644)?;
        }
    }
    Ok(())
}

/// The image's files, those that change, without the stanzas of `nics`.
pub(super) fn without(root: &Root, nics: &[Nic<'_>]) -> Result<Vec<Planned>, ApplyError> {
    let files = images_files(root)?;
    if !files.iter().any(|(path, text)| path == MAIN && uncommented(text).contains(DIRECTORY)) {
        return Err(ApplyError::Missing(format!("/{MAIN} does not read /{DIRECTORY}")));
    }
    let mut planned = Vec::new();
    for (path, before) in files {
        let text = commented(&uncommented(&before), nics);
        if text != before {
            planned.push(Planned { path, text, mode: 0o644 });
        }
    }
    Ok(planned)
}

fn images_files(root: &Root) -> Result<Vec<(String, String)>, ApplyError> {
    let mut files = Vec::new();
    let names = root.names(DIRECTORY)?.into_iter().filter(|name| !name.starts_with("ramet-"));
    for path in std::iter::once(MAIN.to_owned()).chain(names.map(|name| format!("{DIRECTORY}/{name}"))) {
        if root.is_regular(&path)? {
            files.extend(root.read_text(&path)?.map(|text| (path, text)));
        }
    }
    Ok(files)
}

fn uncommented(text: &str) -> String {
    text.lines().fold(String::new(), |all, line| all + line.strip_prefix(MARK).unwrap_or(line) + "\n")
}

fn commented(text: &str, nics: &[Nic<'_>]) -> String {
    let mut theirs = false;
    let mut all = String::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let word = words.next().unwrap_or_default();
        if STANZAS.contains(&word) || word.starts_with("allow-") {
            theirs = word == "iface" && nics.iter().any(|nic| words.clone().next() == Some(nic.name));
        }
        if theirs && !line.starts_with('#') && !word.is_empty() {
            all += MARK;
        }
        all = all + line + "\n";
    }
    all
}
