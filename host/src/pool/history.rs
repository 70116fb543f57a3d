//! What happened to an identity. It is written in the transaction that makes it happen, and outlives the identity.

use super::{
    Entry, HostId, PoolError, Store,
    entry::{Holder, number, optional, parsed},
    life::State,
};
use crate::{child::record::now_ms, name::Name};
use ramet_proto::{Hostname, InstanceId};
use serde::Serialize;
use sqlx::{AnyConnection, Row as _, any::AnyRow};

/// A change of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When, milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
    /// Where it was; `None` if it was new.
    pub from: Option<State>,
    /// Where it went.
    pub to: State,
    /// The host whose command changed it.
    pub host: HostId,
    /// What people call that host.
    pub host_name: String,
    /// Whose it became, was or had been.
    pub child: Option<Name>,
    /// That child's id.
    pub instance_id: Option<InstanceId>,
    /// Why.
    pub reason: String,
}

impl Event {
    fn from_row(row: &AnyRow) -> Result<Self, PoolError> {
        Ok(Self {
            at_ms: number(row, "at_ms")?.unwrap_or_default(),
            from: optional(row, "from_state")?,
            to: parsed(row, "to_state")?,
            host: parsed(row, "host")?,
            host_name: row.try_get("host_name")?,
            child: optional(row, "child")?,
            instance_id: optional(row, "instance")?,
            reason: row.try_get("reason")?,
        })
    }
}

impl Store {
    /// All that happened to the identities that have or had the name `hostname`, oldest first.
    pub async fn history(&self, hostname: &Hostname) -> Result<Vec<Event>, PoolError> {
        let rows = sqlx::query("SELECT * FROM history WHERE lower(hostname) = lower($1) ORDER BY at_ms")
            .bind(hostname.as_str())
            .fetch_all(self.db())
            .await?;
        if rows.is_empty() {
            return Err(PoolError::NoEntry(hostname.to_string()));
        }
        rows.iter().map(Event::from_row).collect()
    }

    /// Records that `entry` went to `to`. `holder` is whose it is then, or was.
    pub(super) async fn record(
        &self,
        connection: &mut AnyConnection,
        entry: &Entry,
        from: Option<State>,
        to: State,
        holder: Option<&Holder>,
        reason: &str,
    ) -> Result<(), PoolError> {
        sqlx::query(
            "INSERT INTO history
             (entry, hostname, at_ms, from_state, to_state, host, host_name, child, instance, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(entry.id.to_string())
        .bind(entry.identity.hostname.to_string())
        .bind(now())
        .bind(from.map(State::word))
        .bind(to.word())
        .bind(self.host().id.to_string())
        .bind(self.host().name.clone())
        .bind(holder.map(|holder| holder.child.to_string()))
        .bind(holder.map(|holder| holder.instance_id.to_string()))
        .bind(reason.to_owned())
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z, as the store has them.
pub(super) fn now() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}
