//! The cases.

use crate::ground::{
    Ground, POOL, account, conflict, draft, entry, holder, lease_one, name, planned, pool, provisioned,
};
use futures::{
    FutureExt as _,
    future::{LocalBoxFuture, join_all},
};
use ramet::{
    child::record::now_ms,
    pool::{Conflict, Host, KeySource, Lease, PoolError, SealError, Settings, Store, StoreUrl, life::State},
};
use ramet_proto::{InstanceId, Secret};
use sqlx::{Executor as _, Row as _};
use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) type Case = fn(&Ground) -> LocalBoxFuture<'_, ()>;

macro_rules! cases {
    ($($case:ident),* $(,)?) => { &[$((stringify!($case), |ground| $case(ground).boxed_local())),*] };
}

pub(crate) const ON_BOTH: &[(&str, Case)] = cases![
    every_identity_is_given_once,
    all_or_none,
    two_who_want_too_much_together,
    an_empty_pool_says_so,
    a_lease_asked_for_again_is_the_same,
    a_command_killed_at_any_moment_leaves_a_whole_store,
    a_newer_schema_is_refused,
    a_new_store_is_made_once_by_all_who_open_it,
    a_wrong_or_missing_key_is_refused,
    a_password_is_sealed_handed_over_and_forgotten,
    an_account_comes_back_through_quarantine_only,
    a_persistent_account_says_so_until_it_is_back,
    an_intent_is_found_again,
    names_addresses_and_accounts_are_unique,
    two_hosts_add_at_once,
    a_pool_is_removed_when_nobody_needs_it,
    a_lost_host_keeps_nothing_and_gives_nothing,
    the_sweep_takes_what_no_child_has,
    history_tells_all,
    the_longest_unused_comes_first,
    a_lease_takes_milliseconds,
];

pub(crate) const ON_SQLITE: &[(&str, Case)] = cases![only_the_owner_reads_the_files];

pub(crate) const ON_POSTGRES: &[(&str, Case)] =
    cases![a_server_that_crashes_in_the_middle_loses_nothing, no_password_is_told];

/// Leases until the pool is empty. Returns the leases.
async fn drain(store: Arc<Store>, worker: String) -> Vec<Lease> {
    let mut leases = Vec::new();
    loop {
        match lease_one(&store, &holder(&worker)).await {
            Ok(lease) => leases.push(lease),
            Err(PoolError::Empty { wanted: 1, available: 0, .. }) => return leases,
            Err(error) => panic!("{worker}: {}", ramet::chain(&error)),
        }
    }
}

async fn every_identity_is_given_once(ground: &Ground) {
    drop(ground.filled("a", 50).await);
    let mut workers = Vec::new();
    for host in ["a", "b"] {
        let store = Arc::new(ground.host(host).await);
        workers.extend((0..8).map(|number| tokio::spawn(drain(store.clone(), format!("{host}-{number}")))));
    }
    let by_worker: Vec<Vec<Lease>> = join_all(workers).await.into_iter().map(Result::unwrap).collect();
    let leases: Vec<&Lease> = by_worker.iter().flatten().collect();
    assert_eq!(leases.len(), 50);
    let distinct =
        |of: &dyn Fn(&Lease) -> String| leases.iter().map(|lease| of(lease)).collect::<HashSet<_>>().len();
    assert_eq!(distinct(&|lease| lease.entry.to_string()), 50);
    assert_eq!(distinct(&|lease| lease.identity.hostname.to_string()), 50);
    assert_eq!(distinct(&|lease| lease.identity.macs[0].to_string()), 50);
    assert_eq!(distinct(&|lease| lease.identity.machine_sid.to_string()), 50);
    // And the store knows it.
    let (a, b) = (ground.host("a").await, ground.host("b").await);
    assert_ne!(a.host().id, b.host().id);
    let of_a = a.leases_of(a.host().id).await.unwrap().len();
    assert_eq!(of_a + a.leases_of(b.host().id).await.unwrap().len(), 50);
    assert_eq!(of_a, by_worker[..8].iter().map(Vec::len).sum::<usize>());
}

