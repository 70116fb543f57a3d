//! The gate: holds the guest until it is an individual.
//!
//! ```text
//!            prepare -> prepared            identify -> applied            open
//!   Held ----------------------------> Held ------------------> (waiting) -----> the gate is open, and this is over
//!     ^  garbage, hang-up, no version    |        |                 |
//!     +----------------------------------+        v                 v
//!                                         a step fails       anything but open:
//!                                                 +--> fatal <------+   the unit fails, systemd powers off
//! ```
//!
//! Held is where everything starts that has no record of a completed identity. The one way out is an identity that was
//! applied, read back, and answered with `open`. What is asked past it, the [observer](crate::observer) answers.

use crate::{
    apply::{self, Order, Stale},
    boot::{self, Job},
    channel::{Channel, ChannelError, Stream, wait},
    config::Config,
    conversation::{End, close, failed, greet, step_of},
    error::chain,
    fork::ForkWatch,
    gate::{Scope, doctor, links, specifiers},
    limits::Limits,
    record::Record,
    root::{RUNTIME, Root},
    system::System,
};
use nix::poll::PollFlags;
use ramet_proto::{
    GuestMessage, HostMessage, MacAddr,
    message::{Failure, Finding, Grade, GuestState, Identity, Reason, Step},
};
use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

/// The most findings that are told: each is a KiB of text at most, and a frame has 64.
const MAX_FINDINGS: usize = 40;

/// What comes of a conversation, or of a message in it.
enum Turn {
    /// The guest is held as before.
    Held,
    /// The gate is open.
    Opened,
}

/// Why a conversation goes no further.
enum Stop {
    End(End),
    /// The gate must never open.
    Fatal(Failure),
}

impl<E: Into<End>> From<E> for Stop {
    fn from(end: E) -> Self {
        Self::End(end.into())
    }
}

/// A connection.
struct Talk<S> {
    channel: Channel<S>,
    /// A version was agreed on.
    greeted: bool,
}

/// The agent, as long as the gate is closed.
pub(crate) struct Agent<'a, S> {
    pub(crate) root: &'a Root,
    pub(crate) system: &'a S,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    fork: ForkWatch,
    /// What units that wait were loaded with.
    stale: Stale,
}

