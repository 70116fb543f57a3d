//! Identities with computer accounts, and their passwords.

use crate::ground::{
    Ground, POOL, account, conflict, entry, holder, lease_one, name, planned, pool, provisioned,
};
use ramet::pool::{Conflict, Host, KeySource, PoolError, SealError, Settings, Store, StoreUrl, life::State};
use ramet_proto::{InstanceId, Secret};
use sqlx::Row as _;
use std::os::unix::fs::PermissionsExt as _;

pub(crate) async fn a_wrong_or_missing_key_is_refused(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let id = provisioned(&store, &Secret::new(b"hunter2".to_vec())).await;
    let web = holder("web-1");
    lease_one(&store, &web).await.unwrap();
    let wrong = ground.dir.path().join("wrong");
    ramet::fs::create_once(&wrong, &[8; 32]).unwrap();
    for (key, is_missing) in [(KeySource::File(wrong), false), (KeySource::Missing, true)] {
        let host = Host::of(&ground.state("a")).unwrap();
        let other = Store::open(ground.url.clone(), key, host).await.unwrap();
        let error = other.hand_over(web.instance_id, 7).await.unwrap_err();
        match error {
            PoolError::Seal(SealError::Missing) => assert!(is_missing),
            PoolError::Seal(SealError::WrongKey(_)) => assert!(!is_missing),
            other => panic!("{other}"),
        }
        let error = other.reset(id, &account("lab-0001", 3), &Secret::new(vec![1])).await.unwrap_err();
        assert!(matches!(error, PoolError::Seal(_)), "{error}");
        // Nothing was handed over.
        assert_eq!(entry(&store, id).await.state, State::Leased);
    }
    assert_eq!(store.hand_over(web.instance_id, 7).await.unwrap().unwrap().expose(), b"hunter2");
}

pub(crate) async fn a_password_is_sealed_handed_over_and_forgotten(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let password = Secret::new(b"correct horse battery staple".to_vec());
    let id = provisioned(&store, &password).await;
    let sealed = sealed(ground, &id.to_string()).await.unwrap();
    assert!(!sealed.contains("correct") && !sealed.contains(&ramet_proto::text::to_hex(b"correct")));
    assert_eq!(in_the_files(ground, &sealed), in_the_files_of(ground));
    let web = holder("web-1");
    let lease = lease_one(&store, &web).await.unwrap();
    assert_eq!(lease.account.unwrap(), account("lab-0001", 2));
    assert_eq!(store.hand_over(web.instance_id, 7).await.unwrap(), Some(password.clone()));
    // A command that did not hear it asks again.
    assert_eq!(store.hand_over(web.instance_id, 7).await.unwrap(), Some(password));
    assert_eq!(entry(&store, id).await.held_by.unwrap().cid, Some(7));
    store.in_use(web.instance_id).await.unwrap();
    store.in_use(web.instance_id).await.unwrap();
    assert_eq!(entry(&store, id).await.state, State::InUse);
    assert_eq!(self::sealed(ground, &id.to_string()).await, None);
    assert!(!in_the_files(ground, &sealed), "the sealed password is still in a file of the store");
    let error = store.hand_over(web.instance_id, 7).await.unwrap_err();
    assert!(matches!(error, PoolError::NotAllowed { state: State::InUse, .. }), "{error}");
    // Without an account there is nothing to hand over, and the life is the same.
    store.grow(&name(POOL), 1).await.unwrap();
    let plain = holder("web-2");
    assert_eq!(lease_one(&store, &plain).await.unwrap().account, None);
    assert_eq!(store.hand_over(plain.instance_id, 8).await.unwrap(), None);
    store.in_use(plain.instance_id).await.unwrap();
    let unknown = InstanceId::random();
    assert!(matches!(store.hand_over(unknown, 9).await, Err(PoolError::NoLease(id)) if id == unknown));
}

/// The sealed password of an identity.
async fn sealed(ground: &Ground, id: &str) -> Option<String> {
    let row = sqlx::query("SELECT password FROM entries WHERE id = $1").bind(id.to_owned());
    row.fetch_one(&mut ground.raw().await).await.unwrap().get("password")
}

