//! Conversations past the gate, over a socket pair.

use super::*;
use crate::{
    agent::tests::{Host, LIMITS, become_individual, connect, identify},
    apply::{
        domain::tests::member,
        tests::{Fake, identity, template},
    },
    boot::tests::complete,
};
use ramet_proto::message::Identity;
use std::thread;

/// An observer of `identity`, which the guest in `root` is given.
fn observer<'a>(root: &'a Root, system: &'a Fake, identity: &Identity) -> Observer<'a, Fake> {
    become_individual(root, system, identity);
    again(root, system)
}

/// An observer that is started again.
fn again<'a>(root: &'a Root, system: &'a Fake) -> Observer<'a, Fake> {
    *system.root.borrow_mut() = root.outside("");
    Observer::start(root, system, Config::default(), LIMITS).unwrap().unwrap()
}

fn converse<T: Send + 'static>(
    observer: &mut Observer<'_, Fake>,
    host: impl FnOnce(&mut Host) -> T + Send + 'static,
) -> T {
    connect(|stream| observer.converse(stream), host).1
}

#[test]
fn there_is_nothing_to_observe_before_the_gate_is_open() {
    let (_dir, root) = template();
    assert!(Observer::start(&root, &Fake::new(), Config::default(), LIMITS).unwrap().is_none());
}

#[test]
fn from_open_to_ready() {
    let (_dir, root) = template();
    let system = Fake::new();
    let wanted = identity();
    let instance_id = wanted.instance_id;
    let evidence = become_individual(&root, &system, &wanted);
    let mut observer = again(&root, &system);
    assert_eq!(Record::load(&root).unwrap().unwrap().instance_id, instance_id, "it is on the disk");
    let cgroups = system.cgroups.path().to_owned();
    let ready = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        complete(&cgroups);
    });
    let observed = converse(&mut observer, move |host| {
        assert_eq!(host.hello(), GuestState::Open { instance_id });
        assert_eq!(host.receive(), GuestMessage::Ready);
        for past in [identify(&identity()), HostMessage::Prepare, HostMessage::Open] {
            assert_eq!(host.refused(&past), Reason::Unexpected);
        }
        let GuestMessage::Observed(observed) = host.ask(&HostMessage::Observe) else { panic!() };
        observed
    });
    ready.join().unwrap();
    assert_eq!(observed.ssh_host_keys, evidence.ssh_host_keys);
    assert_ne!(observed.random_sample, evidence.random_sample);
    // Started again, whatever ended it.
    assert_eq!(converse(&mut again(&root, &system), Host::hello), GuestState::Ready { instance_id });
}

#[test]
fn a_boot_that_takes_longer_than_anybody_waits_is_seen_to_end() {
    let (_dir, root) = template();
    let system = Fake::new();
    let mut observer = observer(&root, &system, &identity());
    observer.limits.boot = Duration::ZERO;
    assert!(matches!(converse(&mut observer, Host::hello), GuestState::Open { .. }));
    complete(system.cgroups.path());
    observer.tick();
    assert!(matches!(converse(&mut observer, Host::hello), GuestState::Ready { .. }));
}

#[test]
fn a_record_that_cannot_be_written_is_told() {
    let (dir, root) = template();
    let system = Fake::new();
    become_individual(&root, &system, &identity());
    // The name is taken by what cannot be replaced.
    std::fs::create_dir_all(dir.path().join("var/lib/ramet-agent/identity.toml/x")).unwrap();
    let mut observer = again(&root, &system);
    let told = converse(&mut observer, |host| {
        assert!(matches!(host.hello(), GuestState::Open { .. }));
        host.receive()
    });
    let GuestMessage::Failed(failure) = told else { panic!("{told:?}") };
    assert_eq!(failure.step, Step::Record);
}

