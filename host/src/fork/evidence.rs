//! Whether a child is who it was told to be, and nobody else is: judged by what it read back from its own system.

use crate::{child::record::Record, identity::ChildIdentity, name::Name};
use ramet_proto::{Evidence, MacAddr, message::Step, text::Text};
use std::net::IpAddr;

/// How far a child's clock may be from the host's, in nanoseconds. The exchange itself is allowed for besides.
const CLOCK: i64 = 1_000_000_000;

/// What is wrong with a child's report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// It shows something else than what it was given.
    #[error("its {item} is {shown}, it was told {told}")]
    Mismatch {
        /// What.
        item: &'static str,
        /// As the child shows it.
        shown: String,
        /// As the child was told.
        told: String,
    },
    /// It does not say what every agent of this version does, so it may as well not have done all it was told.
    #[error(
        "its agent is older than this ramet, and does not tell its boot id: put the agent that came with this ramet into \
         the image and create the template again"
    )]
    OldAgent,
    /// It did less than it was told, and says so by leaving it out.
    #[error(
        "its agent did not apply all of the identity, not: {}; update ramet-agent in the image and create the template again",
        words(.0)
    )]
    NotApplied(Vec<Step>),
    /// Something in the guest has made it another one since.
    #[error("between open and ready the {item} became {became}; it was {was}")]
    Changed {
        /// What.
        item: String,
        /// As it was when the gate opened.
        was: String,
        /// As it is now.
        became: String,
    },
    /// A static address that it was told is not there.
    #[error(
        "the NIC {mac} has not got the address {address} that it was told: see what manages it in the image, and whether \
         another machine has the address"
    )]
    NoAddress {
        /// The address.
        address: IpAddr,
        /// Of which NIC.
        mac: MacAddr,
    },
    /// An interface of it has an address of the template.
    #[error("its interface {nic} has the address {mac} of the template's NIC, as every other child's would")]
    ParentMac {
        /// The interface.
        nic: Text,
        /// The address.
        mac: MacAddr,
    },
    /// It shows the same as another child.
    #[error("its {item} is the same as that of {other}")]
    Duplicate {
        /// What.
        item: String,
        /// Whose.
        other: Name,
    },
}

fn words(steps: &[Step]) -> String {
    steps.iter().map(|step| step.word()).collect::<Vec<_>>().join(", ")
}

/// Fails if the report, of an agent that speaks `version`, leaves out a step that the identity needs. Agents of version 1 do
/// not tell their steps.
pub fn check_steps(evidence: &Evidence, identity: &ChildIdentity, version: u16) -> Result<(), EvidenceError> {
    let is_missing = |step: &Step| is_needed(*step, identity) && !evidence.steps.contains(step);
    let missing: Vec<Step> = Step::ALL.iter().copied().filter(is_missing).collect();
    if version < 2 || missing.is_empty() { Ok(()) } else { Err(EvidenceError::NotApplied(missing)) }
}

/// Whether an agent has to take `step` to make a child `identity`.
fn is_needed(step: Step, identity: &ChildIdentity) -> bool {
    match step {
        Step::Entropy
        | Step::Clock
        | Step::MachineId
        | Step::BootId
        | Step::Hostname
        | Step::Nics
        | Step::Network
        | Step::SshHostKeys
        | Step::Names
        // Also of who is no member: the template's account has to go.
        | Step::Domain
        | Step::CloudInit
        | Step::Manager
        | Step::MachineSid => true,
        Step::AuthorizedKeys => !identity.authorized_keys.is_empty(),
        // What belongs to an image, and what is no part of applying an identity.
        Step::Site
        | Step::Hello
        | Step::Prepare
        | Step::Record
        | Step::Verify
        | Step::Open
        | Step::Join => false,
    }
}

/// What the child was told, and when.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Who to be.
    pub identity: &'a ChildIdentity,
    /// Its context id.
    pub cid: u32,
    /// The host's clock when it was told and when its report came, nanoseconds since 1970-01-01T00:00:00Z.
    pub exchange_ns: (i64, i64),
}

