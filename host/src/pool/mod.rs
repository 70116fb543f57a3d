//! Identities prepared in advance, in a store that several hosts may share: each is leased to one child at a time.
//!
//! [`life`] has the picture. [`Store`] keeps it in a database, SQLite or PostgreSQL, through the same statements.

mod accounts;
mod domains;
mod draft;
mod entry;
mod history;
mod host;
pub mod import;
mod leases;
pub mod life;
mod macs;
mod pattern;
mod pools;
mod seal;
mod store;
mod url;

pub use draft::{Conflict, Draft};
pub use entry::{Account, Entry, EntryId, HeldBy, Holder, Lease, Made, NewEntry, Planned};
pub use history::Event;
pub use host::{Host, HostId};
pub use macs::MacSource;
pub use pattern::HostnamePattern;
pub use pools::{NewPool, Summary};
pub use seal::{KeySource, SealError, SealingKey};
pub use store::Store;
pub use url::StoreUrl;

use crate::{fs::FsError, name::Name, state::StateDir};
use life::{State, Step};
use ramet_proto::{Hostname, InstanceId, identity::InvalidIdentity};
use std::{path::PathBuf, process::Command};
use tokio::sync::OnceCell;

/// Files of the default store, relative to the state directory.
pub mod files {
    /// The database.
    pub const IDENTITIES: &str = "identities.db";
    /// The key that its passwords are sealed with.
    pub const KEY: &str = "pool-key";
    /// Which host this is, for the store.
    pub const HOST_ID: &str = "host-id";
}

/// Which store, and which key; `None` is the default: a SQLite file of the state directory and a key beside it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The store.
    pub url: Option<StoreUrl>,
    /// The file with the key.
    pub key_file: Option<PathBuf>,
}

/// The store of identities of a command, opened when it is needed first.
#[derive(Debug, Default)]
pub struct Stores {
    settings: Settings,
    store: OnceCell<Store>,
}

impl Stores {
    /// The store that `settings` name. Nothing is opened yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, store: OnceCell::new() }
    }

    /// The store, open.
    pub async fn get(&self, state: &StateDir) -> Result<&Store, PoolError> {
        self.store.get_or_try_init(|| open(state, &self.settings)).await
    }

    /// Has another `ramet` use the same store. Not in its arguments: the URL may hold a password.
    pub fn pass_on(&self, command: &mut Command) {
        let Settings { url, key_file } = &self.settings;
        command.envs(url.as_ref().map(|url| ("RAMET_STORE", url.to_env())));
        command.envs(key_file.as_ref().map(|file| ("RAMET_KEY_FILE", file)));
    }
}

/// Opens the store that `settings` name, for the host that `state` is.
pub async fn open(state: &StateDir, settings: &Settings) -> Result<Store, PoolError> {
    let made = || match settings.url {
        None => KeySource::Made(state.root().join(files::KEY)),
        Some(_) => KeySource::Missing,
    };
    let key =
        settings.key_file.clone().map(KeySource::File).or_else(KeySource::credential).unwrap_or_else(made);
    let url = settings.url.clone().unwrap_or_else(|| StoreUrl::Sqlite(state.root().join(files::IDENTITIES)));
    Store::open(url, key, Host::of(state)?).await
}

