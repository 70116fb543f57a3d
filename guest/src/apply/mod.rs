//! Giving the guest its identity: one module for each step, in the order of [`Step`].
//!
//! Every step can be done again, after a crash halfway or with the same identity, with the same result.

mod addresses;
mod authorized_keys;
mod boot_id;
mod clock;
mod cloud_init;
pub(crate) mod domain;
mod entropy;
mod hostname;
mod ids;
mod machine_id;
mod machine_sid;
mod manager;
mod names;
mod network;
pub(crate) mod nics;
mod site;
pub(crate) mod ssh;
mod verify;

pub(crate) use manager::Stale;
pub(crate) use nics::quiesce;
pub(crate) use verify::observe;

use crate::{
    config::Config,
    error::chain,
    log,
    netlink::NetlinkError,
    root::{FileError, Root},
    system::System,
};
use ramet_proto::{
    Evidence,
    identity::uuid_v4,
    message::{Failure, Finding, Grade, Identity, Reason, Step},
};
use std::{fmt::Write, io, time::Instant};

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
        Failure::new(step, reason, &chain(self))
    }
}

/// An identity, and when it came.
pub(crate) struct Order<'a> {
    pub(crate) identity: &'a Identity,
    /// The host's clock in the identity is as old as this.
    pub(crate) received: Instant,
    /// What units that wait were loaded with.
    pub(crate) stale: Stale,
}

/// What a step works on.
struct Context<'a, S> {
    order: &'a Order<'a>,
    root: &'a Root,
    system: &'a S,
    config: &'a Config,
}

type Apply<S> = fn(&Context<'_, S>) -> Result<(), ApplyError>;

/// The steps, in their order. Entropy first: every one after it may draw from it. NICs next, so that nothing leaves this
/// machine as its template. Samba's account and the SID are in one file, which goes with the template's account, so the
/// SID comes after it.
fn steps<S: System>() -> [(Step, Apply<S>); 13] {
    [
        (Step::Entropy, |c| entropy::apply(c.order.identity, c.root, c.system)),
        (Step::Nics, |c| nics::apply(c.order.identity, c.system)),
        (Step::Clock, |c| clock::apply(c.order, c.system)),
        (Step::MachineId, |c| machine_id::apply(c.order.identity, c.root, c.system)),
        (Step::BootId, |c| boot_id::apply(c.root, c.system)),
        (Step::Hostname, |c| hostname::apply(c.order.identity, c.root, c.system)),
        (Step::Network, |c| {
            network::apply(c.root, c.system)?;
            addresses::apply(c.order.identity, c.root, c.system)
        }),
        (Step::SshHostKeys, |c| ssh::apply(c.order.identity, c.root, c.system, c.config)),
        (Step::Names, |c| names::apply(c.root, c.system)),
        (Step::CloudInit, |c| cloud_init::apply(c.order.identity, c.root)),
        (Step::Domain, |c| domain::apply(c.order.identity, c.root, c.system, c.config.domain)),
        (Step::MachineSid, |c| machine_sid::apply(c.order.identity, c.root, c.system)),
        (Step::AuthorizedKeys, |c| authorized_keys::apply(c.order.identity, c.root)),
    ]
}

/// Applies an identity step by step, and reads it back.
pub(crate) fn apply<S: System>(
    order: &Order<'_>,
    root: &Root,
    system: &S,
    config: &Config,
) -> Result<Evidence, Failure> {
    let inherited = verify::Inherited::read(root)?;
    let mut times = Times::new();
    let context = Context { order, root, system, config };
    let mut taken = Vec::new();
    for (step, apply) in steps() {
        times.run(step, || apply(&context))?;
        taken.push(step);
    }
    let manager = times
        .run(Step::Manager, || manager::apply(order.identity, boot_id::read(root)?, order.stale, system))?;
    taken.push(Step::Manager);
    // Last of all: they find everything else done.
    let said = times.run(Step::Site, || site::apply(order.identity, root, config))?;
    taken.push(Step::Site);
    let mut evidence = times.run(Step::Verify, || verify::verify(&context, &manager, &inherited))?;
    evidence.unique.extend(said);
    evidence.steps = taken;
    log!("identity applied:{}", times.text);
    Ok(evidence)
}

type Check = fn(&Root, &Config) -> Result<Vec<Finding>, ApplyError>;

/// What each step says of an image beforehand: what it cannot make right, and what it does not understand.
const CHECKS: &[(Step, Check)] = &[
    (Step::Entropy, |root, _| entropy::check(root)),
    (Step::MachineId, |root, _| machine_id::check(root)),
    (Step::Hostname, |root, _| hostname::check(root)),
    (Step::Network, |root, _| network::check(root)),
    (Step::Network, |root, _| addresses::check(root)),
    (Step::SshHostKeys, ssh::check),
    (Step::Names, |root, _| names::check(root)),
    (Step::CloudInit, |root, _| cloud_init::check(root)),
    (Step::Domain, domain::check),
    (Step::AuthorizedKeys, |root, _| authorized_keys::check(root)),
    (Step::Site, |root, _| site::check(root)),
];

/// What an identity would meet in `root`. It changes nothing.
pub(crate) fn check(root: &Root, config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    for (step, check) in CHECKS {
        match check(root, config) {
            Ok(findings) => found.extend(findings),
            Err(error) => {
                let what = format!("step {step} would fail: {}", chain(&error));
                found.push(Finding::new(Grade::Fatal, &what, "correct it in the image"));
            }
        }
    }
    found
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
