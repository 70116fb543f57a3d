//! The second look: when boot is complete the child is asked once more who it is, and compared with what it was told and
//! with what it showed at its gate. What the image starts past the gate may have made it somebody else: cloud-init with a
//! seed, a unit that makes host keys, a network service that gives a NIC an address of its own.

use super::evidence::EvidenceError;
use crate::{
    agent::{Agent, AgentError},
    identity::ChildIdentity,
    patience,
};
use ramet_proto::{Evidence, MacAddr, domain::DomainEvidence, message::Failure};
use std::{fmt::Display, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};

/// How long the child may take to answer: it may be trying its domain account just then.
const ANSWER: Duration = Duration::from_secs(60);
/// How long it may answer that looking failed for now.
const FAILING: Duration = Duration::from_secs(60);
/// How long static addresses may take to be there once boot is complete: few guests' boot waits for the network, and an
/// address is tried for duplicates first (RFC 4862, RFC 5227).
const ADDRESSES: Duration = Duration::from_secs(30);
/// Between two looks, the least and the most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1000));

/// Before this in a name there is what a site's appliers have printed: the first report alone has it.
const SITE: &str = "site/";

/// Why the second look did not find who was told to be there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgainError {
    /// The child did not answer.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// It is somebody else.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// What a child has to be at the second look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// What it was told.
    pub(crate) identity: &'a ChildIdentity,
    /// What it showed at its gate.
    pub(crate) first: &'a Evidence,
    /// The template's addresses, which nobody has.
    pub(crate) parents: &'a [MacAddr],
}

/// Asks the child who it is now, for as long as what it lacks may still come. Mostly one question.
pub(crate) async fn look<S>(agent: &mut Agent<S>, expected: &Expected<'_>) -> Result<(), AgainError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = Instant::now();
    loop {
        let error: AgainError = match agent.observe(ANSWER).await {
            Ok(evidence) => match compare(expected, &evidence) {
                Ok(()) => return Ok(()),
                Err(error) => error.into(),
            },
            Err(error) => error.into(),
        };
        let patience = match &error {
            AgainError::Evidence(EvidenceError::NoAddress { .. }) => ADDRESSES,
            AgainError::Agent(AgentError::Failed(Failure { retryable: true, .. })) => FAILING,
            AgainError::Evidence(_) | AgainError::Agent(_) => return Err(error),
        };
        if start.elapsed() >= patience {
            return Err(error);
        }
        sleep(patience::pause(start, PAUSES.0, PAUSES.1)).await;
    }
}

/// Fails with the first thing that is not as it was. The clock is not compared: time services set it meanwhile.
pub(crate) fn compare(expected: &Expected<'_>, now: &Evidence) -> Result<(), EvidenceError> {
    let Expected { identity, first, parents } = *expected;
    same("instance id", Some(&first.instance_id), Some(&now.instance_id))?;
    same("hostname", Some(&first.hostname), Some(&now.hostname))?;
    same("machine id", Some(&first.machine_id), Some(&now.machine_id))?;
    same("boot id", first.boot_id.as_ref(), now.boot_id.as_ref())?;
    // Samba may make one only past the gate, and then it is the one that it was told.
    let told = now.machine_sid.as_ref().map(|_| &identity.machine_sid);
    same("machine SID", first.machine_sid.as_ref().or(told), now.machine_sid.as_ref())?;
    account(identity, first.domain.as_ref(), now.domain.as_ref())?;
    for mac in &identity.macs {
        macs(*mac, first, now)?;
    }
    if let Some(nic) = now.nics.iter().find(|nic| parents.contains(&nic.mac)) {
        return Err(EvidenceError::ParentMac { nic: nic.name.clone(), mac: nic.mac });
    }
    host_keys(first, now)?;
    for value in first.unique.iter().filter(|value| !value.name.as_str().starts_with(SITE)) {
        let mut others = now.unique.iter().filter(|other| other.name == value.name);
        if !others.clone().any(|other| other.value == value.value) {
            same(value.name.as_str(), Some(&value.value), others.next().map(|other| &other.value))?;
        }
    }
    addresses(identity, now)
}

