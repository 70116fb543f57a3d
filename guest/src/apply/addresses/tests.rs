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
    let resolv_conf = root.read_text("etc/resolv.conf").unwrap().unwrap();
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
    assert_eq!(root.read_text("etc/resolv.conf").unwrap(), None);
}

#[test]
fn a_resolv_conf_that_is_no_link_to_resolveds_is_written() {
    let (dir, root) = template();
    enable(dir.path(), "systemd-networkd.service");
    enable(dir.path(), "systemd-resolved.service");
    put(dir.path(), &[("etc/resolv.conf", "nameserver 198.51.100.1\n")]);
    applied(dir.path(), &root).unwrap();
    let text = root.read_text("etc/resolv.conf").unwrap().unwrap();
    assert!(text.contains("nameserver 192.0.2.53\n") && !text.contains("198.51.100.1"), "{text}");

    put(dir.path(), &[("etc/resolv.conf", "-> ../run/systemd/resolve/stub-resolv.conf")]);
    applied(dir.path(), &root).unwrap();
    assert!(root.link("etc/resolv.conf").unwrap().is_some());
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
    assert!(root.read_text("etc/resolv.conf").unwrap().is_some());
}

#[test]
fn without_a_network_service_it_fails() {
    let (dir, root) = template();
    assert!(matches!(applied(dir.path(), &root), Err(ApplyError::Missing(_))));
}

