//! Conversations over a socket pair, with a made-up guest behind them.

use super::*;
use crate::apply::tests::{Fake, identity, template};
use ramet_proto::{
    Evidence,
    frame::{self, HEADER},
};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
};

pub(crate) const LIMITS: Limits = Limits {
    frame: Duration::from_millis(100),
    idle: Duration::from_millis(300),
    open: Duration::from_millis(300),
    settle: Duration::from_millis(50),
    device: Duration::from_millis(50),
    nics: Duration::from_millis(50),
    boot: Duration::from_secs(20),
    join: Duration::from_secs(10),
    tick: Duration::from_millis(5),
};

/// The host's end, on a thread of its own.
pub(crate) struct Host(pub(crate) UnixStream);

impl Host {
    /// Any bytes. An agent that has hung up is no longer there to hear them.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub(crate) fn send(&mut self, message: &HostMessage) {
        self.0.write_all(&frame::encode(message).unwrap()).unwrap();
    }

    pub(crate) fn receive(&mut self) -> GuestMessage {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header).unwrap();
        let mut body = vec![0; frame::body_len(header).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        frame::decode_body(&body).unwrap()
    }

    pub(crate) fn ask(&mut self, message: &HostMessage) -> GuestMessage {
        self.send(message);
        self.receive()
    }

    pub(crate) fn hello(&mut self) -> GuestState {
        match self.ask(&HostMessage::Hello { versions: vec![1] }) {
            GuestMessage::Hello { version: 1, state, cid: 3, .. } => state,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn refused(&mut self, message: &HostMessage) -> Reason {
        match self.ask(message) {
            GuestMessage::Failed(failure) => failure.reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn is_hung_up_on(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}

pub(crate) fn identify(identity: &Identity) -> HostMessage {
    HostMessage::Identify(Box::new(identity.clone()))
}

fn agent<'a>(root: &'a Root, system: &'a Fake) -> Agent<'a, Fake> {
    *system.root.borrow_mut() = root.outside("");
    Agent::start(root, system, Config::default(), LIMITS).unwrap().unwrap()
}

/// One connection, with `host` at its other end and `answer` at this one.
pub(crate) fn connect<A, T: Send + 'static>(
    answer: impl FnOnce(UnixStream) -> A,
    host: impl FnOnce(&mut Host) -> T + Send + 'static,
) -> (A, T) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let host = thread::spawn(move || host(&mut Host(theirs)));
    let answered = answer(ours);
    (answered, host.join().unwrap())
}

pub(super) fn converse<T: Send + 'static>(
    agent: &mut Agent<'_, Fake>,
    host: impl FnOnce(&mut Host) -> T + Send + 'static,
) -> (Result<bool, Failure>, T) {
    connect(|stream| agent.converse(stream), host)
}

/// Gives the guest in `root` an identity.
pub(crate) fn become_individual(root: &Root, system: &Fake, identity: &Identity) -> Box<Evidence> {
    let identify = identify(identity);
    let (result, evidence) = converse(&mut agent(root, system), move |host| {
        assert_eq!(host.hello(), GuestState::Held);
        let GuestMessage::Applied(evidence) = host.ask(&identify) else { panic!() };
        host.send(&HostMessage::Open);
        evidence
    });
    assert!(result.unwrap() && system.gate_open.get());
    evidence
}

#[test]
fn from_held_to_open_and_through_a_reboot() {
    let (_dir, root) = template();
    let system = Fake::new();
    let job = |unit: &str, running| Job { unit: unit.into(), running };
    *system.jobs.borrow_mut() = vec![job("ramet-agent.service", true), job("ssh.service", false)];
    let mut held = agent(&root, &system);
    let (result, ()) = converse(&mut held, |host| {
        assert_eq!(host.hello(), GuestState::Held);
        assert!(matches!(host.ask(&HostMessage::Prepare), GuestMessage::Prepared { .. }));
    });
    assert!(!result.unwrap());
    assert_eq!(*system.warmed.borrow(), ["ssh.service"]);
    assert!(!system.gate_open.get());

    let wanted = identity();
    let evidence = become_individual(&root, &system, &wanted);
    assert_eq!(evidence.hostname, wanted.hostname);
    assert_eq!(system.journal_restarts.get(), 1);
    assert_eq!(Record::present(&root).unwrap().unwrap().instance_id, wanted.instance_id);
    assert_eq!(Record::load(&root).unwrap(), None, "the observer waits for the disk");
    Record::of(&wanted).commit(&root).unwrap();
    assert_eq!(evidence.steps.first(), Some(&Step::Entropy));
    assert_eq!(evidence.steps.last(), Some(&Step::Site));

    let rebooted = Fake::new();
    *rebooted.interfaces.borrow_mut() = system.interfaces.take();
    std::fs::remove_file(root.outside("run/ramet-agent/identity.toml")).unwrap();
    assert!(Agent::start(&root, &rebooted, Config::default(), LIMITS).unwrap().is_none());
    assert_eq!(rebooted.journal_restarts.get(), 0, "journald began with the machine's own ids");
    assert!(rebooted.gate_open.get(), "the record opens the gate, no host does");
    assert_eq!(Record::present(&root).unwrap().unwrap().instance_id, wanted.instance_id);
}

#[test]
fn what_the_agent_does_not_know_of_an_identity_it_refuses() {
    let (_dir, root) = template();
    let system = Fake::new();
    let mut agent = agent(&root, &system);
    let mut newer = serde_json::to_value(identify(&identity())).unwrap();
    newer["nics"][0]["vlan"] = 7.into();
    let body = newer.to_string();
    let (result, failure) = converse(&mut agent, move |host| {
        match host.ask(&HostMessage::Hello { versions: vec![3, 2, 1] }) {
            GuestMessage::Hello { version: 2, features, .. } => {
                assert_eq!(
                    features.iter().map(ramet_proto::text::Text::as_str).collect::<Vec<_>>(),
                    ramet_proto::FEATURES
                );
            }
            other => panic!("{other:?}"),
        }
        host.say(&u32::try_from(body.len()).unwrap().to_be_bytes());
        host.say(body.as_bytes());
        let answer = host.receive();
        assert!(host.is_hung_up_on());
        answer
    });
    result.unwrap();
    let GuestMessage::Failed(failure) = failure else { panic!("{failure:?}") };
    assert_eq!(failure.reason, Reason::Malformed);
    assert!(failure.detail.as_str().contains("unknown field `vlan`"), "{}", failure.detail);
    assert!(!system.gate_open.get());
}

#[test]
fn a_record_opens_no_gate_of_another_machine_or_one_whose_devices_are_not_there_yet() {
    let (_dir, root) = template();
    let record = Record::of(&identity());
    record.write(&root).unwrap();
    record.commit(&root).unwrap();
    for broken in ["", "devices_settled"] {
        let system = Fake::new();
        system.broken.set(broken);
        if !broken.is_empty() {
            for (interface, nic) in system.interfaces.borrow_mut().iter_mut().zip(identity().nics) {
                interface.mac = Some(nic.mac);
            }
        }
        let mut held = agent(&root, &system);
        assert!(!system.gate_open.get());
        assert!(system.console.borrow().contains("other network interfaces"));
        assert_eq!(converse(&mut held, Host::hello).1, GuestState::Held);
    }
}

#[test]
fn what_makes_no_sense_is_answered_closed_and_leaves_the_guest_held() {
    let (_dir, root) = template();
    let system = Fake::new();
    let mut agent = agent(&root, &system);
    let garbage: &[&[u8]] = &[
        &[0xff; 8],
        &[0, 0, 0, 0],
        b"\0\0\0\x03abc",
        b"\0\0\0\x11{\"type\":\"reboot\"}",
        b"GET / HTTP/1.0\r\n\r\n",
    ];
    for bytes in garbage {
        let (result, answer) = converse(&mut agent, move |host| {
            host.0.write_all(bytes).unwrap();
            let answer = host.receive();
            assert!(host.is_hung_up_on());
            answer
        });
        result.unwrap();
        let GuestMessage::Failed(failure) = answer else { panic!("{answer:?}") };
        assert_eq!((failure.step, failure.reason), (Step::Hello, Reason::Malformed));
    }
    // Half a frame, and gone; half a frame, and silent; nothing at all; a connection that says nothing more.
    converse(&mut agent, |host| host.0.write_all(&[0, 0, 1]).unwrap()).0.unwrap();
    converse(&mut agent, |host| {
        host.0.write_all(&[0, 0, 0, 9, b'{']).unwrap();
        assert!(host.is_hung_up_on());
    })
    .0
    .unwrap();
    converse(&mut agent, |_| ()).0.unwrap();
    converse(&mut agent, |host| {
        host.hello();
        assert!(host.is_hung_up_on());
    })
    .0
    .unwrap();
    assert!(!system.gate_open.get());
    assert_eq!(converse(&mut agent, Host::hello).1, GuestState::Held);
}

#[test]
fn an_identity_that_is_not_one_changes_nothing() {
    let (_dir, root) = template();
    let system = Fake::new();
    let mut agent = agent(&root, &system);
    let (result, answer) = converse(&mut agent, |host| {
        host.hello();
        let text = serde_json::to_string(&identify(&identity())).unwrap().replace("web-1", "not a name");
        host.0.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
        host.0.write_all(text.as_bytes()).unwrap();
        host.receive()
    });
    result.unwrap();
    let GuestMessage::Failed(failure) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.reason, Reason::Malformed);
    assert!(!system.gate_open.get());
    assert_eq!(*system.hostname.borrow(), "parent");
}

