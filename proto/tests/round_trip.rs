//! What is made is received as it was made, wherever the stream is cut; and no bytes, however made, do harm.

use proptest::{
    array::{uniform3, uniform6, uniform16, uniform32},
    collection::vec,
    prelude::*,
};
use ramet_proto::{
    BootId, Evidence, GuestMessage, HostMessage, Hostname, MacAddr, MachineId, Secret, Sid, SshPublicKey,
    domain::{DomainAccount, DomainEvidence, DomainIdentity, JoinCheck, JoinEvidence, NetbiosName, Realm},
    frame::{self, HEADER, MAX_BODY},
    identity::{InstanceId, uuid_v4},
    login::{AuthorizedKey, UserKeys, UserName},
    message::{
        Failure, GuestState, Identity, NicEvidence, NicIdentity, RandomSample, Reason, Step, UniqueValue,
    },
    network::{DomainName, InterfaceAddress, IpConfig, UnicastIp},
    text::Text,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, fmt::Display, str::FromStr};

const LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,12}[A-Za-z0-9])?";

fn hostname() -> impl Strategy<Value = Hostname> {
    // The last label starts with a letter: all digits would look like an IPv4 address.
    (vec(LABEL, 0..4), "[A-Za-z]([A-Za-z0-9-]{0,12}[A-Za-z0-9])?").prop_map(|(mut labels, last)| {
        labels.push(last);
        labels.join(".").parse().unwrap()
    })
}

fn mac() -> impl Strategy<Value = MacAddr> {
    uniform6(any::<u8>()).prop_filter_map("multicast or zero", |mut octets| {
        octets[0] &= !1;
        MacAddr::new(octets).ok()
    })
}

fn machine_id() -> impl Strategy<Value = MachineId> {
    "[0-9a-f]{31}[1-9a-f]".prop_map(|text| text.parse().unwrap())
}

fn sid() -> impl Strategy<Value = Sid> {
    let any_sid = (0_u64..1 << 48, vec(any::<u32>(), 1..=15)).prop_map(|(authority, parts)| {
        let authority = match u32::try_from(authority) {
            Ok(small) => small.to_string(),
            Err(_) => format!("0x{authority:012x}"),
        };
        let parts: Vec<_> = parts.iter().map(ToString::to_string).collect();
        format!("S-1-{authority}-{}", parts.join("-")).parse().unwrap()
    });
    prop_oneof![uniform3(any::<u32>()).prop_map(Sid::machine), any_sid]
}

fn instance_id() -> impl Strategy<Value = InstanceId> {
    "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
        .prop_map(|text| serde_json::from_value(serde_json::Value::String(text)).unwrap())
}

fn ssh_public_key() -> impl Strategy<Value = SshPublicKey> {
    "[a-z][a-z0-9@.-]{0,30} [A-Za-z0-9+/]{1,400}={0,2}".prop_map(|text| text.parse().unwrap())
}

fn boot_id() -> impl Strategy<Value = BootId> {
    uniform16(any::<u8>()).prop_map(|bytes| uuid_v4(bytes).parse().unwrap())
}

fn unicast_ip() -> impl Strategy<Value = UnicastIp> {
    any::<std::net::IpAddr>().prop_filter_map("not unicast", |ip| ip.to_string().parse().ok())
}

fn interface_address() -> impl Strategy<Value = InterfaceAddress> {
    (unicast_ip(), 1_u8..=128).prop_map(|(ip, prefix)| {
        let most = if ip.get().is_ipv4() { 32 } else { 128 };
        format!("{ip}/{}", prefix.min(most)).parse().unwrap()
    })
}

fn domain_name() -> impl Strategy<Value = DomainName> {
    vec(LABEL, 1..8).prop_map(|labels| labels.join(".").parse().unwrap())
}

fn ip_config() -> impl Strategy<Value = IpConfig> {
    let lists = (
        vec(interface_address(), 1..4),
        vec(unicast_ip(), 0..3),
        vec(unicast_ip(), 0..3),
        vec(domain_name(), 0..3),
    );
    lists.prop_filter_map("an address twice", |(addresses, gateways, dns, search)| {
        Some(IpConfig { addresses: addresses.try_into().ok()?, gateways, dns, search })
    })
}

