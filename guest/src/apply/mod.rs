//! Giving the guest its identity: one module for each step, in the order of [`Step`].
//!
//! Every step can be done again, after a crash halfway or with the same identity, with the same result.

mod addresses;
mod authorized_keys;
mod boot_id;
mod clock;
pub(crate) mod domain;
mod entropy;
mod hostname;
mod machine_id;
mod machine_sid;
mod names;
mod network;
pub(crate) mod nics;
mod site;
pub(crate) mod ssh;
mod verify;

pub(crate) use verify::observe;

use crate::{config::Config, netlink::NetlinkError, root::FileError, root::Root, system::System};
use ramet_proto::{
    Evidence,
    identity::uuid_v4,
    message::{Failure, Identity, Reason, Step},
    text::Text,
};
use std::{error::Error, fmt::Write, io, time::Instant};

/// A step could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Mismatch(String),
}

impl ApplyError {
    /// What happened at `step`, as the host is told. Nothing is tried twice in one child: it powers off.
    pub(crate) fn at(&self, step: Step) -> Failure {
        let reason = match self {
            Self::System(_, error) if error.kind() == io::ErrorKind::TimedOut => Reason::Timeout,
            Self::File(_) | Self::Netlink(_) | Self::System(..) => Reason::System,
            Self::Malformed(_) => Reason::Malformed,
            Self::Missing(_) => Reason::Missing,
            Self::Mismatch(_) => Reason::Mismatch,
        };
        Failure { step, reason, retryable: false, detail: Text::new(&chain(self)) }
    }
}

/// What an error says, and what its causes say.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// An identity, and when it came.
pub(crate) struct Order<'a> {
    pub(crate) identity: &'a Identity,
    /// The host's clock in the identity is as old as this.
    pub(crate) received: Instant,
}

/// Applies an identity step by step, and reads it back.
pub(crate) fn apply<S: System>(
    order: &Order<'_>,
    root: &Root,
    system: &S,
    config: &Config,
) -> Result<Evidence, Failure> {
    let identity = order.identity;
    let inherited = verify::Inherited::read(root)?;
    let mut times = Times::new();
    times.run(Step::Entropy, || entropy::apply(identity, root, system))?;
    times.run(Step::Clock, || clock::apply(order, system))?;
    times.run(Step::MachineId, || machine_id::apply(identity, root, system))?;
    times.run(Step::BootId, || boot_id::apply(root, system))?;
    times.run(Step::Hostname, || hostname::apply(identity, root, system))?;
    times.run(Step::Nics, || nics::apply(identity, system))?;
    times.run(Step::Network, || {
        network::apply(root, system)?;
        addresses::apply(identity, root, system)
    })?;
    times.run(Step::SshHostKeys, || ssh::apply(identity, root, system, config))?;
    times.run(Step::Names, || names::apply(root, system))?;
    times.run(Step::Domain, || domain::apply(identity, root, system, config.domain))?;
    // Samba's account and the SID are in one file, which goes with the template's account.
    times.run(Step::MachineSid, || machine_sid::apply(identity, root, system))?;
    times.run(Step::AuthorizedKeys, || authorized_keys::apply(identity, root))?;
    // Last of all: they find everything else done.
    let said = times.run(Step::Site, || site::apply(identity, root, config))?;
    let mut evidence = times.run(Step::Verify, || verify::verify(order, root, system, config, &inherited))?;
    evidence.unique.extend(said);
    eprintln!("identity applied:{}", times.text);
    Ok(evidence)
}

/// Random bytes.
fn random<const N: usize>(system: &impl System) -> Result<[u8; N], ApplyError> {
    let mut bytes = [0; N];
    system.random(&mut bytes).map_err(|error| ApplyError::System("draw random bytes", error))?;
    Ok(bytes)
}

/// A random UUID.
fn random_uuid(system: &impl System) -> Result<String, ApplyError> {
    Ok(uuid_v4(random(system)?))
}

/// How long each step took, for the journal.
struct Times {
    text: String,
}

impl Times {
    fn new() -> Self {
        Self { text: String::new() }
    }

    fn run<T>(&mut self, step: Step, work: impl FnOnce() -> Result<T, ApplyError>) -> Result<T, Failure> {
        let begun = Instant::now();
        let result = work().map_err(|error| error.at(step));
        let _ = write!(self.text, " {step} {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
        result
    }
}

#[cfg(test)]
pub(crate) mod tests;
