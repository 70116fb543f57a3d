//! A store of its own for each case.

use ramet::{
    name::Name,
    pool::{Conflict, Draft, Entry, EntryId, Holder, NewPool, Planned, PoolError, Settings, Store, StoreUrl},
    state::StateDir,
};
use ramet_proto::{InstanceId, Secret, domain::DomainAccount};
use sqlx::{AnyConnection, Connection as _, Executor as _, any::install_default_drivers};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

/// The pool of the cases.
pub(crate) const POOL: &str = "lab";

/// What the store runs on.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    Sqlite,
    /// The URL of a superuser.
    Postgres(String),
}

/// A store that nobody else uses, and the hosts that share it.
pub(crate) struct Ground {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) url: StoreUrl,
    /// For what [`Store`] does not show.
    pub(crate) raw_url: String,
    engine: Engine,
    database: String,
}

impl Ground {
    pub(crate) async fn new(engine: &Engine) -> Self {
        install_default_drivers();
        let dir = tempfile::tempdir().unwrap();
        let database = format!("ramet_test_{}", InstanceId::random().to_string().replace('-', ""));
        let raw_url = match engine {
            Engine::Sqlite => format!("sqlite://{}", dir.path().join("identities.db").display()),
            Engine::Postgres(server) => {
                let mut url: url::Url = server.parse().unwrap();
                url.set_path(&database);
                url.to_string()
            }
        };
        let url = raw_url.parse().unwrap();
        let ground = Self { dir, url, raw_url, engine: engine.clone(), database };
        ground.on_the_server(format!("CREATE DATABASE {}", ground.database)).await;
        ground
    }

    pub(crate) async fn clear(self) {
        self.on_the_server(format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
    }

    /// Runs `statement` on the PostgreSQL server, if that is what the store runs on.
    async fn on_the_server(&self, statement: String) {
        if let Engine::Postgres(server) = &self.engine {
            connect(server).await.execute(statement.as_str()).await.unwrap();
        }
    }

    /// The store without [`Store`].
    pub(crate) async fn raw(&self) -> AnyConnection {
        connect(&self.raw_url).await
    }

    /// Ends the PostgreSQL server as a crash would: nobody is told, and nothing is written that was not.
    pub(crate) async fn crash_the_server(&self) {
        let mut connection = self.raw().await;
        let crash = "COPY (SELECT 1) TO PROGRAM 'kill -QUIT $(head -n 1 postmaster.pid)'";
        // The answer may or may not come before the end, which may take another moment.
        let _ = connection.execute(crash).await;
        while connection.execute("SELECT 1").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The URL for a process that is to be killed.
    pub(crate) fn doomed_url(&self) -> String {
        match self.engine {
            Engine::Sqlite => self.raw_url.clone(),
            Engine::Postgres(_) => format!("{}&application_name=doomed", self.raw_url),
        }
    }

    /// Waits until the server has noticed that the process is gone: what it had sent is still done until then.
    pub(crate) async fn doomed_is_gone(&self) {
        let Engine::Postgres(_) = self.engine else { return };
        let connected = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = 'doomed'";
        let mut connection = self.raw().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while sqlx::query_scalar::<_, i64>(connected).fetch_one(&mut connection).await.unwrap() > 0 {
            assert!(Instant::now() < deadline, "the server does not notice that a client is gone");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The key that all hosts of this store have.
    pub(crate) fn key_file(&self) -> PathBuf {
        let path = self.dir.path().join("key");
        if !path.exists() {
            ramet::fs::create_once(&path, &[7; 32]).unwrap();
        }
        path
    }

    pub(crate) fn state(&self, host: &str) -> StateDir {
        StateDir::open(&self.dir.path().join(host)).unwrap()
    }

    /// The store as the state directory `host` has it.
    pub(crate) async fn host(&self, host: &str) -> Store {
        let settings = Settings { url: Some(self.url.clone()), key_file: Some(self.key_file()) };
        ramet::pool::open(&self.state(host), &settings).await.unwrap()
    }

    /// The store, with so many identities in its pool.
    pub(crate) async fn filled(&self, host: &str, count: usize) -> Store {
        let store = self.host(host).await;
        store.create_pool(&pool(POOL)).await.unwrap();
        store.grow(&name(POOL), count).await.unwrap();
        store
    }
}

/// A connection, waited for: one case crashes the server, and its backends may outlive the answers of the store.
async fn connect(url: &str) -> AnyConnection {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match AnyConnection::connect(url).await {
            Ok(connection) => return connection,
            Err(error) => assert!(Instant::now() < deadline, "cannot connect to {url}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn name(name: &str) -> Name {
    name.parse().unwrap()
}

pub(crate) fn pool(pool: &str) -> NewPool {
    NewPool {
        name: name(pool),
        hostnames: format!("{pool}-{{:04}}").parse().unwrap(),
        macs: Some("52:54:01".parse().unwrap()),
        nics: 1,
    }
}

pub(crate) fn holder(child: &str) -> Holder {
    Holder { child: name(child), instance_id: InstanceId::random() }
}

pub(crate) fn draft(hostname: &str) -> Draft {
    Draft { hostname: hostname.parse().unwrap(), macs: Some(Vec::new()), machine_sid: None }
}

pub(crate) fn planned(account: &str) -> Planned {
    Planned {
        realm: "AD.EXAMPLE.ORG".parse().unwrap(),
        workgroup: "EXAMPLE".parse().unwrap(),
        name: account.parse().unwrap(),
        dn: format!("CN={account},OU=vdi,DC=ad,DC=example,DC=org"),
    }
}

pub(crate) fn account(name: &str, kvno: u32) -> DomainAccount {
    DomainAccount {
        realm: "AD.EXAMPLE.ORG".parse().unwrap(),
        workgroup: "EXAMPLE".parse().unwrap(),
        name: name.parse().unwrap(),
        sid: "S-1-5-21-1-2-3-1104".parse().unwrap(),
        kvno,
        dc: "dc1.ad.example.org".parse().unwrap(),
        persistent: false,
    }
}

/// An identity with an account, ready to be leased.
pub(crate) async fn provisioned(store: &Store, password: &Secret) -> EntryId {
    let identity = store.propose(&name(POOL), 1).await.unwrap().remove(0);
    let account_name = identity.hostname.to_string();
    let id = store.intend(&name(POOL), &identity, &planned(&account_name)).await.unwrap();
    store.provisioned(id, &account(&account_name, 2), password).await.unwrap();
    id
}

pub(crate) async fn lease_one(store: &Store, holder: &Holder) -> Result<ramet::pool::Lease, PoolError> {
    store.lease(&name(POOL), std::slice::from_ref(holder), false).await.map(|mut leases| leases.remove(0))
}

/// The only conflict that there is.
pub(crate) fn conflict(error: PoolError) -> Conflict {
    match error {
        PoolError::Conflicts(mut conflicts) if conflicts.len() == 1 => conflicts.remove(0).1,
        other => panic!("{other}"),
    }
}

pub(crate) async fn entry(store: &Store, id: EntryId) -> Entry {
    store.entries(&name(POOL)).await.unwrap().into_iter().find(|entry| entry.id == id).unwrap()
}