fn user_name() -> impl Strategy<Value = UserName> {
    "[A-Za-z_][A-Za-z0-9._-]{0,31}".prop_map(|text| text.parse().unwrap())
}

fn authorized_key() -> impl Strategy<Value = AuthorizedKey> {
    r"(ssh-rsa|sk-ssh-ed25519@openssh\.com) AAAA[A-Za-z0-9+/]{0,300}={0,2}( [a-z@é]{1,10}){0,3}"
        .prop_map(|text| text.parse().unwrap())
}

fn realm() -> impl Strategy<Value = Realm> {
    domain_name().prop_map(|domain| Realm::try_from(&domain).unwrap())
}

fn netbios_name() -> impl Strategy<Value = NetbiosName> {
    "[A-Za-z]([A-Za-z0-9-]{0,13}[A-Za-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn domain_identity() -> impl Strategy<Value = DomainIdentity> {
    let account =
        (realm(), netbios_name(), netbios_name(), sid(), any::<u32>(), domain_name(), any::<bool>())
            .prop_map(|(realm, workgroup, name, sid, kvno, dc, persistent)| DomainAccount {
                realm,
                workgroup,
                name,
                sid,
                kvno,
                dc,
                persistent,
            });
    (account, vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..300)).prop_map(|(account, keytab, join)| {
        DomainIdentity { account, keytab: Secret::new(keytab), join: Secret::new(join) }
    })
}

fn text() -> impl Strategy<Value = Text> {
    any::<String>().prop_map(|text| Text::new(&text))
}

fn identity() -> impl Strategy<Value = Identity> {
    let nic = (mac(), mac(), proptest::option::of(ip_config())).prop_map(|(parent, mac, ip)| NicIdentity {
        parent,
        mac,
        ip,
    });
    let user_keys =
        (user_name(), vec(authorized_key(), 0..3)).prop_map(|(user, keys)| UserKeys { user, keys });
    (
        instance_id(),
        hostname(),
        machine_id(),
        vec(nic, 0..4),
        proptest::option::of(sid()),
        proptest::option::of(domain_identity()),
        vec(user_keys, 0..3),
        vec(any::<u8>(), 0..600),
        any::<i64>(),
    )
        .prop_map(
            |(
                instance_id,
                hostname,
                machine_id,
                nics,
                machine_sid,
                domain,
                authorized_keys,
                entropy,
                unix_time_ns,
            )| Identity {
                instance_id,
                hostname,
                machine_id,
                nics,
                machine_sid,
                domain,
                authorized_keys,
                entropy: Secret::new(entropy),
                unix_time_ns,
            },
        )
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let nic = (text(), mac(), any::<bool>(), vec(any::<std::net::IpAddr>(), 0..4))
        .prop_map(|(name, mac, up, addresses)| NicEvidence { name, mac, up, addresses });
    let domain = (text(), any::<u32>()).prop_map(|(principal, kvno)| DomainEvidence { principal, kvno });
    let unique = (text(), text()).prop_map(|(name, value)| UniqueValue { name, value });
    (
        instance_id(),
        hostname(),
        machine_id(),
        proptest::option::of(boot_id()),
        vec(nic, 0..4),
        vec(ssh_public_key(), 0..4),
        uniform32(any::<u8>()),
        any::<i64>(),
        any::<u32>(),
        proptest::option::of(sid()),
        proptest::option::of(domain),
        (vec(unique, 0..4), proptest::sample::subsequence(Step::ALL, 0..=Step::ALL.len())),
    )
        .prop_map(
            |(
                instance_id,
                hostname,
                machine_id,
                boot_id,
                nics,
                ssh_host_keys,
                sample,
                unix_time_ns,
                cid,
                machine_sid,
                domain,
                (unique, steps),
            )| Evidence {
                instance_id,
                hostname,
                machine_id,
                boot_id,
                nics,
                ssh_host_keys,
                random_sample: RandomSample(sample),
                unix_time_ns,
                cid,
                machine_sid,
                domain,
                unique,
                steps,
            },
        )
}