/// Compares the report with what the child was told.
pub fn check(evidence: &Evidence, told: &Told<'_>) -> Result<(), EvidenceError> {
    fn same<T: PartialEq + ToString>(item: &'static str, shown: &T, told: &T) -> Result<(), EvidenceError> {
        if shown == told {
            return Ok(());
        }
        Err(EvidenceError::Mismatch { item, shown: shown.to_string(), told: told.to_string() })
    }
    let identity = told.identity;
    same("instance id", &evidence.instance_id, &identity.instance_id)?;
    same("host name", &evidence.hostname, &identity.hostname)?;
    same("machine id", &evidence.machine_id, &identity.machine_id)?;
    if evidence.boot_id.is_none() {
        return Err(EvidenceError::OldAgent);
    }
    if let Some(sid) = &evidence.machine_sid {
        same("machine SID", sid, &identity.machine_sid)?;
    }
    // Without a domain a key that opens one may not be there either.
    let shown = evidence.domain.as_ref().map(|domain| (domain.principal.to_string(), domain.kvno));
    let account = identity.domain.as_ref().map(|account| (account.principal(), account.kvno));
    // One that has its account for good changes the password, and each change makes the version higher by one.
    let lasting = identity.domain.as_ref().is_some_and(|account| account.persistent);
    let fits = match (&shown, &account) {
        (Some(shown), Some(told)) if lasting => shown.0 == told.0 && shown.1 >= told.1,
        (Some(_) | None, _) => shown == account,
    };
    if !fits {
        let words = |account: Option<(String, u32)>| match account {
            Some((principal, kvno)) => format!("{principal} with key version {kvno}"),
            None => "none".to_owned(),
        };
        return Err(EvidenceError::Mismatch {
            item: "domain account",
            shown: words(shown),
            told: words(account),
        });
    }
    same("vsock context id", &evidence.cid, &told.cid)?;
    for mac in &identity.macs {
        if !evidence.nics.iter().any(|nic| nic.mac == *mac) {
            let macs: Vec<_> = evidence.nics.iter().map(|nic| nic.mac.to_string()).collect();
            return Err(EvidenceError::Mismatch {
                item: "MAC addresses",
                shown: macs.join(" "),
                told: mac.to_string(),
            });
        }
    }
    let (from, to) = told.exchange_ns;
    if !(from.saturating_sub(CLOCK)..=to.saturating_add(CLOCK)).contains(&evidence.unix_time_ns) {
        return Err(EvidenceError::Mismatch {
            item: "clock",
            shown: format!("{} ns", evidence.unix_time_ns),
            told: format!("{from} ns"),
        });
    }
    Ok(())
}

