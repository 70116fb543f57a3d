//! The kernel's network interfaces over rtnetlink(7): listing them, setting them down, changing a link-layer address.
//!
//! A link has some seventy attributes, more with each kernel, and four of them matter here. So attributes are read as
//! bytes, and one that is not known or has another form than expected is passed over.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use ramet_proto::MacAddr;
use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// How often a list is asked for again that changed while it was sent (netlink(7), `NLM_F_DUMP_INTR`).
const LISTS: usize = 20;

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
    #[error("the kernel's list over netlink changed each of {LISTS} times it was read")]
    Changing,
}

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Alternative names: whatever takes a name takes one of these (ip-link(8), `altname`).
    pub(crate) other_names: Vec<String>,
    /// Its link-layer address; the loopback interface has none worth the name.
    pub(crate) mac: Option<MacAddr>,
    /// An Ethernet device that is not made of others: one without a kind.
    pub(crate) physical: bool,
    /// What a device is that is none of hardware: `bond`, `bridge`, `vlan`, `veth` and so on (ip-link(8), `TYPE`).
    pub(crate) kind: Option<String>,
    /// The loopback interface: `IFF_LOOPBACK` in netdevice(7).
    pub(crate) loopback: bool,
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
        let links = self.dump(libc::RTM_GETLINK, LINK_HEADER, WHAT)?;
        let mut interfaces: Vec<_> = links.iter().filter_map(Message::interface).collect();
        for message in self.dump(libc::RTM_GETADDR, ADDRESS_HEADER, WHAT)? {
            if let Some((index, Some(address))) = message.address()
                && let Some(interface) = interfaces.iter_mut().find(|one| one.index == index)
            {
                interface.addresses.extend(Some(address).filter(|address| !is_link_local(*address)));
            }
        }
        Ok(interfaces)
    }

    /// Makes the interface administratively down.
    pub(crate) fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        const UP: u32 = libc::IFF_UP as u32;
        self.request(Message::link(index, 0, UP, &[]), "set an interface down")
    }

    /// Gives the interface the address `mac` (`IFLA_ADDRESS`). QEMU's virtio-net follows with its receive filter.
    pub(crate) fn set_mac(&mut self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        let message = Message::link(index, 0, 0, &[(libc::IFLA_ADDRESS, &mac.octets())]);
        self.request(message, "change an interface's address")
    }

    /// Takes every address from the interface, link-local ones too: set down it would lose those of IPv6 only.
    pub(crate) fn flush(&mut self, index: u32) -> Result<(), NetlinkError> {
        const WHAT: &str = "take an address from an interface";
        for message in self.dump(libc::RTM_GETADDR, ADDRESS_HEADER, WHAT)? {
            if message.address().is_some_and(|(at, _)| at == index) {
                match self.request(Message { kind: libc::RTM_DELADDR, body: message.body }, WHAT) {
                    // It went with another that was the first of its network.
                    Err(NetlinkError::Refused(_, error))
                        if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                    done => done?,
                }
            }
        }
        Ok(())
    }

    /// Sends `message` and waits for the kernel's acknowledgement.
    fn request(&mut self, message: Message, what: &'static str) -> Result<(), NetlinkError> {
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

    /// Asks for a list and gathers its messages, all of one moment.
    fn dump(&mut self, kind: u16, header: usize, what: &'static str) -> Result<Vec<Message>, NetlinkError> {
        for _ in 0..LISTS {
            if let Some(messages) = self.dump_once(kind, header, what)? {
                return Ok(messages);
            }
        }
        Err(NetlinkError::Changing)
    }

    /// As [`Self::dump`]; `None` if the list changed meanwhile.
    fn dump_once(
        &mut self,
        kind: u16,
        header: usize,
        what: &'static str,
    ) -> Result<Option<Vec<Message>>, NetlinkError> {
        self.send(Message { kind, body: vec![0; header] }, NLM_F_REQUEST | NLM_F_DUMP, what)?;
        let mut messages = Vec::new();
        let mut whole = true;
        loop {
            for reply in self.receive()? {
                whole &= reply.header.flags & NLM_F_DUMP_INTR == 0;
                match reply.payload {
                    NetlinkPayload::InnerMessage(message) => messages.push(message),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(NetlinkError::Refused(what, io::Error::from_raw_os_error(-done.code)));
                    }
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(messages)),
                    NetlinkPayload::Error(error) => return Err(NetlinkError::Refused(what, error.to_io())),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: Message, flags: u16, what: &'static str) -> Result<(), NetlinkError> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        again(|| self.socket.send(&bytes, 0)).map_err(|error| NetlinkError::Io(what, error))?;
        Ok(())
    }

    /// The messages of one datagram, those of an earlier request left out.
    fn receive(&mut self) -> Result<Vec<NetlinkMessage<Message>>, NetlinkError> {
        let (bytes, _) =
            again(|| self.socket.recv_from_full()).map_err(|error| NetlinkError::Io("receive", error))?;
        let mut rest = bytes.as_slice();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<Message>::deserialize(rest)
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

/// Does `call` again for as long as a signal interrupts it.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The length of `struct ifinfomsg` and of `struct ifaddrmsg` (rtnetlink(7)); attributes follow.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// A message of rtnetlink(7) behind netlink's own header: its type, and its bytes as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

impl Message {
    /// A change of the interface `index`: those of its flags that are in `mask`, and attributes.
    fn link(index: u32, flags: u32, mask: u32, attributes: &[(u16, &[u8])]) -> Self {
        let mut body = vec![0; 4];
        for word in [index, flags, mask] {
            body.extend(word.to_ne_bytes());
        }
        for (kind, value) in attributes {
            // An attribute's own header counts; they are aligned to four bytes (rtnetlink(7), RTA_ALIGN).
            let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
            body.extend(length.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        Self { kind: libc::RTM_SETLINK, body }
    }

    /// The link this tells of.
    fn interface(&self) -> Option<Interface> {
        if self.kind != libc::RTM_NEWLINK {
            return None;
        }
        let flags = self.word(8)?;
        let mut found = Interface {
            index: self.word(4)?,
            physical: self.body.get(2..4)? == libc::ARPHRD_ETHER.to_ne_bytes(),
            loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
            up: flags & libc::IFF_UP as u32 != 0,
            ..Interface::default()
        };
        for (kind, value) in attributes(self.body.get(LINK_HEADER..)?) {
            match kind {
                libc::IFLA_IFNAME => found.name = text(value),
                libc::IFLA_ADDRESS => {
                    found.mac = <[u8; 6]>::try_from(value).ok().and_then(|octets| MacAddr::new(octets).ok());
                }
                libc::IFLA_PROP_LIST => {
                    let names = attributes(value).filter(|(kind, _)| *kind == libc::IFLA_ALT_IFNAME);
                    found.other_names = names.map(|(_, value)| text(value)).collect();
                }
                libc::IFLA_LINKINFO => {
                    found.kind = attributes(value)
                        .find(|(kind, _)| *kind == libc::IFLA_INFO_KIND)
                        .map(|(_, value)| text(value));
                }
                _ => {}
            }
        }
        found.physical &= found.kind.is_none();
        Some(found)
    }

    /// The interface this tells an address of, and that address if it is one of IP. It is that of this end: on a
    /// point-to-point link `IFA_ADDRESS` is the other end's.
    fn address(&self) -> Option<(u32, Option<IpAddr>)> {
        if self.kind != libc::RTM_NEWADDR {
            return None;
        }
        let index = self.word(4)?;
        let mut address = None;
        for (kind, value) in attributes(self.body.get(ADDRESS_HEADER..)?) {
            match kind {
                libc::IFA_LOCAL => return Some((index, ip(value))),
                libc::IFA_ADDRESS => address = ip(value),
                _ => {}
            }
        }
        Some((index, address))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.body.get(at..at + 4)?.try_into().ok()?))
    }
}

/// The types and values of attributes, up to the first that does not fit its buffer.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map_while(move |nla| {
        let value = nla.into_inner();
        let length = usize::from(u16::from_ne_bytes([*value.first()?, *value.get(1)?]));
        let kind = u16::from_ne_bytes([*value.get(2)?, *value.get(3)?]);
        // The two highest bits say how it is written (netlink(7), NLA_F_NESTED).
        Some((kind & 0x3fff, value.get(4..length)?))
    })
}