fn host_message() -> impl Strategy<Value = HostMessage> {
    prop_oneof![
        vec(any::<u16>(), 0..20).prop_map(|versions| HostMessage::Hello { versions }),
        Just(HostMessage::Prepare),
        identity().prop_map(|identity| HostMessage::Identify(Box::new(identity))),
        Just(HostMessage::Open),
        Just(HostMessage::Observe),
        Just(HostMessage::Join),
    ]
}

fn guest_message() -> impl Strategy<Value = GuestMessage> {
    let state = prop_oneof![
        Just(GuestState::Held),
        instance_id().prop_map(|instance_id| GuestState::Open { instance_id }),
        instance_id().prop_map(|instance_id| GuestState::Ready { instance_id }),
    ];
    let failure =
        (proptest::sample::select(Step::ALL), proptest::sample::select(Reason::ALL), any::<bool>(), text())
            .prop_map(|(step, reason, retryable, detail)| Failure { step, reason, retryable, detail });
    let check = (text(), text(), any::<u64>()).prop_map(|(command, printed, after_ms)| JoinCheck {
        command,
        printed,
        after_ms,
    });
    prop_oneof![
        (any::<u16>(), text(), state, any::<u32>(), vec(text(), 0..4)).prop_map(
            |(version, agent, state, cid, features)| GuestMessage::Hello {
                version,
                agent,
                state,
                cid,
                features
            }
        ),
        Just(GuestMessage::Prepared { findings: Vec::new() }),
        evidence().prop_map(|evidence| GuestMessage::Applied(Box::new(evidence))),
        Just(GuestMessage::Ready),
        evidence().prop_map(|evidence| GuestMessage::Observed(Box::new(evidence))),
        vec(check, 0..4).prop_map(|checks| GuestMessage::Joined(Box::new(JoinEvidence { checks }))),
        failure.prop_map(GuestMessage::Failed),
    ]
}

/// `value` survives its text and its JSON, which are the same text.
fn assert_text_form<T>(value: &T)
where
    T: FromStr<Err: Debug> + Display + Serialize + DeserializeOwned + PartialEq + Debug,
{
    let text = value.to_string();
    assert_eq!(&text.parse::<T>().unwrap(), value);
    let json = serde_json::to_value(value).unwrap();
    assert_eq!(json, serde_json::Value::String(text));
    assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value);
}

/// Whatever `text` is: a valid value or an error, the same by `FromStr` and by serde.
fn assert_parses_or_not<T>(text: &str)
where
    T: FromStr<Err: Display> + Display + Serialize + DeserializeOwned + PartialEq + Debug,
    T::Err: Debug,
{
    let by_serde = serde_json::from_value::<T>(serde_json::Value::String(text.to_owned()));
    match text.parse::<T>() {
        Ok(value) => {
            assert_text_form(&value);
            assert_eq!(by_serde.unwrap(), value);
        }
        Err(error) => {
            // 80 characters of at most 10 bytes when escaped, and the words around them.
            assert!(error.to_string().len() < 1000, "{error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
            assert!(by_serde.is_err());
        }
    }
}

/// Every proper beginning of `message`'s frame is incomplete, and the whole of it is `message`.
fn assert_every_cut<M>(message: &M)
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = frame::encode(message).unwrap();
    for end in 0..bytes.len() {
        assert!(frame::decode::<M>(&bytes[..end]).unwrap().is_none(), "{end} of {} bytes", bytes.len());
    }
    let (decoded, taken) = frame::decode::<M>(&bytes).unwrap().unwrap();
    assert_eq!((&decoded, taken), (message, bytes.len()));
}

/// `bytes` are a message, a beginning or an error. A message stays within bounds and says the same when sent again.
fn assert_harmless<M>(bytes: &[u8])
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    match frame::decode::<M>(bytes) {
        Ok(Some((message, taken))) => {
            assert!(taken <= bytes.len() && (HEADER + 1..=HEADER + MAX_BODY).contains(&taken));
            let again = serde_json::to_vec(&message).unwrap();
            assert_eq!(frame::decode_body::<M>(&again).unwrap(), message);
        }
        Ok(None) => assert!(bytes.len() < HEADER + MAX_BODY),
        Err(error) => assert!(!format!("{error}: {:?}", std::error::Error::source(&error)).is_empty()),
    }
}

