//! Identities as they are in the store.

use super::{HostId, PoolError, life::State};
use crate::name::Name;
use ramet_proto::{
    Hostname, InstanceId, MacAddr, Sid,
    domain::{DomainAccount, NetbiosName, Realm},
    network::DomainName,
};
use serde::Serialize;
use sqlx::{Row as _, any::AnyRow};
use std::{fmt, str::FromStr};

/// Names an identity of the store for its whole life. It stands in the description of its account in the directory, too,
/// so that whose the account is can be told there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EntryId(uuid::Uuid);

impl EntryId {
    /// A new one, like no other.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

/// A text that is no [`EntryId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of an identity")]
pub struct InvalidEntryId(String);

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidEntryId(text.chars().take(80).collect()))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an identity consists of, without an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewEntry {
    /// Its host name, which no other identity of the store has.
    pub hostname: Hostname,
    /// The addresses of its NICs; none if they are to be made when a child is.
    pub macs: Vec<MacAddr>,
    /// The machine's own SID.
    pub machine_sid: Sid,
}

/// An account that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The domain's realm.
    pub realm: Realm,
    /// The domain's NetBIOS name.
    pub workgroup: NetbiosName,
    /// `sAMAccountName` without the `$` at its end.
    pub name: NetbiosName,
    /// The distinguished name that it is to have (RFC 4514).
    pub dn: String,
}

/// The computer account of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What was planned.
    pub planned: Planned,
    /// What is known since it was made.
    pub made: Option<Made>,
    /// It stays with its child for good.
    pub persistent: bool,
}

/// What is known of an account that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// `objectSid`.
    pub sid: Sid,
    /// `msDS-KeyVersionNumber` of the password that was set last.
    pub kvno: u32,
    /// The domain controller that it was made or set on.
    pub dc: DomainName,
}

impl Account {
    /// The account, if it was made.
    #[must_use]
    pub fn domain(&self) -> Option<DomainAccount> {
        let Planned { realm, workgroup, name, dn: _ } = self.planned.clone();
        let Made { sid, kvno, dc } = self.made.clone()?;
        Some(DomainAccount { realm, workgroup, name, sid, kvno, dc, persistent: self.persistent })
    }
}

/// A child that an identity is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its name.
    pub child: Name,
    /// Names it for its whole life.
    pub instance_id: InstanceId,
}

/// An identity that belongs to a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub entry: EntryId,
    /// Whose.
    pub holder: Holder,
    /// What it consists of.
    pub identity: NewEntry,
    /// Its account. The password comes with [`super::Store::hand_over`].
    pub account: Option<DomainAccount>,
}

/// Whose an identity is, or was before its quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBy {
    /// The host.
    pub host: HostId,
    /// What people call it.
    pub host_name: String,
    /// The child.
    pub holder: Holder,
    /// The context id of the guest that the password was handed over for.
    pub cid: Option<u32>,
}

/// An identity of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub id: EntryId,
    /// In which pool.
    pub pool: Name,
    /// What it consists of.
    pub identity: NewEntry,
    /// Where it is in its life.
    pub state: State,
    /// Since when, milliseconds since 1970-01-01T00:00:00Z.
    pub since_ms: u64,
    /// Whose it is.
    pub held_by: Option<HeldBy>,
    /// Its account.
    pub account: Option<Account>,
}

impl Entry {
    pub(super) fn from_row(row: &AnyRow) -> Result<Self, PoolError> {
        let macs: String = row.try_get("macs")?;
        Ok(Self {
            id: parsed(row, "id")?,
            pool: parsed(row, "pool")?,
            identity: NewEntry {
                hostname: parsed(row, "hostname")?,
                macs: macs.split_whitespace().map(|mac| parse("macs", mac)).collect::<Result<_, _>>()?,
                machine_sid: parsed(row, "machine_sid")?,
            },
            state: parsed(row, "state")?,
            since_ms: number(row, "since_ms")?.unwrap_or_default(),
            held_by: held_by(row)?,
            account: account(row)?,
        })
    }

    /// What the child is told of it, if it is a child's.
    pub(super) fn into_lease(self) -> Result<Lease, PoolError> {
        let damaged = |what: &str| PoolError::Damaged { what: format!("{} {what}", self.identity.hostname) };
        let held_by = self.held_by.clone().ok_or_else(|| damaged("is leased to nobody"))?;
        let account = match &self.account {
            None => None,
            Some(account) => {
                Some(account.domain().ok_or_else(|| damaged("has an account that was never made"))?)
            }
        };
        Ok(Lease { entry: self.id, holder: held_by.holder, identity: self.identity, account })
    }

    /// What its password is sealed for.
    pub(super) fn purpose(&self) -> Result<String, PoolError> {
        let account = self.account.as_ref().and_then(Account::domain);
        let account = account.ok_or_else(|| PoolError::Damaged {
            what: format!("{} has a password and no account", self.identity.hostname),
        })?;
        Ok(purpose(self.id, &account))
    }
}

/// What the password of `account` is sealed for.
pub(super) fn purpose(id: EntryId, account: &DomainAccount) -> String {
    format!("{id} {} {}", account.principal(), account.kvno)
}

fn held_by(row: &AnyRow) -> Result<Option<HeldBy>, PoolError> {
    let Some(host) = optional(row, "host")? else { return Ok(None) };
    Ok(Some(HeldBy {
        host,
        host_name: row.try_get("host_name")?,
        holder: Holder { child: parsed(row, "child")?, instance_id: parsed(row, "instance")? },
        cid: number(row, "cid")?,
    }))
}

fn account(row: &AnyRow) -> Result<Option<Account>, PoolError> {
    let Some(name) = optional(row, "account")? else { return Ok(None) };
    let planned = Planned {
        realm: parsed(row, "realm")?,
        workgroup: parsed(row, "workgroup")?,
        name,
        dn: row.try_get("dn")?,
    };
    let made = match (optional(row, "account_sid")?, number(row, "kvno")?, optional(row, "dc")?) {
        (Some(sid), Some(kvno), Some(dc)) => Some(Made { sid, kvno, dc }),
        _ => None,
    };
    Ok(Some(Account { planned, made, persistent: number::<i64>(row, "persistent")? == Some(1) }))
}

/// A column that holds something.
pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(row: &AnyRow, column: &str) -> Result<T, PoolError> {
    parse(column, row.try_get(column)?)
}

/// A column that may be NULL.
pub(super) fn optional<T: FromStr<Err: fmt::Display>>(
    row: &AnyRow,
    column: &str,
) -> Result<Option<T>, PoolError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| parse(column, &text)).transpose()
}

/// A column with a number, or NULL.
pub(super) fn number<T: TryFrom<i64>>(row: &AnyRow, column: &str) -> Result<Option<T>, PoolError> {
    let number: Option<i64> = row.try_get(column)?;
    let damaged = |number| PoolError::Damaged { what: format!("{number} is out of range for {column}") };
    number.map(|number| T::try_from(number).map_err(|_| damaged(number))).transpose()
}

fn parse<T: FromStr<Err: fmt::Display>>(column: &str, text: &str) -> Result<T, PoolError> {
    text.parse().map_err(|error| PoolError::Damaged { what: format!("in {column}: {error}") })
}
