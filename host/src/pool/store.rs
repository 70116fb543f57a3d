//! The database behind the store: SQLite or PostgreSQL, reached through the same statements.
//!
//! Both understand `$1`, `RETURNING` and `ON CONFLICT`, and the tables are made of text and numbers only, so one text
//! does for both. Two things differ: how a transaction that writes begins (SQLite must be told at once that it will, or
//! it fails where it should wait), and how rows that others are about to take are passed over
//! (`leases.rs`).

use super::{
    Entry, EntryId, Host, KeySource, PoolError, SealingKey, StoreUrl,
    history::now,
    life::{State, Step, next},
};
use crate::{
    fs::{AtPath, FsError},
    lock,
};
use futures::future::BoxFuture;
use sqlx::{
    Any, AnyConnection, AnyPool, ConnectOptions as _, Executor as _, Row as _, Transaction,
    any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers},
    error::BoxDynError,
    migrate::{MigrateError, Migration, MigrationSource, MigrationType, Migrator},
};
use std::{
    fmt,
    fs::File,
    path::Path,
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// How long a command tries again while the database is away or others are in the way.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it waits for a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How long one statement may wait for others, or the server for the next statement of a transaction: a host that
/// froze in the middle must not hold up the rest.
const SQLITE: &str = "PRAGMA busy_timeout = 10000; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; \
                      PRAGMA foreign_keys = ON";
const POSTGRES: &str = "SET statement_timeout = '10s'; SET lock_timeout = '10s'; \
                        SET idle_in_transaction_session_timeout = '10s'";

/// The schema, oldest part first. What was released is never changed, only added to.
const MIGRATIONS: [(i64, &str, &str); 1] = [(1, "pools", include_str!("../../migrations/0001_pools.sql"))];

/// A store of identities, open.
pub struct Store {
    db: AnyPool,
    url: StoreUrl,
    source: KeySource,
    key: OnceCell<SealingKey>,
    host: Host,
    pub(super) id: OnceCell<String>,
}

impl fmt::Debug for Store {
    // The pool's own would show the URL with its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url)
    }
}

