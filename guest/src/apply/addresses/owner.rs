//! Which network service is in charge of an interface, by what they read.
//!
//! A wrong guess is a child without its address, or with its template's, and nobody says so. So where two services would
//! have one interface, or where it cannot be known, static addresses are refused, with the names of both.

use super::{Nic, ifupdown, netplan::Netplan, network_manager, networkd, units::Units};
use crate::{apply::ApplyError, root::Root};
use std::fmt;

/// The network services that are given static addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Networkd,
    NetworkManager,
    Ifupdown,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Networkd => "systemd-networkd",
            Self::NetworkManager => "NetworkManager",
            Self::Ifupdown => "ifupdown (networking.service)",
        })
    }
}

const NETWORKD: &str = "systemd-networkd.service";
const MANAGER: &str = "NetworkManager.service";
const NETWORKING: &str = "networking.service";

/// Services that see to all interfaces and have no place for the agent's addresses.
const OTHERS: [&str; 6] = [
    "connman.service",
    "wicked.service",
    "wickedd.service",
    "dhcpcd.service",
    "network.service",
    "ConnMan.service",
];

/// What network services there are, and what they are told.
pub(super) struct Owners<'a> {
    root: &'a Root,
    units: Units<'a>,
    networkd: bool,
    network_manager: bool,
    networking: bool,
    /// The first service that is started and is not known here.
    other: Option<&'static str>,
    netplan: Option<Netplan>,
    pub(super) manager: network_manager::Config,
    pub(super) interfaces: ifupdown::Image,
}

impl<'a> Owners<'a> {
    pub(super) fn load(root: &'a Root) -> Result<Self, ApplyError> {
        let units = Units::load(root)?;
        let netplan = Netplan::load(root)?;
        let by_netplan = netplan.as_ref().map_or(Ok(false), |netplan| netplan.starts(Service::Networkd))?;
        // Its socket hears of every change of a link, and starts it.
        let networkd = !units.is_masked(NETWORKD)?
            && (by_netplan || units.is_enabled(NETWORKD)? || units.is_enabled("systemd-networkd.socket")?);
        let mut other = None;
        for unit in OTHERS {
            if other.is_none() && units.is_enabled(unit)? {
                other = Some(unit);
            }
        }
        Ok(Self {
            root,
            networkd,
            network_manager: units.is_enabled(MANAGER)?,
            networking: units.is_enabled(NETWORKING)?,
            other,
            netplan,
            manager: network_manager::Config::load(root)?,
            interfaces: ifupdown::Image::load(root)?,
            units,
        })
    }

    fn is_enabled(&self, service: Service) -> bool {
        match service {
            Service::Networkd => self.networkd,
            Service::NetworkManager => self.network_manager,
            Service::Ifupdown => self.networking,
        }
    }

    /// Whether systemd-resolved is started.
    pub(super) fn resolved(&self) -> Result<bool, ApplyError> {
        Ok(self.units.is_enabled("systemd-resolved.service")?)
    }

    /// Whether `NetworkManager` is started.
    pub(super) fn manages(&self) -> bool {
        self.network_manager
    }

    /// Whether any service is there that static addresses can be given to, or that stands in their way.
    pub(super) fn any(&self) -> bool {
        self.networkd || self.network_manager || self.networking || self.other.is_some()
    }

    /// Whether one of the services static addresses can be given to is installed.
    pub(super) fn installed(&self) -> Result<bool, ApplyError> {
        for unit in [NETWORKD, MANAGER, NETWORKING] {
            if self.units.is_installed(unit)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The service that has `nic`.
    pub(super) fn of(&self, nic: &Nic<'_>) -> Result<Service, ApplyError> {
        let all = [Service::Networkd, Service::NetworkManager, Service::Ifupdown];
        let enabled: Vec<_> = all.into_iter().filter(|service| self.is_enabled(*service)).collect();
        if let Some(other) = self.other {
            let beside = enabled.first().map_or(String::new(), |service| format!(" besides {service}"));
            return Err(nic.refused(&format!(
                "{other} is enabled{beside}, which the agent cannot give static addresses to: disable it for one of \
                 systemd-networkd, NetworkManager and ifupdown"
            )));
        }
        if let Some(netplan) = &self.netplan {
            if let Some(why) = netplan.made_of(nic) {
                return Err(nic.refused(&why));
            }
            if let Some(service) = netplan.service(nic)? {
                if !self.is_enabled(service) {
                    return Err(nic.refused(&format!("netplan gives it to {service}, which is not enabled")));
                }
                return if self.by_ifupdown(nic)? {
                    Err(Self::both(nic, &[service, Service::Ifupdown]))
                } else {
                    Ok(service)
                };
            }
        }
        let mut claims = Vec::new();
        let mut left_alone = None;
        if self.networkd && networkd::file(self.root, nic)?.is_some_and(|file| !file.unmanaged) {
            claims.push(Service::Networkd);
        }
        let by_ifupdown = self.by_ifupdown(nic)?;
        if self.network_manager {
            left_alone = self.manager.unmanaged(self.root, nic)?;
            if left_alone.is_none() && self.interfaces.names(nic.name) && self.manager.heeds_interfaces() {
                left_alone = Some("it is in interfaces(5), and its ifupdown plugin has managed=false".into());
            }
            if left_alone.is_none() {
                claims.push(Service::NetworkManager);
            }
        }
        if by_ifupdown {
            claims.push(Service::Ifupdown);
        }
        match (&claims[..], left_alone) {
            ([one], _) => Ok(*one),
            ([], _) if self.networkd => Ok(Service::Networkd),
            ([], _) if self.networking => Ok(Service::Ifupdown),
            ([], Some(why)) => Err(nic.refused(&format!("of network services only NetworkManager is enabled, which leaves it alone ({why})"))),
            ([], None) => Err(ApplyError::Missing(
                "static addresses need systemd-networkd, NetworkManager or ifupdown, and none is enabled: enable one".into(),
            )),
            (several, _) => Err(Self::both(nic, several)),
        }
    }

    /// Whether ifup(8) brings it up, at boot or by udev.
    fn by_ifupdown(&self, nic: &Nic<'_>) -> Result<bool, ApplyError> {
        let by_udev = || -> Result<bool, ApplyError> {
            Ok(self.interfaces.hotplugs(nic.name)
                && (self.root.exists("usr/lib/udev/ifupdown-hotplug")?
                    || self.root.exists("lib/udev/ifupdown-hotplug")?)
                && !self.units.is_masked("ifup@.service")?)
        };
        Ok((self.networking && nic.names().any(|name| self.interfaces.has(name))) || by_udev()?)
    }

    fn both(nic: &Nic<'_>, services: &[Service]) -> ApplyError {
        let names: Vec<_> = services.iter().map(ToString::to_string).collect();
        nic.refused(&format!(
            "{} would all configure it: leave it to one of them (disable the other, or have it leave this interface alone)",
            names.join(" and ")
        ))
    }
}
