//! systemd.network(5): which file systemd-networkd takes for an interface, and the agent's.

use super::{NOTE, Nic, Planned, each, free, is_ours, paths::is_kind, units::is_true};
use crate::{
    apply::ApplyError,
    gate::links::HOLD,
    glob::fits,
    ini::{Setting, settings},
    root::{FileError, Root},
};
use std::{collections::BTreeMap, fmt::Write};

pub(super) const DIRECTORY: &str = "etc/systemd/network";

/// How the names of the agent's files begin: as a rule, and where a file of the image's for the same interface would come
/// before that one. Of all files that match a link the first counts.
pub(super) const STARTS: [&str; 2] = ["05-ramet-", "00-00-ramet-ip-"];

/// Where its files are; one shadows those of its name in the directories behind it.
const DIRECTORIES: [&str; 5] = [
    DIRECTORY,
    "run/systemd/network",
    "usr/local/lib/systemd/network",
    "usr/lib/systemd/network",
    "lib/systemd/network",
];

/// What makes an interface a part of another, or others of it ("`[NETWORK]` SECTION OPTIONS").
const MADE_OF: &[&str] = &[
    "Bridge",
    "Bond",
    "VRF",
    "BatmanAdvanced",
    "VLAN",
    "MACVLAN",
    "MACVTAP",
    "IPVLAN",
    "IPVTAP",
    "VXLAN",
    "MACsec",
];

/// The file of the image's that counts for an interface.
pub(super) struct File {
    pub(super) path: String,
    name: String,
    /// It says that the interface is none of networkd's.
    pub(super) unmanaged: bool,
    /// A setting by which the interface is a part of another, or others of it.
    pub(super) made_of: Option<String>,
}

/// The first file of the image's that matches `nic`.
pub(super) fn file(root: &Root, nic: &Nic<'_>) -> Result<Option<File>, FileError> {
    let mut files = BTreeMap::new();
    for directory in DIRECTORIES {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            if is_kind(&name, "network") && path != HOLD && !is_ours(root, &path) {
                files.entry(name).or_insert(path);
            }
        }
    }
    for (name, path) in files {
        // Masked by a link to nowhere, or an empty file.
        let Some(text) = root.read_lossy(&path)?.filter(|text| !text.is_empty()) else { continue };
        let mut found = settings(&text);
        for (_, path) in drop_ins(root, &name)? {
            found.extend(settings(&root.read_lossy(&path)?.unwrap_or_default()));
        }
        if !found.iter().filter(|setting| setting.section == "Match").all(|setting| fits_match(setting, nic))
        {
            continue;
        }
        let value = |section: &str, key: &str| {
            let last = found.iter().rfind(|setting| setting.section == section && setting.key == key);
            last.map(|setting| setting.value.as_str())
        };
        let made_of = found
            .iter()
            .find(|one| {
                one.section == "Network" && MADE_OF.contains(&one.key.as_str()) && !one.value.is_empty()
            })
            .map(|one| format!("{}={}", one.key, one.value));
        let unmanaged = is_true(value("Link", "Unmanaged"), false);
        return Ok(Some(File { path, name, unmanaged, made_of }));
    }
    Ok(None)
}

fn drop_ins(root: &Root, name: &str) -> Result<BTreeMap<String, String>, FileError> {
    let mut found = BTreeMap::new();
    for directory in DIRECTORIES {
        for file in root.names(&format!("{directory}/{name}.d"))? {
            if is_kind(&file, "conf") {
                let path = format!("{directory}/{name}.d/{file}");
                found.entry(file).or_insert(path);
            }
        }
    }
    Ok(found)
}

/// Whether a line of a `[Match]` section lets `nic` pass. What cannot be known from here (its driver, its path, the host)
/// does.
fn fits_match(setting: &Setting, nic: &Nic<'_>) -> bool {
    if setting.value.is_empty() {
        return true;
    }
    let (inverted, value) =
        setting.value.strip_prefix('!').map_or((false, setting.value.as_str()), |v| (true, v));
    let any = |fits: &dyn Fn(&str) -> bool| value.split_ascii_whitespace().any(fits) != inverted;
    match setting.key.as_str() {
        "Name" | "OriginalName" => any(&|pattern| nic.names().any(|name| fits(pattern, name))),
        // The values for this kind of machine.
        "Virtualization" => any(&|kind| matches!(kind, "yes" | "true" | "1" | "vm" | "kvm" | "qemu")),
        "MACAddress" | "PermanentMACAddress" => any(&|mac| nic.has(mac)),
        "Type" => any(&|pattern| fits(pattern, "ether")),
        // It has none.
        "Kind" => inverted,
        "WLANInterfaceType" | "SSID" | "BSSID" => false,
        _ => true,
    }
}

/// The agent's file. The kind keeps out VLANs and bridges, which have their NIC's address.
pub(super) fn planned(root: &Root, nic: &Nic<'_>) -> Result<Planned, ApplyError> {
    let image = file(root, nic)?;
    if let Some(File { path, made_of: Some(line), .. }) = &image {
        return Err(nic.refused(&format!("/{path} has \"{line}\" for it")));
    }
    let mut text = format!("{NOTE}[Match]\nMACAddress={}\nType=ether\n\n[Network]\nDHCP=no\n", nic.mac);
    let ip = nic.ip;
    each(&mut text, "Address=", ip.addresses.as_slice());
    each(&mut text, "Gateway=", &ip.gateways);
    each(&mut text, "DNS=", &ip.dns);
    each(&mut text, "Domains=", &ip.search);
    let _ = writeln!(text);
    text.truncate(text.trim_end().len() + 1);
    let usual = format!("{}{}.network", STARTS[0], nic.name);
    let start = STARTS[usize::from(image.as_ref().is_some_and(|image| image.name < usual))];
    if let Some(image) = image.filter(|image| *image.name < *STARTS[1]) {
        return Err(nic.refused(&format!("/{} comes before any other file for it", image.path)));
    }
    Ok(Planned::new(
        free(root, DIRECTORY, &format!("{start}{}", nic.name), ".network")?,
        text.into_bytes(),
        0o644,
    ))
}
