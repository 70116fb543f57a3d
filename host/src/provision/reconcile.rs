//! A store and an organizational unit compared, in both directions.

use super::{ProvisionError, prefix, settle, stale_intents};
use crate::{
    domain::{AccountError, Directory, Found, password},
    pool::{Account, Entry, EntryId, Store, life::State},
};
use ramet_proto::{Sid, domain::NetbiosName};
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// What is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The account.
    pub name: NetbiosName,
    /// What it is.
    pub kind: Kind,
    /// Whether something is done about it.
    pub mended: bool,
}

/// Kinds of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A run was ended between the journal and the directory, or between the directory and the journal. It is finished.
    Unfinished,
    /// The store has it and the directory has not. Unless a child has it, it is retired.
    Missing,
    /// The store does not have its password: somebody else has set one. Unless a child has it, it gets a new one.
    Changed,
    /// It was disabled in the directory. Nothing is done about it.
    Disabled,
    /// The directory has it, made by this store, which knows nothing of it any more. It is deleted.
    Orphaned,
}

impl Kind {
    /// In words, for a table.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Unfinished => "begun, and not finished",
            Self::Missing => "in the store only",
            Self::Changed => "its password was set by somebody else",
            Self::Disabled => "disabled in the directory",
            Self::Orphaned => "made by this store, which no longer knows it",
        }
    }
}

