//! Identities and their leases.

use crate::ground::{Ground, POOL, account, conflict, draft, holder, lease_one, name, pool, provisioned};
use futures::future::join_all;
use ramet::{
    child::record::now_ms,
    pool::{Conflict, Lease, PoolError, Store, life::State},
};
use ramet_proto::Secret;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Leases until the pool is empty. Returns the leases.
pub(crate) async fn drain(store: Arc<Store>, worker: String) -> Vec<Lease> {
    let mut leases = Vec::new();
    loop {
        match lease_one(&store, &holder(&worker)).await {
            Ok(lease) => leases.push(lease),
            Err(PoolError::Empty { wanted: 1, available: 0, .. }) => return leases,
            Err(error) => panic!("{worker}: {}", ramet::chain(&error)),
        }
    }
}

pub(crate) async fn every_identity_is_given_once(ground: &Ground) {
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

pub(crate) async fn all_or_none(ground: &Ground) {
    let store = ground.filled("a", 3).await;
    let holders: Vec<_> = ["a", "b", "c", "d"].map(holder).into();
    let error = store.lease(&name(POOL), &holders, false).await.unwrap_err();
    assert!(matches!(error, PoolError::Empty { wanted: 4, available: 3, .. }), "{error}");
    assert_eq!(store.pool(&name(POOL)).await.unwrap().count(State::Available), 3);
    let leases = store.lease(&name(POOL), &holders[..3], false).await.unwrap();
    let children: Vec<_> = leases.iter().map(|lease| lease.holder.clone()).collect();
    assert_eq!(children, holders[..3]);
}

pub(crate) async fn two_who_want_too_much_together(ground: &Ground) {
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

pub(crate) async fn an_empty_pool_says_so(ground: &Ground) {
    let store = ground.filled("a", 0).await;
    let error = lease_one(&store, &holder("web-1")).await.unwrap_err();
    let told = error.to_string();
    assert!(told.contains("the pool lab has 0 identities available and 1 are wanted"), "{told}");
    let error = store.lease(&name("no-such"), &[holder("web-1")], false).await.unwrap_err();
    assert!(matches!(error, PoolError::NoPool(_)), "{error}");
    assert!(matches!(store.entries(&name("no-such")).await, Err(PoolError::NoPool(_))));
}

pub(crate) async fn a_lease_asked_for_again_is_the_same(ground: &Ground) {
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

pub(crate) async fn names_addresses_and_accounts_are_unique(ground: &Ground) {
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

pub(crate) async fn two_hosts_add_at_once(ground: &Ground) {
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

pub(crate) async fn a_pool_is_removed_when_nobody_needs_it(ground: &Ground) {
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

pub(crate) async fn a_lost_host_keeps_nothing_and_gives_nothing(ground: &Ground) {
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

pub(crate) async fn the_sweep_takes_what_no_child_has(ground: &Ground) {
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

pub(crate) async fn history_tells_all(ground: &Ground) {
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

pub(crate) async fn the_longest_unused_comes_first(ground: &Ground) {
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
pub(crate) async fn a_lease_takes_milliseconds(ground: &Ground) {
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
