//! A child: a copy of a root with an identity.

use crate::{
    case::{Case, Wrong},
    container::{Container, TEMPLATE_MACHINE_ID},
    setting::Copy,
};
use anyhow::{Context, Result, bail};
use ramet_proto::{
    Evidence, InstanceId, MachineId, Sid, SshPublicKey,
    message::{Failure, Finding, Identity, UniqueValue},
    text::to_hex,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What the NIC is called, as it would be in a VM of the tests.
pub(crate) fn nic(root: &str) -> &'static str {
    if root == "debian13-ifupdown" { "enlan" } else { "ens2" }
}

/// Its address in the template.
const TEMPLATE_MAC: &str = "52:54:00:00:00:01";

/// Until the gate is open and boot complete, or the agent has said that it failed.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs the agent of the tests in the place of the real one.
const IN_PLACE: &str = "\
[Service]
Environment=RAMET_NATIVE=/run/native
ExecStart=
ExecStart=/run/native/agent --exact native::from_the_gate_to_the_end_of_boot --nocapture
StandardOutput=append:/run/native/log
StandardError=append:/run/native/log
";

pub(crate) struct Child {
    identity: Identity,
    nic: &'static str,
    container: Container,
    pub(crate) findings: Vec<Finding>,
    pub(crate) failure: Option<Failure>,
    applied: Option<Evidence>,
    /// Once boot is complete.
    observed: Option<Evidence>,
    not_ready: Option<String>,
}

