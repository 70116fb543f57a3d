//! The agent's side of the conversation, and the gate.
//!
//! ```text
//!            prepare -> prepared            identify -> applied            open
//!   Held ----------------------------> Held ------------------> (waiting) -----> Open ----> Ready
//!     ^  garbage, hang-up, no version    |        |                 |             boot complete
//!     +----------------------------------+        v                 v
//!                                         a step fails       anything but open:
//!                                                 +--> fatal <------+   the unit fails, systemd powers off
//! ```
//!
//! Held is where everything starts that has no record of a completed identity. The one way out is an identity that was
//! applied, read back, answered with `open`, and recorded. Past it `join` may be asked at any time; boot goes on meanwhile.

use crate::{
    apply::{self, Order},
    boot::{self, BootWatch, Job},
    channel::{Channel, ChannelError, Stream, wait},
    config::Config,
    error::chain,
    fork::ForkWatch,
    gate::{doctor, links},
    join::{Progress, Trial},
    limits::Limits,
    record::Record,
    root::{RUNTIME, Root},
    system::System,
};
use nix::poll::PollFlags;
use ramet_proto::{
    GuestMessage, HostMessage, InstanceId, MacAddr,
    message::{Failure, Finding, Grade, GuestState, Identity, Reason, Step},
    select_version,
    text::Text,
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// The most findings that are told: each is a KiB of text at most, and a frame has 64.
const MAX_FINDINGS: usize = 40;

/// Why a conversation is over.
enum End {
    /// The host is gone or makes no sense; the agent goes on.
    Channel(ChannelError),
    /// There is nothing more to say.
    Done,
    /// The gate must never open.
    Fatal(Failure),
}

impl From<ChannelError> for End {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

/// A connection.
struct Talk<S> {
    channel: Channel<S>,
    /// A version was agreed on.
    greeted: bool,
    /// It was told that boot goes on, and waits to hear that it is complete.
    expects_ready: bool,
    /// It waits to hear what became of the domain account.
    trial: Option<Trial>,
}

/// The agent.
pub(crate) struct Agent<'a, S> {
    pub(crate) root: &'a Root,
    pub(crate) system: &'a S,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    state: GuestState,
    fork: ForkWatch,
    boot: Option<BootWatch>,
    boot_looked: Instant,
    opened: Instant,
}

impl<'a, S: System> Agent<'a, S> {
    /// An agent that holds its guest, or, where a completed identity is on record, lets it pass at once.
    pub(crate) fn start(
        root: &'a Root,
        system: &'a S,
        config: Config,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let now = Instant::now();
        let state = GuestState::Held;
        let fork = ForkWatch::default();
        let mut agent =
            Self { root, system, config, limits, state, fork, boot: None, boot_looked: now, opened: now };
        match Record::load(root) {
            Ok(Some(record)) if agent.is_still(&record) => agent.pass(record.instance_id)?,
            Ok(Some(_)) => {
                system.console("held: this disk's identity is of a machine with other network interfaces");
            }
            Ok(None) => {}
            // Whoever this was, it is not known now: the host has to say.
            Err(error) => system.console(&format!("held: {}", chain(&error))),
        }
        Ok(agent)
    }

    /// Whether this machine has the network interfaces of the one on record. Past the gate nothing comes up with an
    /// address that is not its own, so they are waited for; and a copy of the disk in another machine has others.
    fn is_still(&self, record: &Record) -> bool {
        let deadline = Instant::now() + self.limits.nics;
        loop {
            let mut interfaces = self.system.interfaces().unwrap_or_default();
            interfaces.retain(|one| one.physical);
            let is_there = |mac: &MacAddr| interfaces.iter().any(|one| one.mac == Some(*mac));
            // udev may still be about to rename what is there.
            if interfaces.len() >= record.macs.len() && self.system.devices_settled().unwrap_or(false) {
                return record.macs.iter().all(is_there);
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(self.limits.tick.min(Duration::from_millis(100)));
        }
    }

    /// Whether the gate is closed.
    pub(crate) fn is_held(&self) -> bool {
        self.state == GuestState::Held
    }

    /// What to wait for, besides a host, and how long at most, before [`Agent::tick`] is due.
    pub(crate) fn waits_for(&self) -> (Option<BorrowedFd<'_>>, Option<Duration>) {
        match self.state {
            GuestState::Held => (None, self.fork.is_on().then_some(self.limits.tick)),
            GuestState::Open { .. } if self.opened.elapsed() > self.limits.boot => (None, None),
            GuestState::Open { .. } => (self.boot.as_ref().map(AsFd::as_fd), Some(self.limits.tick)),
            GuestState::Ready { .. } => (None, None),
        }
    }

    /// Looks at the time, and at how far boot has come. An error means that the gate must never open.
    pub(crate) fn tick(&mut self) -> Result<(), Failure> {
        match self.state {
            GuestState::Held if self.fork.is_on() => {
                let limit = self.config.identify_timeout();
                if self.fork.is_overdue(self.system.local_cid().ok(), Instant::now(), limit) {
                    let detail = format!("this is a fork, and nobody gave it an identity within {limit:?}");
                    return Err(Failure::new(Step::Open, Reason::Timeout, &detail));
                }
            }
            GuestState::Open { instance_id } if self.opened.elapsed() <= self.limits.boot => {
                self.look_at_boot(instance_id);
            }
            GuestState::Held | GuestState::Open { .. } | GuestState::Ready { .. } => {}
        }
        Ok(())
    }

    fn look_at_boot(&mut self, instance_id: InstanceId) {
        match self.boot.as_ref().map(BootWatch::is_complete) {
            Some(true) => {
                self.boot = None;
                self.state = GuestState::Ready { instance_id };
            }
            // A watch that cannot be had must not keep the processor busy.
            None if self.boot_looked.elapsed() >= self.limits.tick => {
                self.boot_looked = Instant::now();
                self.boot = self.system.watch_boot().ok();
            }
            Some(false) | None => {}
        }
    }

    /// Talks with the host until either has enough. An error means that the gate must never open.
    pub(crate) fn converse<T: Stream>(&mut self, stream: T) -> Result<(), Failure> {
        let Ok(channel) = Channel::new(stream, self.limits.frame) else { return Ok(()) };
        let mut talk = Talk { channel, greeted: false, expects_ready: false, trial: None };
        match self.talk(&mut talk) {
            End::Done | End::Channel(ChannelError::Closed) => Ok(()),
            End::Channel(error) => {
                if let ChannelError::Frame(_) = error {
                    let step = if talk.greeted { Step::Prepare } else { Step::Hello };
                    let _ = talk.channel.send(&failed(step, Reason::Malformed, &chain(&error)));
                }
                crate::log!("connection closed: {}", chain(&error));
                Ok(())
            }
            End::Fatal(failure) => Err(failure),
        }
    }

    fn talk<T: Stream>(&mut self, talk: &mut Talk<T>) -> End {
        let mut heard = Instant::now();
        loop {
            if let Err(failure) = self.tick() {
                return End::Fatal(failure);
            }
            if talk.expects_ready && matches!(self.state, GuestState::Ready { .. }) {
                talk.expects_ready = false;
                heard = Instant::now();
                if let Err(error) = talk.channel.send(&GuestMessage::Ready) {
                    return error.into();
                }
            }
            match talk.channel.receive() {
                Err(error) => return error.into(),
                Ok(Some(message)) => {
                    if let Err(end) = self.answer(message, talk) {
                        return end;
                    }
                    heard = Instant::now();
                    continue;
                }
                Ok(None) => {}
            }
            if talk.trial.is_some() {
                let went_on = self.go_on(talk);
                // Only now: a command may take longer than a host may be silent.
                heard = Instant::now();
                match went_on {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => return error.into(),
                }
            }
            let limit = if talk.expects_ready { self.limits.boot } else { self.limits.idle };
            if heard.elapsed() > limit {
                return End::Done;
            }
            let mut fds = vec![(talk.channel.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.waits_for().0.map(|fd| (fd, PollFlags::POLLIN)));
            if let Err(error) = wait(&fds, Some(self.limits.tick)) {
                return End::Channel(error.into());
            }
        }
    }

    fn answer<T: Stream>(&mut self, message: HostMessage, talk: &mut Talk<T>) -> Result<(), End> {
        let step = step_of(&message);
        if !talk.greeted && step != Step::Hello {
            talk.channel.send(&failed(step, Reason::Unexpected, "hello comes first"))?;
            return Err(End::Done);
        }
        match (message, self.state) {
            (HostMessage::Hello { versions }, _) => self.greet(&versions, talk),
            (HostMessage::Prepare, GuestState::Held) => {
                let answer = match self.prepare() {
                    Ok(findings) => GuestMessage::Prepared { findings },
                    Err(failure) => GuestMessage::Failed(failure),
                };
                Ok(talk.channel.send(&answer)?)
            }
            (HostMessage::Identify(identity), GuestState::Held) => self.become_individual(&identity, talk),
            (HostMessage::Observe, GuestState::Open { instance_id } | GuestState::Ready { instance_id }) => {
                let answer = match apply::observe(instance_id, self.root, self.system) {
                    Ok(evidence) => GuestMessage::Observed(Box::new(evidence)),
                    Err(error) => GuestMessage::Failed(error.at(Step::Verify).retryable()),
                };
                Ok(talk.channel.send(&answer)?)
            }
            (HostMessage::Join, GuestState::Open { .. } | GuestState::Ready { .. }) => {
                if talk.trial.is_some() {
                    let detail = "the account is being tried already";
                    return Ok(talk.channel.send(&failed(step, Reason::Unexpected, detail))?);
                }
                match Trial::begin(self.root, self.config.domain, self.limits.join) {
                    Ok(trial) => talk.trial = Some(trial),
                    Err(failure) => talk.channel.send(&GuestMessage::Failed(failure))?,
                }
                Ok(())
            }
            (HostMessage::Observe | HostMessage::Open | HostMessage::Join, GuestState::Held) => {
                Ok(talk.channel.send(&failed(step, Reason::Unexpected, "there is no identity yet"))?)
            }
            (
                HostMessage::Prepare | HostMessage::Identify(_) | HostMessage::Open,
                GuestState::Open { .. } | GuestState::Ready { .. },
            ) => Ok(talk.channel.send(&failed(step, Reason::Unexpected, "the gate is open already"))?),
        }
    }

    /// Goes on with the account that is being tried, and answers once that is over. Says whether there is more to do at
    /// once.
    fn go_on<T: Stream>(&self, talk: &mut Talk<T>) -> Result<bool, ChannelError> {
        // A boot that never ends is none to wait for.
        let booted =
            matches!(self.state, GuestState::Ready { .. }) || self.opened.elapsed() > self.limits.boot;
        let answer = match talk.trial.as_mut().map(|trial| trial.step(self.root, self.system, booted)) {
            Some(Progress::Next) => return Ok(true),
            Some(Progress::Again) | None => return Ok(false),
            Some(Progress::Over(Ok(evidence))) => GuestMessage::Joined(Box::new(evidence)),
            Some(Progress::Over(Err(failure))) => GuestMessage::Failed(failure),
        };
        talk.trial = None;
        talk.channel.send(&answer)?;
        Ok(false)
    }

    fn greet<T: Stream>(&mut self, versions: &[u16], talk: &mut Talk<T>) -> Result<(), End> {
        let Some(version) = select_version(versions) else {
            let detail = format!("this agent speaks {:?}, the host {versions:?}", ramet_proto::VERSIONS);
            talk.channel.send(&failed(Step::Hello, Reason::Version, &detail))?;
            return Err(End::Done);
        };
        let cid = match self.system.local_cid() {
            Ok(cid) => cid,
            Err(error) => {
                let detail = format!("cannot ask for the context id: {error}");
                let failure = Failure::new(Step::Hello, Reason::System, &detail).retryable();
                talk.channel.send(&GuestMessage::Failed(failure))?;
                return Err(End::Done);
            }
        };
        talk.greeted = true;
        talk.expects_ready = matches!(self.state, GuestState::Open { .. });
        let agent = Text::new(env!("CARGO_PKG_VERSION"));
        let features = ramet_proto::FEATURES.iter().copied().map(Text::new).collect();
        Ok(talk.channel.send(&GuestMessage::Hello { version, agent, state: self.state, cid, features })?)
    }

    /// Gets ready to be suspended. Failing loudly, and being asked again, is better than a template whose children
    /// each repeat what the parent had not finished; the parent is held either way.
    fn prepare(&mut self) -> Result<Vec<Finding>, Failure> {
        let again = |reason, detail: &str| Failure::new(Step::Prepare, reason, detail).retryable();
        // Before a template is made of a machine whose children would never be seen to be ready.
        let boot = self.system.watch_boot().map_err(|error| {
            Failure::new(
                Step::Prepare,
                Reason::System,
                &format!("the end of boot cannot be watched for: {error}"),
            )
        })?;
        self.boot = Some(boot);
        let jobs = self.settle().map_err(Failure::retryable)?;
        self.system.warm(&boot::waiting(&jobs));
        self.system.trim();
        self.root.sync();
        let cid = self
            .system
            .local_cid()
            .map_err(|error| again(Reason::System, &format!("cannot ask for the context id: {error}")))?;
        let findings = doctor::examine(self.root).map_err(|error| {
            again(Reason::System, &format!("cannot look at this system: {}", chain(&error)))
        })?;
        self.fork.prepared(cid);
        Ok(some_of(findings))
    }

    /// Waits until what starts before the gate has started, and says what is left. Devices are no jobs of systemd's: a
    /// NIC whose driver udev has yet to load would come up with the template's address in every child.
    fn settle(&self) -> Result<Vec<Job>, Failure> {
        let failed =
            |what, error| Failure::new(Step::Prepare, Reason::System, &format!("cannot ask {what}: {error}"));
        let deadline = Instant::now() + self.limits.settle;
        loop {
            let found = self.system.devices_settled().map_err(|error| failed("udev for its queue", error))?;
            let jobs = self.system.jobs().map_err(|error| failed("systemd for its jobs", error))?;
            let mut busy = boot::busy(&jobs);
            if found && busy.is_empty() {
                return Ok(jobs);
            }
            if Instant::now() >= deadline {
                busy.extend((!found).then_some("devices"));
                let detail = format!("still being started before the gate: {}", busy.join(", "));
                return Err(Failure::new(Step::Prepare, Reason::Timeout, &detail));
            }
            std::thread::sleep(self.limits.tick.min(Duration::from_millis(100)));
        }
    }

    fn become_individual<T: Stream>(&mut self, identity: &Identity, talk: &mut Talk<T>) -> Result<(), End> {
        let order = Order { identity, received: Instant::now() };
        // A machine that was never asked to prepare: one that lost its power halfway through this, for one.
        let settled = if self.fork.is_on() { Ok(()) } else { self.settle().map(drop) };
        let opened = settled
            .and_then(|()| apply::apply(&order, self.root, self.system, &self.config))
            .and_then(|evidence| self.await_open(&GuestMessage::Applied(Box::new(evidence)), talk))
            .and_then(|()| self.open(identity));
        match opened {
            Ok(()) => {
                talk.expects_ready = true;
                Ok(())
            }
            Err(failure) => {
                let _ = talk.channel.send(&GuestMessage::Failed(failure.clone()));
                Err(End::Fatal(failure))
            }
        }
    }

    /// Tells the host what there is to see, and waits for its consent.
    fn await_open<T: Stream>(&self, applied: &GuestMessage, talk: &mut Talk<T>) -> Result<(), Failure> {
        let lost = |reason, error: &ChannelError| Failure::new(Step::Open, reason, &chain(error));
        talk.channel.send(applied).map_err(|error| lost(Reason::System, &error))?;
        let deadline = Instant::now() + self.limits.open;
        loop {
            match talk.channel.receive() {
                Ok(Some(HostMessage::Open)) => return Ok(()),
                Ok(Some(
                    HostMessage::Hello { .. }
                    | HostMessage::Prepare
                    | HostMessage::Identify(_)
                    | HostMessage::Observe
                    | HostMessage::Join,
                )) => return Err(Failure::new(Step::Open, Reason::Unexpected, "another message than open")),
                Ok(None) => {}
                Err(error @ ChannelError::Frame(_)) => return Err(lost(Reason::Malformed, &error)),
                Err(error @ ChannelError::Slow) => return Err(lost(Reason::Timeout, &error)),
                Err(error @ (ChannelError::Closed | ChannelError::Half | ChannelError::Io(_))) => {
                    return Err(lost(Reason::System, &error));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::new(Step::Open, Reason::Timeout, "the host did not say open in time"));
            }
            let fds = [(talk.channel.as_fd(), PollFlags::POLLIN)];
            wait(&fds, Some(left)).map_err(|error| lost(Reason::System, &error.into()))?;
        }
    }

    /// Opens the gate, and records who this is. Waiting for the disk comes last: boot goes on meanwhile, and a machine
    /// that loses its power before is held when it boots again, until the host says who it is.
    fn open(&mut self, identity: &Identity) -> Result<(), Failure> {
        let failed = |error| Failure::new(Step::Record, Reason::System, &chain(&error));
        let record = Record::of(identity);
        record.write(self.root).map_err(failed)?;
        // Before anything starts that it would hear. Not on a reboot: journald reads both ids when it starts.
        let restarted = self.system.restart_journal();
        restarted.map_err(|error| {
            Failure::new(Step::Open, Reason::System, &format!("cannot restart journald: {error}"))
        })?;
        self.pass(record.instance_id)?;
        Record::commit(self.root).map_err(failed)
    }

    fn pass(&mut self, instance_id: InstanceId) -> Result<(), Failure> {
        self.release_links()?;
        self.system
            .open_gate()
            .map_err(|error| Failure::new(Step::Open, Reason::System, &error.to_string()))?;
        self.state = GuestState::Open { instance_id };
        self.opened = Instant::now();
        self.boot = self.boot.take().or_else(|| self.system.watch_boot().ok());
        Ok(())
    }

    /// Lets systemd-networkd use the links, if it was started before the gate.
    fn release_links(&self) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::new(Step::Open, Reason::System, &format!("cannot let the links go: {}", chain(error)))
        };
        // Before the look: from here on nobody holds them again.
        self.root.make_dir(RUNTIME, 0o755).map_err(|error| failed(&error))?;
        self.root.replace(links::FREE, b"", 0o644).map_err(|error| failed(&error))?;
        if self.root.exists(links::HOLD).map_err(|error| failed(&error))? {
            self.root.remove(links::HOLD).map_err(|error| failed(&error))?;
            self.system.reload_network().map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// As many of `findings` as a frame has room for, the worst first.
fn some_of(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.grade);
    let left = findings.len().saturating_sub(MAX_FINDINGS);
    if left > 0 {
        findings.truncate(MAX_FINDINGS);
        let what = format!("{left} more findings");
        findings.push(Finding::new(Grade::Note, &what, "ramet-agent doctor in the image has all of them"));
    }
    findings
}

fn step_of(message: &HostMessage) -> Step {
    match message {
        HostMessage::Hello { .. } => Step::Hello,
        HostMessage::Prepare => Step::Prepare,
        HostMessage::Identify(_) => Step::Entropy,
        HostMessage::Open => Step::Open,
        HostMessage::Observe => Step::Verify,
        HostMessage::Join => Step::Join,
    }
}

fn failed(step: Step, reason: Reason, detail: &str) -> GuestMessage {
    GuestMessage::Failed(Failure::new(step, reason, detail))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