/// Whether `text` is in a file of the store, if it has files here.
fn in_the_files(ground: &Ground, text: &str) -> bool {
    let files = std::fs::read_dir(ground.dir.path()).unwrap().map(|file| file.unwrap().path());
    let ours = files.filter(|path| path.to_str().unwrap().contains("identities.db"));
    ours.filter_map(|path| std::fs::read(path).ok())
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// Whether the store has files here.
fn in_the_files_of(ground: &Ground) -> bool {
    matches!(ground.url, StoreUrl::Sqlite(_))
}

pub(crate) async fn an_account_comes_back_through_quarantine_only(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let id = provisioned(&store, &Secret::new(b"one".to_vec())).await;
    // Leased and not handed over: nobody knows the password.
    let web = holder("web-1");
    lease_one(&store, &web).await.unwrap();
    assert_eq!(store.give_back(web.instance_id, "failed").await.unwrap(), Some(State::Available));
    assert_eq!(store.give_back(web.instance_id, "failed").await.unwrap(), None);
    // Handed over: somebody may.
    let web = holder("web-2");
    lease_one(&store, &web).await.unwrap();
    store.hand_over(web.instance_id, 7).await.unwrap();
    assert_eq!(store.give_back(web.instance_id, "gone").await.unwrap(), Some(State::Quarantine));
    assert!(matches!(lease_one(&store, &holder("web-3")).await, Err(PoolError::Empty { available: 0, .. })));
    assert_eq!(sealed(ground, &id.to_string()).await, None);
    assert!(matches!(store.release(id).await, Err(PoolError::NotAllowed { .. })));
    // Only another password brings it back, once or heard of twice.
    for _ in 0..2 {
        store.reset(id, &account("lab-0001", 3), &Secret::new(b"two".to_vec())).await.unwrap();
    }
    let web = holder("web-4");
    assert_eq!(lease_one(&store, &web).await.unwrap().account.unwrap().kvno, 3);
    assert_eq!(store.hand_over(web.instance_id, 7).await.unwrap().unwrap().expose(), b"two");
    assert!(matches!(store.retired(id, "deleted").await, Err(PoolError::NotAllowed { .. })));
    store.in_use(web.instance_id).await.unwrap();
    store.give_back(web.instance_id, "gone").await.unwrap();
    store.retired(id, "deleted").await.unwrap();
    // Its names are free.
    let again = provisioned(&store, &Secret::new(b"three".to_vec())).await;
    assert_eq!(entry(&store, again).await.identity.hostname.as_str(), "lab-0001");
}

pub(crate) async fn a_persistent_account_says_so_until_it_is_back(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let id = provisioned(&store, &Secret::new(b"one".to_vec())).await;
    let web = holder("web-1");
    let leases = store.lease(&name(POOL), std::slice::from_ref(&web), true).await.unwrap();
    assert!(leases[0].account.as_ref().unwrap().persistent);
    assert!(entry(&store, id).await.account.unwrap().persistent);
    store.give_back(web.instance_id, "failed").await.unwrap();
    assert!(!lease_one(&store, &web).await.unwrap().account.unwrap().persistent);
}

pub(crate) async fn an_intent_is_found_again(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let identity = store.propose(&name(POOL), 1).await.unwrap().remove(0);
    let id = store.intend(&name(POOL), &identity, &planned("LAB-0001")).await.unwrap();
    let found = entry(&store, id).await;
    assert_eq!((found.state, found.account.unwrap().made), (State::Intent, None));
    assert!(matches!(lease_one(&store, &holder("web-1")).await, Err(PoolError::Empty { .. })));
    let error = store.intend(&name(POOL), &identity, &planned("LAB-0002")).await.unwrap_err();
    assert!(matches!(conflict(error), Conflict::Hostname(..)));
    let other = store.propose(&name(POOL), 1).await.unwrap().remove(0);
    assert_eq!(other.hostname.as_str(), "lab-0002");
    let error = store.intend(&name(POOL), &other, &planned("LAB-0001")).await.unwrap_err();
    assert!(matches!(conflict(error), Conflict::Account(..)));
    store.abandon(id, "the directory refused it").await.unwrap();
    let error = store.provisioned(id, &account("lab-0001", 2), &Secret::new(vec![1])).await.unwrap_err();
    assert!(matches!(error, PoolError::NotAllowed { state: State::Retired, .. }), "{error}");
    store.intend(&name(POOL), &identity, &planned("LAB-0001")).await.unwrap();
}

pub(crate) async fn only_the_owner_reads_the_files(ground: &Ground) {
    let _store = ground.filled("a", 1).await;
    let mut seen = 0;
    for file in std::fs::read_dir(ground.dir.path()).unwrap() {
        let file = file.unwrap();
        if file.file_name().to_str().unwrap().contains("identities.db") {
            assert_eq!(
                file.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                file.path().display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 2, "the database and its log");
    // The default: all of it in the state directory, with a key that is made.
    let state = ground.state("default");
    let store = ramet::pool::open(&state, &Settings::default()).await.unwrap();
    store.create_pool(&pool(POOL)).await.unwrap();
    assert!(!state.root().join("pool-key").exists());
    provisioned(&store, &Secret::new(b"one".to_vec())).await;
    for file in ["identities.db", "pool-key", "host-id"] {
        let mode = std::fs::metadata(state.root().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
