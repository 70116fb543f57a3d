//! Networks of templates and children.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a NIC is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NetSpec {
    /// QEMU's user network: the guest reaches out, nothing reaches in (qemu(1), `-netdev user`). No privileges.
    User,
    /// A TAP interface on an existing bridge of the host.
    Bridge(InterfaceName),
    /// A NIC without a cable.
    None,
}

/// The name of a network interface: 1 to 15 bytes without space, slash or comma (netdevice(7), `IFNAMSIZ`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: use user, bridge=NAME or none")]
pub struct InvalidNet(String);

impl FromStr for NetSpec {
    type Err = InvalidNet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "user" => return Ok(Self::User),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let name = text.strip_prefix("bridge=").or_else(|| text.strip_prefix("bridge:")).unwrap_or_default();
        let good = |b: u8| b.is_ascii_graphic() && !b"/,:%".contains(&b);
        if (1..=15).contains(&name.len()) && name.bytes().all(good) && name != "." && name != ".." {
            return Ok(Self::Bridge(InterfaceName(name.to_owned())));
        }
        Err(InvalidNet(text.chars().take(80).collect()))
    }
}

impl fmt::Display for NetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Bridge(name) => write!(f, "bridge={}", name.0),
            Self::None => f.write_str("none"),
        }
    }
}

impl TryFrom<String> for NetSpec {
    type Error = InvalidNet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NetSpec> for String {
    fn from(spec: NetSpec) -> Self {
        spec.to_string()
    }
}

/// The TAP interface of a child's NIC. A CID is unique on its host, so the name is too; QEMU makes the interface and
/// it goes when QEMU does, so none can leak.
#[must_use]
pub fn tap_name(cid: u32, nic: usize) -> String {
    format!("rmt{cid:x}-{nic}")
}

/// Why a NIC cannot be connected.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The bridge is not there.
    #[error(
        "there is no bridge {0}: make it (ip link add {0} type bridge; ip link set {0} up), then fork again"
    )]
    NoBridge(String),
    /// The kernel refused.
    #[error("cannot connect {tap} to the bridge {bridge}")]
    Netlink {
        /// The child's TAP interface.
        tap: String,
        /// The bridge.
        bridge: String,
        /// The kernel's answer (rtnetlink(7)).
        #[source]
        source: rtnetlink::Error,
    },
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] std::io::Error),
}

/// Makes `tap` a port of `bridge` and sets it up.
pub async fn attach(tap: &str, bridge: &str) -> Result<(), NetError> {
    let bridge_index = interface_index(bridge).ok_or_else(|| NetError::NoBridge(bridge.to_owned()))?;
    let (connection, handle, _) = rtnetlink::new_connection().map_err(NetError::Socket)?;
    let connection = tokio::spawn(connection);
    let message = rtnetlink::LinkUnspec::new_with_name(tap).controller(bridge_index).up().build();
    let result = handle.link().set(message).execute().await;
    connection.abort();
    result.map_err(|source| NetError::Netlink { tap: tap.to_owned(), bridge: bridge.to_owned(), source })
}

/// Fails if `bridge` is not an interface of this host.
pub fn check_bridge(bridge: &InterfaceName) -> Result<(), NetError> {
    interface_index(bridge.as_str()).map(|_| ()).ok_or_else(|| NetError::NoBridge(bridge.0.clone()))
}

fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_parsed_and_shown_alike() {
        for text in ["user", "none", "bridge=br0"] {
            assert_eq!(text.parse::<NetSpec>().unwrap().to_string(), text);
        }
        for bad in ["", "bridge", "bridge=", "bridge=a/b", "bridge=a,b", "bridge=0123456789abcdef", "tap"] {
            assert!(bad.parse::<NetSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tap_names_fit_the_kernel() {
        assert_eq!(tap_name(u32::MAX, 9), "rmtffffffff-9");
        assert!(tap_name(u32::MAX, 99).len() <= 15);
    }

    #[test]
    fn a_missing_bridge_is_named() {
        let Ok(NetSpec::Bridge(name)) = "bridge=nosuchbr0".parse() else { panic!("a bridge") };
        assert!(check_bridge(&name).unwrap_err().to_string().contains("nosuchbr0"));
    }
}
