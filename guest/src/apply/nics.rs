//! Link-layer addresses. The links stay down: the network service of the guest brings them up past the gate, so that
//! no frame ever carries the template's address.

use super::ApplyError;
use crate::{
    netlink::Interface,
    root::{FileError, Root},
    system::System,
};
use ramet_proto::{
    MacAddr,
    message::{Finding, Grade, Identity, NicEvidence, NicIdentity},
    text::Text,
};

/// The most interfaces, and the most addresses of one, that are told to the host, whose frames are bounded.
const MOST_TOLD: usize = 64;

/// What has to be done to one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    index: u32,
    /// Set it down first.
    down: bool,
    /// Give it this address, unless it has it.
    mac: Option<MacAddr>,
}

pub(super) fn apply<S: System>(identity: &Identity, system: &S) -> Result<(), ApplyError> {
    for change in plan(&identity.nics, &system.interfaces()?)? {
        if change.down {
            system.set_down(change.index)?;
        }
        // Its address of IP would come back with the link.
        system.flush(change.index)?;
        if let Some(mac) = change.mac {
            system.set_mac(change.index, mac)?;
        }
    }
    Ok(())
}

/// What has to be done so that every physical interface has the address meant for it. An interface is found by the
/// address it has in the template, or, when this was done before, by the new one. One that the identity says nothing
/// of would go on as the template's, so it is refused.
pub(super) fn plan(nics: &[NicIdentity], interfaces: &[Interface]) -> Result<Vec<Change>, ApplyError> {
    for (n, nic) in nics.iter().enumerate() {
        if nics[..n].iter().any(|other| other.parent == nic.parent || other.mac == nic.mac) {
            return Err(ApplyError::Malformed(format!(
                "the NIC {} or its new address is named twice",
                nic.parent
            )));
        }
        // Done twice this would swap back and forth.
        if nics.iter().any(|other| other.parent == nic.mac && other.parent != nic.parent) {
            return Err(ApplyError::Malformed(format!(
                "{} is the template's address of another NIC",
                nic.mac
            )));
        }
    }
    let physical = || interfaces.iter().filter(|one| one.physical);
    let mut changes = Vec::new();
    for nic in nics {
        let at = |mac| physical().filter(move |one| one.mac == Some(mac)).collect::<Vec<_>>();
        let mut found = at(nic.parent);
        if nic.mac != nic.parent {
            found.extend(at(nic.mac));
        }
        let [interface] = found[..] else {
            let error = format!("{} interfaces have the address {} or {}", found.len(), nic.parent, nic.mac);
            return Err(if found.is_empty() {
                ApplyError::Missing(error)
            } else {
                ApplyError::Mismatch(error)
            });
        };
        let mac = (interface.mac != Some(nic.mac)).then_some(nic.mac);
        if interface.up || mac.is_some() {
            changes.push(Change { index: interface.index, down: interface.up, mac });
        }
    }
    let named = |mac| nics.iter().any(|nic| nic.parent == mac || nic.mac == mac);
    if let Some((left, mac)) = physical().find_map(|one| Some((one, one.mac.filter(|mac| !named(*mac))?))) {
        return Err(ApplyError::Missing(format!("the identity has no address for {} ({mac})", left.name)));
    }
    Ok(changes)
}

/// That nothing is left to do.
pub(super) fn verify(nics: &[NicIdentity], interfaces: &[Interface]) -> Result<(), ApplyError> {
    match plan(nics, interfaces)?.first() {
        None => Ok(()),
        Some(change) => Err(ApplyError::Mismatch(format!("interface {} is not as it was set", change.index))),
    }
}

/// The interfaces the host is told of: NICs, and what has an address of one, a bridge for one. A host of containers has
/// thousands of others.
pub(super) fn evidence(interfaces: &[Interface]) -> Vec<NicEvidence> {
    let nics = interfaces.iter().filter(|one| one.physical);
    let others = interfaces.iter().filter(|one| carried(one, interfaces).is_some());
    nics.chain(others)
        .filter_map(|one| {
            let addresses = one.addresses.iter().copied().take(MOST_TOLD).collect();
            Some(NicEvidence { name: Text::new(&one.name), mac: one.mac?, up: one.up, addresses })
        })
        .take(MOST_TOLD)
        .collect()
}

