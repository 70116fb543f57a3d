//! Whatever goes wrong in a guest between its fork and its open gate, it never opens: it powers off, and says why.
//!
//! One template serves all faults: its site applier brings about the fault that is the child's name. It is that of a case
//! about another guest, since making one takes a cold boot.

use anyhow::{Context as _, Result, ensure};
use ramet::{
    agent::{Agent, AgentError},
    child::record::{Record, now_ms},
    fork::stages::Reserved,
    identity::{IdentityFile, InUse, complete},
    pool::Stores,
    qemu::process,
    state::StateDir,
    template::Template,
};
use ramet_proto::{
    Secret,
    message::{Identity, NicIdentity},
};
use ramet_tests::{World, contains, slowness, string, until};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Forks children of a template whose guest is as `images/debian13-ifupdown` makes it.
pub(super) fn whatever_goes_wrong(world: &World, faulty: &str) -> Result<()> {
    for (name, why) in [
        ("fails", "10-fault"),
        ("hangs", "10-fault"),
        ("babbles", "10-fault"),
        ("readonly", "record"),
        ("full", "record"),
        ("killed", "QEMU ended"),
    ] {
        let told = world.fails(["fork", faulty, "--name", name])?;
        contains(&told, why).with_context(|| format!("the fault {name}"))?;
        world.nothing_left()?;
    }
    let told = world.fails(["fork", faulty, "--count", "2", "--name-prefix", "twin"])?;
    contains(&told, "salt")?;
    world.nothing_left()?;

    // In the background nobody is there to hear of it; the record is.
    world.ok(["fork", faulty, "--name", "fails", "--wait", "resumed"])?;
    until(Duration::from_secs(60), || {
        let shown = world.json(&["show", "fails"])?;
        ensure!(shown["state"] == "failed", "{shown}");
        contains(string(&shown, "/failure")?, "10-fault")
    })?;
    ensure!(world.processes()?.is_empty(), "it runs on");
    world.remove(&["fails"])?;

    hosts_that_fail(world, faulty)?;

    // Nothing is wrong with this one, though its parent's clock was.
    world.ok(["fork", faulty, "--name", "well"])?;
    let here = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let before = here()?.as_secs();
    let clock: u64 = world.ssh("well", "date +%s")?.parse()?;
    ensure!((before.saturating_sub(1)..=here()?.as_secs() + 1).contains(&clock), "its clock says {clock}");
    secrets_are_not_the_templates(world, "well")?;
    // Somebody left a root shell on tty9 of the image's. It is there, but not before the gate was open.
    let started = "for unit in ramet-agent debug-shell; do \
                   systemctl show --value --property=ActiveEnterTimestampMonotonic $unit; done";
    let started = world.ssh("well", started)?;
    let started: Vec<u64> = started.lines().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(started[0] > 0 && started[0] < started[1], "gate and shell: {started:?}");
    past_the_gate_nothing_ends_it(world, "well")?;
    world.remove(&["well"])?;
    world.nothing_left()
}

/// A child past its gate goes on without the agent, with a journal that was closed, and with a clock of another century; and
/// who answers the host is there again.
fn past_the_gate_nothing_ends_it(world: &World, child: &str) -> Result<()> {
    // The clock is set back to what it would be by the time that has passed.
    let pids = world.ssh(
        child,
        "observer() { systemctl show --value --property=MainPID ramet-observe; }; \
         up() { cut -d' ' -f1 /proc/uptime; }; before=$(observer); now=$(date +%s.%N); since=$(up); \
         systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service 2> /dev/null; \
         systemctl start systemd-journald; date -s 2300-01-01 > /dev/null; kill -9 $(pidof ramet-agent); \
         for n in $(seq 60); do after=$(observer); [ $after != 0 ] && [ $after != $before ] && break; sleep 1; done; \
         date -s @$(awk \"BEGIN { printf \\\"%.3f\\\", $now + $(up) - $since }\") > /dev/null; echo $before $after",
    )?;
    let pids: Vec<u32> = pids.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(matches!(pids[..], [before, after] if before != after && after != 0), "the observer: {pids:?}");
    ensure!(world.json(&["show", child])?["state"] == "ready", "{child} does not run on");
    until(Duration::from_secs(60), || world.ok(["verify", child]).map(drop))
}

/// What is left in the image that no two machines may share.
fn secrets_are_not_the_templates(world: &World, child: &str) -> Result<()> {
    let left = "ls /var/lib/systemd/credential.secret /etc/krb5.keytab 2> /dev/null; \
                cat /proc/sys/net/ipv6/conf/default/stable_secret";
    let left = world.ssh(child, left)?;
    let is_secret = left
        .parse::<std::net::Ipv6Addr>()
        .is_ok_and(|secret| !left.starts_with("fd00:") && !secret.is_unspecified());
    ensure!(is_secret, "an image's secrets in {child}, or none: {left}");
    Ok(())
}

/// A host that resumes a child and goes, one that goes between identify and open, and one that sends nonsense.
fn hosts_that_fail(world: &World, faulty: &str) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let state = StateDir::open(world.state_dir())?;
    let stores = Stores::default();
    let template = Template::open(&state, &faulty.parse()?)?;
    for fault in ["silent", "hung-up", "misaddressed"] {
        let name: ramet::name::Name = fault.parse()?;
        let nics = template.manifest.nics.len();
        let identity = complete(&name, nics, &IdentityFile::default(), &InUse::default())?;
        let record = Record::new(name.clone(), template.name.clone(), identity.clone(), now_ms());
        runtime.block_on(async {
            let never = CancellationToken::new();
            let child = Reserved::new(&state, &stores, &template, record)?
                .spawn(&never)
                .await?
                .resume(&never)
                .await?;
            let cid = Record::read(&state.child(&name))?.cid;
            if fault != "silent" {
                let mut agent: Agent =
                    Agent::dial(cid, Duration::from_secs(30), || Ok::<_, AgentError>(())).await?;
                let parents = template.manifest.nics.iter().map(|nic| nic.mac);
                let parents = parents.map(|mac| if fault == "hung-up" { mac } else { identity.macs[0] });
                let nics = parents.zip(&identity.macs);
                let told = Identity {
                    nics: nics.map(|(parent, mac)| NicIdentity { parent, mac: *mac, ip: None }).collect(),
                    ..told(&identity)
                };
                let answer = agent.identify(told, Duration::from_secs(30) * slowness()).await;
                ensure!(answer.is_ok() == (fault == "hung-up"), "{answer:?}");
            }
            until(Duration::from_secs(60), || {
                ensure!(process::running(&state.child(&name))?.is_none(), "{fault}: it runs on");
                Ok(())
            })?;
            let console = std::fs::read_to_string(world.child_file(fault, "console.log"))?;
            contains(&console, "has no identity and powers off")?;
            ensure!(!console.contains("login:"), "{console}");
            child.undo().await?;
            Ok::<_, anyhow::Error>(())
        })?;
    }
    world.nothing_left()
}

fn told(identity: &ramet::identity::ChildIdentity) -> Identity {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Identity {
        instance_id: identity.instance_id,
        hostname: identity.hostname.clone(),
        machine_id: identity.machine_id,
        nics: Vec::new(),
        machine_sid: None,
        domain: None,
        authorized_keys: Vec::new(),
        entropy: Secret::new(vec![7; 64]),
        unix_time_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
    }
}