#[test]
fn the_order_of_messages_is_kept() {
    let (_dir, root) = template();
    let system = Fake::new();
    let mut agent = agent(&root, &system);
    for first in [
        HostMessage::Prepare,
        HostMessage::Observe,
        HostMessage::Open,
        HostMessage::Join,
        identify(&identity()),
    ] {
        let (result, reason) = converse(&mut agent, move |host| {
            let reason = host.refused(&first);
            assert!(host.is_hung_up_on());
            reason
        });
        result.unwrap();
        assert_eq!(reason, Reason::Unexpected);
    }
    let (result, reason) = converse(&mut agent, |host| {
        let reason = host.refused(&HostMessage::Hello { versions: vec![0, 77] });
        assert!(host.is_hung_up_on());
        reason
    });
    result.unwrap();
    assert_eq!(reason, Reason::Version);
    converse(&mut agent, |host| {
        host.hello();
        assert_eq!(host.refused(&HostMessage::Open), Reason::Unexpected);
        assert_eq!(host.refused(&HostMessage::Observe), Reason::Unexpected);
        assert_eq!(host.refused(&HostMessage::Join), Reason::Unexpected);
        assert!(matches!(host.ask(&HostMessage::Prepare), GuestMessage::Prepared { .. }));
    })
    .0
    .unwrap();
    assert!(!system.gate_open.get());
}

