//! Static IP configuration: addresses that an interface can have, and what goes with them.

use crate::identity::{InvalidIdentity, check_label, text_form};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// The IP configuration of one NIC, in place of DHCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpConfig {
    /// Its addresses.
    pub addresses: Addresses,
    /// Default routes go there. Whether a gateway can be reached is the guest's business.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<UnicastIp>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<UnicastIp>,
    /// Domains in which short names are looked up (resolv.conf(5), `search`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<DomainName>,
}

/// The addresses of one interface: at least one, none twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<InterfaceAddress>", try_from = "Vec<InterfaceAddress>")]
pub struct Addresses(Vec<InterfaceAddress>);

impl Addresses {
    /// The addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[InterfaceAddress] {
        &self.0
    }
}

impl TryFrom<Vec<InterfaceAddress>> for Addresses {
    type Error = InvalidIdentity;

    fn try_from(addresses: Vec<InterfaceAddress>) -> Result<Self, Self::Error> {
        let invalid = |value, why| InvalidIdentity::new("a list of addresses", value, why);
        if addresses.is_empty() {
            return Err(invalid("", "it is empty"));
        }
        for (n, address) in addresses.iter().enumerate() {
            if addresses[..n].iter().any(|other| other.ip == address.ip) {
                return Err(invalid(&address.to_string(), "an address is named twice"));
            }
        }
        Ok(Self(addresses))
    }
}

impl From<Addresses> for Vec<InterfaceAddress> {
    fn from(addresses: Addresses) -> Self {
        addresses.0
    }
}

/// A unicast address and the length of its network's prefix, 1 to 32 or 128. Shown as `192.0.2.7/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InterfaceAddress {
    ip: UnicastIp,
    prefix: u8,
}

text_form!(InterfaceAddress, "an address with the length of its prefix");

impl InterfaceAddress {
    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.ip.get()
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (ip, prefix) = text.split_once('/').ok_or("it is not an address, a slash and a number")?;
        let ip = UnicastIp::parse(ip)?;
        let most = if ip.get().is_ipv4() { 32 } else { 128 };
        // `from_str` would take a sign and leading zeros.
        let canonical = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with('0');
        let prefix = canonical.then(|| prefix.parse().ok()).flatten().filter(|prefix| *prefix <= most);
        Ok(Self { ip, prefix: prefix.ok_or("its prefix is not 1 to 32, for IPv6 128, bits long")? })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// An IP address that one machine can have and others reach: not unspecified, multicast, broadcast or loopback, and not of
/// the networks 0.0.0.0/8 ("this network") and 240.0.0.0/4 (reserved), which Linux takes and routers drop (RFC 6890).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UnicastIp(IpAddr);

text_form!(UnicastIp, "a unicast IP address");

impl UnicastIp {
    /// The address.
    #[must_use]
    pub fn get(self) -> IpAddr {
        self.0
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let ip: IpAddr = text.parse().map_err(|_| "it is not an IP address")?;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || ip == Ipv4Addr::BROADCAST {
            return Err("it is unspecified, multicast, broadcast or loopback");
        }
        match ip {
            IpAddr::V4(v4) if matches!(v4.octets()[0], 0 | 240..) => {
                Err("its network, 0.0.0.0/8 or 240.0.0.0/4, is no one's")
            }
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err("it is an IPv4 address in IPv6's form"),
            IpAddr::V4(_) | IpAddr::V6(_) => Ok(Self(ip)),
        }
    }
}

impl fmt::Display for UnicastIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A domain: labels as in a host name, each at most 63 characters long, at most 253 in all (RFC 1035, section 2.3.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DomainName(String);

text_form!(DomainName, "a domain (RFC 1035)");

impl DomainName {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > 253 || text.split('.').any(|label| label.len() > 63) {
            return Err("it is longer than 253 characters, or a label is longer than 63");
        }
        text.split('.').try_for_each(check_label)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_their_prefix() {
        for good in ["192.0.2.7/24", "10.0.0.1/32", "2001:db8::7/64", "fe80::1/128", "10.0.0.0/1"] {
            assert_eq!(good.parse::<InterfaceAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "192.0.2.7",
            "192.0.2.7/0",
            "192.0.2.7/33",
            "192.0.2.7/+8",
            "192.0.2.7/08",
            "192.0.2.7/",
            "192.0.2.7/24/1",
            "2001:db8::7/129",
            "0.0.0.0/8",
            "0.1.2.3/8",
            "240.0.0.1/4",
            "254.255.255.255/8",
            "127.0.0.1/8",
            "224.0.0.1/8",
            "255.255.255.255/32",
            "::/64",
            "::1/128",
            "ff02::1/64",
            "::ffff:192.0.2.7/120",
            "192.0.2.7/24\n",
        ] {
            assert!(bad.parse::<InterfaceAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_configuration_has_an_address_and_none_twice() {
        let parse = |text: &str| serde_json::from_str::<IpConfig>(text);
        assert_eq!(parse(r#"{"addresses":["192.0.2.7/24"]}"#).unwrap().addresses.as_slice().len(), 1);
        for bad in [
            r#"{"addresses":[]}"#,
            r#"{"addresses":["192.0.2.7/24","192.0.2.7/25"]}"#,
            r#"{"dns":["192.0.2.1"]}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains() {
        let longest = [&*"a".repeat(63); 3].join(".") + "." + &"a".repeat(61);
        for good in ["org", "example.org", "1.in-addr", &longest] {
            assert_eq!(good.parse::<DomainName>().unwrap().to_string(), good);
        }
        for bad in ["", ".", "a.", "a..b", "a b", "-a", &"a".repeat(64), &(longest.clone() + "a")] {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
    }
}