/// Puts files into a root; a text of `-> PATH` is a symbolic link.
fn put(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        match text.strip_prefix("-> ") {
            Some(to) => std::os::unix::fs::symlink(to, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
}

const NETWORKD: (&str, &str) =
    ("etc/systemd/system/multi-user.target.wants/systemd-networkd.service", "-> /x");
const MANAGER: (&str, &str) = ("etc/systemd/system/multi-user.target.wants/NetworkManager.service", "-> /x");
const NETWORKING: (&str, &str) = ("etc/systemd/system/multi-user.target.wants/networking.service", "-> /x");
const INTERFACES: &str = "etc/network/interfaces";
const HAS_NIC: (&str, &str) =
    (INTERFACES, "auto lo\nsource interfaces.d/*\nallow-hotplug ens2\niface ens2 inet dhcp\n");
const MANAGER_CONF: &str = "etc/NetworkManager/NetworkManager.conf";

/// The only file of the agent's there is with static addresses, or why there are none. All of the image is as it was
/// afterwards.
fn where_in(files: &[(&str, &str)]) -> Result<String, String> {
    let (dir, root) = template();
    put(dir.path(), files);
    let found = applied(dir.path(), &root).map_err(|error| chain(&error))?;
    let ours: Vec<_> =
        found.iter().filter(|(_, text)| text.starts_with(NOTE)).map(|(path, _)| path).collect();
    let [one] = &ours[..] else { panic!("{ours:?}") };
    Ok((*one).clone())
}

const BY_NETWORKD: &str = "etc/systemd/network/05-ramet-ens2.network";
const BY_MANAGER: &str = "etc/NetworkManager/system-connections/ramet-ens2.nmconnection";
const BY_IFUPDOWN: &str = "etc/network/interfaces.d/ramet-ens2";

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn the_service_that_has_the_link_is_found() {
    let unit = "usr/lib/systemd/system/systemd-networkd.service";
    let netplan = "etc/netplan/50-lan.yaml";
    let all = "network: {version: 2, ethernets: {all: {match: {name: \"en*\"}, dhcp4: true}}}";
    let generated = ("run/systemd/generator/multi-user.target.wants/systemd-networkd.service", "-> /x");
    let lan = ("etc/systemd/network/80-lan.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n");
    for (files, expected) in [
        (
            &[NETWORKD, MANAGER, ("etc/systemd/system/systemd-networkd.service", "-> ../../../dev/null")][..],
            BY_MANAGER,
        ),
        (&[NETWORKD, MANAGER, ("run/systemd/system/systemd-networkd.service", "")], BY_MANAGER),
        (
            &[
                NETWORKD,
                MANAGER,
                ("etc/netplan/01-nm.yaml", "network: {version: 2, renderer: NetworkManager}"),
            ],
            BY_MANAGER,
        ),
        (&[NETWORKD, MANAGER], BY_MANAGER),
        (
            &[NETWORKD, MANAGER, lan, (MANAGER_CONF, "[keyfile]\nunmanaged-devices=interface-name:en*\n")],
            BY_NETWORKD,
        ),
        (&[NETWORKD, MANAGER, lan, (lan.0, "[Match]\nName=en*\n[Link]\nUnmanaged=yes\n")], BY_MANAGER),
        (&[NETWORKD, MANAGER, ("etc/systemd/network/80-br.network", "[Match]\nName=br0\n")], BY_MANAGER),
        (
            &[NETWORKD, MANAGER, ("usr/lib/systemd/network/80-lan.network", lan.1), (lan.0, "-> /dev/null")],
            BY_MANAGER,
        ),
        // Named by what generators, packages and aliases link.
        (&[generated, (netplan, all)], BY_NETWORKD),
        (&[(netplan, all)], BY_NETWORKD),
        (
            &[
                ("usr/lib/netplan/00-nm.yaml", "network:\n  renderer: NetworkManager\n"),
                (netplan, all),
                MANAGER,
            ],
            BY_MANAGER,
        ),
        (
            &[("run/netplan/50-lan.yaml", "network: {renderer: NetworkManager}"), (netplan, all), MANAGER],
            BY_MANAGER,
        ),
        (
            &[
                (
                    netplan,
                    "network:\n  version: 2 # two\n  renderer: networkd\n  ethernets:\n    lan:\n      match:\n        macaddress: '52:54:00:00:00:01'\n      renderer: \"NetworkManager\"\n    ens9: {}\n",
                ),
                MANAGER,
                NETWORKD,
            ],
            BY_MANAGER,
        ),
        (
            &[(netplan, all), MANAGER, ("usr/lib/systemd/system-generators/ramet-gate-generator", "")],
            BY_MANAGER,
        ),
        (
            &[("usr/local/lib/systemd/system/multi-user.target.requires/NetworkManager.service", "-> /x")],
            BY_MANAGER,
        ),
        (&[("run/systemd/system/x.target.wants/NetworkManager.service", "-> /x")], BY_MANAGER),
        (
            &[
                ("etc/systemd/system/multi-user.target.wants/network-manager.service", "-> /x"),
                (
                    "etc/systemd/system/network-manager.service",
                    "-> /usr/lib/systemd/system/NetworkManager.service",
                ),
                ("usr/lib/systemd/system/NetworkManager.service", "[Unit]\n"),
            ],
            BY_MANAGER,
        ),
        (
            &[
                MANAGER,
                ("etc/systemd/system/sockets.target.wants/systemd-networkd.socket", "-> /x"),
                lan,
                (MANAGER_CONF, "[keyfile]\nunmanaged-devices=*\n"),
            ],
            BY_NETWORKD,
        ),
        // A link of /etc to nowhere takes away the package's; a condition that does not hold; a unit that is gone.
        (
            &[
                ("usr/lib/systemd/system/multi-user.target.wants/systemd-networkd.service", "-> ../x"),
                (NETWORKD.0, "-> /dev/null"),
                MANAGER,
                lan,
            ],
            BY_MANAGER,
        ),
        (
            &[
                NETWORKD,
                lan,
                MANAGER,
                (unit, "[Unit]\nConditionPathExists=/etc/use-networkd\n"),
                ("usr/lib/systemd/system/NetworkManager.service", "[Unit]\n"),
            ],
            BY_MANAGER,
        ),
        (
            &[NETWORKD, lan, MANAGER, ("usr/lib/systemd/system/NetworkManager.service", "[Unit]\n")],
            BY_MANAGER,
        ),
        (
            &[
                NETWORKD,
                lan,
                (unit, "[Unit]\n"),
                (
                    "etc/systemd/system/systemd-networkd.service.d/x.conf",
                    "[Unit]\nConditionPathExists=!/etc/hosts.none\nConditionPathExists=|/etc/none\nConditionPathExists=|/etc/hosts\n",
                ),
            ],
            BY_NETWORKD,
        ),
        // interfaces(5) beside NetworkManager, which leaves alone what is in there.
        (&[MANAGER, NETWORKING, HAS_NIC], BY_IFUPDOWN),
        (
            &[
                MANAGER,
                NETWORKING,
                HAS_NIC,
                (MANAGER_CONF, "[main]\nplugins=ifupdown,keyfile\n[ifupdown]\nmanaged=false\n"),
            ],
            BY_IFUPDOWN,
        ),
        (&[MANAGER, NETWORKING, (INTERFACES, "auto lo\niface lo inet loopback\n")], BY_MANAGER),
        (&[MANAGER, HAS_NIC, (MANAGER_CONF, "[main]\nplugins=keyfile\n")], BY_MANAGER),
        (&[MANAGER, HAS_NIC, ("usr/lib/udev/ifupdown-hotplug", "")], BY_IFUPDOWN),
        (&[NETWORKD, NETWORKING, (INTERFACES, "auto lo\niface lo inet loopback\n")], BY_NETWORKD),
        (&[NETWORKD, NETWORKING, HAS_NIC], BY_IFUPDOWN),
    ] {
        assert_eq!(where_in(files).as_deref(), Ok(expected), "{files:#?}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn where_two_have_the_link_or_none_that_is_known_it_is_refused_by_name() {
    let lan = ("etc/systemd/network/80-lan.network", "[Match]\nType=ether\n");
    for (files, expected) in [
        (&[NETWORKD, MANAGER, lan][..], &["systemd-networkd", "NetworkManager", "ens2"][..]),
        (&[NETWORKD, NETWORKING, lan, HAS_NIC], &["systemd-networkd", "ifupdown"]),
        (
            &[MANAGER, NETWORKING, HAS_NIC, (MANAGER_CONF, "[ifupdown]\nmanaged=true\n")],
            &["NetworkManager", "ifupdown"],
        ),
        (
            &[MANAGER, NETWORKING, HAS_NIC, (MANAGER_CONF, "[main]\nplugins=keyfile\n")],
            &["NetworkManager", "ifupdown"],
        ),
        (
            &[MANAGER, (MANAGER_CONF, "[keyfile]\nunmanaged-devices=mac:52:54:00:00:00:01\n")],
            &["NetworkManager", "unmanaged-devices"],
        ),
        (
            &[
                MANAGER,
                (
                    "usr/lib/NetworkManager/conf.d/10-x.conf",
                    "[keyfile]\nunmanaged-devices=*,except:type:wifi\n",
                ),
            ],
            &["NetworkManager", "except:type:wifi"],
        ),
        (
            &[MANAGER, (MANAGER_CONF, "[keyfile]\nunmanaged-devices=driver:virtio_net\n")],
            &["driver:virtio_net"],
        ),
        (
            &[
                MANAGER,
                ("etc/NetworkManager/conf.d/x.conf", "[device-lan]\nmatch-device=type:ethernet\nmanaged=0\n"),
            ],
            &["[device-lan]"],
        ),
        (
            &[MANAGER, ("etc/sysconfig/network-scripts/ifcfg-ens2", "DEVICE=ens2\nNM_CONTROLLED=\"no\"\n")],
            &["ifcfg-ens2"],
        ),
        (
            &[("etc/systemd/system/multi-user.target.wants/dhcpcd.service", "-> /x"), NETWORKD],
            &["dhcpcd.service", "systemd-networkd"],
        ),
        (&[("etc/systemd/system/multi-user.target.wants/connman.service", "-> /x")], &["connman.service"]),
        (&[("etc/systemd/system/multi-user.target.wants/wicked.service", "-> /x")], &["wicked.service"]),
        (
            &[
                ("etc/netplan/1.yaml", "network: {ethernets: {ens2: {}}}"),
                MANAGER,
                ("etc/systemd/system/systemd-networkd.service", "-> /dev/null"),
            ],
            &["netplan", "systemd-networkd"],
        ),
        (
            &[(
                "etc/netplan/1.yaml",
                "network: {ethernets: {ens2: {}}, bridges: {br0: {interfaces: [ens2]}}}",
            )],
            &["br0"],
        ),
        (
            &[(
                "etc/netplan/1.yaml",
                "network: {ethernets: {lan: {match: {name: en*}}}, vlans: {v7: {id: 7, link: lan}}}",
            )],
            &["v7"],
        ),
        (&[("etc/netplan/1.yaml", "network: [unclosed"), NETWORKD], &["etc/netplan/1.yaml"]),
        (
            &[NETWORKD, (lan.0, "[Match]\nName=ens2\n[Network]\nBridge=br0\n")],
            &["80-lan.network", "Bridge=br0"],
        ),
        (
            &[
                NETWORKD,
                (lan.0, "[Match]\nName=ens2\n[Network]\n"),
                ("etc/systemd/network/80-lan.network.d/v.conf", "[Network]\nVLAN=vlan7\n"),
            ],
            &["VLAN=vlan7"],
        ),
        (
            &[
                MANAGER,
                (
                    "etc/NetworkManager/system-connections/p.nmconnection",
                    "[connection]\ntype=ethernet\ninterface-name=ens2\nmaster=br0\nslave-type=bridge\n",
                ),
            ],
            &["p.nmconnection", "br0"],
        ),
        (
            &[
                MANAGER,
                (
                    "etc/NetworkManager/system-connections/v.nmconnection",
                    "[connection]\ntype=vlan\n[vlan]\nparent=ens2\n",
                ),
            ],
            &["v.nmconnection"],
        ),
        (
            &[
                MANAGER,
                (
                    "etc/NetworkManager/system-connections/wired.nmconnection",
                    "[connection]\ntype=ethernet\nautoconnect-priority=999\n",
                ),
            ],
            &["wired.nmconnection", "999"],
        ),
        (&[MANAGER, HAS_NIC], &["NetworkManager", "interfaces(5)"]),
        (&[NETWORKING], &["/etc/network/interfaces"]),
        (&[NETWORKING, (INTERFACES, "source /etc/network/interfaces.d/$(hostname)\n")], &["$(hostname)"]),
        (
            &[NETWORKING, HAS_NIC, ("etc/default/networking", "CONFIGURE_INTERFACES=no\n")],
            &["etc/default/networking"],
        ),
        (&[NETWORKING, HAS_NIC, ("etc/default/networking", "EXCLUDE_INTERFACES=\"ens*\"\n")], &["excludes"]),
        (
            &[
                NETWORKING,
                (INTERFACES, "source /etc/network/site/*\n"),
                ("etc/network/site/br", "iface br0 inet static\n bridge_ports ens2\n"),
            ],
            &["etc/network/site/br", "br0"],
        ),
        (&[NETWORKING, HAS_NIC, ("etc/resolv.conf", "-> /opt/site/resolv.conf")], &["/opt/site/resolv.conf"]),
        (
            &[
                NETWORKING,
                HAS_NIC,
                ("etc/resolv.conf", "-> ../run/systemd/resolve/stub-resolv.conf"),
                ("etc/systemd/system/sysinit.target.wants/systemd-resolved.service", "-> /x"),
            ],
            &["systemd-resolved"],
        ),
        (&[NETWORKING, HAS_NIC, ("etc/resolv.conf/x", "a directory")], &["etc/resolv.conf", "directory"]),
    ] {
        let why = where_in(files).expect_err(&format!("{files:#?}"));
        for word in expected {
            assert!(why.contains(word), "{why}: {word} {files:#?}");
        }
        // It is said when the template is made, too.
        let (dir, root) = template();
        put(dir.path(), files);
        put(
            dir.path(),
            &[("sys/class/net/ens2/device/x", ""), ("sys/class/net/ens2/address", "52:54:00:00:00:01\n")],
        );
        let found = check(&root).unwrap();
        assert!(found.iter().all(|one| one.grade == Grade::Note) && found.len() == 1, "{found:?} {files:#?}");
        assert!(found[0].what.to_string().contains(&why), "{found:?}");
    }
}

#[test]
fn an_image_that_static_addresses_fit_is_not_spoken_of() {
    for files in [
        &[NETWORKD][..],
        &[MANAGER],
        &[NETWORKING, HAS_NIC],
        &[("etc/netplan/1.yaml", "network: {ethernets: {ens2: {}}}")],
    ] {
        let (dir, root) = template();
        put(dir.path(), files);
        assert_eq!(check(&root).unwrap(), [], "{files:?}");
        put(
            dir.path(),
            &[("sys/class/net/ens2/device/x", ""), ("sys/class/net/lo/address", "00:00:00:00:00:00\n")],
        );
        assert_eq!(check(&root).unwrap(), [], "{files:?}");
    }
    let (dir, root) = template();
    assert_eq!(check(&root).unwrap(), []);
    put(dir.path(), &[("usr/lib/systemd/system/systemd-networkd.service", "[Unit]\n")]);
    assert!(check(&root).unwrap()[0].what.to_string().contains("none is enabled"));
}

#[test]
fn the_agents_stanzas_are_read_whatever_the_main_file_reads() {
    let stanza = "auto lo\niface lo inet loopback\niface ens2 inet dhcp\n";
    for (source, path, is_added) in [
        ("source /etc/network/interfaces.d/*\n", BY_IFUPDOWN, false),
        ("source interfaces.d/*\n", BY_IFUPDOWN, false),
        ("source-directory /etc/network/interfaces.d\n", BY_IFUPDOWN, false),
        ("source-directory interfaces.d\n", BY_IFUPDOWN, false),
        ("source /etc/network/*/*\n", BY_IFUPDOWN, false),
        ("source /etc/network/interfaces.d/*.cfg\n", "etc/network/interfaces.d/ramet-ens2.cfg", false),
        ("source \\\n interfaces.d/*-lan.if\n", "etc/network/interfaces.d/ramet-ens2-lan.if", false),
        ("# source /etc/network/interfaces.d/*\n", BY_IFUPDOWN, true),
        ("source /etc/network/interfaces.d/lan\n", BY_IFUPDOWN, true),
        ("source /etc/network/interfaces.d/[!r]*\n", BY_IFUPDOWN, true),
        ("", BY_IFUPDOWN, true),
    ] {
        let (dir, root) = template();
        let text = format!("{source}{stanza}");
        put(dir.path(), &[NETWORKING, (INTERFACES, &text)]);
        let found = applied(dir.path(), &root).unwrap();
        let main = &found.iter().find(|(path, _)| path == INTERFACES).unwrap().1;
        assert!(found.iter().any(|(one, text)| one == path && text.starts_with(NOTE)), "{source}{found:?}");
        assert_eq!(main.contains(&format!("\nsource /{path}\n")), is_added, "{source}{main}");
        assert!(main.contains("#ramet# iface ens2 inet dhcp"), "{main}");
    }
}

#[test]
fn ifupdown2_and_ifupdown_ng_read_other_files() {
    let two = ("usr/share/ifupdown2/x", "");
    let ng = ("usr/libexec/ifupdown-ng/static", "");
    for (flavour, source, is_added) in [
        (two, "source /etc/network/interfaces.d/*\n", false),
        (two, "source interfaces.d/*\n", true),
        (two, "source-directory /etc/network/interfaces.d\n", true),
        (ng, "source /etc/network/interfaces.d/*\n", true),
        (ng, "source-directory /etc/network/interfaces.d\n", false),
    ] {
        let (dir, root) = template();
        put(dir.path(), &[NETWORKING, flavour, (INTERFACES, source)]);
        applied(dir.path(), &root).unwrap();
        let mut wanted = identity();
        wanted.nics.truncate(1);
        wanted.nics[0].mac = wanted.nics[0].parent;
        wanted.nics[0].ip = Some(ip());
        apply(&wanted, &root, &Fake::new()).unwrap();
        let main = root.read_text(INTERFACES).unwrap().unwrap();
        assert_eq!(
            main.contains("source /etc/network/interfaces.d/ramet-ens2\n"),
            is_added,
            "{source}{main}"
        );
    }
}

#[test]
fn stanzas_of_all_files_that_are_read_go_and_come_back_with_every_byte() {
    let (dir, root) = template();
    let main = b"# B\xfcro\nsource /etc/network/interfaces.d/*\nsource ../site/lan\nauto ens2 ens2:0\niface ens2:0 inet static\n address 192.0.2.200/24\n";
    put(dir.path(), &[NETWORKING, ("etc/site/real", "iface ens2 inet dhcp\n"), ("etc/site/lan", "-> real")]);
    put(dir.path(), &[("etc/network/interfaces.d/lan", "iface ens2 inet6 auto\niface ens3 inet dhcp")]);
    fs::write(dir.path().join(INTERFACES), main).unwrap();
    let mut wanted = identity();
    wanted.nics.truncate(1);
    wanted.nics[0].mac = wanted.nics[0].parent;
    wanted.nics[0].ip = Some(ip());
    let system = Fake::new();
    for _ in 0..2 {
        apply(&wanted, &root, &system).unwrap();
        verify(&wanted, &root, &system.interfaces().unwrap()).unwrap();
        let now = root.read(INTERFACES).unwrap().unwrap();
        let expected = b"# B\xfcro\nsource /etc/network/interfaces.d/*\nsource ../site/lan\n#ramet+ the next line is ramet-agent's\nauto ens2\n#ramet# auto ens2 ens2:0\n#ramet# iface ens2:0 inet static\n#ramet#  address 192.0.2.200/24\n";
        assert_eq!(now.escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(root.read_text("etc/site/real").unwrap().unwrap(), "#ramet# iface ens2 inet dhcp\n");
        assert!(root.link("etc/site/lan").unwrap().is_some(), "a link stays one");
        let lan = root.read_text("etc/network/interfaces.d/lan").unwrap().unwrap();
        assert_eq!(lan, "#ramet# iface ens2 inet6 auto\niface ens3 inet dhcp");
    }
    wanted.nics[0].ip = None;
    apply(&wanted, &root, &system).unwrap();
    assert_eq!(root.read(INTERFACES).unwrap().unwrap(), main);
    assert_eq!(root.read_text("etc/site/real").unwrap().unwrap(), "iface ens2 inet dhcp\n");
    assert!(!root.exists(BY_IFUPDOWN).unwrap());
}

#[test]
fn files_of_the_image_with_names_like_the_agents_stay() {
    let theirs = "[connection]\ntype=wifi\n";
    let (dir, root) = template();
    put(
        dir.path(),
        &[MANAGER, (BY_MANAGER, theirs), (BY_NETWORKD, "[Match]\nName=x\n"), (BY_IFUPDOWN, "# x\n")],
    );
    let found = applied(dir.path(), &root).unwrap();
    assert!(
        found
            .iter()
            .any(|(path, text)| path.ends_with("/ramet-ens2-2.nmconnection") && text.starts_with(NOTE))
    );
    assert_eq!(root.read_text(BY_MANAGER).unwrap().unwrap(), theirs);
    assert!(root.exists(BY_NETWORKD).unwrap() && root.exists(BY_IFUPDOWN).unwrap());
}

#[test]
fn a_file_of_networkds_that_would_count_first_does_not() {
    let early = ("etc/systemd/network/01-lan.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n");
    assert_eq!(where_in(&[NETWORKD, early]).unwrap(), "etc/systemd/network/00-00-ramet-ip-ens2.network");
    assert!("00-00-ramet-ip-ens2.network" > crate::gate::links::HOLD.rsplit('/').next().unwrap());
    let first = ("etc/systemd/network/00-00-a.network", early.1);
    assert!(where_in(&[NETWORKD, first]).unwrap_err().contains("00-00-a.network"));
    assert_eq!(where_in(&[NETWORKD, (early.0, "[Match]\nName=!en*\n")]).unwrap(), BY_NETWORKD);
}

#[test]
fn other_names_of_a_nic_are_its_own() {
    let ip = ip();
    let others = ["enp0s2".to_owned()];
    let nic = Nic {
        name: "ens2",
        other_names: &others,
        mac: identity().nics[0].mac,
        parent: identity().nics[0].parent,
        ip: &ip,
    };
    let (dir, root) = template();
    put(dir.path(), &[NETWORKING, (INTERFACES, "auto enp0s2\niface enp0s2 inet dhcp\n")]);
    let why = chain(&plan(&root, std::slice::from_ref(&nic)).unwrap_err());
    assert!(why.contains("enp0s2") && why.contains("ens2"), "{why}");
    let (dir, root) = template();
    put(dir.path(), &[NETWORKD, MANAGER, ("etc/systemd/network/80-lan.network", "[Match]\nName=enp*\n")]);
    let why = chain(&plan(&root, std::slice::from_ref(&nic)).unwrap_err());
    assert!(why.contains("systemd-networkd and NetworkManager"), "{why}");
    put(
        dir.path(),
        &[("etc/systemd/network/80-lan.network", "[Match]\nName=enp*\nVirtualization=container\n")],
    );
    assert_eq!(plan(&root, &[nic]).unwrap()[0].path, BY_MANAGER);
}

#[test]
fn profiles_are_put_where_network_manager_looks() {
    let (dir, root) = template();
    put(dir.path(), &[MANAGER, (MANAGER_CONF, "[keyfile]\npath=/var/lib/nm/profiles\n")]);
    let mut wanted = identity();
    wanted.nics.truncate(1);
    wanted.nics[0].mac = wanted.nics[0].parent;
    wanted.nics[0].ip = Some(ip());
    apply(&wanted, &root, &Fake::new()).unwrap();
    assert!(root.exists("var/lib/nm/profiles/ramet-ens2.nmconnection").unwrap());
    wanted.nics[0].ip = None;
    apply(&wanted, &root, &Fake::new()).unwrap();
    assert!(!root.exists("var/lib/nm/profiles/ramet-ens2.nmconnection").unwrap());
}

/// What a file may be instead of a text. An identity without static addresses has nothing to do with any of it.
#[test]
fn files_that_are_not_as_expected() {
    let large = "# a comment\n".repeat(10 << 17);
    for path in [
        INTERFACES,
        "etc/network/interfaces.d/lan",
        "etc/default/networking",
        "etc/netplan/1.yaml",
        MANAGER_CONF,
        "etc/NetworkManager/system-connections/x.nmconnection",
        "etc/systemd/network/50-x.network",
        "usr/lib/systemd/system/networking.service",
        "etc/resolv.conf",
        "etc/systemd/system",
        "etc/network",
        "etc/NetworkManager",
    ] {
        for kind in
            ["missing", "empty", "directory", "dangling", "outside", "large", "binary", "loop", "a file"]
        {
            let (dir, root) = template();
            put(dir.path(), &[NETWORKING, HAS_NIC, ("etc/network/interfaces.d/lan", "")]);
            let at = dir.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            if at.is_dir() {
                fs::remove_dir_all(&at).unwrap();
            } else {
                let _ = fs::remove_file(&at);
            }
            let link = |to: &str| std::os::unix::fs::symlink(to, &at).unwrap();
            match kind {
                "missing" => {}
                "empty" | "a file" => fs::write(&at, "").unwrap(),
                "directory" => fs::create_dir(&at).unwrap(),
                "dangling" => link("nowhere"),
                "outside" => link("../../../../../../../../../etc/passwd"),
                "loop" => link(at.file_name().unwrap().to_str().unwrap()),
                "large" => fs::write(&at, &large).unwrap(),
                _ => fs::write(&at, [0, 0xff, b'\\', b'\n', 0xfe, b'=', b'[', 0]).unwrap(),
            }
            let mut wanted = identity();
            wanted.nics.truncate(1);
            wanted.nics[0].mac = wanted.nics[0].parent;
            let system = Fake::new();
            let without = apply(&wanted, &root, &system);
            assert!(without.is_ok(), "{path} {kind}: {without:?}");
            wanted.nics[0].ip = Some(ip());
            match apply(&wanted, &root, &system) {
                Ok(()) => {
                    verify(&wanted, &root, &system.interfaces().unwrap()).unwrap();
                    let seen = [BY_IFUPDOWN, BY_MANAGER, BY_NETWORKD];
                    assert!(seen.iter().any(|path| root.exists(path).unwrap()), "{path} {kind}: no file");
                }
                Err(error) => {
                    let why = chain(&error);
                    let parent = path.rsplit_once('/').unwrap().0;
                    assert!(
                        why.contains(path) || why.contains(parent) || why.contains("none is enabled"),
                        "{path} {kind}: {why}"
                    );
                }
            }
            drop(check(&root));
        }
    }
}

#[test]
fn what_is_immutable_is_the_owners() {
    for (path, images) in
        [("etc/resolv.conf", NETWORKING), (INTERFACES, NETWORKING), ("etc/systemd/network", NETWORKD)]
    {
        let (dir, root) = template();
        put(dir.path(), &[images, HAS_NIC, ("etc/resolv.conf", "nameserver 192.0.2.1\n")]);
        put(dir.path(), &[("etc/systemd/network/80-lan.network", "[Match]\nName=ens2\n")]);
        let chattr =
            |flag| std::process::Command::new("chattr").arg(flag).arg(dir.path().join(path)).status();
        if !chattr("+i").is_ok_and(|status| status.success()) {
            eprintln!("skipped: no chattr here, or a file system without flags");
            return;
        }
        let tried = applied(dir.path(), &root).map_err(|error| chain(&error));
        let mut without = identity();
        without.nics.truncate(1);
        let quiet = apply(&without, &root, &Fake::new());
        let noted = check(&root);
        chattr("-i").unwrap();
        let why = tried.unwrap_err();
        assert!(why.contains(&format!("/{path} is immutable")), "{path}: {why}");
        assert!(noted.unwrap()[0].what.to_string().contains("immutable"));
        quiet.unwrap();
    }
}

/// The opinion of ifupdown itself of which interfaces are brought up, for files that have others read.
#[test]
fn ifupdown_reads_the_files_that_are_read_here() {
    if std::process::Command::new("ifquery").arg("--version").output().is_err() {
        eprintln!("skipped: there is no ifquery (ifupdown) here");
        return;
    }
    for source in [
        "source $/sub/*",
        "source sub/*",
        "source sub/*.cfg",
        "source ./sub/[ab]*",
        "source sub/a sub/b.cfg",
        "source-directory sub",
        "source-directory s*",
        "# source sub/*",
        "source \\\n sub/?",
        "source ../sub/*",
    ] {
        let (dir, root) = template();
        let base = dir.path().to_str().unwrap();
        put(
            dir.path(),
            &[
                ("etc/network/sub/a", "auto a\niface a inet manual"),
                (
                    "etc/network/sub/b.cfg",
                    "auto b\\\n bb\n#c \\\nauto c\niface b inet manual\niface bb inet \\\nmanual\niface c inet manual\n",
                ),
                ("etc/network/sub/.hidden", "auto hidden\niface hidden inet manual\n"),
                ("etc/network/sub/deep/d", "auto d\niface d inet manual\n"),
                ("etc/sub/e", "auto e\niface e inet manual\n"),
            ],
        );
        // The program has no root of its own, so that absolute paths are others for it.
        let text = |top: &str| format!("auto main\niface main inet manual\n{}\n", source.replace('$', top));
        put(dir.path(), &[(INTERFACES, &text(&format!("{base}/etc/network")))]);
        let said = std::process::Command::new("ifquery")
            .args(["-i", &format!("{base}/{INTERFACES}"), "--list", "-a"])
            .output()
            .unwrap();
        let theirs: std::collections::BTreeSet<_> = String::from_utf8(said.stdout)
            .unwrap()
            .lines()
            .filter(|name| *name != "lo")
            .map(str::to_owned)
            .collect();
        put(dir.path(), &[(INTERFACES, &text("/etc/network"))]);
        let image = ifupdown::Image::load(&root).unwrap();
        let all = ["main", "a", "b", "bb", "c", "hidden", "d", "e"];
        let ours: std::collections::BTreeSet<_> =
            all.into_iter().filter(|name| image.names(name)).map(str::to_owned).collect();
        assert_eq!(ours, theirs, "{source} {}", String::from_utf8_lossy(&said.stderr));
    }
}