fn same<T: PartialEq + Display>(
    item: &str,
    was: Option<&T>,
    became: Option<&T>,
) -> Result<(), EvidenceError> {
    if was == became {
        return Ok(());
    }
    let word = |value: Option<&T>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    Err(EvidenceError::Changed { item: item.to_owned(), was: word(was), became: word(became) })
}

/// The keytab's principal, and the version of its key: a member that keeps its account may have changed its password.
fn account(
    identity: &ChildIdentity,
    first: Option<&DomainEvidence>,
    now: Option<&DomainEvidence>,
) -> Result<(), EvidenceError> {
    let principal = |domain: Option<&DomainEvidence>| domain.map(|domain| domain.principal.clone());
    same("domain account", principal(first).as_ref(), principal(now).as_ref())?;
    let (Some(first), Some(now)) = (first, now) else { return Ok(()) };
    let keeps = identity.domain.as_ref().is_some_and(|account| account.persistent);
    if keeps && now.kvno > first.kvno {
        return Ok(());
    }
    same("version of the domain account's key", Some(&first.kvno), Some(&now.kvno))
}

fn macs(mac: MacAddr, first: &Evidence, now: &Evidence) -> Result<(), EvidenceError> {
    if now.nics.iter().any(|nic| nic.mac == mac) {
        return Ok(());
    }
    let name = first.nics.iter().find(|nic| nic.mac == mac).map(|nic| &nic.name);
    let became = now.nics.iter().find(|nic| Some(&nic.name) == name).map(|nic| &nic.mac);
    let item = name.map_or_else(|| "MAC address".to_owned(), |name| format!("MAC address of {name}"));
    same(&item, Some(&mac), became)
}

/// Neither another one, nor one more that nobody has been told, nor one less.
fn host_keys(first: &Evidence, now: &Evidence) -> Result<(), EvidenceError> {
    let (first, now) = (&first.ssh_host_keys, &now.ssh_host_keys);
    let gone = first.iter().find(|key| !now.contains(key));
    let new = now.iter().find(|key| !first.contains(key));
    let Some(one) = gone.or(new) else { return Ok(()) };
    let of_its_kind = |keys: &[ramet_proto::SshPublicKey], other: &[ramet_proto::SshPublicKey]| {
        let mut alike = keys.iter().filter(|key| key.algorithm() == one.algorithm() && !other.contains(key));
        alike.next().cloned()
    };
    let (was, became) = (of_its_kind(first, now), of_its_kind(now, first));
    same("SSH host key", was.as_ref(), became.as_ref())
}

/// Whether each NIC has the static addresses that it was told. It may have more. A link-local one is in no report.
fn addresses(identity: &ChildIdentity, now: &Evidence) -> Result<(), EvidenceError> {
    for (mac, ip) in identity.macs.iter().zip(&identity.ip) {
        let told = ip.iter().flat_map(|ip| ip.addresses.as_slice()).map(|address| address.ip());
        for address in told.filter(|address| !is_link_local(address)) {
            let nics = now.nics.iter().filter(|nic| nic.mac == *mac);
            if !nics.clone().any(|nic| nic.addresses.contains(&address)) {
                return Err(EvidenceError::NoAddress { address, mac: *mac });
            }
        }
    }
    Ok(())
}

