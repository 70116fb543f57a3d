//! The wire format, byte for byte. A test that fails here says that agents already baked into images no longer
//! understand this build: docs/protocol.md, "Versions", says what may change and how.

use ramet_proto::{
    Evidence, GuestMessage, HostMessage, Secret,
    domain::{DomainAccount, DomainEvidence, DomainIdentity, JoinCheck, JoinEvidence},
    frame,
    identity::InstanceId,
    login::UserKeys,
    message::{
        Failure, Finding, Grade, GuestState, Identity, NicEvidence, NicIdentity, RandomSample, Reason, Step,
        UniqueValue,
    },
    network::IpConfig,
    text::Text,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, fmt::Debug};

/// `message` is sent as `len` in four bytes, the highest first, and then `body`; and what was sent is received.
fn assert_golden<M>(message: &M, len: u32, body: &str)
where
    M: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let golden = [&len.to_be_bytes(), body.as_bytes()].concat();
    let encoded = frame::encode(message).unwrap();
    assert_eq!(String::from_utf8_lossy(&encoded[frame::HEADER..]), body);
    assert_eq!(encoded, golden, "{message:?}");
    let decoded: (M, usize) = frame::decode(&golden).unwrap().unwrap();
    assert_eq!((&decoded.0, decoded.1), (message, golden.len()));
}