/// The NIC whose address the device `one`, which is none of hardware, has as its own.
fn carried<'a>(one: &Interface, interfaces: &'a [Interface]) -> Option<&'a Interface> {
    let mac = one.mac.filter(|_| !one.physical)?;
    interfaces.iter().find(|nic| nic.physical && nic.mac == Some(mac))
}

/// What no child of a template with these links could be made right of: a link that is up sends as the template before
/// the agent has a word, and a device made of a NIC keeps the template's address when the NIC's changes.
pub(crate) fn check_links(interfaces: &[Interface]) -> Vec<Finding> {
    let mut found = Vec::new();
    for one in interfaces.iter().filter(|one| !one.loopback) {
        if one.up {
            let what = format!("the interface {} is up before the gate", one.name);
            let fix = "let what sets it up wait for the gate (an initrd's network, netconsole, an early unit, a rule \
                       of udev)";
            found.push(Finding::new(Grade::Fatal, &what, fix));
        }
        if let Some(nic) = carried(one, interfaces) {
            let kind = one.kind.as_deref().unwrap_or("device");
            let what = format!(
                "the {kind} {} is there before the gate with the address of {}, and children would keep it",
                one.name, nic.name
            );
            let fix = "let what makes it wait for the gate: it makes it of the child's address then";
            found.push(Finding::new(Grade::Fatal, &what, fix));
        }
    }
    found
}

/// Makes a machine silent that is about to be a template: every link but the loopback's is down and has no address of
/// IP. Says what is against that, which is nothing as a rule.
///
/// # Errors
/// The root file system is on the network, which is found before a link is touched, or the kernel refuses.
pub(crate) fn quiesce<S: System>(root: &Root, system: &S) -> Result<Vec<Finding>, ApplyError> {
    if let Some(why) = root_on_network(root)? {
        return Err(ApplyError::Mismatch(format!(
            "the root file system is on the network ({why}): a template's links are down, and its children would share \
             one root; use an image on a disk"
        )));
    }
    let mut refused = None;
    for one in system.interfaces()?.iter().filter(|one| !one.loopback) {
        // One that is gone meanwhile is none to set down: what counts is how they are afterwards.
        let down = if one.up { system.set_down(one.index) } else { Ok(()) };
        if let Err(error) = down.and_then(|()| system.flush(one.index)) {
            refused = Some(error);
        }
    }
    let after = system.interfaces()?;
    let live = |one: &&Interface| !one.loopback && (one.up || !one.addresses.is_empty());
    if let Some(one) = after.iter().find(live) {
        let again = format!(
            "the interface {} was set down and is {} again: let what does it wait for the gate",
            one.name,
            if one.up { "up" } else { "given an address" }
        );
        return Err(refused.map_or(ApplyError::Mismatch(again), ApplyError::from));
    }
    Ok(check_links(&after))
}