/// Compares, and mends what can be unless it is a `dry` run. Intents younger than `stale` are left to those who may be
/// about to make their accounts.
pub async fn reconcile(
    store: &Store,
    directory: &Directory,
    stale: Duration,
    dry: bool,
) -> Result<Vec<Difference>, ProvisionError> {
    // The directory first: what is made meanwhile is then known to the store, and not taken for an orphan.
    let accounts = directory.list().await?;
    let entries = store.all_entries().await?;
    let realm = &directory.domain().realm;
    let here = |account: &Account| account.planned.realm == *realm;
    let ours: Vec<_> = entries.iter().filter(|entry| entry.account.as_ref().is_some_and(here)).collect();

    let mut differences = Vec::new();
    for entry in stale_intents(&entries, directory, stale) {
        if !dry {
            settle(store, directory, entry).await?;
        }
        let name = entry.account.as_ref().map(|account| account.planned.name.clone());
        differences.extend(name.map(|name| Difference { name, kind: Kind::Unfinished, mended: !dry }));
    }
    for (kind, entry, account) in differing(&ours, &accounts) {
        let free = matches!(entry.state, State::Available | State::Quarantine);
        let mended = free && kind != Kind::Disabled && !dry;
        if mended {
            mend(store, directory, kind, entry).await?;
        }
        differences.push(Difference { name: account, kind, mended });
    }
    for orphan in orphans(&prefix(store).await?, &ours, &accounts) {
        if !dry {
            match directory.delete(&orphan.account).await {
                Ok(()) | Err(AccountError::Gone { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        differences.push(Difference {
            name: orphan.account.name.clone(),
            kind: Kind::Orphaned,
            mended: !dry,
        });
    }
    Ok(differences)
}

async fn mend(store: &Store, directory: &Directory, kind: Kind, entry: &Entry) -> Result<(), ProvisionError> {
    let account = entry.account.as_ref().and_then(Account::domain);
    match (kind, account) {
        (Kind::Missing, _) => store.retired(entry.id, "its account is gone").await?,
        (Kind::Changed, Some(account)) => {
            let password = password::random();
            let account = directory.reset(&account, &password).await?;
            store.reset(entry.id, &account, &password).await?;
        }
        (Kind::Changed, None) | (Kind::Unfinished | Kind::Disabled | Kind::Orphaned, _) => {}
    }
    Ok(())
}

/// Identities whose accounts are not as the store has them.
fn differing<'a>(entries: &[&'a Entry], accounts: &[Found]) -> Vec<(Kind, &'a Entry, NetbiosName)> {
    let by_sid: HashMap<&Sid, &Found> = accounts.iter().map(|found| (&found.account.sid, found)).collect();
    let mut differing = Vec::new();
    for entry in entries {
        let made = entry.account.as_ref().and_then(|account| Some((account, account.made.as_ref()?)));
        let Some((account, made)) = made else { continue };
        if matches!(entry.state, State::Intent | State::Retired) {
            continue;
        }
        let kind = match by_sid.get(&made.sid) {
            None => Kind::Missing,
            // A guest that changes its own password is right to, and one in quarantine gets another anyway.
            Some(found) if found.account.kvno != made.kvno => match entry.state {
                State::InUse if account.persistent => continue,
                State::Quarantine => continue,
                State::Intent
                | State::Available
                | State::Leased
                | State::Handed
                | State::InUse
                | State::Retired => Kind::Changed,
            },
            Some(found) if !found.enabled => Kind::Disabled,
            Some(_) => continue,
        };
        differing.push((kind, *entry, account.planned.name.clone()));
    }
    differing
}

/// Accounts that were made by the store whose stamps begin with `prefix`, and that it does not know any more.
fn orphans<'a>(prefix: &str, entries: &[&Entry], accounts: &'a [Found]) -> Vec<&'a Found> {
    let known: HashSet<EntryId> =
        entries.iter().filter(|entry| entry.state != State::Retired).map(|entry| entry.id).collect();
    let is_orphan = |found: &&Found| {
        let id = found.description.as_deref().and_then(|stamp| stamp.strip_prefix(prefix)?.parse().ok());
        id.is_some_and(|id: EntryId| !known.contains(&id))
    };
    accounts.iter().filter(is_orphan).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Made, NewEntry, Planned};
    use ramet_proto::domain::DomainAccount;

    const PREFIX: &str = "ramet:s:";

    fn sid(rid: u32) -> Sid {
        format!("S-1-5-21-1-2-3-{rid}").parse().unwrap()
    }

    fn entry(rid: u32, state: State, persistent: bool) -> Entry {
        let planned = Planned {
            realm: "AD.EXAMPLE.ORG".parse().unwrap(),
            workgroup: "EXAMPLE".parse().unwrap(),
            name: format!("vdi-{rid}").parse().unwrap(),
            dn: format!("CN=VDI-{rid},OU=Clones"),
        };
        let made = Made { sid: sid(rid), kvno: 2, dc: "dc1.ad.example.org".parse().unwrap() };
        Entry {
            id: EntryId::random(),
            pool: "vdi".parse().unwrap(),
            identity: NewEntry {
                hostname: format!("vdi-{rid}").parse().unwrap(),
                macs: Vec::new(),
                machine_sid: Sid::machine([rid; 3]),
            },
            state,
            since_ms: 0,
            held_by: None,
            account: Some(Account { planned, made: (state != State::Intent).then_some(made), persistent }),
        }
    }

    fn found(rid: u32, kvno: u32, stamp: String) -> Found {
        Found {
            account: DomainAccount {
                realm: "AD.EXAMPLE.ORG".parse().unwrap(),
                workgroup: "EXAMPLE".parse().unwrap(),
                name: format!("vdi-{rid}").parse().unwrap(),
                sid: sid(rid),
                kvno,
                dc: "dc1.ad.example.org".parse().unwrap(),
                persistent: false,
            },
            dn: format!("CN=VDI-{rid},OU=Clones"),
            description: Some(stamp),
            enabled: true,
            created: None,
            password_set: None,
        }
    }

    #[test]
    fn what_differs_is_named_and_what_may_differ_is_not() {
        let entries = [
            entry(1, State::Available, false),
            entry(2, State::Available, false),
            entry(3, State::Available, false),
            entry(4, State::Quarantine, false),
            entry(5, State::InUse, true),
            entry(6, State::InUse, false),
            entry(7, State::Retired, false),
            entry(8, State::Intent, false),
            entry(9, State::Available, false),
        ];
        let disabled = Found { enabled: false, ..found(9, 2, String::new()) };
        let accounts = [
            found(1, 2, String::new()),
            found(3, 3, String::new()),
            found(4, 3, String::new()),
            found(5, 3, String::new()),
            found(6, 3, String::new()),
            disabled,
        ];
        let entries: Vec<_> = entries.iter().collect();
        let named: Vec<_> = differing(&entries, &accounts)
            .into_iter()
            .map(|(kind, _, name)| (kind, name.to_string()))
            .collect();
        let expected = [
            (Kind::Missing, "VDI-2"),
            (Kind::Changed, "VDI-3"),
            (Kind::Changed, "VDI-6"),
            (Kind::Disabled, "VDI-9"),
        ];
        assert_eq!(named, expected.map(|(kind, name)| (kind, name.to_owned())));
    }

    #[test]
    fn only_accounts_of_this_store_can_be_orphans() {
        let (live, gone) = (entry(1, State::Available, false), entry(2, State::Retired, false));
        let accounts = [
            found(1, 1, format!("{PREFIX}{}", live.id)),
            found(2, 1, format!("{PREFIX}{}", gone.id)),
            found(3, 1, format!("{PREFIX}{}", EntryId::random())),
            found(4, 1, format!("ramet:other:{}", EntryId::random())),
            found(5, 1, "a colleague's".to_owned()),
            Found { description: None, ..found(6, 1, String::new()) },
        ];
        let orphans = orphans(PREFIX, &[&live, &gone], &accounts);
        let names: Vec<_> = orphans.iter().map(|found| found.account.name.to_string()).collect();
        assert_eq!(names, ["VDI-2", "VDI-3"]);
    }
}
