//! The agent in a real guest's root that was booted as a container, which is what `cargo xtask native` does: there it runs in
//! the place of `ramet-agent serve` and speaks with a host of its own, on a thread.
//!
//! What a container lacks, or has in common with the machine it is on, is made up: the random pool, the clock, vsock, the
//! trimming of a disk, udev. All else is the guest's: its files, programs, service manager, links.
//!
//! `RAMET_NATIVE` names a folder: `identity.json` lies in it, what comes of it is written beside that.

use crate::{
    agent::Agent,
    boot::{BootWatch, Job},
    config::Config,
    gate,
    limits::Limits,
    linux::Linux,
    netlink::{Interface, NetlinkError},
    observer::Observer,
    process::Run,
    root::Root,
    system::System,
};
use ramet_proto::{
    GuestMessage, HostMessage, Hostname, MacAddr, VERSIONS,
    frame::{self, HEADER},
    message::Identity,
};
use serde::Serialize;
use std::{
    cell::Cell,
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// A container's kernel, as far as it is its own.
struct Native {
    /// How far the wall clock was set from the machine's.
    clock_offset: Cell<i64>,
    cid: Cell<u32>,
}

impl System for Native {
    fn add_entropy(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        Linux.random(bytes)
    }

    fn clock(&self) -> io::Result<i64> {
        Ok(Linux.clock()? + self.clock_offset.get())
    }

    fn set_clock(&self, unix_time_ns: i64) -> io::Result<()> {
        self.clock_offset.set(unix_time_ns - Linux.clock()?);
        Ok(())
    }

    fn hostname(&self) -> io::Result<String> {
        Linux.hostname()
    }

    fn set_hostname(&self, name: &Hostname) -> io::Result<()> {
        Linux.set_hostname(name)
    }

    fn uncover(&self, path: &Path) -> io::Result<()> {
        Linux.uncover(path)
    }

    fn cover(&self, file: &Path, over: &Path) -> io::Result<()> {
        Linux.cover(file, over)
    }

    /// The NIC of a container is one end of a pair of virtual ones.
    fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        let mut interfaces = Linux.interfaces()?;
        for one in interfaces.iter_mut().filter(|one| is_nic(&one.name)) {
            one.physical = true;
        }
        Ok(interfaces)
    }

    fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        Linux.set_down(index)
    }

    fn flush(&self, index: u32) -> Result<(), NetlinkError> {
        Linux.flush(index)
    }

    fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        Linux.set_mac(index, mac)
    }

    fn run(&self, run: &Run<'_>) -> io::Result<String> {
        Linux.run(run)
    }

    fn unit_description(&self, unit: &str) -> io::Result<String> {
        Linux.unit_description(unit)
    }

    fn local_cid(&self) -> io::Result<u32> {
        Ok(self.cid.get())
    }

    fn jobs(&self) -> io::Result<Vec<Job>> {
        Linux.jobs()
    }

    /// There is no udev in a container.
    fn devices_settled(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn warm(&self, _: &[&str]) {}

    fn trim(&self) {}

    fn open_gate(&self) -> io::Result<()> {
        Linux.open_gate()
    }

    fn restart_journal(&self) -> io::Result<()> {
        Linux.restart_journal()
    }

    fn reload_network(&self) -> io::Result<()> {
        Linux.reload_network()
    }

    fn watch_boot(&self) -> io::Result<BootWatch> {
        Linux.watch_boot()
    }

    fn console(&self, line: &str) {
        crate::log!("{line}");
    }
}

fn is_nic(name: &str) -> bool {
    name.starts_with("en") && !name.contains(['.', ':'])
}

const LIMITS: Limits = Limits {
    frame: Duration::from_secs(20),
    idle: Duration::from_secs(5),
    open: Duration::from_secs(20),
    settle: Duration::from_secs(30),
    boot: Duration::from_secs(30),
    tick: Duration::from_millis(50),
    ..Limits::DEFAULT
};

/// The host's end of a connection.
struct Host(UnixStream);

impl Host {
    fn ask(&mut self, message: &HostMessage) -> GuestMessage {
        self.0.write_all(&frame::encode(message).unwrap()).unwrap();
        self.hear().expect("an answer")
    }

