//! The files of each network service, written twice.

use super::*;
use crate::apply::tests::{Fake, identity, template};
use std::{fs, path::Path};

/// What is below `dir` and was not there in a template, with the texts.
fn written(dir: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for directory in [
        "etc/systemd/network",
        "etc/NetworkManager/system-connections",
        "etc/network",
        "etc/network/interfaces.d",
    ] {
        for entry in fs::read_dir(dir.join(directory)).into_iter().flatten().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let name = format!("{directory}/{}", entry.file_name().display());
                files.push((name, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    files.sort();
    files
}

fn enable(dir: &Path, unit: &str) {
    let wants = dir.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("/usr/lib/systemd/system/x.service", wants.join(unit)).unwrap();
}

fn ip() -> IpConfig {
    let config = r#"{"addresses":["192.0.2.7/24","192.0.2.8/24","2001:db8::7/64"],
        "gateways":["192.0.2.1","2001:db8::1","192.0.2.2"],"dns":["192.0.2.53","2001:db8::53"],
        "search":["example.org","example.net"]}"#;
    serde_json::from_str(config).unwrap()
}

/// Applies static addresses to the first NIC, twice, and then none; gives what was there with them.
fn applied(dir: &Path, root: &Root) -> Result<Vec<(String, String)>, ApplyError> {
    let before = written(dir);
    let system = Fake::new();
    let mut wanted = identity();
    wanted.nics.truncate(1);
    wanted.nics[0].mac = wanted.nics[0].parent;
    wanted.nics[0].ip = Some(ip());
    apply(&wanted, root, &system)?;
    let first = written(dir);
    apply(&wanted, root, &system)?;
    assert_eq!(written(dir), first, "twice");
    verify(&wanted, root, &system.interfaces()?)?;
    wanted.nics[0].ip = None;
    apply(&wanted, root, &system)?;
    verify(&wanted, root, &system.interfaces()?)?;
    assert_eq!(written(dir), before, "back to DHCP");
    Ok(first)
}

#[test]
fn systemd_networkd() {
    let (dir, root) = template();
    enable(dir.path(), "systemd-networkd.service");
    enable(dir.path(), "NetworkManager.service");
    let [(path, text)] = &applied(dir.path(), &root).unwrap()[..] else { panic!() };
    assert_eq!(path, "etc/systemd/network/05-ramet-ens2.network");
    assert_eq!(
        text,
        "# Written by ramet-agent for this machine alone.\n\
         [Match]\nMACAddress=52:54:00:00:00:01\nType=ether\n\n\
         [Network]\nDHCP=no\nAddress=192.0.2.7/24\nAddress=192.0.2.8/24\nAddress=2001:db8::7/64\n\
         Gateway=192.0.2.1\nGateway=2001:db8::1\nGateway=192.0.2.2\nDNS=192.0.2.53\nDNS=2001:db8::53\n\
         Domains=example.org\nDomains=example.net\n"
    );
    let resolv_conf = root.read_text(RESOLV_CONF).unwrap().unwrap();
    assert!(
        resolv_conf
            .ends_with("search example.org example.net\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    );
}

#[test]
fn a_resolver_keeps_its_resolv_conf() {
    let (dir, root) = template();
    enable(dir.path(), "systemd-networkd.service");
    enable(dir.path(), "systemd-resolved.service");
    applied(dir.path(), &root).unwrap();
    assert_eq!(root.read_text(RESOLV_CONF).unwrap(), None);
}

#[test]
fn network_manager() {
    let (dir, root) = template();
    enable(dir.path(), "NetworkManager.service");
    fs::create_dir_all(dir.path().join("etc/NetworkManager")).unwrap();
    let [(path, text)] = &applied(dir.path(), &root).unwrap()[..] else { panic!() };
    assert_eq!(path, "etc/NetworkManager/system-connections/ramet-ens2.nmconnection");
    assert_eq!(
        text,
        "# Written by ramet-agent for this machine alone.\n\
         [connection]\nid=ramet-ens2\ntype=ethernet\ninterface-name=ens2\nautoconnect-priority=999\n\n\
         [ipv4]\nmethod=manual\naddress1=192.0.2.7/24\naddress2=192.0.2.8/24\n\
         route1=0.0.0.0/0,192.0.2.1\nroute2=0.0.0.0/0,192.0.2.2\ndns=192.0.2.53\n\
         dns-search=example.org;example.net\n\n\
         [ipv6]\nmethod=manual\naddress1=2001:db8::7/64\nroute1=::/0,2001:db8::1\ndns=2001:db8::53\n\
         dns-search=example.org;example.net\n"
    );
}

#[test]
fn ifupdown_and_the_stanza_of_the_image() {
    let (dir, root) = template();
    enable(dir.path(), "networking.service");
    fs::create_dir_all(dir.path().join("etc/network/interfaces.d")).unwrap();
    let image = "# The image's\nsource /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n\
                 allow-hotplug ens2\niface ens2 inet dhcp\n    metric 5\n\niface ens3 inet dhcp\n";
    fs::write(dir.path().join("etc/network/interfaces"), image).unwrap();
    let [(main, main_text), (ours, our_text)] = &applied(dir.path(), &root).unwrap()[..] else { panic!() };
    assert_eq!(
        (main.as_str(), ours.as_str()),
        ("etc/network/interfaces", "etc/network/interfaces.d/ramet-ens2")
    );
    assert_eq!(
        *main_text,
        image.replace("iface ens2", "#ramet# iface ens2").replace("    metric", "#ramet#     metric")
    );
    assert_eq!(
        our_text,
        "# Written by ramet-agent for this machine alone.\nauto ens2\n\
         iface ens2 inet static\n    address 192.0.2.7/24\n    gateway 192.0.2.1\n    \
         up ip route append default dev ens2 via 192.0.2.2\n\
         iface ens2 inet static\n    address 192.0.2.8/24\n\
         iface ens2 inet6 static\n    address 2001:db8::7/64\n    gateway 2001:db8::1\n    \
         dns-nameservers 192.0.2.53 2001:db8::53\n    dns-search example.org example.net\n"
    );
    assert!(root.read_text(RESOLV_CONF).unwrap().is_some());

    fs::write(dir.path().join("etc/network/interfaces"), "auto lo\n").unwrap();
    assert!(matches!(applied(dir.path(), &root), Err(ApplyError::Missing(_))), "it would not be read");
}

#[test]
fn without_a_network_service_it_fails() {
    let (dir, root) = template();
    assert!(matches!(applied(dir.path(), &root), Err(ApplyError::Missing(_))));
}
