//! interfaces(5), by the files its programs read. A stanza of the image's for the same interface would be applied besides
//! the agent's, so it is made a comment, and no longer one for an identity without static addresses.

use super::{
    NOTE, Nic, Planned, each, interfaces as lines,
    interfaces::{self, Stanza},
    is_ours, list,
    paths::{beside, real},
};
use crate::{
    apply::ApplyError,
    glob::{expand, fits},
    root::{FileError, Root},
};
use std::{collections::BTreeSet, fmt::Write};

pub(super) const DIRECTORY: &str = "etc/network/interfaces.d";
pub(super) const START: &str = "ramet-";
const MAIN: &str = "etc/network/interfaces";

/// What ifup(8) is told besides: `networking.service` reads it.
const DEFAULTS: &str = "etc/default/networking";

/// Ends of names that people have files read by, for a name of the agent's that is read as well.
const ENDS: [&str; 4] = ["", ".cfg", ".conf", ".interfaces"];

/// Which program it is: each has its own idea of `source`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    /// Debian's, whose manual page interfaces(5) is: patterns, relative to the file.
    Ifupdown,
    /// ifupdown2: patterns; no source-directory.
    Two,
    /// ifupdown-ng: one file or directory, no patterns.
    Ng,
}

/// A file of the image's.
struct File {
    path: String,
    /// As it is now.
    bytes: Vec<u8>,
    /// As the image has it.
    text: Vec<u8>,
}

/// A line that has other files read.
struct Source {
    pattern: String,
    /// All files of directories that fit.
    directory: bool,
}

/// What ifup(8) reads, without the agent's.
pub(super) struct Image {
    flavour: Flavour,
    files: Vec<File>,
    sources: Vec<Source>,
    /// Lines whose files are not known from here: they have variables, for one.
    unknown: Vec<String>,
    /// Why the main file, or one that is read with it, cannot be read.
    unreadable: Option<ApplyError>,
    excluded: Vec<String>,
    /// ifup(8) is told to bring up none.
    off: bool,
}

impl Image {
    pub(super) fn load(root: &Root) -> Result<Self, FileError> {
        let flavour = if root.exists("usr/share/ifupdown2")? {
            Flavour::Two
        } else if root.exists("usr/libexec/ifupdown-ng")? || root.exists("lib/ifupdown-ng")? {
            Flavour::Ng
        } else {
            Flavour::Ifupdown
        };
        let mut image = Self {
            flavour,
            files: Vec::new(),
            sources: Vec::new(),
            unknown: Vec::new(),
            unreadable: None,
            excluded: Vec::new(),
            off: false,
        };
        let defaults = root.read_lossy(DEFAULTS).ok().flatten().unwrap_or_default();
        for line in defaults.lines() {
            let value =
                |key| line.trim().strip_prefix(key).map(|value: &str| value.trim_matches(['"', '\'']));
            if let Some(value) = value("CONFIGURE_INTERFACES=") {
                image.off = value == "no";
            } else if let Some(value) = value("EXCLUDE_INTERFACES=") {
                image.excluded = value.split([' ', ',']).map(str::to_owned).collect();
            }
        }
        let mut seen = BTreeSet::new();
        let mut next = vec![MAIN.to_owned()];
        while let Some(path) = next.pop() {
            match image.read(root, &path, &mut seen) {
                Ok(more) => next.extend(more),
                Err(error) => drop(image.unreadable.get_or_insert(error.into())),
            }
        }
        Ok(image)
    }

    /// Takes in the file at `path`, unless it is among those `seen`; gives what it has read besides.
    fn read(
        &mut self,
        root: &Root,
        path: &str,
        seen: &mut BTreeSet<String>,
    ) -> Result<Vec<String>, FileError> {
        let path = real(root, path)?;
        if !seen.insert(path.clone()) || root.is_dir(&path)? && path != MAIN {
            return Ok(Vec::new());
        }
        let Some(bytes) = root.read(&path)?.filter(|bytes| !bytes.starts_with(NOTE.as_bytes())) else {
            return Ok(Vec::new());
        };
        let text = lines::restored(&bytes);
        let stanzas = lines::stanzas(&text);
        self.files.push(File { path: path.clone(), bytes, text });
        let mut more = Vec::new();
        for stanza in stanzas {
            more.extend(self.source(root, &path, &stanza));
        }
        Ok(more)
    }