/// How the root file system is known to be on the network: by what is mounted (`proc_mounts(5)`), or by the kernel's command
/// line (the kernel's nfsroot.rst, dracut.cmdline(7)).
fn root_on_network(root: &Root) -> Result<Option<String>, FileError> {
    let mounts = root.read_lossy("proc/mounts")?.unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ');
        if let (Some(source), Some("/"), Some(kind)) = (words.next(), words.next(), words.next()) {
            let network = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.glusterfs", "fuse.sshfs"];
            if network.contains(&kind) || source.starts_with("/dev/nbd") || source.starts_with("/dev/rbd") {
                return Ok(Some(format!("{source} of type {kind} is mounted as /")));
            }
        }
    }
    let line = root.read_lossy("proc/cmdline")?.unwrap_or_default();
    let by_network = line.split_ascii_whitespace().find(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let far = ["nfs:", "nfs4:", "iscsi:", "nbd:", "fcoe:", "live:http", "live:nfs", "live:ftp", "cifs:"];
        match key {
            "root" => {
                value == "/dev/nfs"
                    || value.starts_with("/dev/nbd")
                    || far.iter().any(|f| value.starts_with(f))
            }
            "boot" => value == "nfs",
            "netroot" | "nfsroot" | "nbdroot" | "iscsi_initiator" | "iscsi_target_name" | "rd.nfs.domain" => {
                true
            }
            key => key.starts_with("rd.iscsi.") || key == "rd.iscsi",
        }
    });
    Ok(by_network.map(|word| format!("the kernel's command line has {word}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::Linux;

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap()
    }

    fn nic(parent: u8, new: u8) -> NicIdentity {
        NicIdentity { parent: mac(parent), mac: mac(new), ip: None }
    }

    fn interface(index: u32, last: u8) -> Interface {
        let name = format!("ens{index}");
        Interface { index, name, mac: Some(mac(last)), physical: true, ..Interface::default() }
    }

    #[test]
    fn each_interface_gets_its_own_and_the_second_time_nothing_is_left() {
        let bridge = Interface { physical: false, ..interface(9, 1) };
        let before = [interface(2, 1), Interface { up: true, ..interface(3, 2) }, bridge.clone()];
        let nics = [nic(2, 12), nic(1, 11)];
        let changes = plan(&nics, &before).unwrap();
        assert_eq!(
            changes,
            [
                Change { index: 3, down: true, mac: Some(mac(12)) },
                Change { index: 2, down: false, mac: Some(mac(11)) },
            ]
        );
        let after = [interface(2, 11), interface(3, 12), bridge];
        assert_eq!(plan(&nics, &after).unwrap(), []);
        verify(&nics, &after).unwrap();
        assert!(matches!(verify(&nics, &before), Err(ApplyError::Mismatch(_))));
    }

    #[test]
    fn an_address_that_stays_only_has_its_link_set_down() {
        let up = Interface { up: true, ..interface(2, 1) };
        assert_eq!(plan(&[nic(1, 1)], &[up]).unwrap(), [Change { index: 2, down: true, mac: None }]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let missing = |result| matches!(result, Err(ApplyError::Missing(_)));
        assert!(missing(plan(&[nic(1, 11)], &[])), "no such interface");
        assert!(missing(plan(&[nic(1, 11)], &[interface(2, 1), interface(3, 2)])), "one that is not named");
        assert!(missing(plan(&[], &[interface(2, 1)])), "none named");
        let twins = [interface(2, 1), interface(3, 1)];
        assert!(matches!(plan(&[nic(1, 11)], &twins), Err(ApplyError::Mismatch(_))), "two with one address");
        let both = [interface(2, 1), interface(3, 2)];
        for nics in [[nic(1, 11), nic(2, 11)], [nic(1, 11), nic(1, 12)], [nic(1, 2), nic(2, 1)]] {
            assert!(matches!(plan(&nics, &both), Err(ApplyError::Malformed(_))), "{nics:?}");
        }
    }

    fn made_of_others(index: u32, kind: &str, last: u8) -> Interface {
        Interface { physical: false, kind: Some(kind.into()), ..interface(index, last) }
    }

    #[test]
    fn links_that_would_send_as_the_template_are_named() {
        let quiet = [Interface { loopback: true, up: true, ..Interface::default() }, interface(2, 1)];
        assert!(check_links(&quiet).is_empty());
        assert!(check_links(&[interface(2, 1), made_of_others(9, "veth", 9)]).is_empty(), "it has its own");
        for kind in ["bond", "bridge", "vlan", "macvlan", "team", "openvswitch"] {
            let found = check_links(&[interface(2, 1), made_of_others(9, kind, 1)]);
            let [finding] = &found[..] else { panic!("{found:?}") };
            assert_eq!(finding.grade, Grade::Fatal);
            let what = finding.what.to_string();
            assert!(what.contains(kind) && what.contains("ens9") && what.contains("ens2"), "{what}");
        }
        let up = check_links(&[Interface { up: true, ..interface(2, 1) }]);
        assert!(up[0].grade == Grade::Fatal && up[0].what.to_string().contains("ens2"));
    }

    #[test]
    fn a_template_is_made_silent() {
        let (_dir, root) = crate::apply::tests::template();
        let system = crate::apply::tests::Fake::new();
        assert!(system.interfaces().unwrap().iter().any(|one| one.up));
        assert_eq!(quiesce(&root, &system).unwrap(), []);
        assert!(!system.interfaces().unwrap().iter().any(|one| one.up));
        assert_eq!(*system.flushed.borrow(), [2, 3]);
        system.interfaces.borrow_mut()[0].addresses = vec!["192.0.2.7".parse().unwrap()];
        assert!(matches!(quiesce(&root, &system), Err(ApplyError::Mismatch(_))), "it comes back");
    }

    #[test]
    fn the_kernels_links_are_down_and_without_addresses() {
        use crate::netlink::tests::{in_namespace, ip};
        in_namespace(|| {
            ip("link set lo up");
            ip("link add left type veth peer name right");
            ip("link add br0 type bridge");
            ip("link set left master br0");
            for one in ["left", "right", "br0"] {
                ip(&format!("link set {one} up"));
            }
            ip("addr add 192.0.2.7/24 dev br0");
            ip("addr add 2001:db8::7/64 dev br0 nodad");
            let (_dir, root) = crate::apply::tests::template();
            assert_eq!(quiesce(&root, &Linux).unwrap(), []);
            let after = Linux.interfaces().unwrap();
            assert_eq!(after.len(), 4);
            assert!(after.iter().all(|one| one.up == one.loopback && one.addresses.is_empty()), "{after:?}");
            let bridge = after.iter().find(|one| one.name == "br0").unwrap();
            assert_eq!(bridge.kind.as_deref(), Some("bridge"));
            let nic = Interface { kind: None, physical: true, ..bridge.clone() };
            assert_eq!(check_links(&[nic, bridge.clone()]).len(), 1);
        });
    }

    #[test]
    fn a_root_on_the_network_is_refused_before_a_link_is_touched() {
        let on_disk = "/dev/vda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n";
        for (mounts, line, fits) in [
            (on_disk, "root=UUID=1 ip=dhcp quiet boot=local", true),
            ("server:/root / nfs4 rw 0 0\n", "", false),
            ("/dev/nbd0p1 / ext4 rw 0 0\n", "", false),
            (on_disk, "root=/dev/nfs nfsroot=192.0.2.1:/srv", false),
            (on_disk, "netroot=iscsi:192.0.2.1::::iqn.2026-01.example", false),
            (on_disk, "root=nbd:192.0.2.1:root", false),
            (on_disk, "rd.iscsi.initiator=iqn.2026-01.example", false),
        ] {
            let (dir, root) = crate::apply::tests::template();
            std::fs::create_dir(dir.path().join("proc")).unwrap();
            std::fs::write(dir.path().join("proc/mounts"), mounts).unwrap();
            std::fs::write(dir.path().join("proc/cmdline"), line).unwrap();
            let system = crate::apply::tests::Fake::new();
            assert_eq!(quiesce(&root, &system).is_ok(), fits, "{mounts}{line}");
            assert_eq!(system.flushed.borrow().is_empty(), !fits);
        }
    }

    #[test]
    fn a_host_of_containers_tells_of_its_nics_only() {
        let mut all: Vec<_> = (10..2000).map(|index| made_of_others(index, "veth", 77)).collect();
        all.push(made_of_others(9, "bridge", 1));
        all.push(Interface { addresses: vec!["192.0.2.7".parse().unwrap(); 5000], ..interface(2, 1) });
        let told = evidence(&all);
        assert_eq!(told.iter().map(|nic| nic.name.to_string()).collect::<Vec<_>>(), ["ens2", "ens9"]);
        assert!(serde_json::to_vec(&told).unwrap().len() < 32 << 10);
        all.extend((3000..5000).map(|index| made_of_others(index, "vlan", 1)));
        assert!(serde_json::to_vec(&evidence(&all)).unwrap().len() < 32 << 10);
    }
}
