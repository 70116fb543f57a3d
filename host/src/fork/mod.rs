//! A fork: from a template to individuals.
//!
//! ```text
//!   plan        names and identities (pure)                 plan.rs
//!     |
//!   Reserved    directory, record, lock                     stages.rs
//!     |  overlay, CID, QEMU, device state
//!   Spawned     QEMU holds the device state, CPUs stopped
//!     |  cables out, cont
//!   Resumed     CPUs run, the guest is held at its gate     -> stop line "resumed"
//!     |  dial, identify, check the evidence, cables in      evidence.rs
//!   Identified  the gate may open                           -> stop line "identified"
//!     |  open, wait, check the evidence once more           again.rs
//!   Ready       boot is complete                            -> stop line "ready"
//!     |  members of a domain: join
//!   Joined      the domain accepts the account              -> stop line "joined"
//! ```
//!
//! Each stage is a value that the step to the next one consumes. A step that fails undoes its own stage, which undoes
//! the one before, down to nothing.

mod again;
pub mod evidence;
pub mod plan;
pub mod stages;

use crate::{
    Progress,
    admission::{self, AdmissionError},
    agent::AgentError,
    child::{
        self, ChildError, RemoveError,
        record::{Record, now_ms},
    },
    fs::{FsError, is_full, sweep},
    identity::{IdentityError, InUse},
    net::NetError,
    pool::{Holder, NewEntry, PoolError, Stores},
    qemu::{process::ProcessError, qmp::QmpError, version::QemuVersion},
    state::{StateDir, StateLock},
    template::{self, Template, TemplateError},
    vsock::VsockError,
};
use again::AgainError;
use futures::{StreamExt as _, stream};
use plan::{Asked, Naming, PlanError};
use ramet_proto::InstanceId;
use stages::{Identified, Joined, Ready, Reserved, Resumed, Seat};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// Up to which stop line a fork goes before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Wait {
    /// Virtual CPUs run; the guest is held at its gate.
    Resumed,
    /// The host holds the child's verified report; its gate is open.
    Identified,
    /// Boot is complete.
    Ready,
    /// Boot is complete and, if the child is a member of a domain, the domain accepts its account.
    Joined,
}

/// What is to be forked.
#[derive(Clone, Debug)]
pub struct Request {
    /// From which template.
    pub template: crate::name::Name,
    /// How many, and how they are called.
    pub naming: Naming,
    /// What the identity has to be; the rest is generated.
    pub identity: crate::identity::IdentityFile,
    /// Identities are leased from there.
    pub lease: Option<Lease>,
    /// How far.
    pub wait: Wait,
    /// At most so many at the same time.
    pub parallel: usize,
}

/// Identities from a pool, one for each child.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Which pool.
    pub pool: crate::name::Name,
    /// The children keep their accounts for good: they change their passwords, and the accounts go with them.
    pub persistent: bool,
}

