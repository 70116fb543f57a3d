//! The kernel's network interfaces over rtnetlink(7): listing them, and changing a link-layer address.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use ramet_proto::MacAddr;
use std::{io, net::IpAddr};

/// The kernel refused a request, or its answer could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    #[error("cannot {0} over netlink")]
    Io(&'static str, #[source] io::Error),
    #[error("the kernel refused to {0}")]
    Refused(&'static str, #[source] io::Error),
    #[error("the kernel's answer over netlink cannot be read: {0}")]
    Form(String),
    #[error("the kernel's answer over netlink ended early")]
    Ended,
}

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Its link-layer address; the loopback interface has none worth the name.
    pub(crate) mac: Option<MacAddr>,
    /// An Ethernet device that is not made of others (a bridge, VLAN, bond or tunnel has a kind).
    pub(crate) physical: bool,
    /// Administratively up: `IFF_UP` in netdevice(7).
    pub(crate) up: bool,
    /// Its addresses, link-local ones left out.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A connection to the kernel's rtnetlink.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A connection that belongs to the calling thread's network namespace.
    pub(crate) fn connect() -> Result<Self, NetlinkError> {
        let io = |error| NetlinkError::Io("connect", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(io)?;
        socket.bind_auto().map_err(io)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(io)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Every interface, in the kernel's order.
    pub(crate) fn interfaces(&mut self) -> Result<Vec<Interface>, NetlinkError> {
        const WHAT: &str = "list interfaces";
        let mut interfaces = Vec::new();
        let links = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), WHAT)?;
        for message in links {
            if let RouteNetlinkMessage::NewLink(link) = message {
                interfaces.push(interface(&link));
            }
        }
        for message in self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), WHAT)? {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && let Some(interface) = interfaces.iter_mut().find(|one| one.index == address.header.index)
            {
                interface.addresses.extend(own_address(&address).filter(|address| !is_link_local(*address)));
            }
        }
        Ok(interfaces)
    }

    /// Makes the interface administratively down.
    pub(crate) fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), "set an interface down")
    }

    /// Gives the interface the address `mac` (`IFLA_ADDRESS`). QEMU's virtio-net follows with its receive filter.
    pub(crate) fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::Address(mac.octets().to_vec()));
        self.request(RouteNetlinkMessage::SetLink(link), "change an interface's address")
    }

    /// Sends `message` and waits for the kernel's acknowledgement.
    fn request(&mut self, message: RouteNetlinkMessage, what: &'static str) -> Result<(), NetlinkError> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK, what)?;
        for reply in self.receive()? {
            if let NetlinkPayload::Error(error) = reply.payload {
                return if error.code.is_none() {
                    Ok(())
                } else {
                    Err(NetlinkError::Refused(what, error.to_io()))
                };
            }
        }
        Err(NetlinkError::Ended)
    }

    /// Sends `message` and gathers the messages of the answer, which has several parts.
    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: &'static str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP, what)?;
        let mut messages = Vec::new();
        loop {
            for reply in self.receive()? {
                match reply.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Done(_) => return Ok(messages),
                    NetlinkPayload::Error(error) => return Err(NetlinkError::Refused(what, error.to_io())),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
    }

    fn send(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &'static str,
    ) -> Result<(), NetlinkError> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|error| NetlinkError::Io(what, error))?;
        Ok(())
    }

    /// The messages of one datagram, those of an earlier request left out.
    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
        let (bytes, _) = self.socket.recv_from_full().map_err(|error| NetlinkError::Io("receive", error))?;
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| NetlinkError::Form(error.to_string()))?;
            // Messages are aligned to four bytes (netlink(7), NLMSG_ALIGN).
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number == self.sequence {
                messages.push(message);
            }
        }
        Ok(messages)
    }
}

fn interface(link: &LinkMessage) -> Interface {
    let mut found = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        physical: link.header.link_layer_type == LinkLayerType::Ether,
        up: link.header.flags.contains(LinkFlags::Up),
        addresses: Vec::new(),
    };
    for attribute in &link.attributes {
        // The attributes are some seventy, and more with each kernel.
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Address(octets) => {
                found.mac =
                    <[u8; 6]>::try_from(octets.as_slice()).ok().and_then(|octets| MacAddr::new(octets).ok());
            }
            LinkAttribute::LinkInfo(infos) => {
                found.physical &= !infos.iter().any(|info| matches!(info, LinkInfo::Kind(_)));
            }
            _ => {}
        }
    }
    found
}

/// The address of this end: on a point-to-point link `Address` is the other end's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let known = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
    let mut address = None;
    for attribute in message.attributes.iter().filter(|_| known) {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    /// Runs `test` in a network namespace of its own, where it can change what it likes.
    fn in_namespace(test: fn()) {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: a network namespace takes root");
            return;
        }
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip (iproute2)");
        assert!(status.success(), "ip {arguments}");
    }

    fn veth() -> Interface {
        let all = Netlink::connect().unwrap().interfaces().unwrap();
        all.into_iter().find(|one| one.name == "left").unwrap()
    }

    #[test]
    fn interfaces_are_listed_and_their_address_changed() {
        in_namespace(|| {
            ip("link add left type veth peer name right");
            ip("link set left address 52:54:00:00:00:01 up");
            ip("addr add 192.0.2.7/24 dev left");
            ip("addr add 2001:db8::7/64 dev left nodad");
            let before = veth();
            assert_eq!(before.mac, Some("52:54:00:00:00:01".parse().unwrap()));
            assert!(before.up && !before.physical);
            assert_eq!(
                before.addresses,
                ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::7".parse().unwrap()]
            );

            let mut netlink = Netlink::connect().unwrap();
            netlink.set_down(before.index).unwrap();
            let mac = "52:54:00:00:00:99".parse().unwrap();
            // Twice: it is as it is to be already the second time.
            netlink.set_mac(before.index, mac).unwrap();
            netlink.set_mac(before.index, mac).unwrap();
            let after = veth();
            assert_eq!((after.mac, after.up), (Some(mac), false));
        });
    }

    #[test]
    fn loopback_is_not_physical_and_has_no_address_of_its_own() {
        in_namespace(|| {
            ip("link set lo up");
            let all = Netlink::connect().unwrap().interfaces().unwrap();
            let lo = all.iter().find(|one| one.name == "lo").unwrap();
            assert_eq!((lo.mac, lo.physical, lo.addresses.len()), (None, false, 0));
        });
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        in_namespace(|| {
            let error = Netlink::connect().unwrap().set_down(4242).unwrap_err();
            assert!(matches!(error, NetlinkError::Refused(..)), "{error:?}");
        });
    }
}
