//! `NetworkManager`: which interfaces it leaves alone, and the agent's profile.

use super::{
    NOTE, Nic, Planned, free, is_ours, list,
    paths::{beside, is_kind},
    units::is_true,
};
use crate::{
    apply::ApplyError,
    glob::fits,
    ini::{boolean, settings},
    root::{FileError, Root},
};
use ramet_proto::network::UnicastIp;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// Where profiles are, unless it is told otherwise.
pub(super) const DIRECTORY: &str = "etc/NetworkManager/system-connections";

/// How the names of the agent's profiles begin.
pub(super) const START: &str = "ramet-";

/// Where profiles that are not of its own directory are.
const MORE_PROFILES: [&str; 2] =
    ["run/NetworkManager/system-connections", "usr/lib/NetworkManager/system-connections"];

/// Where its settings are, the last first read. A file shadows those of its name in the directories behind it, and what is
/// read later counts (NetworkManager.conf(5)). The main file is read before those of the first.
const CONF_D: [&str; 3] =
    ["etc/NetworkManager/conf.d", "run/NetworkManager/conf.d", "usr/lib/NetworkManager/conf.d"];

/// The greatest `autoconnect-priority` there is (nm-settings-keyfile(5)).
const PRIORITY: i32 = 999;

/// What it is told.
#[derive(Default)]
pub(super) struct Config {
    /// By section and name.
    values: BTreeMap<(String, String), String>,
}

impl Config {
    pub(super) fn load(root: &Root) -> Result<Self, FileError> {
        let mut paths = Vec::new();
        let mut seen = BTreeSet::new();
        for (n, directory) in CONF_D.iter().enumerate() {
            let names: Vec<_> =
                root.names(directory)?.into_iter().filter(|name| is_kind(name, "conf")).collect();
            let mut files = Vec::new();
            for name in names {
                if seen.insert(name.clone()) {
                    files.push(format!("{directory}/{name}"));
                }
            }
            if n == 0 {
                files.insert(0, "etc/NetworkManager/NetworkManager.conf".into());
            }
            paths.splice(0..0, files);
        }
        let mut config = Self::default();
        for path in paths {
            for setting in settings(&root.read_lossy(&path)?.unwrap_or_default()) {
                let (key, how) = match setting.key.strip_suffix(['+', '-']) {
                    Some(key) => (key, setting.key.chars().last()),
                    None => (setting.key.as_str(), None),
                };
                let value = config.values.entry((setting.section, key.to_owned())).or_default();
                match how {
                    Some('+') => *value = format!("{value};{}", setting.value),
                    Some(_) => {
                        let kept: Vec<_> = words(value).filter(|word| *word != setting.value).collect();
                        *value = kept.join(";");
                    }
                    None => *value = setting.value,
                }
            }
        }
        Ok(config)
    }

    fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.values.get(&(section.to_owned(), key.to_owned())).map(String::as_str)
    }

    /// Where profiles are.
    pub(super) fn profiles(&self) -> String {
        let path = self.value("keyfile", "path").filter(|path| path.starts_with('/'));
        path.map_or_else(|| DIRECTORY.to_owned(), |path| beside("", path))
    }

    /// Whether it sees to /etc/resolv.conf, by itself or by another.
    pub(super) fn resolves(&self) -> bool {
        self.value("main", "dns") != Some("none") && self.value("main", "rc-manager") != Some("unmanaged")
    }

    /// Whether it leaves alone what interfaces(5) names: so its plugin for that does, which Debian's has by default.
    pub(super) fn heeds_interfaces(&self) -> bool {
        let plugin =
            self.value("main", "plugins").is_none_or(|plugins| words(plugins).any(|word| word == "ifupdown"));
        plugin && !is_true(self.value("ifupdown", "managed"), false)
    }

    /// The setting by which it leaves `nic` alone, if there is one.
    pub(super) fn unmanaged(&self, root: &Root, nic: &Nic<'_>) -> Result<Option<String>, ApplyError> {
        let unknown = |spec: &str| {
            nic.refused(&format!(
                "whether NetworkManager leaves it alone by \"{spec}\" is not known: name interfaces there"
            ))
        };
        if let Some(spec) = self.value("keyfile", "unmanaged-devices") {
            match in_spec(spec, nic) {
                Some(true) => return Ok(Some(format!("unmanaged-devices={spec}"))),
                Some(false) => {}
                None => return Err(unknown(spec)),
            }
        }
        for ((section, key), value) in &self.values {
            if section.starts_with("device") && key == "managed" && boolean(value) == Some(false) {
                let spec = self.value(section, "match-device").unwrap_or("*");
                match in_spec(spec, nic) {
                    Some(true) => return Ok(Some(format!("managed={value} of [{section}]"))),
                    Some(false) => {}
                    None => return Err(unknown(spec)),
                }
            }
        }
        let path = format!("etc/sysconfig/network-scripts/ifcfg-{}", nic.name);
        for line in root.read_lossy(&path)?.unwrap_or_default().lines() {
            if let Some(value) = line.trim().strip_prefix("NM_CONTROLLED=")
                && boolean(value.trim_matches(['"', '\''])) == Some(false)
            {
                return Ok(Some(format!("{line} of /{path}")));
            }
        }
        Ok(None)
    }
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([';', ',', ' ', '\t']).filter(|word| !word.is_empty())
}