/// A string that ends with a zero byte, or with the attribute.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    /// Runs `test` in a network namespace of its own, where it can change what it likes.
    pub(crate) fn in_namespace(test: fn()) {
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

    pub(crate) fn ip(arguments: &str) {
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
            ip("link property add dev left altname first altname second");
            ip("addr add 192.0.2.7/24 dev left");
            ip("addr add 2001:db8::7/64 dev left nodad");
            let before = veth();
            assert_eq!(before.mac, Some("52:54:00:00:00:01".parse().unwrap()));
            assert!(before.up && !before.physical && !before.loopback);
            assert_eq!(before.kind.as_deref(), Some("veth"));
            assert_eq!(before.other_names, ["first", "second"]);
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
            assert!(lo.loopback && lo.up && lo.kind.is_none());
        });
    }

    #[test]
    fn every_address_is_taken_from_one_interface_alone() {
        in_namespace(|| {
            ip("link add left type veth peer name right");
            for end in ["left", "right"] {
                ip(&format!("link set {end} up"));
                let last = end.len();
                // The second goes with the first, which is the first of its network.
                ip(&format!("addr add 192.0.2.{last}/24 dev {end}"));
                ip(&format!("addr add 192.0.2.{last}7/24 dev {end}"));
                ip(&format!("addr add 169.254.7.{last}/16 dev {end}"));
                ip(&format!("addr add 2001:db8::{last}/64 dev {end} nodad"));
            }
            let mut netlink = Netlink::connect().unwrap();
            netlink.flush(veth().index).unwrap();
            netlink.flush(veth().index).unwrap();
            let all = netlink.interfaces().unwrap();
            let counts = |name| all.iter().find(|one| one.name == name).unwrap().addresses.len();
            assert_eq!((counts("left"), counts("right")), (0, 3));
            let shown = Command::new("ip").args(["-4", "addr", "show", "left"]).output().unwrap().stdout;
            assert!(!String::from_utf8(shown).unwrap().contains("inet "), "the link-local one, too");
        });
    }

    #[test]
    fn more_links_than_a_datagram_holds_are_listed() {
        in_namespace(|| {
            for n in 0..60 {
                ip(&format!("link add left{n} type veth peer name right{n}"));
            }
            let all = Netlink::connect().unwrap().interfaces().unwrap();
            assert_eq!(all.iter().filter(|one| one.kind.as_deref() == Some("veth")).count(), 120);
        });
    }

    /// A link with `attributes` behind a header of type Ethernet, index 7, flags up.
    fn link(attributes: &[u8]) -> Option<Interface> {
        let mut body = vec![0, 0, 1, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        body.extend(attributes);
        Message { kind: libc::RTM_NEWLINK, body }.interface()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn attributes_that_are_not_known_or_malformed_are_passed_over() {
        let name = [9, 0, 3, 0, b'e', b'n', b's', b'7', 0, 0, 0, 0];
        let odd = [5, 0, 0xff, 0x3f, 1, 0, 0, 0];
        let short_address = [6, 0, 1, 0, 1, 2, 0, 0];
        let kind = [14, 0, 18, 0x80, 9, 0, 1, 0, b'b', b'o', b'n', b'd', 0, 0, 0, 0];
        let known = link(&[&odd[..], &short_address, &name, &kind].concat()).unwrap();
        assert_eq!((known.name.as_str(), known.index, known.mac), ("ens7", 7, None));
        assert_eq!((known.kind.as_deref(), known.physical, known.up), (Some("bond"), false, true));
        // One that says it is longer than the message: what came before it counts.
        let cut = link(&[&name[..], &[200, 0, 1, 0, 1]].concat()).unwrap();
        assert_eq!((cut.name.as_str(), cut.physical), ("ens7", true));
        assert_eq!(Message { kind: libc::RTM_NEWLINK, body: vec![0; 7] }.interface(), None);
        assert_eq!(Message { kind: libc::RTM_NEWADDR, body: vec![0; 7] }.address(), None);
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        in_namespace(|| {
            let error = Netlink::connect().unwrap().set_down(4242).unwrap_err();
            assert!(matches!(error, NetlinkError::Refused(..)), "{error:?}");
        });
    }
}
