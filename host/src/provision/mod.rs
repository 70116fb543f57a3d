//! A pool's accounts in the directory: made, given new passwords, removed, and compared with what the store says.
//!
//! ```text
//!   store                     directory
//!   intent, journalled
//!                             account made, stamped
//!   available, password sealed
//! ```
//!
//! The store is written first, and an account carries the id of its entry there, so that whatever is killed when, it can be
//! told afterwards whether an account was made and whose it is.

pub mod reconcile;
pub mod retire;

use crate::{
    Progress,
    domain::{AccountError, Directory, password},
    name::Name,
    pool::{Entry, EntryId, NewEntry, Planned, PoolError, Store, life::State},
};
use futures::{StreamExt as _, stream};
use ramet_proto::{
    Hostname,
    domain::{DomainAccount, NetbiosName, Realm},
    identity::InvalidIdentity,
};
use std::{collections::HashSet, time::Duration};
use tokio_util::sync::CancellationToken;

/// How old an intent is at least whose account nobody is about to make any more. Longer than all that a run does
/// between the journal and the directory's answer.
pub const STALE: Duration = Duration::from_secs(300);

/// So many rounds in which no name could be had are enough.
const FRUITLESS: usize = 10;

/// What a run has done.
#[derive(Clone, Debug, Default)]
pub struct Provisioned {
    /// The accounts that were made, or begun by a run before this one.
    pub made: Vec<DomainAccount>,
    /// Names that the directory has already, and by whom they are taken.
    pub refused: Vec<(NetbiosName, String)>,
}

/// Why a pool's accounts could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The store.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The directory.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A host name of the pool makes no account.
    #[error("the host name {hostname} makes no computer account: its first label is the account's name")]
    Name {
        /// The host name.
        hostname: Hostname,
        /// Why not.
        #[source]
        source: InvalidIdentity,
    },
    /// It did not come to its end.
    #[error("{made} of {count} accounts were made, and are in the pool; the rest was not")]
    Stopped {
        /// How many were made.
        made: usize,
        /// How many were to be made.
        count: usize,
        /// Why it stopped.
        #[source]
        source: Box<ProvisionError>,
    },
    /// The account is another domain's.
    #[error("its account is not in {0}, which the settings describe")]
    Elsewhere(Realm),
    /// The user did not want it any more.
    #[error("interrupted")]
    Interrupted,
}

/// What is written into an account's description.
async fn stamp(store: &Store, id: EntryId) -> Result<String, PoolError> {
    Ok(format!("{}{id}", prefix(store).await?))
}

/// What the stamps of all accounts of a store begin with.
async fn prefix(store: &Store) -> Result<String, PoolError> {
    Ok(format!("ramet:{}:", store.id().await?))
}

