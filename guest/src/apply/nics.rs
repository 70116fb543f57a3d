//! Link-layer addresses. The links stay down: the network service of the guest brings them up past the gate, so that
//! no frame ever carries the template's address.

use super::ApplyError;
use crate::{netlink::Interface, system::System};
use ramet_proto::{
    MacAddr,
    message::{Identity, NicIdentity},
};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap()
    }

    fn nic(parent: u8, new: u8) -> NicIdentity {
        NicIdentity { parent: mac(parent), mac: mac(new), ip: None }
    }

    fn interface(index: u32, last: u8) -> Interface {
        let name = format!("ens{index}");
        Interface { index, name, mac: Some(mac(last)), physical: true, up: false, addresses: Vec::new() }
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
}
