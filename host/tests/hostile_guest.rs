//! A thousand guests that say what they like: each conversation ends, in an error or well, and none brings the host
//! down or makes it wait for ever.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ramet::agent::Agent;
use ramet_proto::message::Identity;
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, duplex};

#[path = "../../proto/tests/hostile/mod.rs"]
mod hostile;

const ANSWER: Duration = Duration::from_secs(5);

#[test]
fn a_thousand_hostile_guests() {
    let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = paused.unwrap();
    let hello = br#"{"type":"hello","version":1,"agent":"x","state":{"at":"held"},"cid":7}"#;
    let hello = [&u32::try_from(hello.len()).unwrap().to_be_bytes()[..], hello].concat();
    let failed = std::cell::Cell::new(0);
    let cases = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(cases).run(&(hostile::babble(hello), any::<bool>()), |(babble, hangs_up)| {
        let talk = async {
            let (host, mut guest) = duplex(1 << 20);
            guest.write_all(&babble).await.unwrap();
            let _open = (!hangs_up).then_some(guest);
            let mut agent = Agent::greet(host).await?;
            agent.prepare(ANSWER).await?;
            agent.identify(identity(), ANSWER).await?;
            agent.open().await?;
            agent.ready(ANSWER).await
        };
        // The greeting's deadline is the dialler's.
        match runtime.block_on(async { tokio::time::timeout(4 * ANSWER, talk).await }) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                failed.set(failed.get() + 1);
                let shown = ramet::chain(&error);
                prop_assert!(shown.len() < 4000 && !shown.contains(char::is_control), "{shown:?}");
            }
            Err(_silent) => prop_assert!(!hangs_up, "a guest that hung up was waited for"),
        }
        Ok(())
    });
    run.unwrap();
    assert!(failed.get() > 500, "only {} conversations failed: these guests are not hostile", failed.get());
}

fn identity() -> Identity {
    serde_json::from_value(serde_json::json!({
        "instance_id": "00000000-0000-4000-8000-000000000001",
        "hostname": "web-1",
        "machine_id": "0123456789abcdef0123456789abcdef",
        "nics": [],
        "entropy": "07".repeat(64),
        "unix_time_ns": 1_700_000_000_000_000_000_i64,
    }))
    .unwrap()
}
