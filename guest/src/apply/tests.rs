//! An identity applied to a temporary root and a made-up kernel.

mod some_guests;

use super::*;
use crate::{
    boot::{BootWatch, Job},
    netlink::Interface,
    process::Run,
};
use ramet_proto::{Hostname, InstanceId, MacAddr, MachineId, Secret, message::NicIdentity};
use std::{
    cell::{Cell, RefCell},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// A kernel and service manager that remember what they were told.
pub(crate) struct Fake {
    pub(crate) seed: RefCell<Vec<u8>>,
    pub(crate) clock: Cell<i64>,
    pub(crate) hostname: RefCell<String>,
    pub(crate) interfaces: RefCell<Vec<Interface>>,
    /// Interfaces whose addresses were taken.
    pub(crate) flushed: RefCell<Vec<u32>>,
    pub(crate) cid: Cell<u32>,
    pub(crate) jobs: RefCell<Vec<Job>>,
    pub(crate) warmed: RefCell<Vec<String>>,
    pub(crate) gate_open: Cell<bool>,
    pub(crate) journal_restarts: Cell<u8>,
    pub(crate) network_reloads: Cell<u8>,
    /// What Samba has.
    pub(crate) sid: RefCell<String>,
    /// Programs that were run, and what the last of them was fed.
    pub(crate) ran: RefCell<Vec<String>>,
    pub(crate) fed: RefCell<Vec<u8>>,
    /// What programs answer whose command lines begin so; the last that fits counts, others succeed and print nothing.
    pub(crate) answers: RefCell<Vec<(&'static str, Result<String, String>)>>,
    /// How long each of them takes.
    pub(crate) takes: Cell<Duration>,
    pub(crate) cgroups: TempDir,
    pub(crate) console: RefCell<String>,
    /// How often something random was drawn.
    pub(crate) drawn: Cell<u8>,
    /// The machine-id that the service manager remembers.
    pub(crate) remembered: RefCell<Option<String>>,
    /// Where programs see `/`.
    pub(crate) root: RefCell<PathBuf>,
    /// The name of an operation that fails.
    pub(crate) broken: Cell<&'static str>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let nic = |index, last| Interface {
            index,
            name: format!("ens{index}"),
            mac: Some(mac(last)),
            physical: true,
            ..Interface::default()
        };
        Self {
            seed: RefCell::default(),
            clock: Cell::new(1),
            hostname: RefCell::new("parent".into()),
            interfaces: RefCell::new(vec![nic(2, 1), Interface { up: true, ..nic(3, 2) }]),
            flushed: RefCell::default(),
            cid: Cell::new(3),
            jobs: RefCell::default(),
            warmed: RefCell::default(),
            gate_open: Cell::new(false),
            journal_restarts: Cell::new(0),
            network_reloads: Cell::new(0),
            sid: RefCell::default(),
            ran: RefCell::default(),
            fed: RefCell::default(),
            answers: RefCell::default(),
            takes: Cell::default(),
            cgroups: tempfile::tempdir().unwrap(),
            console: RefCell::default(),
            drawn: Cell::new(0),
            remembered: RefCell::default(),
            root: RefCell::default(),
            broken: Cell::new(""),
        }
    }

    fn works(&self, operation: &str) -> io::Result<()> {
        if self.broken.get() == operation { Err(io::Error::other("broken on purpose")) } else { Ok(()) }
    }

    /// From here on programs whose command lines begin with `line` answer so.
    pub(crate) fn answer(&self, line: &'static str, answer: Result<&str, &str>) {
        self.answers.borrow_mut().push((line, answer.map(str::to_owned).map_err(str::to_owned)));
    }

    fn draw(&self) -> u8 {
        self.drawn.set(self.drawn.get() + 1);
        self.drawn.get()
    }
}

impl System for Fake {
    fn add_entropy(&self, seed: &[u8]) -> io::Result<()> {
        self.works("add_entropy")?;
        *self.seed.borrow_mut() = seed.to_vec();
        Ok(())
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(self.draw());
        Ok(())
    }

    fn clock(&self) -> io::Result<i64> {
        Ok(self.clock.get())
    }

    fn set_clock(&self, unix_time_ns: i64) -> io::Result<()> {
        self.clock.set(unix_time_ns);
        self.works("set_clock")
    }