#[test]
fn no_open_after_applied_is_the_end() {
    type Ending = fn(&mut Host);
    let ends: &[(Ending, Reason)] = &[
        (|_| (), Reason::System),
        (|host| host.0.write_all(&[0, 0, 0, 15, b'{']).unwrap(), Reason::System),
        (|host| host.0.write_all(&[0xff; 4]).unwrap(), Reason::Malformed),
        (|host| host.send(&HostMessage::Prepare), Reason::Unexpected),
        (|host| host.send(&HostMessage::Join), Reason::Unexpected),
        (|host| host.send(&identify(&identity())), Reason::Unexpected),
        (|host| assert!(matches!(host.receive(), GuestMessage::Failed(_)), "silence"), Reason::Timeout),
    ];
    for (end, reason) in ends {
        let (_dir, root) = template();
        let system = Fake::new();
        let mut agent = agent(&root, &system);
        let (result, ()) = converse(&mut agent, move |host| {
            host.hello();
            assert!(matches!(host.ask(&identify(&identity())), GuestMessage::Applied(_)));
            end(host);
        });
        let failure = result.unwrap_err();
        assert_eq!((failure.step, failure.reason), (Step::Open, *reason), "{failure}");
        assert!(!system.gate_open.get());
        assert_eq!(Record::load(&root).unwrap(), None);
    }
}

#[test]
fn a_step_that_fails_is_told_and_is_the_end() {
    for (broken, step) in
        [("add_entropy", Step::Entropy), ("set_hostname", Step::Verify), ("devices_settled", Step::Prepare)]
    {
        let (_dir, root) = template();
        let system = Fake::new();
        system.broken.set(broken);
        let mut agent = agent(&root, &system);
        let (result, answer) = converse(&mut agent, |host| {
            host.hello();
            host.ask(&identify(&identity()))
        });
        let failure = result.unwrap_err();
        assert_eq!(failure.step, step);
        assert_eq!(answer, GuestMessage::Failed(failure));
        assert!(!system.gate_open.get());
    }
}

#[test]
fn no_template_of_a_guest_whose_boot_cannot_be_watched() {
    let (_dir, root) = template();
    let system = Fake::new();
    system.broken.set("watch_boot");
    let (result, answer) = converse(&mut agent(&root, &system), |host| {
        host.hello();
        host.ask(&HostMessage::Prepare)
    });
    result.unwrap();
    let GuestMessage::Failed(failure) = answer else { panic!("{answer:?}") };
    assert_eq!((failure.step, failure.retryable), (Step::Prepare, false));
    assert!(failure.to_string().contains("the end of boot cannot be watched for"), "{failure}");
}

#[test]
fn a_record_or_a_gate_that_cannot_be_had_is_the_end() {
    for (broken, step) in [("open_gate", Step::Open), ("var", Step::Record)] {
        let (dir, root) = template();
        if broken == "var" {
            // A file where the record's directory would be.
            std::fs::write(dir.path().join("var/lib/ramet-agent"), "").unwrap();
        }
        let system = Fake::new();
        system.broken.set(broken);
        let mut agent = agent(&root, &system);
        let (result, answer) = converse(&mut agent, |host| {
            host.hello();
            assert!(matches!(host.ask(&identify(&identity())), GuestMessage::Applied(_)));
            host.ask(&HostMessage::Open)
        });
        let failure = result.unwrap_err();
        assert_eq!(failure.step, step, "{failure}");
        assert_eq!(answer, GuestMessage::Failed(failure));
        assert!(!system.gate_open.get());
    }
}