    /// What comes next, unless the agent has hung up or says nothing.
    fn hear(&mut self) -> io::Result<GuestMessage> {
        let mut header = [0; HEADER];
        self.0.read_exact(&mut header)?;
        let mut body = vec![0; frame::body_len(header).unwrap()];
        self.0.read_exact(&mut body)?;
        Ok(frame::decode_body(&body).unwrap())
    }

    fn hello(&mut self) {
        let answer = self.ask(&HostMessage::Hello { versions: VERSIONS.to_vec() });
        assert!(matches!(answer, GuestMessage::Hello { .. }), "{answer:?}");
    }
}

/// One connection, with `answer` at this end and `host` at the other.
fn converse<A>(answer: impl FnOnce(UnixStream) -> A, host: impl FnOnce(&mut Host) + Send + 'static) -> A {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LIMITS.boot)).unwrap();
    let host = thread::spawn(move || host(&mut Host(theirs)));
    let answered = answer(ours);
    host.join().unwrap();
    answered
}

/// The folder for what comes of it.
#[derive(Clone)]
struct Folder(PathBuf);

impl Folder {
    /// Whole or not at all: somebody waits for it.
    fn write(&self, name: &str, what: &impl Serialize) {
        let partial = self.0.join(".partial");
        fs::write(&partial, serde_json::to_vec_pretty(what).unwrap()).unwrap();
        fs::rename(partial, self.0.join(name)).unwrap();
    }

    /// The answer, if it is not that of a failure.
    fn fails(&self, answer: &GuestMessage) -> bool {
        let GuestMessage::Failed(failure) = answer else { return false };
        self.write("failed.json", failure);
        true
    }
}

#[test]
fn from_the_gate_to_the_end_of_boot() {
    let Some(folder) = std::env::var_os("RAMET_NATIVE") else {
        eprintln!("skipped: RAMET_NATIVE is not set; `cargo xtask native` runs this in real guests' roots");
        return;
    };
    let folder = Folder(folder.into());
    let identity: Identity =
        serde_json::from_slice(&fs::read(folder.0.join("identity.json")).unwrap()).unwrap();
    let root = Root::open(Path::new("/")).unwrap();
    let system = Native { clock_offset: Cell::new(0), cid: Cell::new(3) };
    gate::is_sound(&root).unwrap();
    let config = Config::load(&root).unwrap();
    let mut agent = Agent::start(&root, &system, config.clone(), LIMITS).unwrap().expect("no record");

    let told = folder.clone();
    let prepare = move |host: &mut Host| {
        host.hello();
        match host.ask(&HostMessage::Prepare) {
            GuestMessage::Prepared { findings } => told.write("prepared.json", &findings),
            other => assert!(told.fails(&other), "{other:?}"),
        }
    };
    assert!(!converse(|stream| agent.converse(stream), prepare).unwrap());
    if !folder.0.join("prepared.json").exists() {
        // No template is made of it: what the case wanted to know.
        loop {
            thread::park();
        }
    }

    // It is resumed as a fork.
    system.cid.set(4);
    let told = folder.clone();
    let identify = move |host: &mut Host| {
        host.hello();
        match host.ask(&HostMessage::Identify(Box::new(identity))) {
            GuestMessage::Applied(evidence) => told.write("applied.json", &evidence),
            other => return assert!(told.fails(&other), "{other:?}"),
        }
        host.0.write_all(&frame::encode(&HostMessage::Open).unwrap()).unwrap();
    };
    if converse(|stream| agent.converse(stream), identify).is_ok() {
        let mut observer = Observer::start(&root, &system, config, LIMITS).unwrap().expect("it is open");
        let told = folder.clone();
        let observe = move |host: &mut Host| {
            host.hello();
            match host.hear() {
                Ok(GuestMessage::Ready) => told.write("ready.json", &true),
                Ok(other) => assert!(told.fails(&other), "{other:?}"),
                Err(error) => return told.write("not-ready.json", &error.to_string()),
            }
            match host.ask(&HostMessage::Observe) {
                GuestMessage::Observed(evidence) => told.write("observed.json", &evidence),
                other => assert!(told.fails(&other), "{other:?}"),
            }
        };
        converse(|stream| observer.converse(stream), observe);
    }
    // It stays: in a container its unit is not the package's, and what waits at the gate requires it.
    loop {
        thread::park();
    }
}
