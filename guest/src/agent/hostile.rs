//! A thousand hosts that say what they like: each conversation ends, the gate stays shut, and the next host is heard.

use super::tests::{Host, LIMITS, converse};
use super::*;
use crate::apply::tests::{Fake, template};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

#[path = "../../../proto/tests/hostile/mod.rs"]
mod peer;

#[test]
fn a_thousand_hostile_hosts() {
    let (_dir, root) = template();
    let hello = ramet_proto::frame::encode(&HostMessage::Hello { versions: vec![1] }).unwrap();
    let cases = Cases { cases: 1000, failure_persistence: None, ..Cases::default() };
    let run = TestRunner::new(cases).run(&peer::babble(hello), |babble| {
        let system = Fake::new();
        let mut agent = Agent::start(&root, &system, Config::default(), LIMITS).unwrap().unwrap();
        // It hangs up once it has said all.
        if let Err(failure) = converse(&mut agent, move |host| host.say(&babble)).0 {
            // An identity that is none of this machine's.
            prop_assert!(failure.step != Step::Hello, "{failure}");
        } else {
            let (next, state) = converse(&mut agent, Host::hello);
            prop_assert!(next.is_ok() && state == GuestState::Held);
        }
        prop_assert!(!system.gate_open.get());
        prop_assert_eq!(Record::load(&root).unwrap(), None);
        Ok(())
    });
    run.unwrap();
}
