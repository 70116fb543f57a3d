//! Leases: an identity belongs to a child from before it is forked until the child is gone.

use super::{
    Entry, EntryId, Holder, HostId, Lease, PoolError, Store, StoreUrl,
    history::now,
    life::{State, Step},
};
use crate::name::Name;
use ramet_proto::{Hostname, InstanceId, Secret};
use sqlx::{AnyConnection, Row as _};
use std::collections::HashSet;

/// The identity that was not used for longest becomes a child's. A scalar subquery, so that it is evaluated once: in
/// PostgreSQL `IN (... LIMIT 1)` may be evaluated again for each row.
macro_rules! take {
    ($pass_over:literal) => {
        concat!(
            "UPDATE entries SET state = 'leased', since_ms = $1, host = $2, host_name = $3, child = $4, ",
            "instance = $5, persistent = $6 ",
            "WHERE id = (SELECT id FROM entries WHERE pool = $7 AND state = 'available' ",
            "ORDER BY since_ms, hostname LIMIT 1",
            $pass_over,
            ") RETURNING *"
        )
    };
}

impl Store {
    /// Leases an identity of the pool to each of `holders`, to all or none. A holder that has one of this pool keeps
    /// it, so asking again after a broken connection takes no second one. An account is marked as `persistent` if it is
    /// to stay with its child for good.
    pub async fn lease(
        &self,
        pool: &Name,
        holders: &[Holder],
        persistent: bool,
    ) -> Result<Vec<Lease>, PoolError> {
        self.persist(|| self.try_lease(pool, holders, persistent)).await
    }

    async fn try_lease(
        &self,
        pool: &Name,
        holders: &[Holder],
        persistent: bool,
    ) -> Result<Vec<Lease>, PoolError> {
        let mut transaction = self.begin().await?;
        let mut entries = Vec::with_capacity(holders.len());
        for holder in holders {
            let found = held(&mut transaction, holder.instance_id).await?.filter(|entry| entry.pool == *pool);
            let entry = match found {
                Some(entry) => Some(entry),
                None => self.take(&mut transaction, pool, holder, persistent).await?,
            };
            let Some(entry) = entry else {
                let taken = entries.len();
                return Err(self.too_few(&mut transaction, pool, holders.len(), taken).await?);
            };
            entries.push(entry);
        }
        transaction.commit().await?;
        entries.into_iter().map(Entry::into_lease).collect()
    }

    async fn take(
        &self,
        connection: &mut AnyConnection,
        pool: &Name,
        holder: &Holder,
        persistent: bool,
    ) -> Result<Option<Entry>, PoolError> {
        let statement = match self.url() {
            // Its writers take turns.
            StoreUrl::Sqlite(_) => take!(""),
            StoreUrl::Postgres(_) => take!(" FOR UPDATE SKIP LOCKED"),
        };
        let row = sqlx::query(statement)
            .bind(now())
            .bind(self.host().id.to_string())
            .bind(self.host().name.clone())
            .bind(holder.child.to_string())
            .bind(holder.instance_id.to_string())
            .bind(i64::from(persistent))
            .bind(pool.to_string())
            .fetch_all(&mut *connection)
            .await?;
        let Some(entry) = row.first().map(Entry::from_row).transpose()? else { return Ok(None) };
        self.record(connection, &entry, Some(State::Available), State::Leased, Some(holder), "leased")
            .await?;
        Ok(Some(entry))
    }

    /// Why there is no identity left, where `taken` of `wanted` were taken in this transaction.
    async fn too_few(
        &self,
        connection: &mut AnyConnection,
        pool: &Name,
        wanted: usize,
        taken: usize,
    ) -> Result<PoolError, PoolError> {
        self.definition(connection, pool).await?;
        let left: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM entries WHERE pool = $1 AND state = 'available'")
                .bind(pool.as_str())
                .fetch_one(connection)
                .await?;
        let available = taken + usize::try_from(left).unwrap_or_default();
        // Those that others are taking at this moment count: perhaps they do not keep them.
        Ok(if available >= wanted {
            PoolError::Raced
        } else {
            PoolError::Empty { pool: pool.clone(), wanted, available }
        })
    }

    /// Hands over the password of the account that was leased to `instance`, to be sent to the guest with the context
    /// id `cid` and nobody else; `None` if the identity has no account. From here on the password may be known to a
    /// guest. It can be had again until the guest has it ([`Store::in_use`]).
    pub async fn hand_over(&self, instance: InstanceId, cid: u32) -> Result<Option<Secret>, PoolError> {
        self.persist(|| self.try_hand_over(instance, cid)).await
    }