/// Why a fork failed. Nothing is left of any of its children.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The host cannot do it.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// Names cannot be as asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The identity cannot be as asked.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store of identities.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Another command has the child.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// No context id.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// QEMU is older than the one that made the template.
    #[error("the template was made by QEMU {theirs}, this is the older {ours}: use QEMU {theirs} or newer")]
    QemuOlder {
        /// The template's.
        theirs: QemuVersion,
        /// This host's.
        ours: QemuVersion,
    },
    /// QEMU did not run.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU did not do as it was told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// A NIC could not be connected.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The guest ended.
    #[error("QEMU ended while the guest was {during}; the end of its console: {}", console.join(" | "))]
    Ended {
        /// What was going on.
        during: &'static str,
        /// The last lines on the guest's console.
        console: Vec<String>,
    },
    /// The guest's agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// What the child reports once its boot is complete is not what it was told to be.
    #[error("the child did not stay the individual it was told to be")]
    Later(#[source] evidence::EvidenceError),
    /// What the child reports is not what it was told to be, or is what another is already.
    #[error("the child is not the individual it was told to be")]
    Evidence(#[from] evidence::EvidenceError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// There was no room for what was tried.
    #[error("failed while the file system of {} was full (make room there, then try again)", dir.display())]
    Full {
        /// A directory on it.
        dir: PathBuf,
        /// What failed.
        #[source]
        source: Box<ForkError>,
    },
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random,
    /// The rest of the fork could not go on in the background.
    #[error("cannot go on in the background")]
    Background(#[source] io::Error),
    /// The user did not want it any more.
    #[error("interrupted; nothing is left of the fork")]
    Interrupted,
    /// One child of several failed.
    #[error("{name} failed; all {count} were undone")]
    OneOf {
        /// The first that failed.
        name: crate::name::Name,
        /// How many there were to be.
        count: usize,
        /// How it failed.
        #[source]
        source: Box<ForkError>,
    },
    /// A child failed, and so did undoing it.
    #[error("undoing {name} failed, finish it with: ramet rm {name}")]
    Undo {
        /// Which child.
        name: crate::name::Name,
        /// Why it is still there.
        #[source]
        source: Box<RemoveError>,
    },
}

impl From<AgainError> for ForkError {
    fn from(error: AgainError) -> Self {
        match error {
            AgainError::Agent(error) => error.into(),
            AgainError::Evidence(error) => Self::Later(error),
        }
    }
}

impl ForkError {
    /// Says so if there is no room left in `dir`: QEMU does not always know why a write failed. To be asked before
    /// undoing makes room.
    fn or_full(self, dir: &Path) -> Self {
        match self {
            Self::Interrupted | Self::Qmp(QmpError::NoSpace(_)) => self,
            error if is_full(dir) => Self::Full { dir: dir.to_owned(), source: Box::new(error) },
            error => error,
        }
    }
}

/// Forks. On any error, and when `cancel` is, nothing is left of any child: all or none.
pub async fn fork(
    state: &StateDir,
    stores: &Stores,
    request: &Request,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Vec<Record>, ForkError> {
    let started_ms = now_ms();
    let template = Template::open(state, &request.template)?;
    let count = request.naming.count();
    admission::check_fork(&template, u64::try_from(count).unwrap_or(u64::MAX), state.root())?;
    let reserved = reserve(state, stores, &template, request, started_ms)
        .await
        .map_err(|error| error.or_full(&state.children()))?;
    progress.say(&format!("forking {count} of {}", template.name));
    // The first failure stops the others: what they would make is to be undone anyway.
    let stop = cancel.child_token();
    let forks = reserved.into_iter().map(|child| one(child, request.wait, &stop, progress));
    let results: Vec<_> = stream::iter(forks).buffer_unordered(request.parallel.max(1)).collect().await;
    settle(results, count, cancel, progress).await
}

/// Takes names and identities for all children at once, under the lock.
async fn reserve<'a>(
    state: &'a StateDir,
    stores: &'a Stores,
    template: &'a Template,
    request: &Request,
    started_ms: u64,
) -> Result<Vec<Reserved<'a>>, ForkError> {
    let lock = state.lock()?;
    sweep(&state.children())?;
    // Again, now that nobody can remove it any more.
    Template::read(state, &template.name)?;
    let taken = crate::state::names_in(&state.children())?;
    let in_use =
        InUse { children: child::identities(state, &lock)?, parents: template::parent_macs(state, &lock)? };
    let names = plan::names(&template.name, &request.naming, &taken, &in_use)?;
    let identity = &request.identity;
    let asked =
        |name| Asked { name, identity: identity.clone(), instance_id: InstanceId::random(), domain: None };
    let mut asked: Vec<Asked> = names.into_iter().map(asked).collect();
    let ids: Vec<_> = asked.iter().map(|child| child.instance_id).collect();
    if let Some(from) = &request.lease {
        lease(state, stores, from, &mut asked, &lock).await?;
    }
    let made = make(state, stores, template, request, started_ms, asked, in_use);
    if made.is_err() && request.lease.is_some() {
        for id in ids {
            stages::give_back(state, stores, id, "the fork failed").await;
        }
    }
    made
}

/// Leases an identity for each child. What children of this host that are gone have left is given back first: the
/// command that made them was killed.
async fn lease(
    state: &StateDir,
    stores: &Stores,
    from: &Lease,
    asked: &mut [Asked],
    lock: &StateLock,
) -> Result<(), ForkError> {
    let store = stores.get(state).await?;
    // A child whose record cannot be read may run with an identity of the store: nothing is taken back then.
    if let Ok(live) = child::instances(state, lock) {
        store.sweep(&live).await?;
    }
    let holder = |child: &Asked| Holder { child: child.name.clone(), instance_id: child.instance_id };
    let holders: Vec<_> = asked.iter().map(holder).collect();
    for (child, lease) in asked.iter_mut().zip(store.lease(&from.pool, &holders, from.persistent).await?) {
        let NewEntry { hostname, macs, machine_sid } = lease.identity;
        child.identity.hostname = Some(hostname);
        child.identity.macs = (!macs.is_empty()).then_some(macs);
        child.identity.machine_sid = Some(machine_sid);
        child.domain = lease.account;
    }
    Ok(())
}

/// Makes the children's directories: all or none.
fn make<'a>(
    state: &'a StateDir,
    stores: &'a Stores,
    template: &'a Template,
    request: &Request,
    started_ms: u64,
    asked: Vec<Asked>,
    in_use: InUse,
) -> Result<Vec<Reserved<'a>>, ForkError> {
    let mut reserved: Vec<Reserved<'a>> = Vec::new();
    for (name, identity) in plan::plan(template.manifest.nics.len(), asked, in_use)? {
        let mut record = Record::new(name, template.name.clone(), identity, started_ms);
        record.pool = request.lease.as_ref().map(|lease| lease.pool.clone());
        match Reserved::new(state, stores, template, record) {
            Ok(child) => reserved.push(child),
            Err(error) => {
                reserved.into_iter().for_each(Reserved::undo_now);
                return Err(error);
            }
        }
    }
    Ok(reserved)
}