/// What the fuzzer found worth keeping, as a frame and as a body.
#[test]
fn the_fuzz_corpus_is_harmless() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/frame");
    let inputs =
        std::fs::read_dir(corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let mut count = 0;
    for input in inputs {
        let len = u32::try_from(input.len()).unwrap();
        for bytes in [&input, &[&len.to_be_bytes(), &*input].concat()] {
            assert_harmless::<HostMessage>(bytes);
            assert_harmless::<GuestMessage>(bytes);
        }
        count += 1;
    }
    assert!(count > 10, "{count} inputs in {corpus}");
}

/// Texts that are almost what an identity type takes, and others.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r"[\PC\n\x1b]{0,100}",
        "[A-Za-z0-9.é-]{0,70}",
        r"([0-9]{1,3}\.){3}[0-9]{1,3}",
        "([0-9a-fA-F+]{2}[:-]?){5,7}",
        "[0-9a-fA-F+]{30,34}",
        "0{31}[0-9a-g]{1}",
        "[sS]-[12]-(0[xX][0-9a-fA-F+]{11,13}|[0-9+]{1,11})(-[0-9+]{0,11}){0,17}",
        r"[a-z0-9@.,-]{0,20}[ \n\t]{0,2}[A-Za-z0-9+/=\x1b]{0,100}( [a-z@]{1,10})?\n?",
        r"(([0-9]{1,3}\.){3}[0-9]{1,3}|[0-9a-f:.]{2,20})/[+0-9]{0,4}",
        "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "[A-Za-z0-9$-]{1,17}",
        "[A-Z0-9-]{1,8}(\\.[A-Za-z0-9-]{1,8}){0,3}",
        r"(ssh-ed25519|ssh-x) (AAAA)?[A-Za-z0-9+/=\x1b]{0,50}( [a-z\n]{0,5})?",
        Just("ssh-rsa ".to_owned() + &"A".repeat(5000)),
    ]
}