/// Whether `nic` is one of the "Device List Format" of NetworkManager.conf(5). `None` is what cannot be known from here.
fn in_spec(spec: &str, nic: &Nic<'_>) -> Option<bool> {
    let (mut found, mut only_exceptions) = (Some(false), true);
    for word in words(spec) {
        let (except, word) = word.strip_prefix("except:").map_or((false, word), |rest| (true, rest));
        let fits = match word.split_once(':') {
            _ if word == "*" || nic.has(word) => Some(true),
            Some(("interface-name", name)) => Some(match name.strip_prefix('=') {
                Some(exact) => exact == nic.name,
                None => fits(name.strip_prefix('~').unwrap_or(name), nic.name),
            }),
            Some(("mac", mac)) => Some(nic.has(mac)),
            Some(("type", kind)) => Some(kind == "ethernet"),
            // Another address.
            _ if word.len() == 17 && word.bytes().filter(|byte| *byte == b':').count() == 5 => Some(false),
            Some(_) => None,
            None => Some(word == nic.name),
        };
        match (except, fits) {
            (true, Some(true)) => return Some(false),
            (true, None) => return None,
            (true, Some(false)) => {}
            (false, fits) => {
                only_exceptions = false;
                found = match (found, fits) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (None, _) | (_, None) => None,
                    (Some(false), Some(false)) => Some(false),
                };
            }
        }
    }
    // All but some.
    if only_exceptions && !spec.trim().is_empty() { Some(true) } else { found }
}

/// The agent's profile (nm-settings-keyfile(5)), of which `NetworkManager` reads those only that nobody but root can read.
pub(super) fn planned(root: &Root, config: &Config, nic: &Nic<'_>) -> Result<Planned, ApplyError> {
    let directory = config.profiles();
    for directory in MORE_PROFILES.iter().copied().chain([directory.as_str()]) {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            if !root.is_dir(&path)?
                && !is_ours(root, &path)
                && let Some(why) = obstacle(&root.read_lossy(&path)?.unwrap_or_default(), nic)
            {
                return Err(nic.refused(&format!("the profile /{path} {why}")));
            }
        }
    }
    let path = free(root, &directory, &format!("{START}{}", nic.name), ".nmconnection")?;
    Ok(Planned::new(path, profile(nic).into_bytes(), 0o600))
}

/// Why the profile `text` and one of the agent's for `nic` do not go together.
fn obstacle(text: &str, nic: &Nic<'_>) -> Option<String> {
    let all = settings(text);
    let value = |sections: &[&str], keys: &[&str]| {
        let of = |section: &str, key: &str| sections.contains(&section) && keys.contains(&key);
        all.iter()
            .rfind(|one| of(&one.section, &one.key))
            .map(|one| one.value.as_str())
            .filter(|v| !v.is_empty())
    };
    if value(&["vlan", "macvlan", "ipvlan", "vxlan", "infiniband"], &["parent"]) == Some(nic.name) {
        return Some("is made of it".into());
    }
    let name = value(&["connection"], &["interface-name"]);
    let mac = value(&["ethernet", "802-3-ethernet"], &["mac-address"]);
    let is_its = name.is_none_or(|name| name == nic.name) && mac.is_none_or(|mac| nic.has(mac));
    let ethernet = matches!(value(&["connection"], &["type"]), Some("ethernet" | "802-3-ethernet"));
    if !is_its || !ethernet || !is_true(value(&["connection"], &["autoconnect"]), true) {
        return None;
    }
    if let Some(other) =
        value(&["connection"], &["controller", "master"]).filter(|_| name.is_some() || mac.is_some())
    {
        return Some(format!("makes it a part of {other}"));
    }
    let priority =
        value(&["connection"], &["autoconnect-priority"]).and_then(|value| value.parse::<i32>().ok());
    (priority >= Some(PRIORITY))
        .then(|| format!("has autoconnect-priority={PRIORITY}, the greatest there is, as well"))
}

fn profile(nic: &Nic<'_>) -> String {
    let mut text = format!(
        "{NOTE}[connection]\nid=ramet-{0}\ntype=ethernet\ninterface-name={0}\nautoconnect-priority={PRIORITY}\n",
        nic.name
    );
    for (section, is_v4) in [("ipv4", true), ("ipv6", false)] {
        let of_kind = |ip: &&UnicastIp| ip.get().is_ipv4() == is_v4;
        let addresses: Vec<_> =
            nic.ip.addresses.as_slice().iter().filter(|address| address.ip().is_ipv4() == is_v4).collect();
        let method = match (addresses.is_empty(), is_v4) {
            (false, _) => "manual",
            (true, true) => "disabled",
            (true, false) => "auto",
        };
        let _ = write!(text, "\n[{section}]\nmethod={method}\n");
        if addresses.is_empty() {
            continue;
        }
        for (n, address) in addresses.iter().enumerate() {
            let _ = writeln!(text, "address{}={address}", n + 1);
        }
        let any = if is_v4 { "0.0.0.0/0" } else { "::/0" };
        for (n, gateway) in nic.ip.gateways.iter().filter(of_kind).enumerate() {
            let _ = writeln!(text, "route{}={any},{gateway}", n + 1);
        }
        let dns: Vec<_> = nic.ip.dns.iter().filter(of_kind).collect();
        list(&mut text, "dns=", &dns, ";");
        list(&mut text, "dns-search=", &nic.ip.search, ";");
    }
    text
}