    async fn try_hand_over(&self, instance: InstanceId, cid: u32) -> Result<Option<Secret>, PoolError> {
        let entry =
            held(&mut *self.db().acquire().await?, instance).await?.ok_or(PoolError::NoLease(instance))?;
        // Before anything changes, and before the transaction: it may have to be written to the store itself.
        let key = if entry.account.is_some() { Some(self.key().await?) } else { None };
        let mut transaction = self.begin().await?;
        let entry = held(&mut transaction, instance).await?.ok_or(PoolError::NoLease(instance))?;
        self.step(&mut transaction, &entry, Step::HandOver, "handed over").await?;
        let row = sqlx::query("UPDATE entries SET cid = $1 WHERE id = $2 RETURNING password")
            .bind(i64::from(cid))
            .bind(entry.id.to_string())
            .fetch_one(&mut *transaction)
            .await?;
        let sealed: Option<String> = row.try_get("password")?;
        let secret = match (key, sealed) {
            (None, _) => None,
            (Some(key), Some(sealed)) => Some(key.open(&sealed, &entry.purpose()?)?),
            (Some(_), None) => {
                return Err(PoolError::Damaged {
                    what: format!("{} has no password", entry.identity.hostname),
                });
            }
        };
        transaction.commit().await?;
        Ok(secret)
    }

    /// The guest has the identity of `instance`: the store forgets the password.
    pub async fn in_use(&self, instance: InstanceId) -> Result<(), PoolError> {
        self.persist(|| async {
            let mut transaction = self.begin().await?;
            let entry = held(&mut transaction, instance).await?.ok_or(PoolError::NoLease(instance))?;
            self.step(&mut transaction, &entry, Step::Use, "the guest has it").await?;
            transaction.commit().await?;
            if entry.account.is_some() { self.forget().await } else { Ok(()) }
        })
        .await
    }

    /// The child with this `instance` is gone. Says where its identity went: to quarantine if it has an account that a
    /// guest may know. `None` if it has none.
    pub async fn give_back(&self, instance: InstanceId, why: &str) -> Result<Option<State>, PoolError> {
        let given = self.persist(|| async {
            let mut transaction = self.begin().await?;
            let Some(entry) = held(&mut transaction, instance).await? else { return Ok(None) };
            let state = self.step(&mut transaction, &entry, Step::GiveBack, why).await?;
            transaction.commit().await?;
            Ok(Some(state))
        });
        given.await
    }

    /// The identities that children of `host` have.
    pub async fn leases_of(&self, host: HostId) -> Result<Vec<Entry>, PoolError> {
        let rows = sqlx::query(
            "SELECT * FROM entries WHERE host = $1 AND state IN ('leased', 'handed', 'in_use')
             ORDER BY pool, lower(hostname)",
        )
        .bind(host.to_string())
        .fetch_all(self.db())
        .await?;
        rows.iter().map(Entry::from_row).collect()
    }

    /// Gives back what this host's children have that are not among `live`, and returns it as it was. The caller holds
    /// the state's lock, or a child that is being made is taken for one that is gone.
    pub async fn sweep(&self, live: &HashSet<InstanceId>) -> Result<Vec<Entry>, PoolError> {
        let mut leases = self.leases_of(self.host().id).await?;
        leases.retain(|entry| instance_of(entry).is_some_and(|instance| !live.contains(&instance)));
        for instance in leases.iter().filter_map(instance_of) {
            self.give_back(instance, "its child is gone").await?;
        }
        Ok(leases)
    }

    /// Puts all identities of children of `host`, which is lost, into quarantine, and returns them as they were.
    pub async fn quarantine_host(&self, host: HostId) -> Result<Vec<Entry>, PoolError> {
        let leases = self.leases_of(host).await?;
        for entry in &leases {
            self.change(entry.id, Step::Lose, "its host is lost").await?;
        }
        Ok(leases)
    }

    /// Makes an identity without an account available again, whose child is gone for sure: an administrator says so.
    pub async fn release(&self, id: EntryId) -> Result<(), PoolError> {
        self.change(id, Step::Release, "released").await.map(drop)
    }

    /// The identity called `hostname` that is not retired.
    pub async fn find(&self, hostname: &Hostname) -> Result<Entry, PoolError> {
        let row =
            sqlx::query("SELECT * FROM entries WHERE lower(hostname) = lower($1) AND state <> 'retired'")
                .bind(hostname.as_str())
                .fetch_optional(self.db())
                .await?;
        row.as_ref().map(Entry::from_row).transpose()?.ok_or_else(|| PoolError::NoEntry(hostname.to_string()))
    }

    /// Takes an identity by `step`, and says where that led.
    pub(super) async fn change(&self, id: EntryId, step: Step, why: &str) -> Result<State, PoolError> {
        self.contend(|| async {
            let mut transaction = self.begin().await?;
            let entry = self.entry(&mut transaction, id).await?;
            let state = self.step(&mut transaction, &entry, step, why).await?;
            transaction.commit().await?;
            Ok(state)
        })
        .await
    }
}

/// The identity that the child has.
async fn held(connection: &mut AnyConnection, instance: InstanceId) -> Result<Option<Entry>, PoolError> {
    let row =
        sqlx::query("SELECT * FROM entries WHERE instance = $1 AND state IN ('leased', 'handed', 'in_use')")
            .bind(instance.to_string())
            .fetch_optional(connection)
            .await?;
    row.as_ref().map(Entry::from_row).transpose()
}

fn instance_of(entry: &Entry) -> Option<InstanceId> {
    entry.held_by.as_ref().map(|held_by| held_by.holder.instance_id)
}