/// Compares the report of the child `name` with those of all others.
pub fn compare(name: &Name, evidence: &Evidence, others: &[Record]) -> Result<(), EvidenceError> {
    for other in others.iter().filter(|other| other.name != *name) {
        let Some(theirs) = &other.evidence else { continue };
        let duplicate =
            |item: &str| EvidenceError::Duplicate { item: item.into(), other: other.name.clone() };
        if theirs.hostname.same(&evidence.hostname) {
            return Err(duplicate("host name"));
        }
        if theirs.machine_id == evidence.machine_id {
            return Err(duplicate("machine id"));
        }
        if theirs.boot_id.is_some() && theirs.boot_id == evidence.boot_id {
            return Err(duplicate("boot id"));
        }
        if theirs.machine_sid.is_some() && theirs.machine_sid == evidence.machine_sid {
            return Err(duplicate("machine SID"));
        }
        let principal = |evidence: &Evidence| evidence.domain.as_ref().map(|domain| domain.principal.clone());
        if principal(theirs).is_some_and(|theirs| principal(evidence) == Some(theirs)) {
            return Err(duplicate("domain account"));
        }
        if theirs.random_sample == evidence.random_sample {
            return Err(duplicate("random sample"));
        }
        if theirs.nics.iter().any(|nic| evidence.nics.iter().any(|ours| ours.mac == nic.mac)) {
            return Err(duplicate("MAC address"));
        }
        if theirs.ssh_host_keys.iter().any(|key| evidence.ssh_host_keys.contains(key)) {
            return Err(duplicate("SSH host key"));
        }
        if let Some(same) = evidence.unique.iter().find(|one| theirs.unique.contains(one)) {
            return Err(duplicate(same.name.as_str()));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::child::record::tests::record;
    use ramet_proto::{
        MachineId,
        domain::{DomainAccount, DomainEvidence},
        identity::uuid_v4,
        message::{NicEvidence, RandomSample, UniqueValue},
        text::Text,
    };

    const NOW: i64 = 1_700_000_000_000_000_000;

    pub(crate) fn evidence(identity: &ChildIdentity, seed: u8) -> Evidence {
        let nic = |mac: &ramet_proto::MacAddr| NicEvidence {
            name: Text::new("enp0s4"),
            mac: *mac,
            up: false,
            addresses: Vec::new(),
        };
        Evidence {
            instance_id: identity.instance_id,
            hostname: identity.hostname.clone(),
            machine_id: identity.machine_id,
            boot_id: Some(uuid_v4([seed; 16]).parse().unwrap()),
            nics: identity.macs.iter().map(nic).collect(),
            ssh_host_keys: vec![format!("ssh-ed25519 AAAA{seed}").parse().unwrap()],
            random_sample: RandomSample([seed; 32]),
            unix_time_ns: NOW,
            cid: 7,
            machine_sid: Some(identity.machine_sid.clone()),
            domain: identity.domain.as_ref().map(|account| DomainEvidence {
                principal: Text::new(&account.principal()),
                kvno: account.kvno,
            }),
            unique: vec![unique("nvme_hostid", seed), unique("site/10-salt/minion_id", seed)],
            steps: Vec::new(),
        }
    }

    pub(crate) fn account(kvno: u32) -> DomainEvidence {
        DomainEvidence { principal: Text::new("VDI-1$@AD.EXAMPLE.ORG"), kvno }
    }

    pub(crate) fn unique(name: &str, value: u8) -> UniqueValue {
        UniqueValue { name: Text::new(name), value: Text::new(&value.to_string()) }
    }

    #[test]
    fn a_report_that_is_right() {
        let record = record("web-1");
        let told = Told { identity: &record.identity, cid: 7, exchange_ns: (NOW, NOW) };
        check(&evidence(&record.identity, 1), &told).unwrap();
    }

    #[test]
    fn every_item_of_a_report_is_checked() {
        let record = record("web-1");
        let identity = &record.identity;
        let told = Told { identity, cid: 7, exchange_ns: (NOW, NOW) };
        let right = evidence(identity, 1);
        let late = NOW + 2 * CLOCK;
        let wrong = [
            ("instance id", Evidence { instance_id: ramet_proto::InstanceId::random(), ..right.clone() }),
            ("host name", Evidence { hostname: "parent".parse().unwrap(), ..right.clone() }),
            ("machine id", Evidence { machine_id: MachineId::random(), ..right.clone() }),
            (
                "machine SID",
                Evidence { machine_sid: Some(ramet_proto::Sid::machine([1; 3])), ..right.clone() },
            ),
            ("domain account", Evidence { domain: Some(account(1)), ..right.clone() }),
            ("vsock context id", Evidence { cid: 8, ..right.clone() }),
            ("MAC addresses", Evidence { nics: Vec::new(), ..right.clone() }),
            ("clock", Evidence { unix_time_ns: late, ..right.clone() }),
            ("clock", Evidence { unix_time_ns: i64::MIN, ..right.clone() }),
        ];
        for (item, wrong) in wrong {
            match check(&wrong, &told) {
                Err(EvidenceError::Mismatch { item: found, .. }) => assert_eq!(found, item),
                other => panic!("{item}: {other:?}"),
            }
        }
        let old = Evidence { boot_id: None, ..right.clone() };
        assert_eq!(check(&old, &told), Err(EvidenceError::OldAgent));
        check(&Evidence { machine_sid: None, unique: Vec::new(), ..right }, &told).unwrap();
    }

    #[test]
    fn an_agent_that_applied_less_than_it_was_told_is_refused_by_the_steps_name() {
        let mut identity = record("web-1").identity;
        let missing = |identity: &ChildIdentity, steps: &[Step], version| {
            let evidence = Evidence { steps: steps.to_vec(), ..evidence(identity, 1) };
            check_steps(&evidence, identity, version)
        };
        let without = |left_out: &[Step]| -> Vec<Step> {
            Step::ALL.iter().filter(|step| !left_out.contains(step)).copied().collect()
        };
        missing(&identity, Step::ALL, 2).unwrap();
        let keys = [Step::AuthorizedKeys, Step::Site];
        missing(&identity, &without(&keys), 2).unwrap();
        identity.authorized_keys =
            vec![ramet_proto::login::UserKeys { user: "root".parse().unwrap(), keys: Vec::new() }];
        let error = missing(&identity, &without(&keys), 2).unwrap_err();
        assert_eq!(error, EvidenceError::NotApplied(vec![Step::AuthorizedKeys]));
        assert!(error.to_string().contains("not: authorized_keys; update ramet-agent"), "{error}");
        let error = missing(&identity, &without(&[Step::Network, Step::MachineSid]), 2).unwrap_err();
        assert_eq!(error, EvidenceError::NotApplied(vec![Step::Network, Step::MachineSid]));
        assert!(missing(&identity, &[], 2).is_err(), "says nothing");
        missing(&identity, &[], 1).unwrap();
    }

    #[test]
    fn a_machine_that_keeps_its_account_may_have_changed_its_password() {
        for (persistent, told, shown, right) in [
            (false, 3, 3, true),
            (false, 3, 4, false),
            (false, 3, 2, false),
            (true, 3, 3, true),
            (true, 3, 4, true),
            (true, 3, 300, true),
            // The password of an older account of the name, or of a directory that was restored.
            (true, 3, 2, false),
        ] {
            let mut record = record("vdi-1");
            record.identity.domain = Some(DomainAccount {
                realm: "AD.EXAMPLE.ORG".parse().unwrap(),
                workgroup: "EXAMPLE".parse().unwrap(),
                name: "VDI-1".parse().unwrap(),
                sid: "S-1-5-21-1-2-3-1104".parse().unwrap(),
                kvno: told,
                dc: "dc1.ad.example.org".parse().unwrap(),
                persistent,
            });
            let identity = &record.identity;
            let told = Told { identity, cid: 7, exchange_ns: (NOW, NOW) };
            let evidence = Evidence { domain: Some(account(shown)), ..evidence(identity, 1) };
            assert_eq!(check(&evidence, &told).is_ok(), right, "{persistent} {shown}");
            // Another account's keys are never right, whatever their version.
            let other = DomainEvidence { principal: Text::new("VDI-2$@AD.EXAMPLE.ORG"), kvno: 300 };
            for domain in [Some(other), None] {
                check(&Evidence { domain, ..evidence.clone() }, &told).unwrap_err();
            }
        }
    }

    #[test]
    fn every_duplicate_is_found_and_named() {
        let ours = record("web-1");
        let mine = evidence(&ours.identity, 1);
        let mut other = record("web-2");
        let mine = Evidence { domain: Some(account(1)), ..mine };
        let theirs = evidence(&other.identity, 2);
        let alike = [
            ("host name", Evidence { hostname: mine.hostname.clone(), ..theirs.clone() }),
            ("machine id", Evidence { machine_id: mine.machine_id, ..theirs.clone() }),
            ("boot id", Evidence { boot_id: mine.boot_id, ..theirs.clone() }),
            ("machine SID", Evidence { machine_sid: mine.machine_sid.clone(), ..theirs.clone() }),
            ("nvme_hostid", Evidence { unique: vec![mine.unique[0].clone()], ..theirs.clone() }),
            ("site/10-salt/minion_id", Evidence { unique: vec![mine.unique[1].clone()], ..theirs.clone() }),
            ("domain account", Evidence { domain: Some(account(2)), ..theirs.clone() }),
            ("random sample", Evidence { random_sample: mine.random_sample, ..theirs.clone() }),
            ("MAC address", Evidence { nics: mine.nics.clone(), ..theirs.clone() }),
            ("SSH host key", Evidence { ssh_host_keys: mine.ssh_host_keys.clone(), ..theirs.clone() }),
        ];
        for (item, alike) in alike {
            other.evidence = Some(alike);
            let error = compare(&ours.name, &mine, std::slice::from_ref(&other)).unwrap_err();
            assert_eq!(error, EvidenceError::Duplicate { item: item.into(), other: other.name.clone() });
        }
        // The same value under another name says nothing, nor does what neither has.
        let elsewhere = vec![unique("iscsi_initiator", 1)];
        other.evidence = Some(Evidence { boot_id: None, machine_sid: None, unique: elsewhere, ..theirs });
        let mine = Evidence { boot_id: None, machine_sid: None, ..mine };
        compare(&ours.name, &mine, &[ours.clone(), other]).unwrap();
    }
}