async fn all_or_none(ground: &Ground) {
    let store = ground.filled("a", 3).await;
    let holders: Vec<_> = ["a", "b", "c", "d"].map(holder).into();
    let error = store.lease(&name(POOL), &holders, false).await.unwrap_err();
    assert!(matches!(error, PoolError::Empty { wanted: 4, available: 3, .. }), "{error}");
    assert_eq!(store.pool(&name(POOL)).await.unwrap().count(State::Available), 3);
    let leases = store.lease(&name(POOL), &holders[..3], false).await.unwrap();
    let children: Vec<_> = leases.iter().map(|lease| lease.holder.clone()).collect();
    assert_eq!(children, holders[..3]);
}

async fn two_who_want_too_much_together(ground: &Ground) {
    let a = ground.filled("a", 50).await;
    let b = ground.host("b").await;
    let thirty = |host: &str| (0..30).map(|number| holder(&format!("{host}-{number}"))).collect::<Vec<_>>();
    let (for_a, for_b, lab) = (thirty("a"), thirty("b"), name(POOL));
    let (of_a, of_b) = tokio::join!(a.lease(&lab, &for_a, false), b.lease(&lab, &for_b, false));
    let (served, refused) = if of_a.is_ok() { (of_a, of_b) } else { (of_b, of_a) };
    assert_eq!(served.unwrap().len(), 30);
    let error = refused.unwrap_err();
    assert!(matches!(error, PoolError::Empty { wanted: 30, available: 20, .. }), "{error}");
    assert_eq!(a.pool(&lab).await.unwrap().count(State::Available), 20);
}

async fn an_empty_pool_says_so(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let error = lease_one(&store, &holder("web-1")).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("the pool lab has 0 identities available and 1 are wanted"), "{told}");
    let error = store.lease(&name("no-such"), &[holder("web-1")], false).await.unwrap_err();
    assert!(matches!(error, PoolError::NoPool(_)), "{error}");
    assert!(matches!(store.entries(&name("no-such")).await, Err(PoolError::NoPool(_))));
}

async fn a_lease_asked_for_again_is_the_same(ground: &Ground) {
    let store = ground.filled("a", 3).await;
    let web = holder("web-1");
    let first = lease_one(&store, &web).await.unwrap();
    assert_eq!(lease_one(&store, &web).await.unwrap(), first);
    // Together with another that has none yet.
    let both = store.lease(&name(POOL), &[holder("web-2"), web.clone()], false).await.unwrap();
    assert_eq!(both[1], first);
    assert_ne!(both[0].entry, first.entry);
    store.hand_over(web.instance_id, 7).await.unwrap();
    assert_eq!(lease_one(&store, &web).await.unwrap(), first);
    assert_eq!(store.pool(&name(POOL)).await.unwrap().count(State::Available), 1);
}

const LEASE_FOR_EVER: &str = "RAMET_TEST_LEASE_FOR_EVER";

/// This program as one that leases and gives back until it is killed, and prints each lease that it heard of.
pub(crate) fn run_as_another_process() -> Option<ExitCode> {
    let [url, state, key]: [String; 3] =
        serde_json::from_str(&std::env::var(LEASE_FOR_EVER).ok()?).expect("three strings");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let settings = Settings { url: url.parse().ok(), key_file: Some(key.into()) };
        let state = ramet::state::StateDir::open(state.as_ref()).expect("a state directory");
        let store = ramet::pool::open(&state, &settings).await.expect("a store");
        loop {
            let web = holder("web-1");
            lease_one(&store, &web).await.expect("a lease");
            println!("{}", web.instance_id);
            store.give_back(web.instance_id, "and again").await.expect("a store");
        }
    })
}