impl Store {
    /// Opens the store at `url` for `host`. Its tables are made if it has none, and brought up to date; a newer schema
    /// is refused. The key is read when the first password is sealed or opened.
    pub async fn open(url: StoreUrl, key: KeySource, host: Host) -> Result<Self, PoolError> {
        install_default_drivers();
        let settings = match &url {
            StoreUrl::Sqlite(path) => {
                create_private(path)?;
                SQLITE
            }
            StoreUrl::Postgres(_) => POSTGRES,
        };
        let failed = |source| PoolError::Open { store: url.to_string(), source };
        let options: AnyConnectOptions = url.to_sqlx().parse().map_err(failed)?;
        let db = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECT)
            .after_connect(move |connection, _| {
                Box::pin(async move { connection.execute(settings).await.map(drop) })
            })
            .connect_lazy_with(options.clone());
        let store = Self { db, url, source: key, key: OnceCell::new(), host, id: OnceCell::new() };
        match store.contend(|| store.migrate()).await {
            // Why there is no connection is what the pool does not say.
            Err(PoolError::Open { store, source: sqlx::Error::PoolTimedOut }) => {
                let source = options.connect().await.err().unwrap_or(sqlx::Error::PoolTimedOut);
                Err(PoolError::Open { store, source })
            }
            result => result.map(|()| store),
        }
    }

    /// Which store, without its password.
    #[must_use]
    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// The host that it is open for.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn db(&self) -> &AnyPool {
        &self.db
    }

    async fn migrate(&self) -> Result<(), PoolError> {
        let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
        let version: Result<Option<i64>, _> =
            sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&self.db).await;
        match version {
            Ok(Some(found)) if found > known => {
                return Err(PoolError::NewerSchema { store: self.url.to_string(), found, known });
            }
            Ok(Some(found)) if found == known => return Ok(()),
            // It is older, or has no such table yet.
            Ok(_) | Err(sqlx::Error::Database(_)) => {}
            Err(source) => return Err(PoolError::Open { store: self.url.to_string(), source }),
        }
        let _alone = self.alone().await?;
        let failed = |source| PoolError::Migrate { store: self.url.to_string(), source: Box::new(source) };
        let migrator = Migrator::new(Migrations).await.map_err(failed)?;
        match migrator.run(&self.db).await {
            Ok(()) => Ok(()),
            // Somebody newer was here since the look above.
            Err(MigrateError::VersionMissing(found)) => {
                Err(PoolError::NewerSchema { store: self.url.to_string(), found, known })
            }
            Err(MigrateError::Execute(source)) => {
                Err(PoolError::Open { store: self.url.to_string(), source })
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Keeps others from preparing the same SQLite file. PostgreSQL has a lock for that, which sqlx takes.
    async fn alone(&self) -> Result<Option<File>, PoolError> {
        let StoreUrl::Sqlite(path) = &self.url else { return Ok(None) };
        let path = path.with_added_extension("lock");
        let waiting = tokio::task::spawn_blocking(move || lock::wait(&path));
        let held = waiting.await.map_err(|_| PoolError::Raced)??;
        // It is a property of the file from now on. Readers do not wait for writers then.
        self.db.execute("PRAGMA journal_mode = WAL").await?;
        Ok(Some(held))
    }

    /// The key, which is known to be this store's.
    pub(super) async fn key(&self) -> Result<&SealingKey, PoolError> {
        self.key
            .get_or_try_init(|| async {
                let key = SealingKey::load(&self.source)?;
                sqlx::query(
                    "INSERT INTO settings (name, value) VALUES ('key check', $1) ON CONFLICT DO NOTHING",
                )
                .bind(key.new_check()?)
                .execute(&self.db)
                .await?;
                let check = "SELECT value FROM settings WHERE name = 'key check'";
                key.verify(sqlx::query_scalar::<_, String>(check).fetch_one(&self.db).await?.as_str())?;
                Ok(key)
            })
            .await
    }

    /// A transaction that writes.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Any>, PoolError> {
        Ok(match self.url {
            StoreUrl::Sqlite(_) => self.db.begin_with("BEGIN IMMEDIATE").await?,
            StoreUrl::Postgres(_) => self.db.begin().await?,
        })
    }

    /// Repeats `attempt` while the database is away or others are in the way. The attempt may have been done without
    /// the answer reaching this host, so it must be one that can be repeated.
    pub(super) async fn persist<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, PoolError>
    where
        F: Future<Output = Result<T, PoolError>>,
    {
        again(PoolError::may_pass, attempt).await
    }

    /// Repeats `attempt` while others are in the way, for which it was undone.
    pub(super) async fn contend<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, PoolError>
    where
        F: Future<Output = Result<T, PoolError>>,
    {
        again(PoolError::is_raced, attempt).await
    }

    /// An identity by its id.
    pub(super) async fn entry(
        &self,
        connection: &mut AnyConnection,
        id: EntryId,
    ) -> Result<Entry, PoolError> {
        let row = sqlx::query("SELECT * FROM entries WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
        row.as_ref().map(Entry::from_row).transpose()?.ok_or_else(|| PoolError::NoEntry(id.to_string()))
    }

    /// Takes `entry`, as it was read in this transaction, by `step`, and records why. One that is there already is left
    /// as it is. What the new state does not keep is wiped.
    pub(super) async fn step(
        &self,
        connection: &mut AnyConnection,
        entry: &Entry,
        step: Step,
        reason: &str,
    ) -> Result<State, PoolError> {
        let to = next(entry.state, step, entry.account.is_some()).ok_or_else(|| PoolError::NotAllowed {
            hostname: entry.identity.hostname.clone(),
            step,
            state: entry.state,
        })?;
        if to == entry.state {
            return Ok(to);
        }
        // That it is still where it was read is part of the statement: no row need be locked before.
        let statement = match to {
            State::Available => {
                "UPDATE entries SET state = $1, since_ms = $2, host = NULL, host_name = NULL, child = NULL,
                 instance = NULL, cid = NULL, persistent = 0 WHERE id = $3 AND state = $4"
            }
            State::Leased | State::Handed => {
                "UPDATE entries SET state = $1, since_ms = $2 WHERE id = $3 AND state = $4"
            }
            State::Intent | State::InUse | State::Quarantine | State::Retired => {
                "UPDATE entries SET state = $1, since_ms = $2, password = NULL WHERE id = $3 AND state = $4"
            }
        };
        let done = sqlx::query(statement)
            .bind(to.word())
            .bind(now())
            .bind(entry.id.to_string())
            .bind(entry.state.word())
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 0 {
            return Err(PoolError::Raced);
        }
        if to == State::Retired {
            sqlx::query("DELETE FROM macs WHERE entry = $1")
                .bind(entry.id.to_string())
                .execute(&mut *connection)
                .await?;
        }
        let holder = entry.held_by.as_ref().map(|held_by| &held_by.holder);
        self.record(connection, entry, Some(entry.state), to, holder, reason).await?;
        Ok(to)
    }

    /// Sees to it that a password that was wiped is in no file of the store. In PostgreSQL it stays, sealed, until
    /// the server vacuums the row and reuses its log.
    pub(super) async fn forget(&self) -> Result<(), PoolError> {
        match self.url {
            // The log still has the page as it was (sqlite.org/pragma.html, "wal_checkpoint").
            StoreUrl::Sqlite(_) => {
                let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&self.db).await?;
                match row.try_get::<i64, _>(0)? {
                    0 => Ok(()),
                    _ => Err(PoolError::Raced),
                }
            }
            StoreUrl::Postgres(_) => Ok(()),
        }
    }
}

async fn again<T, F>(worth: fn(&PoolError) -> bool, attempt: impl Fn() -> F) -> Result<T, PoolError>
where
    F: Future<Output = Result<T, PoolError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Err(error) if worth(&error) && Instant::now() < deadline => {
                tracing::debug!(error = &error as &dyn std::error::Error, "trying again");
                // Of different length, so that those who were in each other's way are not again.
                let pause = 10 + u64::from(getrandom::u32().unwrap_or_default() % 40);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            result => return result,
        }
    }
}

/// Makes the file, readable by its owner only: SQLite gives its other files the same mode.
fn create_private(path: &Path) -> Result<(), FsError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop).at("open", path)
}

#[derive(Debug)]
struct Migrations;

impl MigrationSource<'static> for Migrations {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migrations = MIGRATIONS.map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
        });
        Box::pin(async { Ok(migrations.into()) })
    }
}