    /// The files that `stanza` of `file` has read.
    fn source(&mut self, root: &Root, file: &str, stanza: &Stanza) -> Vec<String> {
        let directory = match stanza.head.word(0) {
            "source" => false,
            // Not one of its words.
            "source-directory" => self.flavour != Flavour::Two,
            _ => return Vec::new(),
        };
        let mut found = Vec::new();
        // What more there is on the line is not heeded.
        for pattern in stanza.head.words.iter().skip(1).take(1) {
            if pattern.contains(['$', '`', '~', '"', '\'', '(']) {
                self.unknown.push(stanza.head.words.join(" "));
                continue;
            }
            // Of the others the current directory counts, which is the root.
            let from = if self.flavour == Flavour::Ifupdown { file } else { "" };
            let pattern = beside(from, pattern);
            let paths = match self.flavour {
                Flavour::Ifupdown | Flavour::Two => expand(root, &pattern).unwrap_or_default(),
                Flavour::Ng => vec![pattern.clone()],
            };
            if directory {
                for path in paths {
                    let names = root.names(&path).unwrap_or_default();
                    let names = names.iter().filter(|name| self.is_read(name));
                    found.extend(names.map(|name| format!("{path}/{name}")));
                }
            } else {
                found.extend(paths);
            }
            self.sources.push(Source { pattern, directory });
        }
        found
    }

    /// Whether source-directory has a file of this name read.
    fn is_read(&self, name: &str) -> bool {
        match self.flavour {
            Flavour::Ifupdown => name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')),
            Flavour::Two => false,
            Flavour::Ng => !name.starts_with('.'),
        }
    }

    /// Whether a file at `path` is read, or would be if there were one.
    fn reads(&self, path: &str) -> bool {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.sources.iter().any(|source| {
            let fits = |path: &str| {
                if self.flavour == Flavour::Ng {
                    source.pattern == path
                } else {
                    fits_path(&source.pattern, path)
                }
            };
            if source.directory { fits(parent) && self.is_read(name) } else { fits(path) }
        })
    }

    /// Every stanza, with the path of its file.
    fn stanzas(&self) -> impl Iterator<Item = (&str, Stanza)> {
        self.files.iter().flat_map(|file| {
            lines::stanzas(&file.text).into_iter().map(move |stanza| (file.path.as_str(), stanza))
        })
    }

    /// Whether ifup(8) brings up the interface `nic`.
    pub(super) fn has(&self, nic: &str) -> bool {
        !self.off && self.names(nic)
    }

    /// Whether interfaces(5) says something of the interface `nic`.
    pub(super) fn names(&self, nic: &str) -> bool {
        self.stanzas().any(|(_, stanza)| lines::names(&stanza, nic))
    }

    /// Whether udev has the interface `nic` brought up, `networking.service` or not.
    pub(super) fn hotplugs(&self, nic: &str) -> bool {
        self.stanzas().any(|(_, stanza)| stanza.head.word(0) == "allow-hotplug" && lines::names(&stanza, nic))
    }

    /// Interfaces that have a stanza, or that one makes another of, but the loopback's.
    pub(super) fn interfaces(&self) -> BTreeSet<String> {
        let stanzas = self.stanzas().filter(|(_, stanza)| stanza.head.word(0) == "iface");
        let names = stanzas.flat_map(|(_, stanza)| {
            let names = std::iter::once(stanza.head.word(1)).chain(interfaces::ports(&stanza));
            names.map(str::to_owned).collect::<Vec<_>>()
        });
        names.filter(|name| name != "lo" && !name.contains([':', '.', '*', '?', '['])).collect()
    }