fn is_link_local(address: &std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        child::record::tests::record,
        fork::ForkError,
        fork::evidence::tests::{account as domain_account, evidence, unique},
    };
    use ramet_proto::{
        GuestMessage, InstanceId, MachineId, Sid,
        domain::{DomainAccount, JoinCheck, JoinEvidence},
        frame,
        message::{GuestState, NicEvidence, Reason, Step},
        network::IpConfig,
        text::Text,
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    /// An agent that answers the question with this number, from 0 on, by these messages.
    async fn agent(
        mut answer: impl FnMut(usize) -> Vec<GuestMessage> + Send + 'static,
    ) -> Agent<DuplexStream> {
        let (host, mut guest) = duplex(1 << 20);
        let hello = GuestMessage::Hello {
            version: 2,
            agent: Text::new("test"),
            state: GuestState::Ready { instance_id: InstanceId::random() },
            cid: 7,
            features: Vec::new(),
        };
        tokio::spawn(async move {
            let mut asked = 0;
            loop {
                let mut header = [0; frame::HEADER];
                if guest.read_exact(&mut header).await.is_err() {
                    return;
                }
                let mut body = vec![0; frame::body_len(header).unwrap()];
                guest.read_exact(&mut body).await.unwrap();
                let text = String::from_utf8(body).unwrap();
                let messages = match text.as_str() {
                    r#"{"type":"observe"}"# => {
                        asked += 1;
                        answer(asked - 1)
                    }
                    r#"{"type":"join"}"# => Vec::new(),
                    _ => vec![hello.clone()],
                };
                for message in messages {
                    guest.write_all(&frame::encode(&message).unwrap()).await.unwrap();
                }
            }
        });
        Agent::greet(host).await.unwrap()
    }

    fn observed(evidence: &Evidence) -> GuestMessage {
        GuestMessage::Observed(Box::new(evidence.clone()))
    }

    fn failed(retryable: bool) -> GuestMessage {
        let failure = Failure::new(Step::Verify, Reason::System, "passdb.tdb is locked");
        GuestMessage::Failed(Failure { retryable, ..failure })
    }

    fn parent() -> MacAddr {
        "52:54:00:00:00:01".parse().unwrap()
    }

    /// A child and what it showed at its gate.
    fn child() -> (ChildIdentity, Evidence) {
        let identity = record("web-1").identity;
        let first = evidence(&identity, 1);
        (identity, first)
    }

    fn judged(identity: &ChildIdentity, first: &Evidence, now: &Evidence) -> Result<(), EvidenceError> {
        compare(&Expected { identity, first, parents: &[parent()] }, now)
    }

    fn with_address(identity: &mut ChildIdentity, now: &Evidence, address: &str) -> Evidence {
        let told = format!("{address}/24").parse().unwrap();
        let addresses = vec![told].try_into().unwrap();
        identity.ip = vec![Some(IpConfig { addresses, gateways: vec![], dns: vec![], search: vec![] })];
        let mut there = now.clone();
        there.nics[0].addresses = vec!["192.0.2.99".parse().unwrap(), address.parse().unwrap()];
        there
    }

    #[test]
    fn what_changed_between_open_and_ready_is_named_with_both_values() {
        let (identity, first) = child();
        let key = |text: &str| text.parse::<ramet_proto::SshPublicKey>().unwrap();
        let (ours, theirs) = (first.ssh_host_keys[0].clone(), key("ssh-ed25519 AAAAseed"));
        let boot = ramet_proto::identity::uuid_v4([9; 16]);
        let (mac, other): (_, MacAddr) = (identity.macs[0], "52:54:00:00:00:99".parse().unwrap());
        let mut moved = first.clone();
        moved.nics[0].mac = other;
        let sid = Sid::machine([1; 3]);
        let id = MachineId::random();
        let evidence = |change: &dyn Fn(&mut Evidence)| {
            let mut now = first.clone();
            change(&mut now);
            now
        };
        let cases = [
            (
                evidence(&|now| now.hostname = "golden".parse().unwrap()),
                "the hostname became golden; it was web-1".into(),
            ),
            (
                evidence(&|now| now.machine_id = id),
                format!("the machine id became {id}; it was {}", first.machine_id),
            ),
            (
                evidence(&|now| now.boot_id = Some(boot.parse().unwrap())),
                format!("the boot id became {boot}; it was {}", first.boot_id.unwrap()),
            ),
            (
                evidence(&|now| now.machine_sid = Some(sid.clone())),
                format!("the machine SID became {sid}; it was {}", identity.machine_sid),
            ),
            (
                evidence(&|now| now.machine_sid = None),
                format!("SID became none; it was {}", identity.machine_sid),
            ),
            (
                evidence(&|now| now.domain = Some(domain_account(1))),
                "the domain account became VDI-1$@AD.EXAMPLE.ORG; it was none".into(),
            ),
            (moved.clone(), format!("the MAC address of enp0s4 became {other}; it was {mac}")),
            (evidence(&|now| now.nics.clear()), format!("enp0s4 became none; it was {mac}")),
            (
                evidence(&|now| now.ssh_host_keys = vec![theirs.clone()]),
                format!("the SSH host key became {theirs}; it was {ours}"),
            ),
            (
                evidence(&|now| now.ssh_host_keys.push(key("ssh-rsa AAAAmore"))),
                "the SSH host key became ssh-rsa AAAAmore; it was none".into(),
            ),
            (evidence(&|now| now.ssh_host_keys.clear()), format!("host key became none; it was {ours}")),
            (
                evidence(&|now| now.unique[0] = unique("nvme_hostid", 9)),
                "the nvme_hostid became 9; it was 1".into(),
            ),
            (evidence(&|now| now.unique.clear()), "the nvme_hostid became none; it was 1".into()),
        ];
        for (now, says) in cases {
            let error = judged(&identity, &first, &now).unwrap_err().to_string();
            assert!(
                error.starts_with("between open and ready the ") && error.contains(&says),
                "{error}: {says}"
            );
        }
        let now = evidence(&|now| now.instance_id = InstanceId::random());
        assert!(judged(&identity, &first, &now).is_err());
        // Samba's own, made past the gate.
        let before = Evidence { machine_sid: None, ..first.clone() };
        judged(&identity, &before, &first).unwrap();
        assert!(judged(&identity, &before, &evidence(&|now| now.machine_sid = Some(sid.clone()))).is_err());
        // A bond made past the gate, for one.
        let bond = NicEvidence { name: Text::new("bond0"), mac: parent(), up: true, addresses: Vec::new() };
        let error = judged(&identity, &first, &evidence(&|now| now.nics.push(bond.clone()))).unwrap_err();
        assert!(
            error.to_string().contains("bond0 has the address 52:54:00:00:00:01 of the template"),
            "{error}"
        );
        let error = ForkError::from(AgainError::from(error));
        assert!(error.to_string().contains("did not stay"), "{error}");
    }

    #[test]
    fn what_changes_in_a_boot_is_no_change_of_who_it_is() {
        let (identity, first) = child();
        let mut now = Evidence { unix_time_ns: 0, ..evidence(&identity, 1) };
        now.random_sample = ramet_proto::message::RandomSample([7; 32]);
        now.nics[0].up = true;
        now.nics[0].name = Text::new("lan");
        now.nics[0].addresses = vec!["192.0.2.7".parse().unwrap()];
        let bridge = "52:54:00:00:00:77".parse().unwrap();
        now.nics.push(NicEvidence { name: Text::new("docker0"), mac: bridge, up: true, addresses: vec![] });
        now.unique = vec![unique("dhcpcd_duid", 4), unique("nvme_hostid", 1)];
        judged(&identity, &first, &now).unwrap();
    }

    #[test]
    fn only_a_member_that_keeps_its_account_changes_its_key() {
        let (mut identity, mut first) = child();
        let account: DomainAccount = serde_json::from_str(
            r#"{"realm":"AD.EXAMPLE.ORG","workgroup":"EXAMPLE","name":"VDI-1","sid":"S-1-5-21-1-2-3-1104","kvno":1,
                "dc":"dc1.ad.example.org","persistent":true}"#,
        )
        .unwrap();
        first.domain = Some(domain_account(1));
        let now = Evidence { domain: Some(domain_account(2)), ..first.clone() };
        identity.domain = Some(account.clone());
        judged(&identity, &first, &now).unwrap();
        assert!(judged(&identity, &now, &first).is_err(), "back to an older key");
        identity.domain = Some(DomainAccount { persistent: false, ..account });
        let error = judged(&identity, &first, &now).unwrap_err().to_string();
        assert!(error.contains("key became 2; it was 1"), "{error}");
    }

    #[tokio::test]
    async fn a_child_that_is_who_it_was_is_asked_once() {
        let (identity, first) = child();
        let now = first.clone();
        let mut agent = agent(move |asked| {
            assert_eq!(asked, 0);
            vec![observed(&now)]
        })
        .await;
        look(&mut agent, &Expected { identity: &identity, first: &first, parents: &[] }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_may_pass_is_asked_again_and_one_that_does_not_is_told() {
        let (identity, first) = child();
        let expected = Expected { identity: &identity, first: &first, parents: &[] };
        let now = first.clone();
        let mut passes =
            agent(move |asked| vec![if asked < 3 { failed(true) } else { observed(&now) }]).await;
        look(&mut passes, &expected).await.unwrap();
        let begin = Instant::now();
        let mut stays = agent(|_| vec![failed(true)]).await;
        let error = look(&mut stays, &expected).await.unwrap_err();
        assert!(matches!(error, AgainError::Agent(AgentError::Failed(_))), "{error}");
        assert!((FAILING..FAILING + 2 * PAUSES.1).contains(&begin.elapsed()));
        let begin = Instant::now();
        let mut at_once = agent(|_| vec![failed(false)]).await;
        assert!(look(&mut at_once, &expected).await.is_err());
        assert!(begin.elapsed() < PAUSES.0);
        let mut silent = agent(|_| Vec::new()).await;
        let error = look(&mut silent, &expected).await.unwrap_err();
        assert!(matches!(error, AgainError::Agent(AgentError::Deadline { .. })), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_static_address_may_come_a_while_later_but_has_to_come() {
        let (mut identity, first) = child();
        let there = with_address(&mut identity, &first, "192.0.2.7");
        let expected = Expected { identity: &identity, first: &first, parents: &[] };
        let (early, late) = (first.clone(), there.clone());
        let mut comes = agent(move |asked| vec![observed(if asked < 5 { &early } else { &late })]).await;
        look(&mut comes, &expected).await.unwrap();
        let begin = Instant::now();
        let early = first.clone();
        let mut never = agent(move |_| vec![observed(&early)]).await;
        let error = look(&mut never, &expected).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("{} has not got the address 192.0.2.7", identity.macs[0])),
            "{error}"
        );
        assert!((ADDRESSES..ADDRESSES + 2 * PAUSES.1).contains(&begin.elapsed()));
        // On another NIC it is not there.
        let mut elsewhere = there.clone();
        elsewhere.nics[0].mac = parent();
        elsewhere.nics.extend(first.nics.clone());
        assert!(matches!(judged(&identity, &first, &elsewhere), Err(EvidenceError::ParentMac { .. })));
        assert!(matches!(compare(&expected, &elsewhere), Err(EvidenceError::NoAddress { .. })));
        // Reports leave these out.
        with_address(&mut identity, &first, "169.254.7.7");
        judged(&identity, &first, &first).unwrap();
    }

    #[tokio::test]
    async fn the_answer_to_join_may_come_first() {
        let (identity, first) = child();
        let check = JoinCheck { command: Text::new("kinit"), printed: Text::new(""), after_ms: 0 };
        let now = first.clone();
        let mut agent = agent(move |_| {
            let joined = JoinEvidence { checks: vec![check.clone()] };
            vec![GuestMessage::Joined(Box::new(joined)), observed(&now)]
        })
        .await;
        agent.ask_to_join().await.unwrap();
        look(&mut agent, &Expected { identity: &identity, first: &first, parents: &[] }).await.unwrap();
        assert!(agent.has_joined());
    }
}
