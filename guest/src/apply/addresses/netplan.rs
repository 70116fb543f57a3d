//! netplan(5): which of systemd-networkd and `NetworkManager` it gives an interface to, which it does in a generator.

use super::{Nic, owner::Service, paths::is_kind};
use crate::{apply::ApplyError, glob::fits, root::Root};
use saphyr_parser::{Event, Parser};
use std::collections::BTreeMap;

/// Where its files are; one shadows those of its name in the directories behind it (netplan-generate(8)).
const DIRECTORIES: [&str; 4] = ["run/netplan", "etc/netplan", "usr/lib/netplan", "lib/netplan"];

/// Where its generator is.
const GENERATORS: [&str; 3] =
    ["usr/lib/systemd/system-generators", "lib/systemd/system-generators", "etc/systemd/system-generators"];

/// How deep a file may be nested.
const DEPTH: usize = 32;

/// A value of YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)
            .and_then(|value| if let Self::Scalar(text) = value { Some(text.as_str()) } else { None })
    }

    fn entries(&self) -> &[(String, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// As netplan merges files: maps by their keys, all else is replaced.
    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Map(ours), Self::Map(theirs)) => {
                for (key, value) in theirs {
                    match ours.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, own)) => own.merge(value),
                        None => ours.push((key, value)),
                    }
                }
            }
            (ours, theirs) => *ours = theirs,
        }
    }
}

/// netplan's settings, if it is there and has some.
pub(super) struct Netplan {
    network: Node,
}

impl Netplan {
    pub(super) fn load(root: &Root) -> Result<Option<Self>, ApplyError> {
        let mut files = BTreeMap::new();
        for directory in DIRECTORIES {
            for name in root.names(directory)? {
                if is_kind(&name, "yaml") {
                    files.entry(name.clone()).or_insert(format!("{directory}/{name}"));
                }
            }
        }
        let mut generators = Vec::new();
        for directory in GENERATORS {
            generators.extend(root.names(directory)?);
        }
        if files.is_empty() || (!generators.is_empty() && !generators.iter().any(|name| name == "netplan")) {
            return Ok(None);
        }
        let mut all = Node::Map(Vec::new());
        for path in files.values() {
            let text = root.read_lossy(path)?.unwrap_or_default();
            let parsed = parse(&text).map_err(|why| {
                ApplyError::Malformed(format!(
                    "/{path} is no YAML that can be read ({why}), so who is in charge of which interface is not known: \
                     correct it"
                ))
            })?;
            all.merge(parsed.unwrap_or(Node::Map(Vec::new())));
        }
        Ok(all.get("network").cloned().map(|network| Self { network }))
    }

    /// What a definition says, and without it those above it; networkd is the default.
    fn renderer(&self, above: &Node, definition: Option<&Node>) -> Result<Service, ApplyError> {
        let places = [definition, Some(above), Some(&self.network)];
        match places.into_iter().flatten().find_map(|place| place.text("renderer")) {
            None | Some("networkd") => Ok(Service::Networkd),
            Some("NetworkManager") => Ok(Service::NetworkManager),
            Some(other) => Err(ApplyError::Malformed(format!(
                "netplan's renderer {other:?} is not known here: networkd and NetworkManager are"
            ))),
        }
    }

    /// Whose `nic` is. `None` where netplan says nothing of it.
    pub(super) fn service(&self, nic: &Nic<'_>) -> Result<Option<Service>, ApplyError> {
        let Some(ethernets) = self.network.get("ethernets") else { return self.of_all() };
        for (id, definition) in ethernets.entries() {
            if is_for(id, definition, nic) {
                return self.renderer(ethernets, Some(definition)).map(Some);
            }
        }
        self.of_all()
    }

    /// All interfaces without a definition: only `NetworkManager` takes those.
    fn of_all(&self) -> Result<Option<Service>, ApplyError> {
        let service = self.renderer(&self.network, None)?;
        Ok((service == Service::NetworkManager).then_some(service))
    }

