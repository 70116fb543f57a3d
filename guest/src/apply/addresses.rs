//! Static addresses, in the configuration of whatever network service the guest has enabled. It starts past the gate and
//! finds them there; a systemd-networkd that runs already reads its settings again then.
//!
//! NICs are matched by the address or the name they have now. Their permanent address (`PermanentMACAddress=`, and
//! `mac-address=` of `NetworkManager`) stays the template's.

mod ifupdown;

use super::ApplyError;
use crate::{netlink::Interface, root::Root, system::System};
use ramet_proto::{
    MacAddr,
    message::{Finding, Identity},
    network::{IpConfig, UnicastIp},
};
use std::fmt::{Display, Write};

/// A directory of the agent's files, and how their names begin.
const OURS: &[(&str, &str)] = &[
    ("etc/systemd/network", "05-ramet-"),
    ("etc/NetworkManager/system-connections", "ramet-"),
    (ifupdown::DIRECTORY, "ramet-"),
];

const RESOLV_CONF: &str = "etc/resolv.conf";
const NOTE: &str = "# Written by ramet-agent for this machine alone.\n";

/// The network services there are, the preferred first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Networkd,
    NetworkManager,
    Ifupdown,
}

/// A NIC with a static configuration.
struct Nic<'a> {
    name: &'a str,
    mac: MacAddr,
    ip: &'a IpConfig,
}

/// A file to be written.
struct Planned {
    path: String,
    text: String,
    mode: u32,
}

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    for (directory, start) in OURS {
        for name in root.names(directory)?.iter().filter(|name| name.starts_with(start)) {
            root.remove(&format!("{directory}/{name}"))?;
        }
    }
    ifupdown::restore(root)?;
    if let Some((service, files)) = plan(identity, root, &system.interfaces()?)? {
        let directory = match service {
            Service::Networkd => OURS[0].0,
            Service::NetworkManager => OURS[1].0,
            Service::Ifupdown => OURS[2].0,
        };
        root.make_dir(directory, 0o755)?;
        for file in files {
            root.replace(&file.path, file.text.as_bytes(), file.mode)?;
        }
    }
    Ok(())
}

pub(super) fn verify(identity: &Identity, root: &Root, interfaces: &[Interface]) -> Result<(), ApplyError> {
    for file in plan(identity, root, interfaces)?.into_iter().flat_map(|(_, files)| files) {
        if root.read_text(&file.path)?.as_ref() != Some(&file.text) {
            return Err(ApplyError::Mismatch(format!("/{} is not as it was written", file.path)));
        }
    }
    Ok(())
}

/// What is to be written; the same again once it is.
fn plan(
    identity: &Identity,
    root: &Root,
    interfaces: &[Interface],
) -> Result<Option<(Service, Vec<Planned>)>, ApplyError> {
    let mut nics = Vec::new();
    for nic in &identity.nics {
        if let Some(ip) = &nic.ip {
            let found = interfaces.iter().find(|one| one.physical && one.mac == Some(nic.mac));
            let found = found.ok_or_else(|| ApplyError::Missing(format!("no interface is {}", nic.mac)))?;
            nics.push(Nic { name: &found.name, mac: nic.mac, ip });
        }
    }
    if nics.is_empty() {
        return Ok(None);
    }
    let service = enabled_service(root)?.ok_or_else(|| {
        ApplyError::Missing(
            "static addresses need systemd-networkd, NetworkManager or ifupdown, and none is enabled".into(),
        )
    })?;
    let mut files = Vec::new();
    for nic in &nics {
        files.push(match service {
            Service::Networkd => networkd(nic),
            Service::NetworkManager => network_manager(nic),
            Service::Ifupdown => ifupdown::stanzas(nic),
        });
    }
    let resolver = match service {
        Service::Networkd => is_enabled(root, "systemd-resolved.service")?,
        Service::NetworkManager => true,
        Service::Ifupdown => root.exists("usr/sbin/resolvconf")? || root.exists("sbin/resolvconf")?,
    };
    if service == Service::Ifupdown {
        files.extend(ifupdown::without(root, &nics)?);
    }
    if !resolver && nics.iter().any(|nic| !nic.ip.dns.is_empty()) {
        files.push(resolv_conf(&nics));
    }
    Ok(Some((service, files)))
}

fn enabled_service(root: &Root) -> Result<Option<Service>, ApplyError> {
    for (service, unit) in [
        (Service::Networkd, "systemd-networkd.service"),
        (Service::NetworkManager, "NetworkManager.service"),
        (Service::Ifupdown, "networking.service"),
    ] {
        if is_enabled(root, unit)? {
            return Ok(Some(service));
        }
    }
    Ok(None)
}

/// Whether a target wants `unit` (systemctl(1), `enable`).
fn is_enabled(root: &Root, unit: &str) -> Result<bool, ApplyError> {
    for base in ["etc/systemd/system", "usr/lib/systemd/system"] {
        for wants in root.names(base)?.iter().filter(|name| name.strip_suffix(".wants").is_some()) {
            if root.exists(&format!("{base}/{wants}/{unit}"))? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// systemd.network(5). The kind keeps out VLANs and bridges, which have their NIC's address.
fn networkd(nic: &Nic<'_>) -> Planned {
    let mut text = format!("{NOTE}[Match]\nMACAddress={}\nType=ether\n\n[Network]\nDHCP=no\n", nic.mac);
    let ip = nic.ip;
    each(&mut text, "Address=", ip.addresses.as_slice());
    each(&mut text, "Gateway=", &ip.gateways);
    each(&mut text, "DNS=", &ip.dns);
    each(&mut text, "Domains=", &ip.search);
    Planned { path: format!("{}/{}{}.network", OURS[0].0, OURS[0].1, nic.name), text, mode: 0o644 }
}

/// nm-settings-keyfile(5), of which `NetworkManager` reads those only that nobody but root can read.
fn network_manager(nic: &Nic<'_>) -> Planned {
    let mut text = format!(
        "{NOTE}[connection]\nid=ramet-{0}\ntype=ethernet\ninterface-name={0}\nautoconnect-priority=999\n",
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
    Planned { path: format!("{}/{}{}.nmconnection", OURS[1].0, OURS[1].1, nic.name), text, mode: 0o600 }
}

/// resolv.conf(5), where nothing else writes it.
fn resolv_conf(nics: &[Nic<'_>]) -> Planned {
    let mut text = NOTE.to_owned();
    let search: Vec<_> = nics.iter().flat_map(|nic| &nic.ip.search).collect();
    list(&mut text, "search ", &search, " ");
    for nic in nics {
        each(&mut text, "nameserver ", &nic.ip.dns);
    }
    Planned { path: RESOLV_CONF.into(), text, mode: 0o644 }
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

/// What an identity would meet.
pub(super) fn check(_root: &Root) -> Result<Vec<Finding>, ApplyError> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests;