/// One child on its way, as far as `wait`. When it fails it has undone itself and stopped the others.
async fn one<'a>(
    child: Reserved<'a>,
    wait: Wait,
    stop: &CancellationToken,
    progress: &Progress,
) -> Result<Forked<'a>, (crate::name::Name, ForkError)> {
    let name = child.name().clone();
    let steps = async {
        let spawned = child.spawn(stop).await?;
        let resumed = spawned.resume(stop).await?;
        progress.say(&format!("{name} resumed"));
        if wait == Wait::Resumed {
            return Ok(Forked::Resumed(resumed));
        }
        let identified = resumed.identify(stop).await?;
        progress.say(&format!("{name} identified"));
        if wait == Wait::Identified {
            return Ok(Forked::Identified(identified));
        }
        let ready = identified.ready(stop).await?;
        progress.say(&format!("{name} ready"));
        if wait == Wait::Ready || !ready.joins() {
            return Ok(Forked::Ready(ready));
        }
        let joined = ready.join(stop).await?;
        progress.say(&format!("{name} joined"));
        Ok(Forked::Joined(joined))
    };
    let result: Result<_, ForkError> = steps.await;
    result.map_err(|error| {
        stop.cancel();
        (name, error)
    })
}

/// How far a child has come.
enum Forked<'a> {
    Resumed(Resumed<'a>),
    Identified(Identified<'a>),
    Ready(Ready<'a>),
    Joined(Joined<'a>),
}

/// All or none: hands over the children if all came as far as they were to, else undoes those that did.
async fn settle(
    results: Vec<Result<Forked<'_>, (crate::name::Name, ForkError)>>,
    count: usize,
    cancel: &CancellationToken,
    progress: &Progress,
) -> Result<Vec<Record>, ForkError> {
    let (forked, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let forked = forked.into_iter().filter_map(Result::ok);
    let mut failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        // A child that nobody goes on with stays as it is, and `ls` says so: to undo the others would not help it.
        let handed = forked.map(|child| match child {
            Forked::Resumed(child) => child.hand_over(),
            Forked::Identified(child) => child.hand_over(),
            Forked::Ready(child) => child.hand_over(),
            Forked::Joined(child) => Ok(child.hand_over()),
        });
        let handed: Vec<Result<Record, ForkError>> = handed.collect();
        let mut records: Vec<Record> = handed.into_iter().collect::<Result<_, _>>()?;
        records.sort_by(|a, b| a.name.cmp(&b.name));
        return Ok(records);
    }
    progress.say("undoing");
    let mut not_undone = None;
    for child in forked {
        let undone = match child {
            Forked::Resumed(child) => child.undo().await,
            Forked::Identified(child) => child.undo().await,
            Forked::Ready(child) => child.undo().await,
            Forked::Joined(child) => child.undo().await,
        };
        // One that cannot be undone must not keep the others.
        not_undone = not_undone.or(undone.err());
    }
    if let Some(error) = not_undone {
        return Err(error);
    }
    // The reason is the failure that stopped the others, not theirs of having been stopped.
    let first = failed.iter().position(|(_, error)| !matches!(error, ForkError::Interrupted)).unwrap_or(0);
    let (name, error) = failed.swap_remove(first);
    match error {
        ForkError::Interrupted if cancel.is_cancelled() => Err(ForkError::Interrupted),
        error if count == 1 => Err(error),
        error => Err(ForkError::OneOf { name, count, source: Box::new(error) }),
    }
}

/// Goes on with a child that a fork with `--wait` has handed over, until there is nothing more to wait for. `mine` is the
/// child's lock, which came with it.
pub async fn finish(
    state: &StateDir,
    stores: &Stores,
    name: &crate::name::Name,
    mine: File,
) -> Result<(), ForkError> {
    let dir = state.child(name);
    let record = Record::read(&dir).map_err(ChildError::from)?;
    let template = Template::read(state, &record.template)?;
    Seat { state, stores, template: &template, dir, record, mine }.finish().await
}