    /// Whether the generator has `service` started.
    pub(super) fn starts(&self, service: Service) -> Result<bool, ApplyError> {
        for (_, kind) in self.network.entries() {
            for (_, definition) in kind.entries() {
                if matches!(definition, Node::Map(_)) && self.renderer(kind, Some(definition))? == service {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What is made of `nic`.
    pub(super) fn made_of(&self, nic: &Nic<'_>) -> Option<String> {
        let ids: Vec<_> = self.network.get("ethernets").map_or(Vec::new(), |ethernets| {
            let ours = ethernets.entries().iter().filter(|(id, definition)| is_for(id, definition, nic));
            ours.map(|(id, _)| id.as_str()).chain([nic.name]).collect()
        });
        let is_ours = |node: &Node| matches!(node, Node::Scalar(id) if ids.contains(&id.as_str()));
        for (kind, definitions) in self.network.entries() {
            for (id, definition) in definitions.entries() {
                let ports = match definition.get("interfaces") {
                    Some(Node::List(ports)) => ports.as_slice(),
                    Some(Node::Scalar(_) | Node::Map(_)) | None => &[],
                };
                if ports.iter().chain(definition.get("link")).any(is_ours) {
                    return Some(format!("netplan makes {id} ({kind}) of it"));
                }
            }
        }
        None
    }
}

/// Whether the definition `id` is one of `nic` ("match").
fn is_for(id: &str, definition: &Node, nic: &Nic<'_>) -> bool {
    let Some(conditions) = definition.get("match") else { return id == nic.name };
    let named = definition.text("set-name") == Some(nic.name);
    conditions.entries().iter().all(|(key, value)| match (key.as_str(), value) {
        // A name that is set anew is matched by the old one, which is not known.
        ("name", Node::Scalar(pattern)) => named || fits(pattern, nic.name),
        ("macaddress", Node::Scalar(mac)) => nic.has(mac),
        // A driver may be its.
        _ => true,
    })
}

/// The first document, or why there is none.
fn parse(text: &str) -> Result<Option<Node>, String> {
    // What is open: a map's key that waits for its value comes with it.
    let mut open: Vec<(Node, Option<String>)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let mut done = match event {
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned()),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEPTH => {
                return Err("it is nested too deeply".into());
            }
            Event::SequenceStart(..) => {
                open.push((Node::List(Vec::new()), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Node::Map(Vec::new()), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, _)) => node,
                None => return Err("it ends what it did not begin".into()),
            },
            Event::Alias(_) => return Err("it has an alias".into()),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        match open.last_mut() {
            None => return Ok(Some(done)),
            Some((Node::List(list), _)) => list.push(done),
            Some((Node::Map(entries), key)) => match (key.take(), &mut done) {
                (None, Node::Scalar(name)) => *key = Some(std::mem::take(name)),
                (None, _) => return Err("a key is no word".into()),
                (Some(name), _) => entries.push((name, done)),
            },
            Some((Node::Scalar(_), _)) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn yaml_as_people_write_it() {
        let text = "# who\n---\nnetwork:\n  'version': 2\n  renderer: \"networkd\" # default\n  ethernets:\n    ens2: {dhcp4: true, \
                    nameservers: {addresses: [192.0.2.53, \"2001:db8::53\"]}}\n    ens3:\n      addresses:\n      - 192.0.2.7/24\n";
        let Ok(Some(node)) = parse(text) else { panic!("{:?}", parse(text)) };
        let network = node.get("network").unwrap();
        assert_eq!((network.text("version"), network.text("renderer")), (Some("2"), Some("networkd")));
        let ids: Vec<_> =
            network.get("ethernets").unwrap().entries().iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["ens2", "ens3"]);
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("# nothing"), Ok(None));
    }

    #[test]
    fn what_is_no_settings_is_an_error() {
        for text in ["a: [", "a: b: c", "\t- x", "{", "a: *b", &"[".repeat(100_000), &"a:\n".repeat(3)] {
            assert!(parse(text).is_err() || !text.starts_with(['[', '{']), "{text:.20}");
        }
    }

    #[test]
    fn files_are_merged_by_their_keys() {
        let mut all = parse("network: {renderer: networkd, ethernets: {a: {dhcp4: true}}}").unwrap().unwrap();
        all.merge(parse("network: {renderer: NetworkManager, ethernets: {b: {}}}").unwrap().unwrap());
        let network = all.get("network").unwrap();
        assert_eq!(network.text("renderer"), Some("NetworkManager"));
        assert_eq!(network.get("ethernets").unwrap().entries().len(), 2);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[-\\[\\]{}:,#&*!|>'\"%@` \n\ta-c?]{0,60}") {
            let _ = parse(&text);
        }
    }
}
