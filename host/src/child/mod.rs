//! Children: what is recorded of them, and what they are right now.

pub mod lifecycle;
pub mod record;

use crate::{
    fs::{self, AtPath, FsError},
    identity::ChildIdentity,
    lock,
    name::Name,
    pool::{PoolError, Stores},
    qemu::process,
    state::{StateDir, StateLock, names_in},
};
use ramet_proto::InstanceId;
use record::{Record, RecordError, Stage};
use serde::Serialize;
use std::{collections::HashSet, fs::File, path::PathBuf};

/// Files of a child, relative to its directory, beside those of its VM.
pub mod files {
    /// What is known of the child.
    pub const RECORD: &str = "child.json";
    /// Locked by the command that works on the child.
    pub const LOCK: &str = "lock";
    /// The child's SSH host keys, for OpenSSH's `UserKnownHostsFile`.
    pub const KNOWN_HOSTS: &str = "known_hosts";
}

/// Why a child cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It is not there.
    #[error("there is no child {0}: see ramet ls")]
    NotFound(Name),
    /// Another command works on it.
    #[error("another ramet is working on {0} right now: try again when it is done")]
    Busy(Name),
    /// Its record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// What a child is right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A command is working on it.
    Working,
    /// It runs with its identity, and its boot is complete.
    Ready,
    /// It runs with its identity; its boot was not complete when it was last asked.
    Identified,
    /// It has its identity and does not run.
    Stopped,
    /// The command that forked it was killed before the child had its identity.
    Interrupted,
    /// It did not get its identity, for the reason in its record.
    Failed,
}

impl State {
    /// The word for it, on the command line and in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Ready => "ready",
            Self::Identified => "identified",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }
}

/// A child as it was found.
#[derive(Clone, Debug)]
pub struct Child {
    /// Where it is.
    pub dir: PathBuf,
    /// What is recorded of it.
    pub record: Record,
    /// What it is right now.
    pub state: State,
    /// Its QEMU, if that runs.
    pub pid: Option<u32>,
}

impl Child {
    /// Looks at a child.
    pub fn find(state: &StateDir, name: &Name) -> Result<Self, ChildError> {
        let dir = state.child(name);
        if !dir.is_dir() {
            return Err(ChildError::NotFound(name.clone()));
        }
        // The lock before the record: whoever had the lock may have changed the record.
        let idle = !lock::is_held(&dir.join(files::LOCK))?;
        let record = Record::read(&dir)?;
        let running = process::running(&dir)?;
        let state = state_of(record.stage, idle, running.is_some());
        Ok(Self { dir, record, state, pid: running.flatten() })
    }

    /// A file of the child.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn state_of(stage: Stage, idle: bool, running: bool) -> State {
    match (idle, stage, running) {
        (_, Stage::Ready, true) => State::Ready,
        (false, ..) => State::Working,
        (true, Stage::Failed, _) => State::Failed,
        (true, Stage::Reserved | Stage::Resumed, _) => State::Interrupted,
        (true, Stage::Identified, true) => State::Identified,
        (true, Stage::Identified | Stage::Ready, false) => State::Stopped,
    }
}

/// A child by name, found or not.
pub type Found = (Name, Result<Child, ChildError>);

/// The children that are there, by name. One that disappears meanwhile is left out; one whose record cannot be read
/// is an error of its own.
pub fn list(state: &StateDir) -> Result<Vec<Found>, FsError> {
    let names = names_in(&state.children())?;
    let found = names.into_iter().map(|name| (name.clone(), Child::find(state, &name)));
    Ok(found.filter(|(_, child)| !matches!(child, Err(ChildError::NotFound(_)))).collect())
}

/// Takes a child for oneself, so that no other command works on it.
pub fn take(state: &StateDir, name: &Name) -> Result<File, ChildError> {
    let dir = state.child(name);
    if !dir.is_dir() {
        return Err(ChildError::NotFound(name.clone()));
    }
    lock::attempt(&dir.join(files::LOCK))?.ok_or_else(|| ChildError::Busy(name.clone()))
}

/// Everything that is recorded, under the lock.
pub fn records(state: &StateDir, _lock: &StateLock) -> Result<Vec<Record>, FsError> {
    let names = names_in(&state.children())?;
    // A child without a readable record has no identity that could clash: it is written before anything else.
    Ok(names.iter().filter_map(|name| Record::read(&state.child(name)).ok()).collect())
}

/// The individuals that children of this host are, under the lock. All or an error: whoever is not among them may be
/// taken for gone.
pub fn instances(state: &StateDir, _lock: &StateLock) -> Result<HashSet<InstanceId>, ChildError> {
    let found = list(state)?.into_iter();
    found.map(|(_, child)| Ok(child?.record.identity.instance_id)).collect()
}

/// Who has which identity on this host.
pub fn identities(state: &StateDir, lock: &StateLock) -> Result<Vec<(Name, ChildIdentity)>, FsError> {
    // A child that failed was ended for good: what it had is free again.
    let records = records(state, lock)?.into_iter().filter(|record| record.stage != Stage::Failed);
    Ok(records.map(|record| (record.name, record.identity)).collect())
}

