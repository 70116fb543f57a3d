//! What the directory and the store hold alike, whatever happens between them.

use crate::dc::{Dc, connect, printed, remove};
use ramet::{
    pool::{self, Holder, PoolError, Settings, life::State},
    provision::retire::{Retired, retire_all},
    state::StateDir,
};
use ramet_proto::InstanceId;
use std::{
    process::{Command, Stdio},
    time::Instant,
};

/// A run of `ramet domain provision` that is killed at any moment loses no account and leaves none without an identity:
/// what it had begun is finished or forgotten.
#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn provisioning_killed_at_any_moment() {
    let (dc, dir) = (Dc::here(), tempfile::tempdir().unwrap());
    let config = dc.write_config(dir.path(), &[&dc.url], &[]);
    let state = dir.path().join("state");
    let ramet = |args: &[&str]| {
        let mut ramet = Command::new(env!("CARGO_BIN_EXE_ramet"));
        ramet.arg("--state-dir").arg(&state).args(args).stdin(Stdio::null());
        ramet
    };
    let config = config.to_str().unwrap();
    printed(&mut ramet(&["pool", "create", "killed", "--hostnames", "killed-{:03}"]));
    let provision =
        ["domain", "provision", "--config", config, "--pool", "killed", "--count", "3", "--parallel", "2"];
    let begin = Instant::now();
    printed(&mut ramet(&provision));
    let whole = begin.elapsed();
    let directory = dc.directory().await;
    let mut cut_short = 0;
    for moment in 0..12 {
        let mut run = ramet(&provision).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(whole * moment / 12).await;
        run.kill().unwrap();
        cut_short += u32::from(!run.wait().unwrap().success());
        let shown = || -> Vec<serde_json::Value> {
            let shown = printed(&mut ramet(&["pool", "show", "killed", "--json"]));
            serde_json::from_str(&shown).unwrap()
        };
        printed(&mut ramet(&["domain", "reconcile", "--config", config, "--stale", "0s"]));
        let mut identities: Vec<String> = shown()
            .iter()
            .filter(|identity| identity["state"] != "retired")
            .inspect(|identity| assert_eq!(identity["state"], "available", "{identity}"))
            .map(|identity| identity["hostname"].as_str().unwrap().to_uppercase())
            .collect();
        let accounts =
            directory.list().await.unwrap().into_iter().map(|found| found.account.name.to_string());
        let mut accounts: Vec<String> = accounts.filter(|name| name.starts_with("KILLED-")).collect();
        identities.sort();
        accounts.sort();
        assert_eq!(identities, accounts, "killed after {:?} of {whole:?}", whole * moment / 12);
    }
    assert!(cut_short > 6, "only {cut_short} runs were killed before their end");
    let accounts = directory.list().await.unwrap().into_iter().map(|found| found.account);
    let accounts: Vec<_> = accounts.filter(|one| one.name.as_str().starts_with("KILLED-")).collect();
    assert!(accounts.len() >= 3, "{accounts:?}");
    remove(&directory, &accounts).await;
}

/// What `ramet rm --config` does with accounts of children that are gone: one that cannot be retired stays in quarantine, for
/// whoever can, and nobody gets it before.
#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn an_account_that_cannot_be_retired_waits() {
    let (dc, dir) = (Dc::here(), tempfile::tempdir().unwrap());
    let config = dc.write_config(dir.path(), &[&dc.url], &[]);
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    let ramet = |args: &[&str]| {
        let mut ramet = Command::new(env!("CARGO_BIN_EXE_ramet"));
        printed(ramet.arg("--state-dir").arg(state.root()).args(args).stdin(Stdio::null()))
    };
    ramet(&["pool", "create", "waits", "--hostnames", "waits-{}"]);
    let config = config.to_str().unwrap();
    ramet(&["domain", "provision", "--config", config, "--pool", "waits", "--count", "2"]);
    let store = pool::open(&state, &Settings { url: None, key_file: None }).await.unwrap();
    let pool = "waits".parse().unwrap();
    let holders = ["one", "two"]
        .map(|child| Holder { child: child.parse().unwrap(), instance_id: InstanceId::random() });
    let leases = store.lease(&pool, &holders, false).await.unwrap();
    for holder in &holders {
        store.hand_over(holder.instance_id, 7).await.unwrap();
        store.in_use(holder.instance_id).await.unwrap();
        store.give_back(holder.instance_id, "its child is gone").await.unwrap();
    }
    let accounts: Vec<_> = leases.into_iter().map(|lease| lease.account.unwrap()).collect();
    let states = async || -> Vec<State> {
        store.entries(&pool).await.unwrap().into_iter().map(|entry| entry.state).collect()
    };
    assert_eq!(states().await, [State::Quarantine; 2]);

    let reader_password = dc.reader_password_file.to_str().unwrap();
    let reader = dc.config(&[&dc.url], &[("user", &dc.reader), ("password_file", reader_password)]);
    let reader = connect(&reader).await.unwrap();
    let refused = retire_all(&store, &reader, &accounts).await.unwrap();
    assert_eq!(refused.len(), 2);
    for (hostname, retired) in refused {
        let error = retired.unwrap_err();
        assert!(ramet::chain(&error).contains(&dc.reader), "{hostname}: {error}");
    }
    assert_eq!(states().await, [State::Quarantine; 2]);
    let other = Holder { child: "three".parse().unwrap(), instance_id: InstanceId::random() };
    let error = store.lease(&pool, &[other], false).await.unwrap_err();
    assert!(matches!(error, PoolError::Empty { .. }), "{error}");

    // Only those that were asked for, and only once.
    let directory = dc.directory().await;
    let retired = retire_all(&store, &directory, &accounts[..1]).await.unwrap();
    assert!(matches!(retired[..], [(_, Ok(Retired::Reset))]), "{retired:?}");
    assert_eq!(retire_all(&store, &directory, &accounts[..1]).await.unwrap().len(), 0);
    let mut left = states().await;
    left.sort_by_key(|state| state.word());
    assert_eq!(left, [State::Available, State::Quarantine]);
    remove(&directory, &accounts).await;
}
