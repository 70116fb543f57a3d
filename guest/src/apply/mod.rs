//! Giving the guest its identity: one module for each step, in the order of [`Step`].
//!
//! Every step can be done again, after a crash halfway or with the same identity, with the same result.

mod clock;
mod entropy;
mod hostname;
mod machine_id;
pub(crate) mod nics;
pub(crate) mod ssh;
mod verify;

pub(crate) use verify::observe;

use crate::{config::Config, netlink::NetlinkError, root::FileError, root::Root, system::System};
use ramet_proto::{
    Evidence,
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
    let inherited = ssh::public_keys(root).map_err(|error| error.at(Step::SshHostKeys))?;
    let mut times = Times::new();
    times.run(Step::Entropy, || entropy::apply(identity, root, system))?;
    times.run(Step::Clock, || clock::apply(order, system))?;
    times.run(Step::MachineId, || machine_id::apply(identity, root, system))?;
    times.run(Step::Hostname, || hostname::apply(identity, root, system))?;
    times.run(Step::Nics, || nics::apply(identity, system))?;
    times.run(Step::SshHostKeys, || ssh::apply(identity, root, system, config))?;
    // `machine_sid` is applied once there is an applier for Samba; a guest without Samba has no use for it.
    let evidence = times.run(Step::Verify, || verify::verify(order, root, system, config, &inherited))?;
    eprintln!("identity applied:{}", times.text);
    Ok(evidence)
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
