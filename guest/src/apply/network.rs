//! What would make a child ask a DHCP server as its template, or make up IPv6 addresses as its template.

mod pins;

use super::{ApplyError, hostname::replaceable, ids, random};
use crate::{gate::links, root::Root, system::System};
use nix::errno::Errno;
use ramet_proto::{message::Finding, text::to_hex};
use std::net::Ipv6Addr;

/// Where systemd-networkd says of each link what it is.
const LINKS: &str = "run/systemd/netif/links";

/// Files that go: a directory, how their names begin, how they end.
const FILES: &[(&str, &str, &str)] = &[
    // systemd-networkd derives DUID and IAID from the machine-id (networkd.conf(5), DUIDType=). It asks for the address of
    // an earlier run's lease; one in the initrd leaves some.
    ("run/systemd/netif/leases", "", ""),
    (LINKS, "", ""),
    // What its DHCP server has given to the template's clients (PersistLeases=, since 256).
    ("var/lib/systemd/network/dhcp-server-lease", "", ""),
    // NetworkManager: its secret makes stable ids and IPv6 addresses (RFC 7217), leases are asked for again.
    ("var/lib/NetworkManager", "secret_key", ""),
    ("var/lib/NetworkManager", "seen-bssids", ""),
    ("var/lib/NetworkManager", "timestamps", ""),
    ("var/lib/NetworkManager", "", ".lease"),
    ("run/NetworkManager", "", ".lease"),
    // dhclient of ISC; the file of its DHCP server beside it stays, which does not start without.
    ("var/lib/dhcp", "dhclient", ""),
    ("var/lib/dhclient", "dhclient", ""),
    // dhcpcd, from version 9 on, and before.
    ("var/lib/dhcpcd", "secret", ""),
    ("var/lib/dhcpcd", "", ".lease"),
    ("var/lib/dhcpcd", "", ".lease6"),
    ("var/lib/dhcpcd5", "", ".lease"),
    ("var/lib/dhcpcd5", "", ".lease6"),
    ("etc", "dhcpcd.secret", ""),
    // wicked makes a DUID of the first link's address when it has none (wicked-config(5), default-duid).
    ("var/lib/wicked", "duid", ".xml"),
    ("var/lib/wicked", "iaid", ".xml"),
    ("var/lib/wicked", "lease-", ".xml"),
    ("run/wicked", "lease-", ".xml"),
    // What an initrd's ipconfig of klibc was given.
    ("run", "net-", ".conf"),
    ("run", "net6-", ".conf"),
];

/// Where dhcpcd keeps its DUID, and what shows that it does so.
const DHCPCD_DUID: &[(&str, &str)] =
    &[("var/lib/dhcpcd/duid", "var/lib/dhcpcd"), ("etc/dhcpcd.duid", "etc/dhcpcd.duid")];

/// Where the kernel keeps secrets of stable IPv6 addresses (ip-sysctl, `stable_secret`).
const IPV6: &str = "proc/sys/net/ipv6/conf";

pub(super) fn apply<S: System>(root: &Root, system: &S) -> Result<(), ApplyError> {
    for path in left(root)? {
        root.remove(&path)?;
    }
    for (path, sign) in DHCPCD_DUID {
        if root.exists(sign)? {
            // Without the file it would take the SMBIOS UUID, which stays the template's. A DUID-UUID (RFC 6355) in its
            // own notation.
            let duid: Vec<_> = random::<16>(system)?.iter().map(|byte| to_hex(&[*byte])).collect();
            root.replace(path, format!("00:04:{}\n", duid.join(":")).as_bytes(), 0o644)?;
        }
    }
    for interface in root.names(IPV6)? {
        let path = format!("{IPV6}/{interface}/stable_secret");
        match root.read_text(&path) {
            Ok(None) => {}
            Ok(Some(_)) => root.write(&path, &Ipv6Addr::from(random::<16>(system)?).to_string())?,
            // The kernel's word for "not set".
            Err(error) if error.is(Errno::EIO) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The files of [`FILES`] that are there.
fn left(root: &Root) -> Result<Vec<String>, ApplyError> {
    let mut left = Vec::new();
    // What a networkd that runs already says of the links that it leaves alone.
    let running = root.exists(links::HOLD)?;
    for (directory, start, end) in FILES.iter().filter(|(directory, ..)| !running || *directory != LINKS) {
        for name in root.names(directory)? {
            let path = format!("{directory}/{name}");
            if name.starts_with(start) && name.ends_with(end) && !root.is_dir(&path)? {
                left.push(path);
            }
        }
    }
    Ok(left)
}

pub(super) fn verify(root: &Root) -> Result<(), ApplyError> {
    match left(root)?.first() {
        None => Ok(()),
        Some(path) => Err(ApplyError::Mismatch(format!("/{path} is there again"))),
    }
}

/// The DUIDs there are.
pub(super) fn values(root: &Root) -> Result<Vec<(&'static str, String)>, ApplyError> {
    let mut values = Vec::new();
    for (path, _) in DHCPCD_DUID {
        let text =
            ids::content(path, root)?.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned());
        values.extend(text.map(|text| ("dhcpcd_duid", text)));
    }
    Ok(values)
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = pins::check(root)?;
    for path in DHCPCD_DUID.iter().map(|(path, _)| (*path).to_owned()).chain(left(root)?) {
        found.extend(replaceable(&path, root)?);
    }
    // What cannot be read would end each child.
    values(root)?;
    Ok(found)
}