    fn hostname(&self) -> io::Result<String> {
        Ok(self.hostname.borrow().clone())
    }

    fn set_hostname(&self, name: &Hostname) -> io::Result<()> {
        // A system that says it did and did not.
        if self.broken.get() != "set_hostname" {
            *self.hostname.borrow_mut() = name.to_string();
        }
        Ok(())
    }

    fn uncover(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn cover(&self, file: &Path, over: &Path) -> io::Result<()> {
        self.works("cover")?;
        fs::create_dir_all(over.parent().unwrap())?;
        let _ = fs::remove_file(over);
        fs::copy(file, over).map(drop)
    }

    fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        Ok(self.interfaces.borrow().clone())
    }

    fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        self.interfaces
            .borrow_mut()
            .iter_mut()
            .filter(|one| one.index == index)
            .for_each(|one| one.up = false);
        Ok(())
    }

    fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), NetlinkError> {
        for one in self.interfaces.borrow_mut().iter_mut().filter(|one| one.index == index) {
            assert!(!one.up, "{} is up", one.name);
            one.mac = Some(mac);
        }
        Ok(())
    }

    fn flush(&self, index: u32) -> Result<(), NetlinkError> {
        self.flushed.borrow_mut().push(index);
        Ok(())
    }

    fn run(&self, run: &Run<'_>) -> io::Result<String> {
        std::thread::sleep(self.takes.get());
        let line = run.to_string();
        let arguments: Vec<_> = run.arguments.iter().map(String::as_str).collect();
        match (run.program, &arguments[..]) {
            ("ssh-keygen", ["-q", "-t", kind, .., "-C", comment, "-f", file]) => {
                self.works("generate_host_key")?;
                let file = self.root.borrow().join(file.trim_start_matches('/'));
                assert!(!file.exists(), "ssh-keygen would ask whether to overwrite it");
                fs::write(&file, "private")?;
                let public = format!("ssh-{kind} AAAA{} {comment}\n", self.draw());
                fs::write(file.with_extension("pub"), public)?;
                return Ok(String::new());
            }
            ("net", ["getlocalsid"]) => {
                return Ok(format!("SID for domain WEB-1 is: {}\n", self.sid.borrow()));
            }
            ("systemctl", ["daemon-reexec"]) => *self.remembered.borrow_mut() = None,
            // One that only says so, too.
            ("net", ["setlocalsid", sid]) => {
                if self.broken.get() != "set_local_sid" {
                    *self.sid.borrow_mut() = (*sid).to_owned();
                }
                return Ok(String::new());
            }
            _ => {}
        }
        self.fed.borrow_mut().extend(run.input.unwrap_or_default());
        let answers = self.answers.borrow();
        let answer = answers.iter().rfind(|(start, _)| line.starts_with(start));
        self.ran.borrow_mut().push(line);
        match answer {
            None => Ok(String::new()),
            Some((_, Ok(said))) => Ok(said.clone()),
            // What a system says of a program that is not there.
            Some((_, Err(said))) if said == "not found" => Err(io::ErrorKind::NotFound.into()),
            Some((_, Err(said))) => Err(io::Error::other(said.clone())),
        }
    }

    fn unit_description(&self, unit: &str) -> io::Result<String> {
        assert_eq!(unit, "ramet-probe.service");
        let read = |path: &str| fs::read_to_string(self.root.borrow().join(path)).unwrap_or_default();
        let plain = |id: String| id.trim().replace('-', "");
        let boot_id = plain(read("proc/sys/kernel/random/boot_id"));
        let boot_id = if boot_id.is_empty() { "0".repeat(32) } else { boot_id };
        let machine_id = self.remembered.borrow().clone();
        let machine_id = machine_id.unwrap_or_else(|| plain(read("etc/machine-id")));
        Ok(format!("Ramet's probe: {machine_id} {boot_id}\n"))
    }

    fn local_cid(&self) -> io::Result<u32> {
        Ok(self.cid.get())
    }

    fn jobs(&self) -> io::Result<Vec<Job>> {
        self.works("jobs")?;
        Ok(self.jobs.borrow().clone())
    }

    fn devices_settled(&self) -> io::Result<bool> {
        Ok(self.works("devices_settled").is_ok())
    }

    fn warm(&self, units: &[&str]) {
        self.warmed.borrow_mut().extend(units.iter().map(ToString::to_string));
    }

    fn trim(&self) {}

    fn open_gate(&self) -> io::Result<()> {
        self.works("open_gate")?;
        self.gate_open.set(true);
        Ok(())
    }

    fn restart_journal(&self) -> io::Result<()> {
        assert!(!self.gate_open.get(), "the template's would hear what starts then");
        self.journal_restarts.set(self.journal_restarts.get() + 1);
        Ok(())
    }

    fn reload_network(&self) -> io::Result<()> {
        self.works("reload_network")?;
        assert!(!self.gate_open.get(), "what waits for the network would find its links unmanaged");
        self.network_reloads.set(self.network_reloads.get() + 1);
        Ok(())
    }

    fn watch_boot(&self) -> io::Result<BootWatch> {
        self.works("watch_boot")?;
        BootWatch::on(self.cgroups.path())
    }

    fn console(&self, line: &str) {
        *self.console.borrow_mut() += line;
    }
}

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap()
}