/// The children that refer to a template, and those of which that cannot be told.
pub fn of_template(state: &StateDir, template: &Name, _lock: &StateLock) -> Result<Vec<Name>, FsError> {
    let mut names = names_in(&state.children())?;
    names.retain(|name| Record::read(&state.child(name)).map_or(true, |record| record.template == *template));
    Ok(names)
}

/// Ends a child and removes all of it. Its directory is what every other part is found by, so it goes last; an identity
/// from a pool is given back when nothing is left of the child. Returns what was recorded of it, if that can be read.
pub async fn remove(state: &StateDir, stores: &Stores, name: &Name) -> Result<Option<Record>, RemoveError> {
    let _mine = take(state, name)?;
    let dir = state.child(name);
    process::kill(&dir).await?;
    // One that cannot be read is removed all the same; its lease is found to be nobody's later.
    let record = Record::read(&dir).ok();
    fs::remove_tree(&dir)?;
    if let Some(record) = record.as_ref().filter(|record| record.pool.is_some()) {
        let store = stores.get(state).await.map_err(RemoveError::GiveBack)?;
        let given = store.give_back(record.identity.instance_id, "the child was removed").await;
        given.map_err(RemoveError::GiveBack)?;
    }
    Ok(record)
}

/// Why a child could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It cannot be worked on.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// Its process does not end.
    #[error(transparent)]
    Process(#[from] process::ProcessError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The child is gone, and its identity not given back.
    #[error("the child was removed, but its identity not given back: ramet pool reconcile does that")]
    GiveBack(#[source] PoolError),
}

/// Memory of a child's QEMU process (`proc_pid_smaps(5)`), in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Its share: what it has for itself, and of what it shares its part.
    pub pss: u64,
    /// What it has written and nobody else has.
    pub private_dirty: u64,
    /// What it shares with others, the template's RAM above all.
    pub shared: u64,
}

impl Memory {
    /// Of the process `pid`, if it is still there and ours to look at.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
        let rollup = process.smaps_rollup().ok()?.memory_map_rollup.into_iter().next()?;
        let field = |name: &str| rollup.extension.map.get(name).copied().unwrap_or(0);
        Some(Self {
            pss: field("Pss"),
            private_dirty: field("Private_Dirty"),
            shared: field("Shared_Clean") + field("Shared_Dirty"),
        })
    }
}

/// Reads the last boot's console.
#[must_use]
pub fn console_tail(dir: &std::path::Path, lines: usize) -> Vec<String> {
    crate::console::tail(&dir.join(crate::qemu::files::CONSOLE_LOG), lines)
}

/// Writes the child's host keys in the form of OpenSSH's `known_hosts` (sshd(8), `SSH_KNOWN_HOSTS` FILE FORMAT).
pub fn write_known_hosts(dir: &std::path::Path, record: &Record) -> Result<(), FsError> {
    let keys = record.evidence.iter().flat_map(|evidence| &evidence.ssh_host_keys);
    let lines: Vec<String> = keys.map(|key| format!("{} {key}\n", record.name)).collect();
    fs::replace(&dir.join(files::KNOWN_HOSTS), lines.concat().as_bytes())
}

/// Creates the directory of a new child, with its record and its lock, which is the caller's. Whoever lists children
/// sees all of that or nothing. The caller holds the state's lock.
pub fn create(state: &StateDir, record: &Record) -> Result<(PathBuf, File), ChildError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let making = fs::unfinished(&state.children(), record.name.as_str());
    std::fs::DirBuilder::new().mode(0o700).create(&making).at("create", &making)?;
    let fill = || {
        let mine = lock::attempt(&making.join(files::LOCK))?;
        let mine = mine.ok_or_else(|| ChildError::Busy(record.name.clone()))?;
        record.write(&making)?;
        let dir = state.child(&record.name);
        std::fs::rename(&making, &dir).at("create", &dir)?;
        Ok((dir, mine))
    };
    fill().inspect_err(|_| {
        // If that fails, too, the next fork sweeps it.
        let _ = fs::remove_hidden(&making);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_command_leaves_is_called_by_its_name() {
        assert_eq!(state_of(Stage::Resumed, false, true), State::Working);
        for stage in [Stage::Reserved, Stage::Resumed] {
            for running in [true, false] {
                assert_eq!(state_of(stage, true, running), State::Interrupted);
            }
        }
        assert_eq!(state_of(Stage::Identified, true, true), State::Identified);
        assert_eq!(state_of(Stage::Ready, true, true), State::Ready);
        assert_eq!(state_of(Stage::Ready, true, false), State::Stopped);
        assert_eq!(state_of(Stage::Failed, true, false), State::Failed);
    }

    #[test]
    fn memory_of_this_process() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.pss > 0 && memory.private_dirty > 0);
        assert!(Memory::of(u32::MAX).is_none());
    }
}
