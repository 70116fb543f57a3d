//! The host's end of a conversation with a guest's agent. The host always dials; see `docs/protocol.md`.
//!
//! A guest is not trusted: every wait has a deadline, every frame a size cap, and every message is the one that is
//! due or ends the conversation.

use crate::{
    patience,
    vsock::{self, DialError},
};
use ramet_proto::{
    AGENT_PORT, Evidence, GuestMessage, HostMessage, VERSIONS,
    domain::JoinEvidence,
    frame::{self, FrameError},
    message::{Failure, Finding, GuestState, Identity, Reason, Step},
    text::Text,
};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_vsock::VsockStream;

/// How long one attempt to connect and be greeted may take. An attempt on a guest that has just resumed may be lost.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Between two attempts, the least and the most: a child answers in less than a second, and a guest that boots has no use
/// for a hundred attempts a second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// The most features of an agent that are kept.
const MAX_FEATURES: usize = 32;

/// Why a conversation with a guest's agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody answered.
    #[error("no agent answered on vsock {cid}:{AGENT_PORT} within {} s: is ramet-agent in the image, and enabled?",
            .waited.as_secs())]
    NoAnswer {
        /// The guest's context id.
        cid: u32,
        /// How long it was tried.
        waited: Duration,
        /// How the last attempt failed.
        #[source]
        last: Option<Box<AgentError>>,
    },
    /// This process may not dial guests.
    #[error(transparent)]
    SourcePort(DialError),
    /// It was there and went.
    #[error("the guest's agent hung up or cannot be reached")]
    Io(#[from] io::Error),
    /// What it sent is not a message.
    #[error("the guest's agent sent something else than a message")]
    Frame(#[from] FrameError),
    /// What it sent has no place here.
    #[error("the guest's agent sent a message out of turn: {got} instead of {due}")]
    OutOfTurn {
        /// What was due.
        due: &'static str,
        /// What came.
        got: &'static str,
    },
    /// It did not answer in time.
    #[error("the guest's agent did not send {due} within {} s", .waited.as_secs())]
    Deadline {
        /// What was due.
        due: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// It says that it failed.
    #[error("the guest's agent failed")]
    Failed(#[source] Failure),
    /// It would ignore what it does not know of the identity, and say that all is well.
    #[error(
        "the guest's agent speaks version {theirs} of the protocol, and the identity has what came with version {needed}: \
         update ramet-agent in the image and create the template again"
    )]
    TooOld {
        /// What it speaks.
        theirs: u16,
        /// What the identity takes.
        needed: u16,
    },
    /// Past its gate there is not who was let through.
    #[error("past its gate the guest is not who was let through, but {0:?}")]
    NotOpen(GuestState),
    /// It refuses what it does not know.
    #[error(
        "the guest's agent does not know all that the identity has: update ramet-agent in the image and create the template \
         again"
    )]
    NotUnderstood(#[source] Failure),
    /// Its state is not the one this conversation is for.
    #[error("the guest is not held at the gate but already {0:?}")]
    NotHeld(GuestState),
}

/// What the agent said of itself when it was greeted.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// Its version.
    pub agent: Text,
    /// The version of the protocol that is spoken with it.
    pub version: u16,
    /// What it can do besides ([`ramet_proto::FEATURES`]).
    pub features: Vec<Text>,
    /// Where the guest is.
    pub state: GuestState,
}

/// A conversation with one guest's agent.
#[derive(Debug)]
pub struct Agent<S = VsockStream> {
    stream: S,
    /// How it answered the greeting.
    pub greeting: Greeting,
    /// When it was asked to try its domain account.
    asked: Option<Instant>,
    /// Its answer to that, if it came before it was waited for.
    tried: Option<Box<Result<JoinEvidence, Failure>>>,
}

