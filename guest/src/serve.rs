//! The listening socket, one host at a time: of the gate (`ramet-agent serve`), then of the observer (`ramet-agent observe`).

use crate::{
    agent::Agent,
    channel::wait,
    config::{Config, ConfigError},
    error::chain,
    gate,
    limits::Limits,
    log,
    observer::Observer,
    record::RecordError,
    root::Root,
    system::System,
};
use nix::poll::PollFlags;
use ramet_proto::{
    AGENT_PORT,
    message::{Failure, Reason, Step},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// Between two lines about who is not heard: any user of the host can have one written.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Holds the guest until its gate is open. An error says why it never must be.
pub(crate) fn hold<S: System>(root: &Root, system: &S) -> Result<(), Failure> {
    let refused = |error: &dyn std::error::Error| Failure::new(Step::Hello, Reason::System, &chain(error));
    let config = Config::load(root).map_err(|error| refused(&error))?;
    // A gate that does not hold must not be one.
    gate::is_sound(root).map_err(|error| refused(&error))?;
    let Some(mut agent) = Agent::start(root, system, config, Limits::DEFAULT)? else { return Ok(()) };
    let mut door = Door::of(listen(&mut agent)?);
    log!("held at the gate, waiting for an identity on vsock port {AGENT_PORT}");
    loop {
        let host = door.wait(None, agent.waits_for()).map_err(|error| {
            Failure::new(Step::Hello, Reason::System, &format!("cannot wait for a host: {error}"))
        })?;
        agent.tick()?;
        if let Some(host) = host
            && agent.converse(host)?
        {
            return Ok(());
        }
    }
}

/// Binds the agent's port, once the guest has a context id: before that there is no transport to be reached by.
fn listen<S: System>(agent: &mut Agent<'_, S>) -> Result<VsockListener, Failure> {
    let deadline = Instant::now() + agent.limits.device;
    loop {
        match bind(agent.system) {
            Ok(listener) => return Ok(listener),
            Err(error) if Instant::now() > deadline => {
                let detail =
                    format!("cannot listen on vsock: {error} (does the VM have a vhost-vsock-pci device?)");
                return Err(Failure::new(Step::Hello, Reason::Missing, &detail));
            }
            Err(_) => agent.tick()?,
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn bind(system: &impl System) -> io::Result<VsockListener> {
    match system.local_cid()? {
        // Nothing but the loopback transport, or none.
        VMADDR_CID_ANY | 0..=VMADDR_CID_HOST => Err(io::Error::other("there is no vsock device")),
        _ => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, AGENT_PORT)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        }
    }
}

/// Why there is nothing to observe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserveError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("it cannot be told who this machine is")]
    Record(#[from] RecordError),
    #[error("the gate has not been opened in this boot, so there is nobody to tell of")]
    Closed,
    #[error("cannot wait for a host")]
    Wait(#[source] io::Error),
}

/// Nothing that can be had.
pub(crate) enum Never {}

/// Answers hosts past the gate for as long as the machine runs.
pub(crate) fn observe<S: System>(root: &Root, system: &S) -> Result<Never, ObserveError> {
    let config = Config::load(root)?;
    let mut observer = Observer::start(root, system, config, Limits::DEFAULT)?.ok_or(ObserveError::Closed)?;
    // A machine that is started again without a vsock device has nobody to be reached by, which is no fault. The gate's own
    // socket is there until its process has ended.
    let mut pause = Duration::from_millis(5);
    let listener = loop {
        match bind(system) {
            Ok(listener) => break listener,
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    };
    let mut door = Door::of(listener);
    loop {
        let (boot, limit) = observer.waits_for();
        let host = door.wait(boot, limit).map_err(ObserveError::Wait)?;
        observer.tick();
        if let Some(host) = host {
            observer.converse(host);
        }
    }
}

/// Where hosts come in.
struct Door {
    listener: VsockListener,
    said: Option<Instant>,
}

impl Door {
    fn of(listener: VsockListener) -> Self {
        Self { listener, said: None }
    }

    /// Waits for a host, for `other`, or for `limit`; the host, if there is one.
    fn wait(
        &mut self,
        other: Option<BorrowedFd<'_>>,
        limit: Option<Duration>,
    ) -> io::Result<Option<VsockStream>> {
        let mut fds = vec![(self.listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(other.map(|fd| (fd, PollFlags::POLLIN)));
        wait(&fds, limit)?;
        match self.listener.accept() {
            Ok((stream, peer)) if is_host(&peer) => Ok(Some(stream)),
            Ok((_, peer)) => {
                self.say(&format!(
                    "dropped a connection from context id {}, port {}: not a privileged process of the host",
                    peer.cid(),
                    peer.port()
                ));
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => {
                // A connection that was reset before it was accepted, or no descriptor left: the next one may do.
                self.say(&format!("cannot accept a connection: {error}"));
                std::thread::sleep(Duration::from_millis(50));
                Ok(None)
            }
        }
    }

    fn say(&mut self, line: &str) {
        if self.said.is_none_or(|said| said.elapsed() > BETWEEN_LINES) {
            self.said = Some(Instant::now());
            log!("{line}");
        }
    }
}

/// Whether the peer is the host, and a process there that may bind a port below 1024 (vsock(7)): not any user's.
fn is_host(peer: &VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST && peer.port() < 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_privileged_processes_of_the_host_are_heard() {
        assert!(is_host(&VsockAddr::new(VMADDR_CID_HOST, 1023)));
        assert!(!is_host(&VsockAddr::new(VMADDR_CID_HOST, 1024)), "any user of the host");
        assert!(!is_host(&VsockAddr::new(1, 1023)), "a process of the guest");
        assert!(!is_host(&VsockAddr::new(7, 1023)), "another guest");
    }
}