/// Makes `count` accounts for the pool, up to `parallel` at the same time. Accounts that a run before this one had begun
/// are finished first, and count.
pub async fn provision(
    store: &Store,
    directory: &Directory,
    pool: &Name,
    (count, parallel): (usize, usize),
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Provisioned, ProvisionError> {
    store.keep_domain(directory.domain()).await?;
    let mut done = Provisioned::default();
    for entry in stale_intents(&store.entries(pool).await?, directory, STALE) {
        done.made.extend(settle(store, directory, entry).await?);
    }
    let mut fruitless = 0;
    while done.made.len() < count {
        let before = done.made.len() + done.refused.len();
        let refused: HashSet<_> = done.refused.iter().map(|(name, _)| name.clone()).collect();
        let missing = count - done.made.len();
        let mut wanted = Vec::new();
        for entry in store.propose(pool, missing + refused.len()).await? {
            let name = account_name(&entry.hostname)?;
            if !refused.contains(&name) && wanted.len() < missing {
                wanted.push((name, entry));
            }
        }
        let stop = cancel.child_token();
        let making = wanted.into_iter().map(|(name, entry)| make(store, directory, pool, name, entry, &stop));
        let mut results = stream::iter(making).buffer_unordered(parallel.max(1));
        let mut failed = None;
        while let Some(result) = results.next().await {
            match result {
                Ok(Made::Account(account)) => {
                    done.made.push(account);
                    progress.say(&format!("{} of {count} accounts made", done.made.len()));
                }
                Ok(Made::Refused(name, by)) => done.refused.push((name, by)),
                Ok(Made::Raced) => {}
                Err(error) => {
                    // Those on their way come to their end: nothing is left half made that need not be.
                    stop.cancel();
                    failed = Some(match failed {
                        None | Some(ProvisionError::Interrupted) => error,
                        Some(first) => first,
                    });
                }
            }
        }
        if let Some(source) = failed {
            return Err(ProvisionError::Stopped { made: done.made.len(), count, source: Box::new(source) });
        }
        // Others that are faster take other names in the end. A name that can never be had is proposed again and again.
        fruitless = if done.made.len() + done.refused.len() > before { 0 } else { fruitless + 1 };
        if fruitless == FRUITLESS {
            let source = Box::new(PoolError::Raced.into());
            return Err(ProvisionError::Stopped { made: done.made.len(), count, source });
        }
    }
    Ok(done)
}

/// What came of an account that was to be made.
enum Made {
    Account(DomainAccount),
    /// The directory has the name already.
    Refused(NetbiosName, String),
    /// Another run was faster with the name.
    Raced,
}

async fn make(
    store: &Store,
    directory: &Directory,
    pool: &Name,
    name: NetbiosName,
    entry: NewEntry,
    stop: &CancellationToken,
) -> Result<Made, ProvisionError> {
    if stop.is_cancelled() {
        return Err(ProvisionError::Interrupted);
    }
    let domain = directory.domain();
    let planned = Planned {
        realm: domain.realm.clone(),
        workgroup: domain.workgroup.clone(),
        dn: directory.dn(&name),
        name,
    };
    let id = match store.intend(pool, &entry, &planned).await {
        Err(PoolError::Raced) => return Ok(Made::Raced),
        id => id?,
    };
    let password = password::random();
    match directory.create(&planned.name, &password, &stamp(store, id).await?).await {
        Ok(account) => {
            store.provisioned(id, &account, &password).await?;
            Ok(Made::Account(account))
        }
        Err(AccountError::Taken { name, by }) => {
            store.abandon(id, "the directory has the name").await?;
            Ok(Made::Refused(name, by.to_string()))
        }
        Err(AccountError::Exists { name, text }) => {
            store.abandon(id, "the directory has the name").await?;
            Ok(Made::Refused(name, text.to_string()))
        }
        // What became of it is found out later, by its stamp.
        Err(error) if error.is_unclear() => Err(error.into()),
        Err(error) => {
            store.abandon(id, "the directory refused").await?;
            Err(error.into())
        }
    }
}

/// The account's name: the first label of the host name.
fn account_name(hostname: &Hostname) -> Result<NetbiosName, ProvisionError> {
    let label = hostname.as_str().split('.').next().unwrap_or_default();
    label.parse().map_err(|source| ProvisionError::Name { hostname: hostname.clone(), source })
}

/// The intents of which nobody is about to make the account any more.
fn stale_intents<'a>(entries: &'a [Entry], directory: &Directory, stale: Duration) -> Vec<&'a Entry> {
    let before =
        crate::child::record::now_ms().saturating_sub(u64::try_from(stale.as_millis()).unwrap_or(u64::MAX));
    let realm = &directory.domain().realm;
    let is_stale = |entry: &&Entry| {
        entry.state == State::Intent
            && entry.since_ms <= before
            && entry.account.as_ref().is_some_and(|account| account.planned.realm == *realm)
    };
    entries.iter().filter(is_stale).collect()
}

/// Finds out what became of an intent, and brings it to its end. Its password is known to nobody: it gets another.
async fn settle(
    store: &Store,
    directory: &Directory,
    entry: &Entry,
) -> Result<Option<DomainAccount>, ProvisionError> {
    let Some(found) = directory.find_stamped(&stamp(store, entry.id).await?).await? else {
        store.abandon(entry.id, "its account was never made").await?;
        return Ok(None);
    };
    let password = password::random();
    let account = directory.reset(&found.account, &password).await?;
    store.provisioned(entry.id, &account, &password).await?;
    Ok(Some(account))
}