proptest! {
    #[test]
    fn identity_types(host in hostname(), mac in mac(), id in machine_id(), sid in sid(), key in ssh_public_key()) {
        assert_text_form(&host);
        assert_text_form(&mac);
        assert_text_form(&id);
        assert_text_form(&sid);
        assert_text_form(&key);
        prop_assert_eq!(MacAddr::new(mac.octets()), Ok(mac));
    }

    #[test]
    fn identity_types_of_network_and_login(
        boot in boot_id(), address in interface_address(), ip in unicast_ip(), domain in domain_name(),
        user in user_name(), key in authorized_key(), realm in realm(), name in netbios_name(),
    ) {
        assert_text_form(&boot);
        assert_text_form(&address);
        assert_text_form(&ip);
        assert_text_form(&domain);
        assert_text_form(&user);
        assert_text_form(&key);
        assert_text_form(&realm);
        assert_text_form(&name);
    }

    #[test]
    fn instance_ids(id in instance_id()) {
        prop_assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
    }

    #[test]
    fn any_text_is_an_identity_or_an_error(text in any_text()) {
        assert_parses_or_not::<Hostname>(&text);
        assert_parses_or_not::<MacAddr>(&text);
        assert_parses_or_not::<MachineId>(&text);
        assert_parses_or_not::<Sid>(&text);
        assert_parses_or_not::<SshPublicKey>(&text);
        assert_parses_or_not::<BootId>(&text);
        assert_parses_or_not::<InterfaceAddress>(&text);
        assert_parses_or_not::<UnicastIp>(&text);
        assert_parses_or_not::<DomainName>(&text);
        assert_parses_or_not::<UserName>(&text);
        assert_parses_or_not::<AuthorizedKey>(&text);
        assert_parses_or_not::<Realm>(&text);
        assert_parses_or_not::<NetbiosName>(&text);
        let json = serde_json::Value::String(text);
        let _ = serde_json::from_value::<InstanceId>(json.clone());
        let _ = serde_json::from_value::<RandomSample>(json.clone());
        let _ = serde_json::from_value::<Secret>(json);
    }

    #[test]
    fn what_parses_is_within_its_limits(text in any_text()) {
        if let Ok(host) = text.parse::<Hostname>() {
            prop_assert!((1..=Hostname::MAX).contains(&host.as_str().len()) && host.as_str().is_ascii());
            prop_assert!(text.parse::<std::net::IpAddr>().is_err());
        }
        if let Ok(mac) = text.parse::<MacAddr>() {
            prop_assert!(mac.octets()[0] & 1 == 0 && mac.octets() != [0; 6]);
        }
        if let Ok(key) = text.parse::<SshPublicKey>() {
            prop_assert!(!key.to_string().contains(char::is_control));
        }
        if let Ok(key) = text.parse::<AuthorizedKey>() {
            prop_assert!(!key.to_string().contains(char::is_control));
        }
        if let Ok(user) = text.parse::<UserName>() {
            prop_assert!(!user.as_str().contains(['/', ':', '\n']) && !user.as_str().starts_with('.'));
        }
        if let Ok(name) = text.parse::<NetbiosName>() {
            prop_assert!((1..=NetbiosName::MAX).contains(&name.as_str().len()) && name.as_str().is_ascii());
        }
        if text.parse::<Sid>().is_ok() {
            prop_assert!(!text.contains('+'));
        }
    }

    #[test]
    fn text_is_safe_and_stays_as_it_is(text in any::<String>(), long in r"[\PC\r]{500,600}") {
        for text in [text, long] {
            let safe = Text::new(&text);
            prop_assert!(safe.as_str().len() <= Text::MAX && !safe.as_str().contains(char::is_control));
            prop_assert_eq!(&Text::new(safe.as_str()), &safe);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), safe);
        }
    }

    #[test]
    fn host_messages_cut_anywhere(message in host_message()) {
        assert_every_cut(&message);
    }

    #[test]
    fn a_stream_of_messages_in_pieces(messages in vec(guest_message(), 0..6), size in 1_usize..200) {
        let stream: Vec<u8> = messages.iter().flat_map(|message| frame::encode(message).unwrap()).collect();
        let (mut buffer, mut received) = (Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some((message, taken)) = frame::decode::<GuestMessage>(&buffer).unwrap() {
                received.push(message);
                buffer.drain(..taken);
            }
        }
        prop_assert_eq!(received, messages);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn a_header_never_asks_for_more_than_the_cap(header in any::<[u8; HEADER]>()) {
        match frame::body_len(header) {
            Ok(len) => prop_assert!((1..=MAX_BODY).contains(&len)),
            Err(_) => prop_assert!(header[..2] != [0, 0] || header == [0; HEADER]),
        }
    }

    #[test]
    fn any_bytes_are_harmless(mut bytes in vec(any::<u8>(), 0..300), framed in any::<bool>()) {
        if framed && bytes.len() > HEADER {
            let len = u32::try_from(bytes.len() - HEADER).unwrap();
            bytes[..HEADER].copy_from_slice(&len.to_be_bytes());
        }
        assert_harmless::<HostMessage>(&bytes);
        assert_harmless::<GuestMessage>(&bytes);
    }

    #[test]
    fn a_message_gone_bad_is_harmless(
        host in host_message(),
        guest in guest_message(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        keep_header in any::<bool>(),
    ) {
        for mut bytes in [frame::encode(&host).unwrap(), frame::encode(&guest).unwrap()] {
            for (place, byte) in &damage {
                let start = if keep_header { HEADER } else { 0 };
                let place = start + place.index(bytes.len() - start);
                bytes[place] = *byte;
            }
            assert_harmless::<HostMessage>(&bytes);
            assert_harmless::<GuestMessage>(&bytes);
        }
    }
}

proptest! {
    // A case cuts a message of some thousand bytes at each.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn guest_messages_cut_anywhere(message in guest_message()) {
        assert_every_cut(&message);
    }
}