fn instance_id() -> InstanceId {
    serde_json::from_str(r#""6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f""#).unwrap()
}

fn identity() -> Identity {
    Identity {
        instance_id: instance_id(),
        hostname: "web-1.example.org".parse().unwrap(),
        machine_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        nics: vec![NicIdentity {
            parent: "52:54:00:00:00:01".parse().unwrap(),
            mac: "52:54:00:ab:cd:ef".parse().unwrap(),
            ip: None,
        }],
        machine_sid: Some("S-1-5-21-1-22-4294967295".parse().unwrap()),
        domain: None,
        authorized_keys: vec![],
        entropy: Secret::new(vec![0x00, 0x7f, 0xff]),
        unix_time_ns: 1_700_000_000_123_456_789,
    }
}

fn evidence() -> Evidence {
    Evidence {
        instance_id: instance_id(),
        hostname: "web-1.example.org".parse().unwrap(),
        machine_id: "0123456789abcdef0123456789abcdef".parse().unwrap(),
        boot_id: Some("d9aa0fd3-dbbb-4b43-9b8d-8e5a5b5b5b5b".parse().unwrap()),
        nics: vec![
            NicEvidence {
                name: Text::new("lo"),
                mac: "52:54:00:00:00:01".parse().unwrap(),
                up: false,
                addresses: vec![],
            },
            NicEvidence {
                name: Text::new("ens3"),
                mac: "52:54:00:ab:cd:ef".parse().unwrap(),
                up: true,
                addresses: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
            },
        ],
        ssh_host_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".parse().unwrap()],
        random_sample: RandomSample(std::array::from_fn(|i| u8::try_from(i).unwrap())),
        unix_time_ns: -1,
        cid: 4_294_967_294,
        machine_sid: Some("S-1-5-21-1-22-4294967295".parse().unwrap()),
        domain: None,
        unique: vec![UniqueValue { name: Text::new("nvme_hostid"), value: Text::new("7") }],
        steps: vec![],
    }
}

fn domain() -> DomainIdentity {
    DomainIdentity {
        account: DomainAccount {
            realm: "AD.EXAMPLE.ORG".parse().unwrap(),
            workgroup: "EXAMPLE".parse().unwrap(),
            name: "WEB-1".parse().unwrap(),
            sid: "S-1-5-21-1-2-3-1104".parse().unwrap(),
            kvno: 2,
            dc: "dc1.ad.example.org".parse().unwrap(),
            persistent: true,
        },
        keytab: Secret::new(vec![5, 2]),
        join: Secret::new(vec![0xff, 0xfe]),
    }
}

/// What an agent reports that has none of what may be left out.
fn sparse_evidence() -> Evidence {
    Evidence { boot_id: None, nics: vec![], machine_sid: None, unique: vec![], ..evidence() }
}

const EVIDENCE: &str = concat!(
    r#""instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","hostname":"web-1.example.org","#,
    r#""machine_id":"0123456789abcdef0123456789abcdef","boot_id":"d9aa0fd3-dbbb-4b43-9b8d-8e5a5b5b5b5b","#,
    r#""nics":[{"name":"lo","mac":"52:54:00:00:00:01","up":false},"#,
    r#"{"name":"ens3","mac":"52:54:00:ab:cd:ef","up":true,"addresses":["192.0.2.7","2001:db8::7"]}],"#,
    r#""ssh_host_keys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"],"#,
    r#""random_sample":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","#,
    r#""unix_time_ns":-1,"cid":4294967294,"machine_sid":"S-1-5-21-1-22-4294967295","#,
    r#""unique":[{"name":"nvme_hostid","value":"7"}]}"#,
);

const SPARSE_EVIDENCE: &str = concat!(
    r#"{"type":"observed","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","#,
    r#""hostname":"web-1.example.org","machine_id":"0123456789abcdef0123456789abcdef","nics":[],"#,
    r#""ssh_host_keys":["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5"],"#,
    r#""random_sample":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f","#,
    r#""unix_time_ns":-1,"cid":4294967294}"#,
);

/// Each message the host can send. A new variant does not compile until it is here, and fails until it has bytes.
fn host_variant(message: &HostMessage) -> usize {
    match message {
        HostMessage::Hello { .. } => 0,
        HostMessage::Prepare => 1,
        HostMessage::Identify(_) => 2,
        HostMessage::Open => 3,
        HostMessage::Observe => 4,
        HostMessage::Join => 5,
    }
}

/// The same for the guest; each state counts.
fn guest_variant(message: &GuestMessage) -> usize {
    match message {
        GuestMessage::Hello { state: GuestState::Held, .. } => 0,
        GuestMessage::Hello { state: GuestState::Open { .. }, .. } => 1,
        GuestMessage::Hello { state: GuestState::Ready { .. }, .. } => 2,
        GuestMessage::Prepared { .. } => 3,
        GuestMessage::Applied(_) => 4,
        GuestMessage::Ready => 5,
        GuestMessage::Observed(_) => 6,
        GuestMessage::Failed(_) => 7,
        GuestMessage::Joined(_) => 8,
    }
}

#[test]
fn every_host_message() {
    let identity_json = concat!(
        r#"{"type":"identify","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","#,
        r#""hostname":"web-1.example.org","machine_id":"0123456789abcdef0123456789abcdef","#,
        r#""nics":[{"parent":"52:54:00:00:00:01","mac":"52:54:00:ab:cd:ef"}],"#,
        r#""machine_sid":"S-1-5-21-1-22-4294967295","entropy":"007fff","unix_time_ns":1700000000123456789}"#,
    );
    let without_sid = concat!(
        r#"{"type":"identify","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","#,
        r#""hostname":"web-1.example.org","machine_id":"0123456789abcdef0123456789abcdef","#,
        r#""nics":[],"entropy":"007fff","unix_time_ns":1700000000123456789}"#,
    );
    let all_json = concat!(
        r#"{"type":"identify","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","#,
        r#""hostname":"web-1.example.org","machine_id":"0123456789abcdef0123456789abcdef","#,
        r#""nics":[{"parent":"52:54:00:00:00:01","mac":"52:54:00:ab:cd:ef","#,
        r#""ip":{"addresses":["192.0.2.7/24","2001:db8::7/64"],"gateways":["192.0.2.1"],"#,
        r#""dns":["192.0.2.53"],"search":["example.org"]}}],"#,
        r#""machine_sid":"S-1-5-21-1-22-4294967295","#,
        r#""authorized_keys":[{"user":"root","keys":["ssh-ed25519 AAAAC3Nz jane"]}],"#,
        r#""entropy":"007fff","unix_time_ns":1700000000123456789}"#,
    );
    let member_json = concat!(
        r#"{"type":"identify","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","#,
        r#""hostname":"web-1.example.org","machine_id":"0123456789abcdef0123456789abcdef","nics":[],"#,
        r#""domain":{"account":{"realm":"AD.EXAMPLE.ORG","workgroup":"EXAMPLE","name":"WEB-1","#,
        r#""sid":"S-1-5-21-1-2-3-1104","kvno":2,"dc":"dc1.ad.example.org","persistent":true},"#,
        r#""keytab":"0502","join":"fffe"},"entropy":"007fff","unix_time_ns":1700000000123456789}"#,
    );
    let member = Identity { nics: vec![], machine_sid: None, domain: Some(domain()), ..identity() };
    let ip = IpConfig {
        addresses: vec!["192.0.2.7/24".parse().unwrap(), "2001:db8::7/64".parse().unwrap()]
            .try_into()
            .unwrap(),
        gateways: vec!["192.0.2.1".parse().unwrap()],
        dns: vec!["192.0.2.53".parse().unwrap()],
        search: vec!["example.org".parse().unwrap()],
    };
    let keys =
        UserKeys { user: "root".parse().unwrap(), keys: vec!["ssh-ed25519 AAAAC3Nz jane".parse().unwrap()] };
    let mut all = Identity { authorized_keys: vec![keys], ..identity() };
    all.nics[0].ip = Some(ip);
    let cases = [
        (HostMessage::Identify(Box::new(all)), 509, all_json),
        (HostMessage::Hello { versions: vec![2, 1] }, 33, r#"{"type":"hello","versions":[2,1]}"#),
        (HostMessage::Prepare, 18, r#"{"type":"prepare"}"#),
        (HostMessage::Identify(Box::new(identity())), 312, identity_json),
        (
            HostMessage::Identify(Box::new(Identity { nics: vec![], machine_sid: None, ..identity() })),
            215,
            without_sid,
        ),
        (HostMessage::Identify(Box::new(member)), 411, member_json),
        (HostMessage::Open, 15, r#"{"type":"open"}"#),
        (HostMessage::Observe, 18, r#"{"type":"observe"}"#),
        (HostMessage::Join, 15, r#"{"type":"join"}"#),
    ];
    for (message, len, body) in &cases {
        assert_golden(message, *len, body);
    }
    let covered: BTreeSet<_> = cases.iter().map(|(message, ..)| host_variant(message)).collect();
    assert_eq!(covered, (0..6).collect());
}

#[test]
fn every_guest_message() {
    let agent = || Text::new("ramet-agent 0.1.0");
    let hello =
        |state| GuestMessage::Hello { version: 1, agent: agent(), state, cid: 3, features: Vec::new() };
    let hello_2 = GuestMessage::Hello {
        version: 2,
        agent: agent(),
        state: GuestState::Held,
        cid: 3,
        features: ["findings", "steps"].map(Text::new).to_vec(),
    };
    let finding = Finding::new(Grade::Open, "sshd is let go before the gate", "order it after \"ramet\"");
    let applied_2 = Evidence { steps: vec![Step::Entropy, Step::AuthorizedKeys], ..sparse_evidence() };
    let applied_2_json = SPARSE_EVIDENCE
        .replace("observed", "applied")
        .replace("4294967294}", r#"4294967294,"steps":["entropy","authorized_keys"]}"#);
    let applied = format!(r#"{{"type":"applied",{EVIDENCE}"#);
    let observed = format!(r#"{{"type":"observed",{EVIDENCE}"#);
    let principal = Text::new("WEB-1$@AD.EXAMPLE.ORG");
    let member = Evidence { domain: Some(DomainEvidence { principal, kvno: 2 }), ..sparse_evidence() };
    let member_json = SPARSE_EVIDENCE.replace(
        r#""cid":4294967294}"#,
        r#""cid":4294967294,"domain":{"principal":"WEB-1$@AD.EXAMPLE.ORG","kvno":2}}"#,
    );
    let check = |command, printed, after_ms| JoinCheck {
        command: Text::new(command),
        printed: Text::new(printed),
        after_ms,
    };
    let joined = JoinEvidence { checks: vec![check("kinit -k", "", 7), check("wbinfo -t", "succeeded", 9)] };
    let joined_json = concat!(
        r#"{"type":"joined","checks":[{"command":"kinit -k","printed":"","after_ms":7},"#,
        r#"{"command":"wbinfo -t","printed":"succeeded","after_ms":9}]}"#,
    );
    let failure = Failure {
        step: Step::Nics,
        reason: Reason::Missing,
        retryable: false,
        detail: Text::new("no \"ens3\" here: é"),
    };
    let cases = [
        (
            hello(GuestState::Held),
            86,
            r#"{"type":"hello","version":1,"agent":"ramet-agent 0.1.0","state":{"at":"held"},"cid":3}"#,
        ),
        (
            hello(GuestState::Open { instance_id: instance_id() }),
            139,
            concat!(
                r#"{"type":"hello","version":1,"agent":"ramet-agent 0.1.0","#,
                r#""state":{"at":"open","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f"},"cid":3}"#,
            ),
        ),
        (
            hello(GuestState::Ready { instance_id: instance_id() }),
            140,
            concat!(
                r#"{"type":"hello","version":1,"agent":"ramet-agent 0.1.0","#,
                r#""state":{"at":"ready","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f"},"cid":3}"#,
            ),
        ),
        (
            hello_2,
            118,
            concat!(
                r#"{"type":"hello","version":2,"agent":"ramet-agent 0.1.0","state":{"at":"held"},"cid":3,"#,
                r#""features":["findings","steps"]}"#,
            ),
        ),
        (GuestMessage::Prepared { findings: Vec::new() }, 19, r#"{"type":"prepared"}"#),
        (
            GuestMessage::Prepared { findings: vec![finding] },
            122,
            concat!(
                r#"{"type":"prepared","findings":[{"grade":"open","what":"sshd is let go before the gate","#,
                r#""fix":"order it after \"ramet\""}]}"#,
            ),
        ),
        (GuestMessage::Applied(Box::new(applied_2)), 369, applied_2_json.as_str()),
        (GuestMessage::Applied(Box::new(evidence())), 609, applied.as_str()),
        (GuestMessage::Ready, 16, r#"{"type":"ready"}"#),
        (GuestMessage::Observed(Box::new(evidence())), 610, observed.as_str()),
        (GuestMessage::Observed(Box::new(sparse_evidence())), 332, SPARSE_EVIDENCE),
        (GuestMessage::Observed(Box::new(member)), 388, member_json.as_str()),
        (GuestMessage::Joined(Box::new(joined)), 136, joined_json),
        (
            GuestMessage::Failed(failure),
            100,
            concat!(
                r#"{"type":"failed","step":"nics","reason":"missing","retryable":false,"#,
                r#""detail":"no \"ens3\" here: é"}"#,
            ),
        ),
    ];
    for (message, len, body) in &cases {
        assert_golden(message, *len, body);
    }
    let covered: BTreeSet<_> = cases.iter().map(|(message, ..)| guest_variant(message)).collect();
    assert_eq!(covered, (0..9).collect());
}

/// The bytes of a failure with this step and reason.
fn assert_failure(step: Step, reason: Reason, [step_word, reason_word]: [&str; 2]) {
    let body = format!(
        r#"{{"type":"failed","step":"{step_word}","reason":"{reason_word}","retryable":true,"detail":""}}"#
    );
    let message = GuestMessage::Failed(Failure { step, reason, retryable: true, detail: Text::default() });
    assert_golden(&message, u32::try_from(body.len()).unwrap(), &body);
}

#[test]
fn every_step_word() {
    let words = [
        (Step::Hello, "hello"),
        (Step::Prepare, "prepare"),
        (Step::Entropy, "entropy"),
        (Step::Clock, "clock"),
        (Step::MachineId, "machine_id"),
        (Step::BootId, "boot_id"),
        (Step::Hostname, "hostname"),
        (Step::Nics, "nics"),
        (Step::Network, "network"),
        (Step::SshHostKeys, "ssh_host_keys"),
        (Step::Names, "names"),
        (Step::CloudInit, "cloud_init"),
        (Step::Domain, "domain"),
        (Step::MachineSid, "machine_sid"),
        (Step::AuthorizedKeys, "authorized_keys"),
        (Step::Manager, "manager"),
        (Step::Site, "site"),
        (Step::Record, "record"),
        (Step::Verify, "verify"),
        (Step::Open, "open"),
        (Step::Join, "join"),
    ];
    assert_eq!(words.map(|(step, _)| step), Step::ALL);
    for (step, word) in words {
        assert_eq!(step.to_string(), word);
        assert_failure(step, Reason::System, [word, "system"]);
    }
}

#[test]
fn every_reason_word() {
    let words = [
        (Reason::Version, "version"),
        (Reason::Unexpected, "unexpected"),
        (Reason::Malformed, "malformed"),
        (Reason::System, "system"),
        (Reason::Missing, "missing"),
        (Reason::Mismatch, "mismatch"),
        (Reason::Timeout, "timeout"),
        (Reason::Refused, "refused"),
    ];
    assert_eq!(words.map(|(reason, _)| reason), Reason::ALL);
    for (reason, word) in words {
        assert_eq!(reason.to_string(), word);
        assert_failure(Step::Verify, reason, ["verify", word]);
    }
}

#[test]
fn every_grade_word() {
    let words =
        [(Grade::Fatal, "fatal"), (Grade::Open, "open"), (Grade::Broken, "broken"), (Grade::Note, "note")];
    assert_eq!(words.map(|(grade, _)| grade), Grade::ALL);
    for (grade, word) in words {
        assert_eq!(grade.to_string(), word);
        assert_eq!(serde_json::to_value(grade).unwrap(), word);
    }
}

/// An identity with an object of each kind there is.
const DEEP: &str = concat!(
    r#"{"type":"identify","instance_id":"6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f","hostname":"web-1","#,
    r#""machine_id":"0123456789abcdef0123456789abcdef","nics":[{"parent":"52:54:00:00:00:01","#,
    r#""mac":"52:54:00:ab:cd:ef","ip":{"addresses":["192.0.2.7/24"]"#,
    r#"}}],"authorized_keys":[{"user":"root","keys":[]"#,
    r#"}],"domain":{"account":{"realm":"AD.EXAMPLE.ORG","workgroup":"EXAMPLE","name":"WEB-1","#,
    r#""sid":"S-1-5-21-1-2-3-1104","kvno":2,"dc":"dc1.ad.example.org""#,
    r#"},"keytab":"0502","join":"fffe"},"entropy":"00","unix_time_ns":1}"#,
);

/// An agent that ignored what it does not know would report a success that is none.
#[test]
fn a_guest_refuses_what_it_does_not_know() {
    frame::decode_body::<HostMessage>(DEEP.as_bytes()).unwrap();
    // After the value of each of these there is a place in another object.
    for place in [
        r#""hostname":"web-1""#,
        r#""mac":"52:54:00:ab:cd:ef""#,
        r#"["192.0.2.7/24"]"#,
        r#""keys":[]"#,
        r#""kvno":2"#,
        r#""keytab":"0502""#,
        r#""unix_time_ns":1"#,
    ] {
        assert!(DEEP.contains(place), "{place}");
        let newer = DEEP.replace(place, &format!(r#"{place},"colour":"red""#));
        let error = frame::decode_body::<HostMessage>(newer.as_bytes()).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.starts_with("unknown field `colour`"), "{place}: {why}");
    }
    for word in ["prepare", "open", "observe", "join"] {
        let body = |more: &str| format!(r#"{{"type":"{word}"{more}}}"#);
        frame::decode_body::<HostMessage>(body("").as_bytes()).unwrap();
        assert!(frame::decode_body::<HostMessage>(body(r#","colour":1"#).as_bytes()).is_err(), "{word}");
    }
}

#[test]
fn a_step_of_a_later_agent_is_left_out() {
    let newer = SPARSE_EVIDENCE.replace("4294967294}", r#"4294967294,"steps":["entropy","paint","nics"]}"#);
    let GuestMessage::Observed(evidence) = frame::decode_body(newer.as_bytes()).unwrap() else { panic!() };
    assert_eq!(evidence.steps, [Step::Entropy, Step::Nics]);
}

#[test]
fn a_field_of_a_later_build_is_ignored() {
    let bytes = br#"{"type":"hello","versions":[1],"colour":{"deep":[null,1.5]}}"#;
    assert_eq!(frame::decode_body::<HostMessage>(bytes).unwrap(), HostMessage::Hello { versions: vec![1] });
    let bytes = br#"{"type":"prepared","took_ms":7}"#;
    assert_eq!(
        frame::decode_body::<GuestMessage>(bytes).unwrap(),
        GuestMessage::Prepared { findings: Vec::new() }
    );
}

#[test]
fn what_is_no_message_is_refused() {
    for body in [
        "",
        "null",
        "{}",
        "\"prepare\"",
        r#"{"type":"conquer"}"#,
        r#"{"type":"Prepare"}"#,
        r#"{"type":"prepared"}"#,
        r#"{"type":"prepare"}{"type":"open"}"#,
        r#"{"type":"prepare","type":"open"}"#,
        r#"{"type":"hello"}"#,
        r#"{"type":"hello","versions":[65536]}"#,
        r#"{"type":"hello","versions":[1],"versions":[1]}"#,
    ] {
        assert!(frame::decode_body::<HostMessage>(body.as_bytes()).is_err(), "{body}");
    }
}