pub(crate) fn identity() -> Identity {
    Identity {
        instance_id: InstanceId::random(),
        hostname: "web-1".parse().unwrap(),
        machine_id: MachineId::random(),
        nics: vec![
            NicIdentity { parent: mac(1), mac: mac(11), ip: None },
            NicIdentity { parent: mac(2), mac: mac(12), ip: None },
        ],
        machine_sid: None,
        domain: None,
        authorized_keys: Vec::new(),
        entropy: Secret::new(vec![7; 64]),
        unix_time_ns: 1_800_000_000_000_000_000,
    }
}

/// A root as a template leaves it.
pub(crate) fn template() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("etc/hostname", "parent\n"),
        ("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\tparent\n"),
        ("etc/ssh/ssh_host_ed25519_key", "old"),
        ("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAold root@parent\n"),
        ("etc/ssh/ssh_host_rsa_key", "old"),
        ("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAAold root@parent\n"),
        ("etc/ssh/sshd_config", "Port 22\n"),
        ("etc/ramet/agent.toml", "ssh_host_keys = [\"ed25519\", \"ecdsa\"]\n"),
        ("usr/sbin/sshd", ""),
        ("usr/bin/ssh-keygen", ""),
        ("var/lib/systemd/random-seed", "the seed all children share......."),
        ("var/lib/systemd/credential.secret", "secret"),
        ("run/systemd/container", ""),
        ("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n"),
    ];
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn apply_to(root: &Root, system: &Fake, identity: &Identity) -> Result<Evidence, Failure> {
    *system.root.borrow_mut() = root.outside("");
    apply(
        &Order { identity, received: Instant::now(), stale: Stale::default() },
        root,
        system,
        &Config::load(root).unwrap(),
    )
}

#[test]
fn everything_is_applied_and_read_back_and_twice_is_as_good_as_once() {
    let (dir, root) = template();
    let (system, identity) = (Fake::new(), identity());
    let mut keys = Vec::new();
    for _ in 0..2 {
        let evidence = apply_to(&root, &system, &identity).unwrap();
        assert_eq!(evidence.instance_id, identity.instance_id);
        assert_eq!(evidence.hostname, identity.hostname);
        assert_eq!(evidence.machine_id, identity.machine_id);
        assert_eq!(
            evidence.nics.iter().map(|nic| (nic.mac, nic.up)).collect::<Vec<_>>(),
            [(mac(11), false), (mac(12), false)]
        );
        assert!(evidence.unix_time_ns >= identity.unix_time_ns);
        assert_eq!(*system.seed.borrow(), [7; 64]);
        assert_eq!(evidence.ssh_host_keys.len(), 2);
        keys.extend(evidence.ssh_host_keys);
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("etc/hostname"), "web-1\n");
        assert_eq!(read("etc/hosts"), "127.0.0.1\tlocalhost\n127.0.1.1\tweb-1\n");
        assert_eq!(read("etc/machine-id"), format!("{}\n", identity.machine_id));
        assert_eq!(read("var/lib/dbus/machine-id"), read("etc/machine-id"));
        assert!(!read("var/lib/systemd/random-seed").starts_with("the seed"));
        assert!(!dir.path().join("var/lib/systemd/credential.secret").exists());
        assert!(!dir.path().join("etc/ssh/ssh_host_rsa_key").exists());
        assert_eq!(
            root.names("etc/ssh").unwrap(),
            [
                "ssh_host_ecdsa_key",
                "ssh_host_ecdsa_key.pub",
                "ssh_host_ed25519_key",
                "ssh_host_ed25519_key.pub",
                "sshd_config"
            ]
        );
    }
    assert!(keys[0] != keys[2] && keys[1] != keys[3], "keys are made anew each time");
}

