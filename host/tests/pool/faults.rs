//! What is killed, cut off, too new or not there.

use crate::{
    ground::{Ground, POOL, holder, lease_one, name, pool},
    leases::drain,
};
use futures::future::join_all;
use ramet::pool::{Lease, PoolError, Settings, Store, StoreUrl, life::State};
use ramet_proto::InstanceId;
use sqlx::Executor as _;
use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

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

pub(crate) async fn a_command_killed_at_any_moment_leaves_a_whole_store(ground: &Ground) {
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

pub(crate) async fn a_newer_schema_is_refused(ground: &Ground) {
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

pub(crate) async fn a_new_store_is_made_once_by_all_who_open_it(ground: &Ground) {
    let opened = join_all((0..6).map(|number| open(ground, if number % 2 == 0 { "a" } else { "b" }))).await;
    let stores: Vec<Store> = opened.into_iter().map(Result::unwrap).collect();
    stores[0].create_pool(&pool(POOL)).await.unwrap();
    assert_eq!(stores[5].pools().await.unwrap().len(), 1);
    let error = stores[5].create_pool(&pool(POOL)).await.unwrap_err();
    assert!(matches!(error, PoolError::PoolTaken(_)), "{error}");
}

pub(crate) async fn a_server_that_crashes_in_the_middle_loses_nothing(ground: &Ground) {
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

pub(crate) async fn no_password_is_told(ground: &Ground) {
    let dead: StoreUrl = "postgres://ramet:hunter2@127.0.0.1:9/ids?password=hunter2".parse().unwrap();
    let settings = Settings { url: Some(dead), key_file: None };
    let error = ramet::pool::open(&ground.state("a"), &settings).await.unwrap_err();
    let told = ramet::chain(&error);
    assert!(!told.contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{told}");
    assert!(told.contains("postgres://127.0.0.1:9/ids") && told.contains("refused"), "{told}");
}