impl Child {
    /// Boots `copy` as the child of that number, with the agent that is in `tests`.
    pub(crate) fn make(tests: &Path, case: &Case, copy: &Copy, number: usize) -> Result<Self> {
        let identity = identity(case, copy, number)?;
        fs::write(copy.talk.join("identity.json"), serde_json::to_vec(&identity)?)?;
        fs::copy(tests, copy.talk.join("agent"))?;
        copy.write("etc/systemd/system/ramet-agent.service.d/99-native.conf", IN_PLACE)?;
        // A container has no disks to be mounted.
        copy.write("etc/fstab", "")?;
        // Units that look for what a container has not.
        for unit in ["systemd-remount-fs.service", "systemd-networkd-wait-online.service"] {
            let path = copy.root.join("etc/systemd/system").join(unit);
            let _ = fs::remove_file(&path);
            symlink("/dev/null", path)?;
        }
        let name = format!("{}-{number}", case.root);
        let nic = nic(case.root);
        let mut container = Container::boot(&name, &copy.root, &copy.talk, nic, TEMPLATE_MAC)?;

        let told = |name: &str| copy.talk.join(name);
        let deadline = Instant::now() + LIMIT;
        let ends = ["failed.json", "observed.json", "not-ready.json"];
        let mut died = None;
        while !ends.iter().any(|name| told(name).exists()) {
            if !container.runs()? {
                died = Some("it powered off");
                break;
            }
            if Instant::now() > deadline {
                died = Some("it went on for longer than it may");
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let failure: Option<Failure> = read(&told("failed.json"))?;
        if let Some(died) = died.filter(|_| failure.is_none()) {
            let log = fs::read(told("log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let last: Vec<&str> = log.lines().collect();
            let last = last[last.len().saturating_sub(12)..].join("\n    ");
            let jobs = container.sh("systemctl list-jobs").unwrap_or_default();
            bail!("{died}: {}\n    {last}\n    {jobs}", container.last_words());
        }
        Ok(Self {
            identity,
            nic,
            container,
            findings: read(&told("prepared.json"))?.unwrap_or_default(),
            failure,
            applied: read(&told("applied.json"))?,
            observed: read(&told("observed.json"))?,
            not_ready: read(&told("not-ready.json"))?,
        })
    }

    /// Whether its gate is open.
    pub(crate) fn is_open(&self) -> bool {
        self.failure.is_none() && self.applied.is_some()
    }

    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        self.container.sh(script)
    }

    /// The findings, for people.
    pub(crate) fn found(&self) -> String {
        let lines = self.findings.iter().map(|one| format!("{:?}: {}", one.grade, one.what.as_str()));
        let failure = self.failure.iter().map(|failure| format!("failed: {failure}"));
        lines.chain(failure).collect::<Vec<_>>().join("; ")
    }

    /// `text` with this child's words for those in braces.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mac = self.identity.nics[0].mac.to_string();
        let boot_id = self.applied.as_ref().and_then(|one| one.boot_id).map(|id| id.to_string());
        let mut keys: Vec<String> =
            self.applied.iter().flat_map(|one| &one.ssh_host_keys).map(without_comment).collect();
        keys.sort();
        let words = [
            ("{hostname}", self.identity.hostname.to_string()),
            ("{machine_id}", self.identity.machine_id.to_string()),
            ("{boot_id}", boot_id.unwrap_or_default()),
            ("{host_keys}", keys.join("\n")),
            ("{nic}", self.nic.to_owned()),
            ("{mac}", mac),
            ("{address}", address(number_of(&self.identity))),
            ("{template_machine_id}", TEMPLATE_MACHINE_ID.to_owned()),
        ];
        words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    /// That its evidence is what it was told, before its gate opened and when its boot was complete.
    pub(crate) fn is_as_told(&self, wrong: &mut Wrong) {
        if let Some(failure) = &self.failure {
            return wrong.say(format!("the agent: {failure}"));
        }
        if let Some(why) = &self.not_ready {
            let jobs = self.sh("systemctl list-jobs --no-legend").unwrap_or_default();
            wrong.say(format!("boot is not complete ({why}): {jobs}"));
        }
        let Some(applied) = &self.applied else { return wrong.say("there is no evidence".into()) };
        wrong.unless_same("the hostname in evidence", &applied.hostname, &self.identity.hostname);
        wrong.unless_same("the machine-id in evidence", &applied.machine_id, &self.identity.machine_id);
        let Some(observed) = &self.observed else { return };
        let later = "when boot is complete";
        wrong.unless_same(&format!("the hostname {later}"), &observed.hostname, &applied.hostname);
        wrong.unless_same(&format!("the machine-id {later}"), &observed.machine_id, &applied.machine_id);
        wrong.unless_same(&format!("the boot id {later}"), &observed.boot_id, &applied.boot_id);
        wrong.unless_same(&format!("SSH host keys {later}"), &observed.ssh_host_keys, &applied.ssh_host_keys);
        wrong.unless_same(&format!("unique values {later}"), &observed.unique, &of_files(applied));
        wrong.unless_same(&format!("the machine SID {later}"), &observed.machine_sid, &applied.machine_sid);
    }

    /// That nothing in the evidence of both is alike.
    pub(crate) fn shares_nothing_with(&self, other: &Self, wrong: &mut Wrong) {
        let (Some(one), Some(other)) = (&self.applied, &other.applied) else { return };
        let mut unlike = |what: &str, same: bool| {
            if same {
                wrong.say(format!("{what} is both children's"));
            }
        };
        unlike("the hostname", one.hostname == other.hostname);
        unlike("the machine-id", one.machine_id == other.machine_id);
        unlike("the boot id", one.boot_id.is_some() && one.boot_id == other.boot_id);
        unlike("the random sample", one.random_sample == other.random_sample);
        unlike("the machine SID", one.machine_sid.is_some() && one.machine_sid == other.machine_sid);
        unlike("an SSH host key", one.ssh_host_keys.iter().any(|key| other.ssh_host_keys.contains(key)));
        for value in one.unique.iter().filter(|value| other.unique.contains(value)) {
            unlike(&format!("{} ({})", value.name.as_str(), value.value.as_str()), true);
        }
    }
}

/// Without what programs of the site have said: it is asked once.
fn of_files(evidence: &Evidence) -> Vec<UniqueValue> {
    evidence.unique.iter().filter(|one| !one.name.as_str().starts_with("site/")).cloned().collect()
}

fn without_comment(key: &SshPublicKey) -> String {
    key.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Some(serde_json::from_slice(&text)?))
}

fn number_of(identity: &Identity) -> usize {
    identity.hostname.as_str().bytes().last().map_or(0, |digit| usize::from(digit - b'0'))
}

fn address(number: usize) -> String {
    format!("192.0.2.{}", 10 + number)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn identity(case: &Case, copy: &Copy, number: usize) -> Result<Identity> {
    let ip = case.told.address.then(|| json!({ "addresses": [format!("{}/24", address(number))] }));
    let mut nic = json!({ "parent": TEMPLATE_MAC, "mac": format!("52:54:00:00:01:{number:02x}") });
    if let Some(ip) = ip {
        nic["ip"] = ip;
    }
    let public = fs::read_to_string(copy.talk.join("own.pub"))?;
    let users: Vec<_> =
        case.told.users.iter().map(|user| json!({ "user": user, "keys": [public.trim()] })).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let told = json!({
        "instance_id": InstanceId::random(),
        "hostname": format!("kiwi-{number}"),
        "machine_id": MachineId::random(),
        "nics": [nic],
        "machine_sid": Sid::machine(random::<3>()?.map(|byte| 1_000_000 + u32::from(byte))),
        "authorized_keys": users,
        "entropy": to_hex(&random::<64>()?),
        "unix_time_ns": i64::try_from(now)?,
    });
    serde_json::from_value(told).context("cannot make an identity")
}