impl Agent {
    /// Dials the agent of the guest `cid` and greets it, again and again until it answers or `deadline` has passed.
    ///
    /// `alive` is asked between attempts; its error ends the attempts.
    pub async fn dial<E: From<AgentError>>(
        cid: u32,
        deadline: Duration,
        mut alive: impl FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let start = Instant::now();
        let mut last = None;
        loop {
            let end = (Instant::now() + ATTEMPT).min(start + deadline);
            match timeout_at(end, Self::attempt(cid)).await {
                Ok(Ok(agent)) => return Ok(agent),
                // Asking again does not help.
                Ok(Err(
                    error @ (AgentError::Failed(_)
                    | AgentError::Frame(_)
                    | AgentError::OutOfTurn { .. }
                    | AgentError::SourcePort(_)),
                )) => {
                    return Err(error.into());
                }
                Ok(Err(error)) => last = Some(Box::new(error)),
                Err(_elapsed) => {}
            }
            alive()?;
            if Instant::now() >= start + deadline {
                return Err(AgentError::NoAnswer { cid, waited: deadline, last }.into());
            }
            sleep(patience::pause(start, PAUSES.0, PAUSES.1)).await;
        }
    }

    async fn attempt(cid: u32) -> Result<Self, AgentError> {
        let stream = vsock::dial(cid, AGENT_PORT).await.map_err(|error| match error {
            DialError::Io(error) => AgentError::Io(error),
            error @ DialError::SourcePort(_) => AgentError::SourcePort(error),
        })?;
        Self::greet(stream).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Agent<S> {
    /// Opens the conversation.
    pub async fn greet(mut stream: S) -> Result<Self, AgentError> {
        send(&mut stream, &HostMessage::Hello { versions: VERSIONS.to_vec() }).await?;
        match receive(&mut stream).await? {
            GuestMessage::Hello { version, agent, state, cid: _, mut features }
                if VERSIONS.contains(&version) =>
            {
                features.truncate(MAX_FEATURES);
                let greeting = Greeting { agent, version, features, state };
                Ok(Self { stream, greeting, asked: None, tried: None })
            }
            other => Err(out_of_turn("hello", other)),
        }
    }

    /// Has a parent get ready to be suspended; says what the agent found in its system.
    pub async fn prepare(&mut self, wait: Duration) -> Result<Vec<Finding>, AgentError> {
        self.must_be_held()?;
        send(&mut self.stream, &HostMessage::Prepare).await?;
        match self.receive_within("prepared", wait).await? {
            GuestMessage::Prepared { findings } => Ok(findings),
            other => Err(out_of_turn("prepared", other)),
        }
    }

    /// Gives a child its identity and returns what the child then reads back from its system.
    pub async fn identify(&mut self, identity: Identity, wait: Duration) -> Result<Evidence, AgentError> {
        self.must_be_held()?;
        let (theirs, needed) = (self.greeting.version, identity.version());
        if theirs < needed {
            return Err(AgentError::TooOld { theirs, needed });
        }
        send(&mut self.stream, &HostMessage::Identify(Box::new(identity))).await?;
        match self.receive_within("applied", wait).await? {
            GuestMessage::Applied(evidence) => Ok(*evidence),
            // No step of an identity: the agent could not read the message.
            GuestMessage::Failed(
                failure @ Failure { step: Step::Prepare, reason: Reason::Malformed, .. },
            ) => Err(AgentError::NotUnderstood(failure)),
            other => Err(out_of_turn("applied", other)),
        }
    }

    /// Whether somebody else answers past the gate: who was dialled hangs up once that is open.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.greeting.state == GuestState::Held
            && self.greeting.features.iter().any(|feature| feature.as_str() == ramet_proto::OBSERVER)
    }

    /// Waits until it has hung up, after it was told to open. Until then it may say that it cannot.
    pub async fn farewell(&mut self, wait: Duration) -> Result<(), AgentError> {
        match self.receive_within("that its gate is open", wait).await {
            Err(AgentError::Io(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(other) => Err(out_of_turn("the end of the conversation", other)),
        }
    }

    /// Lets the child open its gate.
    pub async fn open(&mut self) -> Result<(), AgentError> {
        send(&mut self.stream, &HostMessage::Open).await
    }

    /// Waits until the child's boot is complete.
    pub async fn ready(&mut self, wait: Duration) -> Result<(), AgentError> {
        if matches!(self.greeting.state, GuestState::Ready { .. }) {
            return Ok(());
        }
        match self.receive_due("ready", wait).await? {
            GuestMessage::Ready => Ok(()),
            other => Err(out_of_turn("ready", other)),
        }
    }

    /// What the child reads back from its system now.
    pub async fn observe(&mut self, wait: Duration) -> Result<Evidence, AgentError> {
        send(&mut self.stream, &HostMessage::Observe).await?;
        match self.receive_due("observed", wait).await? {
            GuestMessage::Observed(evidence) => Ok(*evidence),
            other => Err(out_of_turn("observed", other)),
        }
    }

    /// Asks a member of a domain to try its account on the network, unless it was asked before; its boot goes on. Says when
    /// it was asked.
    pub async fn ask_to_join(&mut self) -> Result<Instant, AgentError> {
        if let Some(asked) = self.asked {
            return Ok(asked);
        }
        send(&mut self.stream, &HostMessage::Join).await?;
        Ok(*self.asked.insert(Instant::now()))
    }

    /// Whether a member of a domain has said already that its account works: [`Agent::join`] does not wait then.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.tried.as_ref().is_some_and(|tried| tried.is_ok())
    }

    /// Waits until a member of a domain has tried its account. Returns what it found, and how long ago its domain accepted
    /// the account, by what it says.
    pub async fn join(&mut self, wait: Duration) -> Result<(JoinEvidence, Duration), AgentError> {
        let asked = self.ask_to_join().await?;
        let tried = match self.tried.take() {
            Some(tried) => *tried,
            None => match self.receive_within("joined", wait).await? {
                GuestMessage::Joined(evidence) => Ok(*evidence),
                other => return Err(out_of_turn("joined", other)),
            },
        };
        let evidence = tried.map_err(AgentError::Failed)?;
        let first = evidence.checks.first().map(|first| Duration::from_millis(first.after_ms));
        let ago = first.map_or(Duration::ZERO, |first| asked.elapsed().saturating_sub(first));
        Ok((evidence, ago))
    }

    fn must_be_held(&self) -> Result<(), AgentError> {
        match self.greeting.state {
            GuestState::Held => Ok(()),
            state => Err(AgentError::NotHeld(state)),
        }
    }

    /// The next message but the answer to `join`, which comes when it comes, once at most, and is kept.
    async fn receive_due(&mut self, due: &'static str, wait: Duration) -> Result<GuestMessage, AgentError> {
        loop {
            let is_due = self.asked.is_some() && self.tried.is_none();
            match self.receive_within(due, wait).await? {
                GuestMessage::Joined(evidence) if is_due => self.tried = Some(Box::new(Ok(*evidence))),
                GuestMessage::Failed(failure) if is_due && failure.step == Step::Join => {
                    self.tried = Some(Box::new(Err(failure)));
                }
                other => return Ok(other),
            }
        }
    }

    async fn receive_within(
        &mut self,
        due: &'static str,
        wait: Duration,
    ) -> Result<GuestMessage, AgentError> {
        let received = timeout(wait, receive(&mut self.stream)).await;
        received.map_err(|_| AgentError::Deadline { due, waited: wait })?
    }
}

fn out_of_turn(due: &'static str, got: GuestMessage) -> AgentError {
    let got = match got {
        GuestMessage::Failed(failure) => return AgentError::Failed(failure),
        GuestMessage::Hello { .. } => "hello",
        GuestMessage::Prepared { .. } => "prepared",
        GuestMessage::Applied(_) => "applied",
        GuestMessage::Ready => "ready",
        GuestMessage::Joined(_) => "joined",
        GuestMessage::Observed(_) => "observed",
    };
    AgentError::OutOfTurn { due, got }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &HostMessage) -> Result<(), AgentError> {
    stream.write_all(&frame::encode(message)?).await?;
    Ok(stream.flush().await?)
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<GuestMessage, AgentError> {
    let mut header = [0; frame::HEADER];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; frame::body_len(header)?];
    stream.read_exact(&mut body).await?;
    Ok(frame::decode_body(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ramet_proto::{InstanceId, domain::JoinCheck};
    use tokio::io::{DuplexStream, duplex};

    fn hello(state: GuestState) -> Vec<u8> {
        let agent = Text::new("test");
        let features = vec![Text::new("steps")];
        frame::encode(&GuestMessage::Hello { version: 1, agent, state, cid: 7, features }).unwrap()
    }

    /// A guest that says `bytes`, whatever it is asked, and hangs up if `hang_up`.
    async fn guest(bytes: Vec<u8>, hang_up: bool) -> (DuplexStream, Option<DuplexStream>) {
        let (host, mut guest) = duplex(1 << 20);
        guest.write_all(&bytes).await.unwrap();
        (host, if hang_up { None } else { Some(guest) })
    }

    #[tokio::test]
    async fn a_guest_that_hangs_up_halfway() {
        let whole = hello(GuestState::Held);
        for end in 0..whole.len() {
            let (host, _guest) = guest(whole[..end].to_vec(), true).await;
            assert!(matches!(Agent::greet(host).await, Err(AgentError::Io(_))), "{end} bytes");
        }
    }

    #[tokio::test]
    async fn a_guest_that_sends_a_huge_length_or_garbage() {
        for bytes in [vec![0xff; 64], b"SSH-2.0-OpenSSH_10.0\r\n".to_vec(), vec![0, 0, 0, 2, b'{', b'}']] {
            let (host, _guest) = guest(bytes, false).await;
            assert!(matches!(Agent::greet(host).await, Err(AgentError::Frame(_))));
        }
    }

    #[tokio::test]
    async fn a_guest_out_of_turn() {
        let (host, _guest) = guest(frame::encode(&GuestMessage::Ready).unwrap(), false).await;
        let error = Agent::greet(host).await.unwrap_err();
        assert!(error.to_string().contains("ready instead of hello"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_never_answers() {
        let (host, _guest) = guest(hello(GuestState::Held), false).await;
        let mut agent = Agent::greet(host).await.unwrap();
        let error = agent.prepare(Duration::from_secs(9)).await.unwrap_err();
        assert_eq!(error.to_string(), "the guest's agent did not send prepared within 9 s");
    }

    #[tokio::test]
    async fn a_guest_past_its_gate_is_given_no_identity() {
        let instance_id = InstanceId::random();
        let (host, _guest) = guest(hello(GuestState::Open { instance_id }), false).await;
        let mut agent = Agent::greet(host).await.unwrap();
        assert!(matches!(agent.prepare(Duration::from_secs(1)).await, Err(AgentError::NotHeld(_))));
    }

    #[tokio::test]
    async fn what_an_agent_says_of_itself_is_kept_within_bounds() {
        let hello = |version, features| GuestMessage::Hello {
            version,
            agent: Text::new("test"),
            state: GuestState::Held,
            cid: 7,
            features,
        };
        let (host, _guest) = guest(frame::encode(&hello(2, vec![Text::new("x"); 999])).unwrap(), false).await;
        let greeting = Agent::greet(host).await.unwrap().greeting;
        assert_eq!((greeting.version, greeting.features.len()), (2, MAX_FEATURES));
        let (host, _guest) = guest(frame::encode(&hello(1, Vec::new())).unwrap(), false).await;
        assert_eq!(Agent::greet(host).await.unwrap().greeting.version, 1);
        let (host, _guest) = guest(frame::encode(&hello(3, Vec::new())).unwrap(), false).await;
        assert!(matches!(Agent::greet(host).await, Err(AgentError::OutOfTurn { .. })));
    }

    #[tokio::test]
    async fn a_member_may_have_joined_before_it_is_ready() {
        let instance_id = InstanceId::random();
        let open = GuestState::Open { instance_id };
        let check = |after_ms| JoinCheck { command: Text::new("kinit"), printed: Text::new(""), after_ms };
        let joined = |after_ms| {
            frame::encode(&GuestMessage::Joined(Box::new(JoinEvidence { checks: vec![check(after_ms)] })))
                .unwrap()
        };
        let refused = Failure {
            step: Step::Join,
            reason: Reason::Refused,
            retryable: false,
            detail: Text::new("Preauthentication failed"),
        };
        let failed = frame::encode(&GuestMessage::Failed(refused)).unwrap();
        let ready = frame::encode(&GuestMessage::Ready).unwrap();
        let soon = Duration::from_secs(1);
        let talk = async |said: &[&[u8]]| {
            let (host, guest) = guest([&[&hello(open)[..]], said].concat().concat(), false).await;
            (Agent::greet(host).await.unwrap(), guest)
        };

        // What it says of its clock cannot be longer ago than it was asked.
        for (said, after_ms) in [([&joined(0)[..], &ready], 0), ([&ready, &joined(u64::MAX)], u64::MAX)] {
            let (mut agent, _guest) = talk(&said).await;
            agent.ask_to_join().await.unwrap();
            agent.ready(soon).await.unwrap();
            assert_eq!(agent.has_joined(), after_ms == 0);
            let (evidence, ago) = agent.join(soon).await.unwrap();
            assert_eq!(evidence.checks[0].after_ms, after_ms);
            assert!(ago < soon);
        }
        let (mut agent, _guest) = talk(&[&failed, &ready]).await;
        agent.ask_to_join().await.unwrap();
        agent.ready(soon).await.unwrap();
        assert!(!agent.has_joined());
        assert!(matches!(agent.join(soon).await, Err(AgentError::Failed(_))));

        // Unasked, or twice, it is out of turn.
        let (mut agent, _guest) = talk(&[&joined(0), &ready]).await;
        assert!(matches!(agent.ready(soon).await, Err(AgentError::OutOfTurn { .. })));
        let (mut agent, _guest) = talk(&[&joined(0), &joined(0), &ready]).await;
        agent.ask_to_join().await.unwrap();
        assert!(matches!(agent.ready(soon).await, Err(AgentError::OutOfTurn { .. })));
    }

    #[tokio::test]
    async fn an_agent_that_does_not_know_all_of_an_identity_is_to_be_updated() {
        let identity = || {
            let identity = serde_json::json!({
                "instance_id": "00000000-0000-4000-8000-000000000001",
                "hostname": "web-1",
                "machine_id": "0123456789abcdef0123456789abcdef",
                "nics": [],
                "entropy": "07",
                "unix_time_ns": 7,
            });
            serde_json::from_value::<Identity>(identity).unwrap()
        };
        for (step, is_old) in [(Step::Prepare, true), (Step::Nics, false)] {
            let failure = Failure::new(step, Reason::Malformed, "unknown field `vlan`");
            let failed = frame::encode(&GuestMessage::Failed(failure)).unwrap();
            let (host, _guest) = guest([hello(GuestState::Held), failed].concat(), false).await;
            let error = Agent::greet(host).await.unwrap().identify(identity(), Duration::from_secs(1)).await;
            let shown = crate::chain(&error.unwrap_err());
            assert!(shown.contains("unknown field `vlan`"), "{shown}");
            assert_eq!(shown.contains("update ramet-agent"), is_old, "{shown}");
        }
    }

    #[tokio::test]
    async fn a_failure_in_the_guest_is_told() {
        let failure = Failure {
            step: Step::Hostname,
            reason: Reason::System,
            retryable: false,
            detail: Text::new("read-only file system"),
        };
        let mut bytes = hello(GuestState::Held);
        bytes.extend(frame::encode(&GuestMessage::Failed(failure.clone())).unwrap());
        let (host, _guest) = guest(bytes, false).await;
        let mut agent = Agent::greet(host).await.unwrap();
        match agent.prepare(Duration::from_secs(1)).await {
            Err(AgentError::Failed(told)) => assert_eq!(told, failure),
            other => panic!("{other:?}"),
        }
    }
}
