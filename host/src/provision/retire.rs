//! Accounts whose children are gone: new passwords, or the end.

use super::ProvisionError;
use crate::{
    domain::{AccountError, Directory, password},
    pool::{Account, Entry, Store, life::State},
};
use ramet_proto::{Hostname, domain::DomainAccount};

/// What becomes of an account that was a child's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gets a new password, and another child.
    Reset,
    /// It is deleted from the directory.
    Delete,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retired {
    /// It can be leased again.
    Reset,
    /// It is gone.
    Deleted,
    /// It was gone already.
    Gone,
}

impl Retired {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Deleted => "deleted",
            Self::Gone => "gone",
        }
    }
}

/// Whether an identity waits for this: it has an account in `directory`'s domain, and its child is gone.
#[must_use]
pub fn waits(entry: &Entry, directory: &Directory) -> bool {
    let here = |account: &Account| account.planned.realm == directory.domain().realm;
    entry.state == State::Quarantine && entry.account.as_ref().is_some_and(here)
}

/// Retires those of the accounts that wait for it, which children had that are gone. Says of each host name what became of its
/// account.
pub async fn retire_all(
    store: &Store,
    directory: &Directory,
    accounts: &[DomainAccount],
) -> Result<Vec<(Hostname, Result<Retired, ProvisionError>)>, ProvisionError> {
    store.keep_domain(directory.domain()).await?;
    let is_one = |entry: &Entry| {
        let known = entry.account.as_ref().and_then(Account::domain);
        known.is_some_and(|known| accounts.iter().any(|one| is_same(one, &known)))
    };
    let mut entries = store.all_entries().await?;
    entries.retain(|entry| entry.state == State::Quarantine && is_one(entry));
    let mut done = Vec::new();
    for entry in &entries {
        let retired = if waits(entry, directory) {
            retire(store, directory, entry, Fate::Reset).await
        } else {
            Err(ProvisionError::Elsewhere(directory.domain().realm.clone()))
        };
        done.push((entry.identity.hostname.clone(), retired));
    }
    Ok(done)
}

/// Whether both are one account, whatever its password is. A SID may be given again in a directory that was restored.
fn is_same(one: &DomainAccount, other: &DomainAccount) -> bool {
    (&one.realm, &one.name, &one.sid) == (&other.realm, &other.name, &other.sid)
}

/// Retires the account of an identity in quarantine. One that its child had for good is deleted, whatever `fate` says.
///
/// The directory comes first: killed in between, the identity is in quarantine as before, and it is done again.
pub async fn retire(
    store: &Store,
    directory: &Directory,
    entry: &Entry,
    fate: Fate,
) -> Result<Retired, ProvisionError> {
    let known = entry.account.as_ref().and_then(Account::domain);
    let Some(account) = known else {
        store.retired(entry.id, "it never had an account").await?;
        return Ok(Retired::Gone);
    };
    let gone = |result: Result<(), AccountError>| match result {
        Ok(()) => Ok(Retired::Deleted),
        Err(AccountError::Gone { .. }) => Ok(Retired::Gone),
        Err(error) => Err(error),
    };
    if fate == Fate::Delete || account.persistent {
        let retired = gone(directory.delete(&account).await)?;
        store.retired(entry.id, "its account was deleted").await?;
        return Ok(retired);
    }
    let password = password::random();
    match directory.reset(&account, &password).await {
        Ok(account) => {
            store.reset(entry.id, &account, &password).await?;
            Ok(Retired::Reset)
        }
        Err(AccountError::Gone { .. }) => {
            store.retired(entry.id, "its account is gone").await?;
            Ok(Retired::Gone)
        }
        Err(error) => Err(error.into()),
    }
}
