//! Identities with a computer account: journalled before the directory is changed, and after.

use super::{
    Account, Conflict, Entry, EntryId, NewEntry, Planned, PoolError, Store,
    entry::purpose,
    life::{State, Step},
};
use crate::name::Name;
use ramet_proto::{Secret, domain::DomainAccount};
use sqlx::AnyConnection;

impl Store {
    /// Journals that the account `planned` is about to be made for `identity`. The id returned is to stand in the
    /// account's description.
    pub async fn intend(
        &self,
        pool: &Name,
        identity: &NewEntry,
        planned: &Planned,
    ) -> Result<EntryId, PoolError> {
        let mut transaction = self.begin().await?;
        self.definition(&mut transaction, pool).await?;
        unless_taken(&mut transaction, identity, planned).await?;
        let id = self.insert(&mut transaction, pool, identity, Some(planned)).await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// The account of an intent was made: it can be leased.
    pub async fn provisioned(
        &self,
        id: EntryId,
        account: &DomainAccount,
        password: &Secret,
    ) -> Result<(), PoolError> {
        self.secure(id, Step::Provision, account, password, "its account was made").await
    }

    /// The account of an intent was not made, or was deleted again. The identity's names are free.
    pub async fn abandon(&self, id: EntryId, why: &str) -> Result<(), PoolError> {
        self.change(id, Step::Abandon, why).await.map(drop)
    }

    /// The account of an identity in quarantine has another password: it can be leased again. `account` is what it is
    /// now: its keys have another version, and if it was deleted and made again, it has another SID.
    pub async fn reset(
        &self,
        id: EntryId,
        account: &DomainAccount,
        password: &Secret,
    ) -> Result<(), PoolError> {
        self.secure(id, Step::Reset, account, password, "its account has another password").await
    }

    /// An identity is done with: its account was deleted or disabled. Its names are free.
    pub async fn retired(&self, id: EntryId, why: &str) -> Result<(), PoolError> {
        self.change(id, Step::Retire, why).await.map(drop)
    }

    /// Takes an identity by `step`, with the account and the password that it has from now on.
    async fn secure(
        &self,
        id: EntryId,
        step: Step,
        account: &DomainAccount,
        password: &Secret,
        why: &str,
    ) -> Result<(), PoolError> {
        let sealed = self.key().await?.seal(password.expose(), &purpose(id, account))?;
        self.persist(|| async {
            let mut transaction = self.begin().await?;
            let entry = self.entry(&mut transaction, id).await?;
            if is_done(&entry, account) {
                return Ok(());
            }
            self.step(&mut transaction, &entry, step, why).await?;
            write(&mut transaction, id, account, &sealed).await?;
            Ok(transaction.commit().await?)
        })
        .await
    }
}

/// Tells whose the names are if they are taken.
async fn unless_taken(
    connection: &mut AnyConnection,
    identity: &NewEntry,
    planned: &Planned,
) -> Result<(), PoolError> {
    let row = sqlx::query(
        "SELECT * FROM entries WHERE state <> 'retired'
         AND (lower(hostname) = lower($1) OR (realm = $2 AND account = $3))",
    )
    .bind(identity.hostname.to_string())
    .bind(planned.realm.to_string())
    .bind(planned.name.to_string())
    .fetch_all(connection)
    .await?;
    let Some(other) = row.first().map(Entry::from_row).transpose()? else { return Ok(()) };
    let owner = format!("{} of the pool {}", other.identity.hostname, other.pool);
    let conflict = if other.identity.hostname.same(&identity.hostname) {
        Conflict::Hostname(identity.hostname.clone(), owner)
    } else {
        Conflict::Account(planned.name.clone(), owner)
    };
    Err(PoolError::Conflicts(vec![(0, conflict)]))
}

/// Whether an attempt before this one did it, whose answer was lost.
fn is_done(entry: &Entry, account: &DomainAccount) -> bool {
    let known = entry.account.as_ref().and_then(Account::domain);
    entry.state == State::Available && known.as_ref() == Some(account)
}

async fn write(
    connection: &mut AnyConnection,
    id: EntryId,
    account: &DomainAccount,
    sealed: &str,
) -> Result<(), PoolError> {
    sqlx::query(
        "UPDATE entries SET realm = $1, workgroup = $2, account = $3, account_sid = $4, kvno = $5, dc = $6,
         password = $7 WHERE id = $8",
    )
    .bind(account.realm.to_string())
    .bind(account.workgroup.to_string())
    .bind(account.name.to_string())
    .bind(account.sid.to_string())
    .bind(i64::from(account.kvno))
    .bind(account.dc.to_string())
    .bind(sealed.to_owned())
    .bind(id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}
