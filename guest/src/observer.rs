//! Past the gate: who this machine is, whether its boot is complete, whether its domain accepts it.
//!
//! ```text
//!              boot complete
//!   Open -------------------------> Ready
//!     observe, join at any time, in either
//! ```
//!
//! Nothing here decides whether anybody gets in, so nothing here ends the machine: whatever ends the observer, systemd
//! starts it again, and it finds who it is in the record.

use crate::{
    apply,
    boot::BootWatch,
    channel::{Channel, ChannelError, Stream, wait},
    config::Config,
    conversation::{End, close, failed, greet, step_of},
    error::chain,
    join::{Progress, Trial},
    limits::Limits,
    record::{Record, RecordError},
    root::Root,
    system::System,
};
use nix::poll::PollFlags;
use ramet_proto::{
    GuestMessage, HostMessage, InstanceId,
    message::{Failure, GuestState, Reason, Step},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

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

/// Answers hosts past the gate.
pub(crate) struct Observer<'a, S> {
    root: &'a Root,
    pub(crate) system: &'a S,
    config: Config,
    pub(crate) limits: Limits,
    instance_id: InstanceId,
    /// Why the record is not on the disk.
    unrecorded: Option<Failure>,
    boot: Option<BootWatch>,
    boot_looked: Instant,
    ready: bool,
    started: Instant,
}

impl<'a, S: System> Observer<'a, S> {
    /// An observer of the individual that the gate was opened for, whose record it puts on the disk first.
    pub(crate) fn start(
        root: &'a Root,
        system: &'a S,
        config: Config,
        limits: Limits,
    ) -> Result<Option<Self>, RecordError> {
        let Some(record) = Record::present(root)? else { return Ok(None) };
        let unrecorded = record.commit(root).err().map(|error| {
            crate::log!("this machine will be held when it boots again: {}", chain(&error));
            Failure::new(Step::Record, Reason::System, &chain(&error))
        });
        let instance_id = record.instance_id;
        let now = Instant::now();
        let boot = system.watch_boot().ok();
        let mut observer = Self {
            root,
            system,
            config,
            limits,
            instance_id,
            unrecorded,
            boot,
            boot_looked: now,
            ready: false,
            started: now,
        };
        observer.tick();
        Ok(Some(observer))
    }

    /// Where this machine is on its way.
    pub(crate) fn state(&self) -> GuestState {
        let instance_id = self.instance_id;
        if self.ready { GuestState::Ready { instance_id } } else { GuestState::Open { instance_id } }
    }

    /// What to wait for, besides a host, and how long at most, before [`Observer::tick`] is due.
    pub(crate) fn waits_for(&self) -> (Option<BorrowedFd<'_>>, Option<Duration>) {
        match &self.boot {
            _ if self.ready => (None, None),
            Some(boot) => (Some(boot.as_fd()), None),
            None => (None, Some(self.limits.tick)),
        }
    }

    /// Looks at how far boot has come.
    pub(crate) fn tick(&mut self) {
        match self.boot.as_ref().map(BootWatch::is_complete) {
            Some(true) => {
                self.boot = None;
                self.ready = true;
            }
            // A watch that cannot be had must not keep the processor busy.
            None if !self.ready && self.boot_looked.elapsed() >= self.limits.tick => {
                self.boot_looked = Instant::now();
                self.boot = self.system.watch_boot().ok();
            }
            Some(false) | None => {}
        }
    }

    /// Talks with a host until either has enough.
    pub(crate) fn converse<T: Stream>(&mut self, stream: T) {
        let Ok(channel) = Channel::new(stream, self.limits.frame) else { return };
        let mut talk = Talk { channel, greeted: false, expects_ready: false, trial: None };
        let end = self.talk(&mut talk);
        close(end, talk.greeted, &mut talk.channel);
    }

    fn talk<T: Stream>(&mut self, talk: &mut Talk<T>) -> End {
        let mut heard = Instant::now();
        loop {
            self.tick();
            if talk.expects_ready && self.ready {
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
        match message {
            HostMessage::Hello { versions } => {
                greet(&versions, self.state(), self.system, &mut talk.channel)?;
                talk.greeted = true;
                talk.expects_ready = !self.ready;
                if let Some(failure) = &self.unrecorded {
                    talk.channel.send(&GuestMessage::Failed(failure.clone()))?;
                }
                Ok(())
            }
            HostMessage::Observe => {
                let answer = match apply::observe(self.instance_id, self.root, self.system) {
                    Ok(evidence) => GuestMessage::Observed(Box::new(evidence)),
                    Err(error) => GuestMessage::Failed(error.at(Step::Verify).retryable()),
                };
                Ok(talk.channel.send(&answer)?)
            }
            HostMessage::Join => {
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
            HostMessage::Prepare | HostMessage::Identify(_) | HostMessage::Open => {
                Ok(talk.channel.send(&failed(step, Reason::Unexpected, "the gate is open already"))?)
            }
        }
    }

    /// Goes on with the account that is being tried, and answers once that is over. Says whether there is more to do at
    /// once.
    fn go_on<T: Stream>(&self, talk: &mut Talk<T>) -> Result<bool, ChannelError> {
        // A boot that never ends is none to wait for.
        let booted = self.ready || self.started.elapsed() > self.limits.boot;
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
}

#[cfg(test)]
mod tests;