#[test]
fn links_that_are_held_are_let_go_with_the_gate() {
    let all = |host: &mut Host| {
        host.hello();
        assert!(matches!(host.ask(&identify(&identity())), GuestMessage::Applied(_)));
        host.send(&HostMessage::Open);
    };
    let guest = || {
        let (dir, root) = template();
        // What a networkd that runs says of a link is not what another machine's run has left.
        let [hold, state] = [links::HOLD, "run/systemd/netif/links/2"].map(|path| dir.path().join(path));
        for path in [&hold, &state] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        (dir, root, hold, state)
    };
    let (_dir, root, ..) = guest();
    let system = Fake::new();
    system.broken.set("reload_network");
    let failure = converse(&mut agent(&root, &system), all).0.unwrap_err();
    assert_eq!(failure.step, Step::Open);
    assert!(!system.gate_open.get());

    let (_dir, root, hold, state) = guest();
    let system = Fake::new();
    let mut held = agent(&root, &system);
    assert!(hold.exists());
    converse(&mut held, all).0.unwrap();
    Record::present(&root).unwrap().unwrap().commit(&root).unwrap();
    assert!(system.gate_open.get() && !hold.exists() && state.exists());
    assert_eq!(system.network_reloads.get(), 1);
    let unit = include_str!("../../rootfs/usr/lib/systemd/system/ramet-links.service");
    assert!(unit.contains(&format!("ConditionPathExists=!/{}\n", links::FREE)) && unit.contains(links::HOLD));
    assert!(root.exists(links::FREE).unwrap(), "networkd may be started later for the first time");

    // A machine that boots again passes the gate by itself.
    std::fs::write(&hold, "").unwrap();
    let rebooted = Fake::new();
    *rebooted.interfaces.borrow_mut() = system.interfaces.take();
    assert!(Agent::start(&root, &rebooted, Config::default(), LIMITS).unwrap().is_none());
    assert!(!hold.exists());
    assert_eq!(rebooted.network_reloads.get(), 1);
}

#[test]
fn prepare_waits_for_what_starts_before_the_gate_but_not_forever() {
    for (unit, broken, named) in
        [("slow.service", "", "slow.service"), (boot::UNIT, "devices_settled", "devices")]
    {
        let (_dir, root) = template();
        let system = Fake::new();
        system.jobs.borrow_mut().push(Job { unit: unit.into(), running: true });
        system.broken.set(broken);
        let mut agent = agent(&root, &system);
        let (result, answer) = converse(&mut agent, |host| {
            host.hello();
            host.ask(&HostMessage::Prepare)
        });
        result.unwrap();
        let GuestMessage::Failed(failure) = answer else { panic!("{answer:?}") };
        assert_eq!((failure.step, failure.reason, failure.retryable), (Step::Prepare, Reason::Timeout, true));
        assert!(failure.detail.as_str().ends_with(&format!("gate: {named}")), "{failure}");
        assert!(!system.gate_open.get());
    }
}

#[test]
fn a_fork_that_nobody_identifies_ends_and_a_parent_waits() {
    let (_dir, root) = template();
    let system = Fake::new();
    let config: Config = toml::from_str("identify_timeout_seconds = 1").unwrap();
    let mut agent = Agent::start(&root, &system, config, LIMITS).unwrap().unwrap();
    converse(&mut agent, |host| {
        host.hello();
        assert!(matches!(host.ask(&HostMessage::Prepare), GuestMessage::Prepared { .. }));
    })
    .0
    .unwrap();
    assert_eq!(agent.waits_for(), Some(LIMITS.tick), "the context id is looked at from here on");
    agent.tick().unwrap();
    system.cid.set(9);
    let start = Instant::now();
    let failure = loop {
        match agent.tick() {
            Ok(()) => thread::sleep(LIMITS.tick),
            Err(failure) => break failure,
        }
    };
    assert_eq!((failure.step, failure.reason), (Step::Open, Reason::Timeout));
    assert!((1..10).contains(&start.elapsed().as_secs()));
}

#[test]
fn a_record_that_cannot_be_read_holds() {
    let (dir, root) = template();
    std::fs::create_dir(dir.path().join("var/lib/ramet-agent")).unwrap();
    std::fs::write(dir.path().join("var/lib/ramet-agent/identity.toml"), "format = 1\n").unwrap();
    let system = Fake::new();
    agent(&root, &system);
    assert!(system.console.borrow().starts_with("held: "));
}
