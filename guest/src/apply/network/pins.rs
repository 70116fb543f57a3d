//! Addresses and ids that a setting of the image fixes: past the gate all children would have the same, or none would
//! have its settings.

use super::ApplyError;
use crate::root::Root;
use ramet_proto::message::{Finding, Grade};

/// What a setting does to children.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// All of them get one link-layer address.
    Pins,
    /// None of them has the address that it is for.
    Matches,
    /// All of them ask for an address with one DUID.
    Duid,
}

/// A directory, how names of its files end, the section (any if empty), the key.
type Setting = (&'static str, &'static str, &'static str, &'static str, Effect);

const SETTINGS: &[Setting] = &[
    // systemd.link(5), systemd.network(5), systemd.netdev(5), networkd.conf(5).
    ("etc/systemd/network", "", "Link", "MACAddress", Effect::Pins),
    ("etc/systemd/network", "", "NetDev", "MACAddress", Effect::Pins),
    ("etc/systemd/network", "", "Match", "MACAddress", Effect::Matches),
    ("etc/systemd/network", "", "Match", "PermanentMACAddress", Effect::Matches),
    ("etc/systemd/network", "", "", "DUIDRawData", Effect::Duid),
    ("etc/systemd", "networkd.conf", "", "DUIDRawData", Effect::Duid),
    ("etc/systemd/networkd.conf.d", ".conf", "", "DUIDRawData", Effect::Duid),
    // nm-settings-keyfile(5), NetworkManager.conf(5).
    ("etc/NetworkManager/system-connections", "", "", "cloned-mac-address", Effect::Pins),
    ("etc/NetworkManager/system-connections", "", "", "mac-address", Effect::Matches),
    ("etc/NetworkManager/system-connections", "", "", "dhcp-client-id", Effect::Duid),
    ("etc/NetworkManager/system-connections", "", "", "dhcp-duid", Effect::Duid),
    ("etc/NetworkManager", "NetworkManager.conf", "", "ethernet.cloned-mac-address", Effect::Pins),
    ("etc/NetworkManager/conf.d", ".conf", "", "ethernet.cloned-mac-address", Effect::Pins),
    // interfaces(5).
    ("etc/network", "interfaces", "", "hwaddress", Effect::Pins),
    ("etc/network/interfaces.d", "", "", "hwaddress", Effect::Pins),
    // ifcfg(5) of RHEL and of SUSE.
    ("etc/sysconfig/network-scripts", "", "", "MACADDR", Effect::Pins),
    ("etc/sysconfig/network-scripts", "", "", "HWADDR", Effect::Matches),
    ("etc/sysconfig/network", "", "", "LLADDR", Effect::Pins),
    // netplan(5): under `match:` it is for one, elsewhere for all; both are wrong.
    ("etc/netplan", ".yaml", "", "macaddress", Effect::Pins),
    // dhclient.conf(5).
    ("etc/dhcp", ".conf", "", "send dhcp-client-identifier", Effect::Duid),
    ("etc", "dhclient.conf", "", "send dhcp-client-identifier", Effect::Duid),
];

/// What an identity would meet.
pub(in crate::apply) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    for (directory, end, section, key, effect) in SETTINGS {
        for name in root.names(directory)?.iter().filter(|name| name.ends_with(end)) {
            let path = format!("{directory}/{name}");
            if root.is_dir(&path)? {
                continue;
            }
            // It is another program that reads it, and complains if it cannot.
            let text = root.read_lossy(&path).ok().flatten().unwrap_or_default();
            for value in values(&text, section, key) {
                found.extend(finding(&path, key, value, *effect));
            }
        }
    }
    Ok(found)
}

fn finding(path: &str, key: &str, value: &str, effect: Effect) -> Option<Finding> {
    let fixed = value.contains(':') || value.eq_ignore_ascii_case("permanent");
    let (what, fix) = match effect {
        Effect::Pins if fixed => (
            "past the gate all children have this link-layer address",
            "leave it to the identity: take the line out",
        ),
        Effect::Matches if fixed => {
            ("no child has this link-layer address, so none of this is for it", "match by name or by driver")
        }
        // Words stand for something that differs (nm-settings(5)), for the rest see dhclient.conf(5).
        Effect::Duid if fixed => ("all children ask for an address with this id", "take the line out"),
        Effect::Pins | Effect::Matches | Effect::Duid => return None,
    };
    Some(Finding::new(Grade::Broken, &format!("/{path} has {key} {value}: {what}"), fix))
}

/// The values of `key` in `section`, or in any if that is empty.
fn values<'a>(text: &'a str, section: &str, key: &str) -> Vec<&'a str> {
    let mut within = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            within = name.trim_end_matches(']');
        } else if section.is_empty() || within == section {
            let value = line.get(..key.len()).filter(|start| start.eq_ignore_ascii_case(key));
            let rest = value.map_or("", |_| &line[key.len()..]);
            if rest.starts_with([' ', '\t', '=', ':']) {
                let is_quote = |c: char| c.is_whitespace() || matches!(c, '=' | ':' | '"' | '\'' | ';');
                found.push(rest.trim_matches(is_quote));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn each_pinned_or_matched_address_is_named() {
        for (directory, end, section, key, _) in SETTINGS {
            let dir = tempfile::tempdir().unwrap();
            let root = Root::open(dir.path()).unwrap();
            fs::create_dir_all(dir.path().join(directory)).unwrap();
            let name =
                if end.starts_with('.') || end.is_empty() { format!("x{end}") } else { (*end).to_owned() };
            let path = dir.path().join(directory).join(name);
            let write = |line: &str| fs::write(&path, format!("[{section}]\n#{line}\n  {line}\n")).unwrap();
            for (value, named) in [
                ("= 52:54:00:00:00:01", 1),
                (": \"52:54:00:00:00:01\"", 1),
                (" 52:54:00:00:00:01", 1),
                ("=stable", 0),
            ] {
                write(&format!("{key}{value}"));
                let found = check(&root).unwrap();
                assert_eq!(found.len(), named, "{directory} {key}{value}: {found:?}");
                assert!(found.iter().all(|f| f.what.as_str().contains("52:54:00:00:00:01:")));
            }
        }
    }

    #[test]
    fn a_match_and_a_pin_are_told_apart_by_their_sections() {
        let text = "[Match]\nMACAddress=02:00:00:00:00:01\n[Link]\nMACAddress=02:00:00:00:00:02\nMACAddressPolicy=none\n";
        assert_eq!(values(text, "Link", "MACAddress"), ["02:00:00:00:00:02"]);
        assert_eq!(values(text, "Match", "MACAddress"), ["02:00:00:00:00:01"]);
    }
}