    /// What is to be written for `nics`.
    pub(super) fn planned(mut self, root: &Root, nics: &[&Nic<'_>]) -> Result<Vec<Planned>, ApplyError> {
        let Some(first) = nics.first() else { return Ok(Vec::new()) };
        if let Some(error) = self.unreadable.take() {
            return Err(error);
        }
        if self.files.is_empty() {
            return Err(
                first.refused(&format!("ifupdown is enabled, and there is no /{MAIN} for it to read"))
            );
        }
        if let Some(line) = self.unknown.first() {
            return Err(
                first.refused(&format!("which files the line \"{line}\" has ifup read is not known here"))
            );
        }
        if self.off {
            return Err(first.refused(&format!("/{DEFAULTS} has ifup bring up no interface")));
        }
        let mut planned = Vec::new();
        let mut sources = Vec::new();
        for nic in nics {
            if self.excluded.iter().any(|pattern| fits(pattern, nic.name)) {
                return Err(nic.refused(&format!("/{DEFAULTS} excludes it")));
            }
            if let Some(other) = nic.other_names.iter().find(|name| self.names(name)) {
                return Err(nic.refused(&format!(
                    "interfaces(5) has a stanza for {other}, which is another name of it: name it {} there",
                    nic.name
                )));
            }
            for (path, stanza) in self.stanzas() {
                if let Some(why) = lines::obstacle(&stanza, nic.name) {
                    return Err(nic.refused(&format!("in /{path} {why}")));
                }
            }
            let (path, is_read) = self.place(root, nic)?;
            if !is_read {
                sources.push(path.clone());
            }
            planned.push(Planned::new(path, stanzas(nic).into_bytes(), 0o644));
        }
        let names: Vec<_> = nics.iter().map(|nic| nic.name).collect();
        for (n, file) in self.files.iter().enumerate() {
            let more = if n == 0 { sources.as_slice() } else { &[] };
            let bytes = lines::without(&file.text, &names, more);
            if bytes != file.bytes {
                planned.push(Planned { edit: true, ..Planned::new(file.path.clone(), bytes, 0o644) });
            }
        }
        Ok(planned)
    }

    /// Where the agent's stanzas for `nic` go, and whether they are read there.
    fn place(&self, root: &Root, nic: &Nic<'_>) -> Result<(String, bool), FileError> {
        let own =
            self.sources.iter().filter_map(|source| source.pattern.rsplit_once('*')).map(|(_, end)| end);
        let ends: Vec<_> = ENDS.into_iter().chain(own).filter(|end| !end.contains(['/', '?', '['])).collect();
        for end in &ends {
            for n in ["", "-2", "-3"] {
                let path = format!("{DIRECTORY}/{START}{}{n}{end}", nic.name);
                if self.reads(&path) && (!root.exists(&path)? || is_ours(root, &path)) {
                    return Ok((path, true));
                }
            }
        }
        let path = format!("{DIRECTORY}/{START}{}", nic.name);
        let taken = root.exists(&path)? && !is_ours(root, &path);
        Ok((if taken { path + "-2" } else { path }, false))
    }
}

fn fits_path(pattern: &str, path: &str) -> bool {
    let (patterns, parts): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    patterns.len() == parts.len() && patterns.iter().zip(parts).all(|(pattern, part)| fits(pattern, part))
}

/// The image's files with all their lines as the image has them. One that cannot be read never was another.
pub(super) fn restore(root: &Root) -> Result<(), FileError> {
    let mut files = Image::load(root)?.files;
    for name in root.names(DIRECTORY).unwrap_or_default() {
        let path = real(root, &format!("{DIRECTORY}/{name}")).unwrap_or_default();
        if !files.iter().any(|file| file.path == path)
            && root.is_regular(&path).unwrap_or(false)
            && let Ok(Some(bytes)) = root.read(&path)
            && !bytes.starts_with(NOTE.as_bytes())
        {
            files.push(File { path, text: lines::restored(&bytes), bytes });
        }
    }
    for file in files {
        if file.text != file.bytes {
            root.edit(&file.path, &file.text, 0o644)?;
        }
    }
    Ok(())
}

fn stanzas(nic: &Nic<'_>) -> String {
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
    text
}