/// Why something cannot be done with the store of identities.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// It cannot be opened.
    #[error("cannot open the store of identities {store}: see that its database is there and may be used")]
    Open {
        /// Which, without its password.
        store: String,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// Its tables cannot be made.
    #[error("cannot prepare the store of identities {store}: its user must be allowed to create tables")]
    Migrate {
        /// Which, without its password.
        store: String,
        /// Why not.
        #[source]
        source: Box<sqlx::migrate::MigrateError>,
    },
    /// It was made or changed by a newer ramet.
    #[error(
        "the store of identities {store} has schema {found}, this ramet knows {known}: use a newer ramet"
    )]
    NewerSchema {
        /// Which, without its password.
        store: String,
        /// Its schema's version.
        found: i64,
        /// The newest version that this build knows.
        known: i64,
    },
    /// The database failed.
    #[error("the store of identities failed: try again, and see that its database runs")]
    Database(#[from] sqlx::Error),
    /// Somebody else changed the same identities meanwhile, again and again.
    #[error("others are changing the same identities of the store: try again")]
    Raced,
    /// It holds something that nobody has put there.
    #[error("the store of identities is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// The key for passwords cannot be used.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The file with the host's id holds something else.
    #[error("{} is not a host's id: restore it; without its leases (ramet pool show) remove it", .0.display())]
    HostId(PathBuf),
    /// There is no such pool.
    #[error("there is no pool {0}: see ramet pool ls")]
    NoPool(Name),
    /// There is one already.
    #[error("there is a pool {0} already: choose another name")]
    PoolTaken(Name),
    /// It still has identities that somebody needs.
    #[error("the pool {pool} still has {what}: {advice}")]
    PoolInUse {
        /// Which pool.
        pool: Name,
        /// What it has.
        what: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// There is no such identity.
    #[error("there is no identity {0} in the store: see ramet pool show")]
    NoEntry(String),
    /// The pool has too few.
    #[error(
        "the pool {pool} has {available} identities available and {wanted} are wanted: add some (ramet pool add), or remove children"
    )]
    Empty {
        /// Which pool.
        pool: Name,
        /// How many were asked for.
        wanted: usize,
        /// How many it has.
        available: usize,
    },
    /// The child has no identity from a pool.
    #[error("no identity of the store is leased to the child with the instance id {0}")]
    NoLease(InstanceId),
    /// The identity is somewhere else in its life.
    #[error("cannot {} the identity {hostname}: it is in the state {state}", step.verb())]
    NotAllowed {
        /// Which.
        hostname: Hostname,
        /// What was to be done.
        step: Step,
        /// Where it is.
        state: State,
    },
    /// What is to be added is taken.
    #[error("nothing was added: {}", told(.0))]
    Conflicts(Vec<(usize, Conflict)>),
    /// The pool's source of MAC addresses has none left.
    #[error("the source of MAC addresses {source_text} has too few free ones: {wanted} are wanted")]
    MacsExhausted {
        /// The source.
        source_text: MacSource,
        /// How many were wanted.
        wanted: usize,
    },
    /// A name came out invalid.
    #[error("the pattern makes no host name")]
    Name(#[from] InvalidIdentity),
    /// No randomness.
    #[error("the system has no random numbers")]
    Random,
}

/// The first problems of many.
fn told(conflicts: &[(usize, Conflict)]) -> String {
    const SHOWN: usize = 10;
    let mut told: Vec<_> = conflicts.iter().take(SHOWN).map(|(_, conflict)| conflict.to_string()).collect();
    if let Some(more @ 1..) = conflicts.len().checked_sub(SHOWN) {
        told.push(format!("and {more} more"));
    }
    told.join(", ")
}

impl PoolError {
    /// Whether somebody else was in the way, who is perhaps gone now.
    pub(crate) fn is_raced(&self) -> bool {
        match self {
            Self::Raced => true,
            Self::Database(sqlx::Error::Database(error)) => {
                // PostgreSQL, appendix A: serialization failure, deadlock; SQLite: SQLITE_BUSY and its kinds.
                matches!(error.code().as_deref(), Some("40001" | "40P01" | "5" | "261" | "517"))
            }
            _ => false,
        }
    }

    /// Whether it is worth another try: the connection broke, or the database is on its way up or down. Whether the
    /// last statement was done is not known then.
    pub(crate) fn may_pass(&self) -> bool {
        let (Self::Database(error) | Self::Open { source: error, .. }) = self else { return self.is_raced() };
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
            // PostgreSQL, appendix A: class 08 connection exceptions, class 57 shut down and not up yet, class 25 too
            // long idle in a transaction.
            sqlx::Error::Database(cause) => {
                let code = cause.code().unwrap_or_default();
                self.is_raced()
                    || code.starts_with("08")
                    || ["57P01", "57P02", "57P03", "25P03"].contains(&code.as_ref())
            }
            _ => false,
        }
    }
}