/// OpenSSH's own opinion of a key that was made here.
#[test]
fn an_ed25519_key_is_one_that_openssh_reads() {
    let (dir, root) = template();
    let evidence = apply_to(&root, &Fake::new(), &identity()).unwrap();
    let key = dir.path().join("etc/ssh/ssh_host_ed25519_key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let Ok(read) = Command::new("ssh-keygen").arg("-y").arg("-f").arg(&key).output() else {
        eprintln!("skipped: there is no ssh-keygen here");
        return;
    };
    let public = String::from_utf8(read.stdout).unwrap();
    assert_eq!(public, fs::read_to_string(key.with_extension("pub")).unwrap(), "{:?}", read.stderr);
    assert!(public.ends_with(" root@web-1\n"));
    assert!(evidence.ssh_host_keys.contains(&public.parse().unwrap()));
}

#[test]
fn a_bare_guest_without_ssh_or_hosts_will_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::create_dir(dir.path().join("run")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let evidence = apply_to(&root, &Fake::new(), &identity()).unwrap();
    assert!(evidence.ssh_host_keys.is_empty());
    assert_eq!(root.read_text("etc/hosts").unwrap().unwrap(), "127.0.0.1\tlocalhost\n127.0.1.1\tweb-1\n");
}

#[test]
fn a_step_that_fails_is_named() {
    for (broken, step, reason) in [
        ("add_entropy", Step::Entropy, Reason::System),
        ("set_clock", Step::Clock, Reason::System),
        ("set_hostname", Step::Verify, Reason::Mismatch),
        ("generate_host_key", Step::SshHostKeys, Reason::System),
    ] {
        let (_dir, root) = template();
        let system = Fake::new();
        system.broken.set(broken);
        let failure = apply_to(&root, &system, &identity()).unwrap_err();
        assert_eq!((failure.step, failure.reason, failure.retryable), (step, reason, false), "{failure}");
    }
}

#[test]
fn what_the_guest_lacks_is_named() {
    let (dir, root) = template();
    fs::remove_file(dir.path().join("usr/bin/ssh-keygen")).unwrap();
    let failure = apply_to(&root, &Fake::new(), &identity()).unwrap_err();
    assert_eq!((failure.step, failure.reason), (Step::SshHostKeys, Reason::Missing));
    assert!(
        root.read_text("etc/ssh/ssh_host_rsa_key").unwrap().is_none(),
        "the template's keys are gone anyway"
    );

    let system = Fake::new();
    system.interfaces.borrow_mut().pop();
    let failure = apply_to(&root, &system, &identity()).unwrap_err();
    assert_eq!((failure.step, failure.reason), (Step::Nics, Reason::Missing));
}

#[test]
fn too_little_entropy_is_refused_before_anything_changes() {
    let (_dir, root) = template();
    let identity = Identity { entropy: Secret::new(vec![1; 31]), ..identity() };
    let failure = apply_to(&root, &Fake::new(), &identity).unwrap_err();
    assert_eq!((failure.step, failure.reason), (Step::Entropy, Reason::Malformed));
    assert_eq!(root.read_text("etc/hostname").unwrap().unwrap(), "parent\n");
}

/// The one list of the steps besides the code's.
#[test]
fn the_document_has_the_steps_in_their_order() {
    let document = include_str!("../../../docs/identity.md");
    let table = document.split("\n## ").find(|part| part.starts_with("The steps")).unwrap();
    let words = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let own = steps::<Fake>().map(|(step, _)| step.to_string());
    let own = own.into_iter().chain([Step::Manager, Step::Site].map(|step| step.to_string()));
    assert_eq!(words.collect::<Vec<_>>(), own.collect::<Vec<_>>());
}