async fn a_command_killed_at_any_moment_leaves_a_whole_store(ground: &Ground) {
    let store = ground.filled("a", 3).await;
    for round in 0..12_u64 {
        let told = [ground.doomed_url(), path(ground.state("b").root()), path(&ground.key_file())];
        let mut another = Command::new(std::env::current_exe().unwrap())
            .env(LEASE_FOR_EVER, serde_json::to_string(&told).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(another.stdout.take().unwrap()).lines();
        // It is in the middle of something, each round of something else.
        lines.next().unwrap().unwrap();
        tokio::time::sleep(Duration::from_micros(700 * round)).await;
        another.kill().unwrap();
        another.wait().unwrap();
        ground.doomed_is_gone().await;
        let heard = lines.last().transpose().unwrap();
        // What is leased is leased to one, wholly, and its history says the same.
        let entries = store.entries(&name(POOL)).await.unwrap();
        let leased: Vec<_> = entries.iter().filter(|entry| entry.state != State::Available).collect();
        assert!(leased.len() <= 1, "{leased:?}");
        for entry in &entries {
            let history = store.history(&entry.identity.hostname).await.unwrap();
            let last = history.last().unwrap();
            assert_eq!(last.to, entry.state);
            let instance = entry.held_by.as_ref().map(|held_by| held_by.holder.instance_id);
            assert!(instance.is_none() || instance == last.instance_id);
            assert_eq!(instance.is_some(), entry.state == State::Leased);
        }
        // The last that it heard of is held or was given back: never lost.
        if let Some(heard) = heard {
            let heard: InstanceId = heard.parse().unwrap();
            let held = leased.iter().any(|entry| entry.held_by.as_ref().unwrap().holder.instance_id == heard);
            let events = join_all(entries.iter().map(|entry| store.history(&entry.identity.hostname))).await;
            let of_it: Vec<_> = events
                .into_iter()
                .flat_map(Result::unwrap)
                .filter(|event| event.instance_id == Some(heard))
                .collect();
            assert_eq!(of_it.len(), if held { 1 } else { 2 });
        }
        // The host gives back what it left.
        let b = ground.host("b").await;
        assert_eq!(b.sweep(&HashSet::new()).await.unwrap().len(), leased.len());
        assert_eq!(store.pool(&name(POOL)).await.unwrap().count(State::Available), 3);
    }
}

fn path(path: &std::path::Path) -> String {
    path.to_str().unwrap().to_owned()
}

async fn a_newer_schema_is_refused(ground: &Ground) {
    drop(ground.host("a").await);
    ground
        .raw()
        .await
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
             SELECT 999, 'of the future', installed_on, success, checksum, 0 FROM _sqlx_migrations",
        )
        .await
        .unwrap();
    let error = open(ground, "a").await.unwrap_err();
    assert!(matches!(error, PoolError::NewerSchema { found: 999, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("use a newer ramet"), "{error}");
}

async fn open(ground: &Ground, host: &str) -> Result<Store, PoolError> {
    let settings = Settings { url: Some(ground.url.clone()), key_file: Some(ground.key_file()) };
    ramet::pool::open(&ground.state(host), &settings).await
}

async fn a_new_store_is_made_once_by_all_who_open_it(ground: &Ground) {
    let opened = join_all((0..6).map(|number| open(ground, if number % 2 == 0 { "a" } else { "b" }))).await;
    let stores: Vec<Store> = opened.into_iter().map(Result::unwrap).collect();
    stores[0].create_pool(&pool(POOL)).await.unwrap();
    assert_eq!(stores[5].pools().await.unwrap().len(), 1);
    let error = stores[5].create_pool(&pool(POOL)).await.unwrap_err();
    assert!(matches!(error, PoolError::PoolTaken(_)), "{error}");
}

async fn a_wrong_or_missing_key_is_refused(ground: &Ground) {
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

async fn a_password_is_sealed_handed_over_and_forgotten(ground: &Ground) {
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

async fn an_account_comes_back_through_quarantine_only(ground: &Ground) {
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

async fn a_persistent_account_says_so_until_it_is_back(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let id = provisioned(&store, &Secret::new(b"one".to_vec())).await;
    let web = holder("web-1");
    let leases = store.lease(&name(POOL), std::slice::from_ref(&web), true).await.unwrap();
    assert!(leases[0].account.as_ref().unwrap().persistent);
    assert!(entry(&store, id).await.account.unwrap().persistent);
    store.give_back(web.instance_id, "failed").await.unwrap();
    assert!(!lease_one(&store, &web).await.unwrap().account.unwrap().persistent);
}

async fn an_intent_is_found_again(ground: &Ground) {
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

async fn names_addresses_and_accounts_are_unique(ground: &Ground) {
    let store = ground.filled("a", 1).await;
    let first = store.entries(&name(POOL)).await.unwrap().remove(0).identity;
    store.create_pool(&ramet::pool::NewPool { macs: None, ..pool("other") }).await.unwrap();
    let error = store.add(&name("other"), &[draft("LAB-0001")]).await.unwrap_err();
    assert!(matches!(conflict(error), Conflict::Hostname(_, owner) if owner == "lab-0001 of the pool lab"));
    let same_mac = ramet::pool::Draft { macs: Some(first.macs.clone()), ..draft("web-1") };
    let error = store.add(&name("other"), std::slice::from_ref(&same_mac)).await.unwrap_err();
    assert!(matches!(conflict(error), Conflict::Mac(..)));
    let same_sid = ramet::pool::Draft { machine_sid: Some(first.machine_sid), ..draft("web-1") };
    let error = store.add(&name("other"), &[draft("web-2"), same_sid]).await.unwrap_err();
    assert!(matches!(conflict(error), Conflict::Sid(..)));
    // All or none: web-2 was not added.
    assert!(store.entries(&name("other")).await.unwrap().is_empty());
    assert_eq!(store.check(&name("other"), &[draft("web-2")]).await.unwrap().len(), 1);
    assert!(store.entries(&name("other")).await.unwrap().is_empty());
}

async fn two_hosts_add_at_once(ground: &Ground) {
    let a = Arc::new(ground.filled("a", 0).await);
    let b = Arc::new(ground.host("b").await);
    let adding = (0..6).map(|number| {
        let store = if number % 2 == 0 { a.clone() } else { b.clone() };
        tokio::spawn(async move { store.grow(&name(POOL), 10).await })
    });
    for added in join_all(adding).await {
        assert_eq!(added.unwrap().unwrap().len(), 10);
    }
    let entries = a.entries(&name(POOL)).await.unwrap();
    let last = entries.last().unwrap().identity.hostname.to_string();
    assert_eq!((entries.len(), last.as_str()), (60, "lab-0060"));
}

async fn a_pool_is_removed_when_nobody_needs_it(ground: &Ground) {
    let store = ground.filled("a", 2).await;
    let web = holder("web-1");
    let lease = lease_one(&store, &web).await.unwrap();
    let error = store.remove_pool(&name(POOL)).await.unwrap_err();
    assert!(error.to_string().contains("still has 1 leased identities"), "{error}");
    store.quarantine_host(store.host().id).await.unwrap();
    let error = store.remove_pool(&name(POOL)).await.unwrap_err();
    assert!(error.to_string().contains("1 identities in quarantine"), "{error}");
    store.release(lease.entry).await.unwrap();
    let id = provisioned(&store, &Secret::new(b"one".to_vec())).await;
    let error = store.remove_pool(&name(POOL)).await.unwrap_err();
    assert!(error.to_string().contains("retire the accounts first"), "{error}");
    store.retired(id, "deleted").await.unwrap();
    store.remove_pool(&name(POOL)).await.unwrap();
    assert!(store.pools().await.unwrap().is_empty());
    assert!(matches!(store.remove_pool(&name(POOL)).await, Err(PoolError::NoPool(_))));
    // What happened is still told, and the names and addresses are free.
    let history = store.history(&lease.identity.hostname).await.unwrap();
    assert_eq!(history.last().unwrap().reason, "the pool was removed");
    store.create_pool(&pool(POOL)).await.unwrap();
    let again = ramet::pool::Draft { macs: Some(lease.identity.macs), ..draft("web-1") };
    store.add(&name(POOL), &[again]).await.unwrap();
}

async fn a_lost_host_keeps_nothing_and_gives_nothing(ground: &Ground) {
    let (a, b) = (ground.filled("a", 3).await, ground.host("b").await);
    let id = provisioned(&a, &Secret::new(b"one".to_vec())).await;
    let (mine, lost) = (holder("web-1"), [holder("web-2"), holder("web-3"), holder("web-4")]);
    lease_one(&a, &mine).await.unwrap();
    let leases = b.lease(&name(POOL), &lost, false).await.unwrap();
    b.hand_over(lost[0].instance_id, 7).await.unwrap();
    assert_eq!(a.quarantine_host(b.host().id).await.unwrap().len(), 3);
    assert!(a.quarantine_host(b.host().id).await.unwrap().is_empty());
    // A host that was not dead after all gets nothing more, and its leases come back only when somebody says so.
    assert!(matches!(b.hand_over(lost[1].instance_id, 8).await, Err(PoolError::NoLease(_))));
    assert!(matches!(lease_one(&a, &holder("web-5")).await, Err(PoolError::Empty { available: 0, .. })));
    assert_eq!(b.give_back(lost[0].instance_id, "gone").await.unwrap(), None);
    // Whose it was is still known.
    let entries = a.entries(&name(POOL)).await.unwrap();
    let quarantined: Vec<_> = entries.iter().filter(|entry| entry.state == State::Quarantine).collect();
    assert!(quarantined.iter().all(|entry| entry.held_by.as_ref().unwrap().host == b.host().id));
    assert_eq!(quarantined.len(), 3);
    let plain: Vec<_> = leases.iter().filter(|lease| lease.entry != id).collect();
    assert_eq!(plain.len(), 2);
    for lease in plain {
        a.release(lease.entry).await.unwrap();
    }
    a.reset(id, &account("lab-0004", 3), &Secret::new(b"two".to_vec())).await.unwrap();
    assert_eq!(a.pool(&name(POOL)).await.unwrap().count(State::Available), 3);
    assert_eq!(a.leases_of(a.host().id).await.unwrap().len(), 1);
}

async fn the_sweep_takes_what_no_child_has(ground: &Ground) {
    let (a, b) = (ground.filled("a", 3).await, ground.host("b").await);
    let holders = ["web-1", "web-2"].map(holder);
    a.lease(&name(POOL), &holders, false).await.unwrap();
    lease_one(&b, &holder("web-1")).await.unwrap();
    let live = HashSet::from([holders[0].instance_id]);
    let swept = a.sweep(&live).await.unwrap();
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0].held_by.as_ref().unwrap().holder, holders[1]);
    assert!(a.sweep(&live).await.unwrap().is_empty());
    let left: Vec<_> = a.leases_of(a.host().id).await.unwrap();
    assert_eq!(left[0].held_by.as_ref().unwrap().holder, holders[0]);
    assert_eq!(a.leases_of(b.host().id).await.unwrap().len(), 1);
}

async fn history_tells_all(ground: &Ground) {
    let (a, b) = (ground.filled("a", 0).await, ground.host("b").await);
    let id = provisioned(&a, &Secret::new(b"one".to_vec())).await;
    let web = holder("web-1");
    lease_one(&b, &web).await.unwrap();
    b.hand_over(web.instance_id, 7).await.unwrap();
    b.hand_over(web.instance_id, 7).await.unwrap();
    b.in_use(web.instance_id).await.unwrap();
    b.give_back(web.instance_id, "ramet rm").await.unwrap();
    a.retired(id, "ramet domain retire").await.unwrap();
    let history = a.history(&"LAB-0001".parse().unwrap()).await.unwrap();
    let states: Vec<_> = history.iter().map(|event| event.to).collect();
    // One life, in order.
    assert_eq!(states, State::ALL);
    assert!(
        history.windows(2).all(|pair| pair[1].from == Some(pair[0].to) && pair[0].at_ms <= pair[1].at_ms)
    );
    assert!(history[2..6].iter().all(|event| event.host == b.host().id));
    assert!(history[2..].iter().all(|event| event.instance_id == Some(web.instance_id)));
    assert_eq!(history[5].reason, "ramet rm");
    let error = a.history(&"nobody".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, PoolError::NoEntry(_)), "{error}");
}

async fn the_longest_unused_comes_first(ground: &Ground) {
    let store = ground.filled("a", 2).await;
    let mut given = Vec::new();
    for number in 0..4 {
        let web = holder(&format!("web-{number}"));
        given.push(lease_one(&store, &web).await.unwrap().identity.hostname.to_string());
        let before = now_ms();
        store.give_back(web.instance_id, "gone").await.unwrap();
        // So that no two are of the same millisecond.
        while now_ms() == before {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(given, ["lab-0001", "lab-0002", "lab-0001", "lab-0002"]);
}

/// The median time of a lease, printed. A bound that a busy machine keeps, too: figures are the benchmark's.
async fn a_lease_takes_milliseconds(ground: &Ground) {
    const LEASES: usize = 100;
    let store = ground.filled("a", LEASES).await;
    let mut times = Vec::with_capacity(LEASES);
    for _ in 0..LEASES {
        let web = holder("web-1");
        let begin = Instant::now();
        lease_one(&store, &web).await.unwrap();
        times.push(begin.elapsed());
    }
    times.sort();
    let median = times[LEASES / 2];
    eprintln!("a lease takes {median:?} (median), {:?} (90 %) on {}", times[LEASES * 9 / 10], store.url());
    assert!(median < Duration::from_millis(100), "{median:?}");
}

async fn only_the_owner_reads_the_files(ground: &Ground) {
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

async fn a_server_that_crashes_in_the_middle_loses_nothing(ground: &Ground) {
    let a = Arc::new(ground.filled("a", 50).await);
    let b = Arc::new(ground.host("b").await);
    let workers: Vec<_> = [&a, &b]
        .into_iter()
        .flat_map(|store| (0..4).map(|number| tokio::spawn(drain(store.clone(), format!("web-{number}")))))
        .collect();
    // Twice, and each time while there is still something to be leased.
    for left in [40, 20] {
        while a.pool(&name(POOL)).await.is_ok_and(|summary| summary.count(State::Available) > left) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ground.crash_the_server().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = a.pool(&name(POOL)).await {
            assert!(Instant::now() < deadline, "{}", ramet::chain(&error));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let leases: Vec<Lease> = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    // Nothing lost: each identity is with the child that was told so. Nothing twice: as many as there are.
    let told: HashSet<_> = leases.iter().map(|lease| (lease.entry, lease.holder.instance_id)).collect();
    let known: HashSet<_> = a
        .entries(&name(POOL))
        .await
        .unwrap()
        .into_iter()
        .map(|entry| (entry.id, entry.held_by.unwrap().holder.instance_id))
        .collect();
    assert_eq!((leases.len(), told.len()), (50, 50));
    assert_eq!(told, known);
}

async fn no_password_is_told(ground: &Ground) {
    let dead: StoreUrl = "postgres://ramet:hunter2@127.0.0.1:9/ids?password=hunter2".parse().unwrap();
    let settings = Settings { url: Some(dead), key_file: None };
    let error = ramet::pool::open(&ground.state("a"), &settings).await.unwrap_err();
    let told = ramet::chain(&error);
    assert!(!told.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{told}");
    assert!(told.contains("postgres://127.0.0.1:9/ids") && told.contains("refused"), "{told}");
}
