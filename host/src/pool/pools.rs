//! Pools, and what is in them.

use super::{
    Draft, Entry, EntryId, HostnamePattern, MacSource, NewEntry, Planned, PoolError, Store,
    draft::Taken,
    entry::{number, optional, parsed},
    history::now,
    life::State,
};
use crate::name::Name;
use sqlx::{AnyConnection, any::AnyRow};
use std::collections::HashMap;

/// How a pool's identities are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPool {
    /// What it is called.
    pub name: Name,
    /// Its identities' host names.
    pub hostnames: HostnamePattern,
    /// Where MAC addresses come from; without it, they are made when a child is.
    pub macs: Option<MacSource>,
    /// How many MAC addresses each identity has.
    pub nics: usize,
}

impl NewPool {
    fn from_row(row: &AnyRow) -> Result<Self, PoolError> {
        Ok(Self {
            name: parsed(row, "name")?,
            hostnames: parsed(row, "hostnames")?,
            macs: optional(row, "macs")?,
            nics: number(row, "nics")?.unwrap_or_default(),
        })
    }
}

/// A pool, and how many identities it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How its identities are made.
    pub pool: NewPool,
    counts: HashMap<State, usize>,
}

impl Summary {
    /// How many are in `state`.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        self.counts.get(&state).copied().unwrap_or_default()
    }
}

