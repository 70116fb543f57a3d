//! Which host this is, for a store that several share.

use super::{PoolError, files};
use crate::{
    fs::{AtPath, create_once},
    state::StateDir,
};
use serde::Serialize;
use std::{fmt, str::FromStr};

/// Names a state directory among all that share a store: whose children are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct HostId(uuid::Uuid);

/// A text that is no [`HostId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host's id: see ramet pool show")]
pub struct InvalidHostId(String);

impl FromStr for HostId {
    type Err = InvalidHostId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidHostId(text.chars().take(80).collect()))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A host, and what people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What tells it from all others.
    pub id: HostId,
    /// The machine's host name, to be shown.
    pub name: String,
}

impl Host {
    /// The host whose children are in `state`. Its id is made on the first call, whoever else calls at the same time,
    /// and stays.
    pub fn of(state: &StateDir) -> Result<Self, PoolError> {
        let path = state.root().join(files::HOST_ID);
        if !path.exists() {
            create_once(&path, uuid::Uuid::new_v4().to_string().as_bytes())?;
        }
        let text = std::fs::read_to_string(&path).at("read", &path)?;
        let id = text.trim().parse().map_err(|_| PoolError::HostId(path))?;
        // proc_sys_kernel(5)
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self { id, name: name.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_one_host_for_all_who_ask_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("one")).unwrap();
        let asked: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| Host::of(&state).unwrap())).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(asked.windows(2).all(|pair| pair[0] == pair[1]));
        let other = StateDir::open(&dir.path().join("other")).unwrap();
        assert_ne!(Host::of(&other).unwrap().id, asked[0].id);
        std::fs::write(other.root().join(files::HOST_ID), "web").unwrap();
        assert!(matches!(Host::of(&other), Err(PoolError::HostId(_))));
    }
}
