//! What `ramet` and `ramet-agent` say to each other: identity types that cannot hold an invalid value, the
//! messages made of them, and the frames that carry the messages over vsock. No I/O happens here.
//!
//! docs/protocol.md walks through a whole conversation.

pub mod domain;
pub mod frame;
pub mod identity;
pub mod login;
pub mod message;
pub mod network;
pub mod secret;
pub mod text;

pub use identity::{BootId, Hostname, InstanceId, MacAddr, MachineId, Sid, SshPublicKey};
pub use message::{Evidence, GuestMessage, HostMessage};
pub use secret::Secret;

/// The vsock port `ramet-agent` listens on. Below 1024, so that binding it takes `CAP_NET_BIND_SERVICE` in the
/// guest (vsock(7)): no unprivileged process can pose as the agent.
pub const AGENT_PORT: u32 = 732;

/// The protocol versions this build speaks, best first.
pub const VERSIONS: &[u16] = &[2, 1];

/// What an agent of this build can do that not every agent of its version can, which it says in its hello. Agents of
/// version 1 say nothing, whatever they can do.
pub const FEATURES: &[&str] = &["findings", "steps", OBSERVER];

/// A feature: whoever answered at the gate hangs up once that is open. Past it another process answers, on a new connection.
pub const OBSERVER: &str = "observer";

/// The best version both sides speak, if any.
#[must_use]
pub fn select_version(offered: &[u16]) -> Option<u16> {
    VERSIONS.iter().copied().find(|version| offered.contains(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_common_version_is_selected() {
        assert_eq!(select_version(&[1]), Some(1));
        assert_eq!(select_version(&[9, 1, 2, 7]), Some(2));
        assert_eq!(select_version(&[2]), Some(2));
        assert_eq!(select_version(&[]), None);
        assert_eq!(select_version(&[0, 3]), None);
    }
}