#[test]
fn whoever_dials_and_whatever_is_said_it_goes_on() {
    let (_dir, root) = template();
    let system = Fake::new();
    let mut observer = observer(&root, &system, &identity());
    for bytes in [&[0xff; 8][..], &[0, 0, 0, 0], b"\0\0\0\x03abc", b"GET / HTTP/1.0\r\n\r\n", &[0, 0, 1], b""]
    {
        converse(&mut observer, move |host| host.say(bytes));
        assert!(matches!(converse(&mut observer, Host::hello), GuestState::Open { .. }));
    }
    let first = converse(&mut observer, |host| host.refused(&HostMessage::Observe));
    assert_eq!(first, Reason::Unexpected, "hello comes first");
}

/// A guest with SSSD and a network, and what `kinit` says there.
fn guest_with_sssd(kinit: Result<&str, &str>) -> (tempfile::TempDir, Root, Fake) {
    let (dir, root) = template();
    for path in ["usr/sbin/sssd", "etc/sssd/sssd.conf"] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let system = Fake::new();
    system.interfaces.borrow_mut()[0].addresses = vec!["192.0.2.7".parse().unwrap()];
    system.answer("kinit", kinit);
    (dir, root, system)
}

#[test]
fn a_member_tries_its_account_before_boot_is_complete_and_after() {
    let (_dir, root, system) = guest_with_sssd(Ok(""));
    let mut observer = observer(&root, &system, &member());
    let cgroups = system.cgroups.path().to_owned();
    converse(&mut observer, move |host| {
        host.hello();
        let GuestMessage::Joined(joined) = host.ask(&HostMessage::Join) else { panic!() };
        assert_eq!(joined.checks.len(), 1);
        complete(&cgroups);
        assert_eq!(host.receive(), GuestMessage::Ready);
        assert!(matches!(host.ask(&HostMessage::Join), GuestMessage::Joined(_)));
    });
    converse(&mut again(&root, &system), |host| {
        host.hello();
        assert!(
            matches!(host.ask(&HostMessage::Join), GuestMessage::Joined(_)),
            "the record has the account"
        );
    });
}

#[test]
fn a_domain_that_does_not_answer_keeps_nothing_else_from_being_said() {
    let (_dir, root, system) = guest_with_sssd(Err("kinit: Cannot contact any KDC"));
    let mut observer = observer(&root, &system, &member());
    let cgroups = system.cgroups.path().to_owned();
    converse(&mut observer, move |host| {
        host.hello();
        host.send(&HostMessage::Join);
        assert_eq!(host.refused(&HostMessage::Join), Reason::Unexpected, "one is on");
        complete(&cgroups);
        assert_eq!(host.receive(), GuestMessage::Ready);
        assert!(matches!(host.ask(&HostMessage::Observe), GuestMessage::Observed(_)));
    });
    observer.limits.join = Duration::ZERO;
    let answer = converse(&mut observer, |host| {
        host.hello();
        host.ask(&HostMessage::Join)
    });
    let GuestMessage::Failed(failure) = answer else { panic!("{answer:?}") };
    assert_eq!((failure.step, failure.reason, failure.retryable), (Step::Join, Reason::Timeout, true));
}

#[test]
fn a_program_may_take_longer_than_a_host_may_be_silent() {
    let (_dir, root, system) = guest_with_sssd(Err("kinit: Cannot contact any KDC"));
    let mut observer = observer(&root, &system, &member());
    system.takes.set(LIMITS.idle * 2);
    observer.limits.join = LIMITS.idle * 3;
    complete(system.cgroups.path());
    let answer = converse(&mut observer, |host| {
        host.hello();
        host.ask(&HostMessage::Join)
    });
    let GuestMessage::Failed(failure) = answer else { panic!("{answer:?}") };
    assert_eq!((failure.step, failure.reason), (Step::Join, Reason::Timeout));
}

#[test]
fn who_is_no_member_has_no_account_to_try() {
    let (_dir, root, system) = guest_with_sssd(Ok(""));
    let mut observer = observer(&root, &system, &identity());
    let reason = converse(&mut observer, |host| {
        host.hello();
        host.refused(&HostMessage::Join)
    });
    assert_eq!(reason, Reason::Missing);
    assert!(system.ran.borrow().is_empty());
}
