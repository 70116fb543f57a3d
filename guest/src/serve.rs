//! `ramet-agent serve`: the listening socket, one host at a time.

use crate::{
    agent::Agent, channel::wait, config::Config, error::chain, gate, limits::Limits, root::Root,
    system::System,
};
use nix::poll::PollFlags;
use ramet_proto::{
    AGENT_PORT,
    message::{Failure, Reason, Step},
};
use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener};

/// How long udev may take to find the vsock device and load its driver.
const DEVICE_LIMIT: Duration = Duration::from_mins(1);

/// Serves until the gate must never open; says why. Once it is open, serves for as long as the machine runs.
pub(crate) fn serve<S: System>(root: &Root, system: &S) -> Failure {
    let refused = |error: &dyn std::error::Error| Failure::new(Step::Hello, Reason::System, &chain(error));
    let agent = Config::load(root)
        .map_err(|error| refused(&error))
        // A gate that does not hold must not be one.
        .and_then(|config| gate::is_sound(root).map(|()| config).map_err(|error| refused(&error)))
        .and_then(|config| Agent::start(root, system, config, Limits::DEFAULT));
    let result = agent.and_then(|mut agent| {
        let listener = listen(&mut agent)?;
        if agent.is_held() {
            crate::log!("held at the gate, waiting for an identity on vsock port {AGENT_PORT}");
        }
        accept(&mut agent, &listener)
    });
    match result {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Binds the agent's port, once the guest has a context id: before that there is no transport to be reached by.
/// Held, that is a matter of a minute at most; past the gate nobody needs to be reached, so it may take forever.
fn listen<S: System>(agent: &mut Agent<'_, S>) -> Result<VsockListener, Failure> {
    let deadline = Instant::now() + DEVICE_LIMIT;
    loop {
        let bound = agent.system.local_cid().and_then(|cid| match cid {
            // Nothing but the loopback transport, or none.
            VMADDR_CID_ANY | 0..=VMADDR_CID_HOST => Err(io::Error::other("there is no vsock device")),
            _ => VsockListener::bind_with_cid_port(VMADDR_CID_ANY, AGENT_PORT),
        });
        match bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
            Ok(listener) => return Ok(listener),
            Err(error) if agent.is_held() && Instant::now() > deadline => {
                let detail =
                    format!("cannot listen on vsock: {error} (does the VM have a vhost-vsock-pci device?)");
                return Err(Failure::new(Step::Hello, Reason::Missing, &detail));
            }
            Err(_) => agent.tick()?,
        }
        std::thread::sleep(Duration::from_millis(if agent.is_held() { 50 } else { 1000 }));
    }
}

/// Whether the peer is the host, and a process there that may bind a port below 1024 (vsock(7)): not any user's.
fn is_host(peer: &VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST && peer.port() < 1024
}

/// Never returns without an error.
enum Never {}

fn accept<S: System>(agent: &mut Agent<'_, S>, listener: &VsockListener) -> Result<Never, Failure> {
    loop {
        let (boot, limit) = agent.waits_for();
        let mut fds = vec![(listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(boot.map(|fd| (fd, PollFlags::POLLIN)));
        if let Err(error) = wait(&fds, limit) {
            return Err(Failure::new(
                Step::Hello,
                Reason::System,
                &format!("cannot wait for a host: {error}"),
            ));
        }
        agent.tick()?;
        match listener.accept() {
            Ok((stream, peer)) if is_host(&peer) => agent.converse(stream)?,
            Ok((_, peer)) => crate::log!(
                "dropped a connection from context id {}, port {}: not a privileged process of the host",
                peer.cid(),
                peer.port()
            ),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                // A connection that was reset before it was accepted, or no descriptor left: the next one may do.
                crate::log!("cannot accept a connection: {error}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
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