impl Store {
    /// Makes a pool without identities.
    pub async fn create_pool(&self, pool: &NewPool) -> Result<(), PoolError> {
        let made = sqlx::query(
            "INSERT INTO pools (name, hostnames, macs, nics) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(pool.name.to_string())
        .bind(pool.hostnames.to_string())
        .bind(pool.macs.map(|macs| macs.to_string()))
        .bind(i64::try_from(pool.nics).unwrap_or(i64::MAX))
        .execute(self.db())
        .await?;
        if made.rows_affected() == 0 { Err(PoolError::PoolTaken(pool.name.clone())) } else { Ok(()) }
    }

    /// All pools, by name.
    pub async fn pools(&self) -> Result<Vec<Summary>, PoolError> {
        let rows = sqlx::query("SELECT * FROM pools ORDER BY name").fetch_all(self.db()).await?;
        let counted = sqlx::query("SELECT pool, state, COUNT(*) AS count FROM entries GROUP BY pool, state")
            .fetch_all(self.db())
            .await?;
        let mut counts: HashMap<Name, HashMap<State, usize>> = HashMap::new();
        for row in &counted {
            let count = number(row, "count")?.unwrap_or_default();
            counts.entry(parsed(row, "pool")?).or_default().insert(parsed(row, "state")?, count);
        }
        let summary = |row| {
            let pool = NewPool::from_row(row)?;
            let counts = counts.remove(&pool.name).unwrap_or_default();
            Ok(Summary { pool, counts })
        };
        rows.iter().map(summary).collect()
    }

    /// One pool.
    pub async fn pool(&self, name: &Name) -> Result<Summary, PoolError> {
        let found = self.pools().await?.into_iter().find(|summary| summary.pool.name == *name);
        found.ok_or_else(|| PoolError::NoPool(name.clone()))
    }

    /// The identities of a pool by host name, retired ones last.
    pub async fn entries(&self, pool: &Name) -> Result<Vec<Entry>, PoolError> {
        let rows = sqlx::query(
            "SELECT * FROM entries WHERE pool = $1
             ORDER BY CASE WHEN state = 'retired' THEN 1 ELSE 0 END, lower(hostname), since_ms",
        )
        .bind(pool.as_str())
        .fetch_all(self.db())
        .await?;
        if rows.is_empty() {
            // No such pool is another thing than an empty one.
            self.pool(pool).await?;
        }
        rows.iter().map(Entry::from_row).collect()
    }

    /// All identities of all pools, retired ones included.
    pub async fn all_entries(&self) -> Result<Vec<Entry>, PoolError> {
        let rows = sqlx::query("SELECT * FROM entries ORDER BY pool, lower(hostname), since_ms");
        rows.fetch_all(self.db()).await?.iter().map(Entry::from_row).collect()
    }

    /// Removes a pool and its identities; their history stays. One that somebody may still need is refused.
    pub async fn remove_pool(&self, name: &Name) -> Result<(), PoolError> {
        let mut transaction = self.begin().await?;
        self.definition(&mut transaction, name).await?;
        let rows = sqlx::query("SELECT * FROM entries WHERE pool = $1")
            .bind(name.as_str())
            .fetch_all(&mut *transaction)
            .await?;
        let entries: Vec<Entry> = rows.iter().map(Entry::from_row).collect::<Result<_, _>>()?;
        if let Some((what, advice)) = needed(&entries) {
            return Err(PoolError::PoolInUse { pool: name.clone(), what, advice });
        }
        for entry in entries.iter().filter(|entry| entry.state != State::Retired) {
            self.record(
                &mut transaction,
                entry,
                Some(entry.state),
                State::Retired,
                None,
                "the pool was removed",
            )
            .await?;
        }
        for statement in ["DELETE FROM entries WHERE pool = $1", "DELETE FROM pools WHERE name = $1"] {
            sqlx::query(statement).bind(name.as_str()).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// What the next `count` identities of the pool could be. Nothing is taken yet.
    pub async fn propose(&self, pool: &Name, count: usize) -> Result<Vec<NewEntry>, PoolError> {
        let mut connection = self.db().acquire().await?;
        let definition = self.definition(&mut connection, pool).await?;
        let taken = Taken::read(&mut connection).await?;
        let drafts = taken.names(&definition.hostnames, count)?;
        taken.complete(&definition, &drafts)
    }

    /// Adds `count` identities, called by the pool's pattern.
    pub async fn grow(&self, pool: &Name, count: usize) -> Result<Vec<NewEntry>, PoolError> {
        self.contend(|| self.try_add(pool, Wanted::Count(count))).await
    }

    /// Adds identities that somebody has thought of, all or none.
    pub async fn add(&self, pool: &Name, drafts: &[Draft]) -> Result<Vec<NewEntry>, PoolError> {
        self.contend(|| self.try_add(pool, Wanted::Drafts(drafts))).await
    }

    /// What [`Store::add`] would add; nothing is added.
    pub async fn check(&self, pool: &Name, drafts: &[Draft]) -> Result<Vec<NewEntry>, PoolError> {
        let mut connection = self.db().acquire().await?;
        let definition = self.definition(&mut connection, pool).await?;
        Taken::read(&mut connection).await?.complete(&definition, drafts)
    }

    async fn try_add(&self, pool: &Name, wanted: Wanted<'_>) -> Result<Vec<NewEntry>, PoolError> {
        let mut transaction = self.begin().await?;
        let definition = self.definition(&mut transaction, pool).await?;
        let taken = Taken::read(&mut transaction).await?;
        let named;
        let drafts = match wanted {
            Wanted::Drafts(drafts) => drafts,
            Wanted::Count(count) => {
                named = taken.names(&definition.hostnames, count)?;
                &named
            }
        };
        let entries = taken.complete(&definition, drafts)?;
        for entry in &entries {
            self.insert(&mut transaction, pool, entry, None).await?;
        }
        transaction.commit().await?;
        Ok(entries)
    }

    /// Puts an identity into the store: as an intent if an account is planned, else at once to be leased.
    pub(super) async fn insert(
        &self,
        connection: &mut AnyConnection,
        pool: &Name,
        identity: &NewEntry,
        planned: Option<&Planned>,
    ) -> Result<EntryId, PoolError> {
        let id = EntryId::random();
        let (state, reason) = match planned {
            None => (State::Available, "added"),
            Some(_) => (State::Intent, "its account is about to be made"),
        };
        let macs: Vec<String> = identity.macs.iter().map(ToString::to_string).collect();
        let done = sqlx::query(
            "INSERT INTO entries
             (id, pool, hostname, macs, machine_sid, state, since_ms, realm, workgroup, account, dn)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(id.to_string())
        .bind(pool.to_string())
        .bind(identity.hostname.to_string())
        .bind(macs.join(" "))
        .bind(identity.machine_sid.to_string())
        .bind(state.word())
        .bind(now())
        .bind(planned.map(|planned| planned.realm.to_string()))
        .bind(planned.map(|planned| planned.workgroup.to_string()))
        .bind(planned.map(|planned| planned.name.to_string()))
        .bind(planned.map(|planned| planned.dn.clone()))
        .execute(&mut *connection)
        .await;
        unless_taken(done)?;
        for mac in macs {
            let done = sqlx::query("INSERT INTO macs (mac, entry) VALUES ($1, $2)")
                .bind(mac)
                .bind(id.to_string())
                .execute(&mut *connection)
                .await;
            unless_taken(done)?;
        }
        let entry = self.entry(connection, id).await?;
        self.record(connection, &entry, None, state, None, reason).await?;
        Ok(id)
    }

    /// How the pool's identities are made.
    pub(super) async fn definition(
        &self,
        connection: &mut AnyConnection,
        pool: &Name,
    ) -> Result<NewPool, PoolError> {
        let row = sqlx::query("SELECT * FROM pools WHERE name = $1")
            .bind(pool.as_str())
            .fetch_optional(connection)
            .await?;
        row.as_ref().map(NewPool::from_row).transpose()?.ok_or_else(|| PoolError::NoPool(pool.clone()))
    }
}

#[derive(Clone, Copy)]
enum Wanted<'a> {
    Count(usize),
    Drafts(&'a [Draft]),
}

/// Somebody else was faster with something that was free when this transaction looked.
fn unless_taken<T>(done: Result<T, sqlx::Error>) -> Result<T, PoolError> {
    done.map_err(|error| match error {
        sqlx::Error::Database(cause) if cause.is_unique_violation() => PoolError::Raced,
        other => other.into(),
    })
}

/// What somebody may still need of the entries, and what to do about it.
fn needed(entries: &[Entry]) -> Option<(String, &'static str)> {
    let count = |is: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| is(entry)).count();
    let held = count(&|entry| entry.state.is_lease());
    let quarantined = count(&|entry| entry.state == State::Quarantine);
    let accounts = count(&|entry| entry.account.is_some() && entry.state != State::Retired);
    if held > 0 {
        return Some((format!("{held} leased identities"), "remove their children first (ramet pool show)"));
    }
    if quarantined > 0 {
        let advice = "release them (ramet pool release), or retire their accounts (ramet domain retire)";
        return Some((format!("{quarantined} identities in quarantine"), advice));
    }
    (accounts > 0).then(|| {
        (format!("{accounts} identities with an account"), "retire the accounts first (ramet domain retire)")
    })
}