impl<'a, S: System> Agent<'a, S> {
    /// An agent that holds its guest; none where a completed identity is on record, and the gate is open already.
    pub(crate) fn start(
        root: &'a Root,
        system: &'a S,
        config: Config,
        limits: Limits,
    ) -> Result<Option<Self>, Failure> {
        let agent =
            Self { root, system, config, limits, fork: ForkWatch::default(), stale: Stale::default() };
        match Record::load(root) {
            Ok(Some(record)) if agent.is_still(&record) => {
                agent.pass(&record)?;
                return Ok(None);
            }
            Ok(Some(_)) => {
                system.console("held: this disk's identity is of a machine with other network interfaces");
            }
            Ok(None) => {}
            // Whoever this was, it is not known now: the host has to say.
            Err(error) => system.console(&format!("held: {}", chain(&error))),
        }
        Ok(Some(agent))
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

    /// How long to wait for a host at most, before [`Agent::tick`] is due.
    pub(crate) fn waits_for(&self) -> Option<Duration> {
        self.fork.is_on().then_some(self.limits.tick)
    }

    /// Looks at the time. An error means that the gate must never open.
    pub(crate) fn tick(&mut self) -> Result<(), Failure> {
        if self.fork.is_on() {
            let limit = self.config.identify_timeout();
            if self.fork.is_overdue(self.system.local_cid().ok(), Instant::now(), limit) {
                let detail = format!("this is a fork, and nobody gave it an identity within {limit:?}");
                return Err(Failure::new(Step::Open, Reason::Timeout, &detail));
            }
        }
        Ok(())
    }

    /// Talks with the host until either has enough; says whether the gate is open. An error means that it must never be.
    pub(crate) fn converse<T: Stream>(&mut self, stream: T) -> Result<bool, Failure> {
        let Ok(channel) = Channel::new(stream, self.limits.frame) else { return Ok(false) };
        let mut talk = Talk { channel, greeted: false };
        match self.talk(&mut talk) {
            Ok(()) => Ok(true),
            Err(Stop::End(end)) => {
                close(end, talk.greeted, &mut talk.channel);
                Ok(false)
            }
            Err(Stop::Fatal(failure)) => Err(failure),
        }
    }

    /// Answers until the gate is open.
    fn talk<T: Stream>(&mut self, talk: &mut Talk<T>) -> Result<(), Stop> {
        let mut heard = Instant::now();
        loop {
            self.tick().map_err(Stop::Fatal)?;
            if let Some(message) = talk.channel.receive()? {
                match self.answer(message, talk)? {
                    Turn::Opened => return Ok(()),
                    Turn::Held => heard = Instant::now(),
                }
                continue;
            }
            if heard.elapsed() > self.limits.idle {
                return Err(End::Done.into());
            }
            let fds = [(talk.channel.as_fd(), PollFlags::POLLIN)];
            wait(&fds, Some(self.limits.tick)).map_err(ChannelError::from)?;
        }
    }

    fn answer<T: Stream>(&mut self, message: HostMessage, talk: &mut Talk<T>) -> Result<Turn, Stop> {
        let step = step_of(&message);
        if !talk.greeted && step != Step::Hello {
            talk.channel.send(&failed(step, Reason::Unexpected, "hello comes first"))?;
            return Err(End::Done.into());
        }
        match message {
            HostMessage::Hello { versions } => {
                greet(&versions, GuestState::Held, self.system, &mut talk.channel)?;
                talk.greeted = true;
            }
            HostMessage::Prepare => {
                let answer = match self.prepare() {
                    Ok(findings) => GuestMessage::Prepared { findings },
                    Err(failure) => GuestMessage::Failed(failure),
                };
                talk.channel.send(&answer)?;
            }
            HostMessage::Identify(identity) => {
                self.become_individual(&identity, talk)?;
                return Ok(Turn::Opened);
            }
            HostMessage::Observe | HostMessage::Open | HostMessage::Join => {
                talk.channel.send(&failed(step, Reason::Unexpected, "there is no identity yet"))?;
            }
        }
        Ok(Turn::Held)
    }

    /// Gets ready to be suspended. Failing loudly, and being asked again, is better than a template whose children
    /// each repeat what the parent had not finished; the parent is held either way.
    fn prepare(&mut self) -> Result<Vec<Finding>, Failure> {
        let again = |reason, detail: &str| Failure::new(Step::Prepare, reason, detail).retryable();
        // Before a template is made of a machine whose children would never be seen to be ready.
        self.system.watch_boot().map_err(|error| {
            Failure::new(
                Step::Prepare,
                Reason::System,
                &format!("the end of boot cannot be watched for: {error}"),
            )
        })?;
        let jobs = self.settle().map_err(Failure::retryable)?;
        let links = apply::quiesce(self.root, self.system).map_err(|error| error.at(Step::Prepare))?;
        self.stale = self.stale()?;
        self.system.warm(&boot::waiting(&jobs));
        self.system.trim();
        self.root.sync();
        let cid = self
            .system
            .local_cid()
            .map_err(|error| again(Reason::System, &format!("cannot ask for the context id: {error}")))?;
        let mut findings = doctor::examine(self.root).map_err(|error| {
            again(Reason::System, &format!("cannot look at this system: {}", chain(&error)))
        })?;
        findings.extend(links);
        self.fork.prepared(cid);
        Ok(some_of(findings))
    }

    /// What of this machine is in units that wait, and the service manager has read already.
    fn stale(&self) -> Result<Stale, Failure> {
        let used = specifiers::used(self.root, Scope::Running);
        let used = used.map_err(|error| Failure::new(Step::Prepare, Reason::System, &chain(&error)))?;
        let names = !used.host.is_empty() || !used.machine_id.is_empty();
        Ok(Stale { names, boot_id: !used.boot_id.is_empty() })
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

    fn become_individual<T: Stream>(&mut self, identity: &Identity, talk: &mut Talk<T>) -> Result<(), Stop> {
        let received = Instant::now();
        // A machine that was never asked to prepare: one that lost its power halfway through this, for one.
        let settled = if self.fork.is_on() {
            Ok(())
        } else {
            self.settle().and_then(|_| self.stale()).map(|stale| self.stale = stale)
        };
        let opened = settled
            .and_then(|()| {
                let order = Order { identity, received, stale: self.stale };
                apply::apply(&order, self.root, self.system, &self.config)
            })
            .and_then(|evidence| self.await_open(&GuestMessage::Applied(Box::new(evidence)), talk))
            .and_then(|()| self.open(identity));
        opened.map_err(|failure| {
            let _ = talk.channel.send(&GuestMessage::Failed(failure.clone()));
            Stop::Fatal(failure)
        })
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

    /// Opens the gate. That the record is on the disk is waited for by the observer: boot goes on meanwhile, and a machine
    /// that loses its power before is held when it boots again, until the host says who it is.
    fn open(&self, identity: &Identity) -> Result<(), Failure> {
        let record = Record::of(identity);
        record
            .write(self.root)
            .map_err(|error| Failure::new(Step::Record, Reason::System, &chain(&error)))?;
        // Before anything starts that it would hear. Not on a reboot: journald reads both ids when it starts.
        let restarted = self.system.restart_journal();
        restarted.map_err(|error| {
            Failure::new(Step::Open, Reason::System, &format!("cannot restart journald: {error}"))
        })?;
        self.pass(&record)
    }

    fn pass(&self, record: &Record) -> Result<(), Failure> {
        self.release_links()?;
        record.show(self.root).map_err(|error| Failure::new(Step::Record, Reason::System, &chain(&error)))?;
        self.system.open_gate().map_err(|error| Failure::new(Step::Open, Reason::System, &error.to_string()))
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

#[cfg(test)]
mod hostile;
#[cfg(test)]
pub(crate) mod tests;
