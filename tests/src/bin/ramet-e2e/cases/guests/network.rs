//! Children of another Debian, with other network services, with a display manager: two of each, that everything is asked of.

use super::domain;
use crate::{
    Case,
    cases::{fail_closed, identity},
};
use anyhow::{Context as _, Result, bail, ensure};
use ramet_tests::{World, contains, string, succeeded, until};
use serde_json::Value;
use std::{ffi::OsString, fs, process::Command, time::Duration};

pub(crate) const CASES: &[Case] = &[
    ("guests::network::debian_12_with_networkmanager", debian_12_with_networkmanager),
    (
        "guests::network::debian_13_with_ifupdown_and_a_display_manager_fails_closed",
        debian_13_with_ifupdown_and_a_display_manager_fails_closed,
    ),
];

fn debian_12_with_networkmanager(world: &World) -> Result<()> {
    let questions = "cd /var/lib/NetworkManager; sha256sum < secret_key; echo $(grep -l 10.77.0.9$ *.lease)
        net getlocalsid; grep -v ^# /etc/iscsi/initiatorname.iscsi; cat /etc/nvme/hostnqn /etc/nvme/hostid";
    let answers = individuals(world, "debian12-nm", &["NetworkManager"], questions, domain::another_domain)?;
    for (answer, identity) in &answers {
        let [secret, planted, sid, initiator, nqn, id] = &answer[..] else { bail!("{answer:?}") };
        ensure!(planted.is_empty(), "a lease of the template's is still there: {planted}");
        ensure!(!secret.starts_with("f393a228"), "the secret is the image's");
        ensure!(sid.ends_with(&format!(" is: {}", string(identity, "/machine_sid")?)), "{sid}, {identity}");
        ensure!(initiator.starts_with("InitiatorName=iqn.1993-08.org.debian:01:"), "{initiator}");
        ensure!(*nqn == format!("nqn.2014-08.org.nvmexpress:uuid:{id}"), "{nqn} is not of {id}");
    }
    for (item, (one, other)) in answers[0].0.iter().zip(&answers[1].0).enumerate() {
        ensure!(one != other || one.is_empty(), "answer {item} is shared: {one}");
    }
    Ok(())
}

fn debian_13_with_ifupdown_and_a_display_manager_fails_closed(world: &World) -> Result<()> {
    let duid = "cat /var/lib/dhcpcd/duid; pgrep -c greet";
    let units = &["ifup@enlan", "networking", "display-manager"];
    let answers = individuals(world, "debian13-ifupdown", units, duid, fail_closed::whatever_goes_wrong)?;
    for (answer, _) in &answers {
        let [duid, greeters] = &answer[..] else { bail!("{answer:?}") };
        ensure!(!duid.starts_with("00:04:00:11:22:33"), "the DUID is the image's");
        ensure!(greeters != "0", "nobody greets");
    }
    ensure!(answers[0].0[0] != answers[1].0[0], "the DUID is shared");
    Ok(())
}

/// A line for each question, and the identity of the child that answered.
type Answer = (Vec<String>, Value);

/// What every guest is asked. Each line of the answer is looked at in [`individuals`].
const QUESTIONS: &str = "uname -n; cat /etc/hostname; cat /etc/machine-id; cat /sys/class/net/e*/address
cat /etc/ssh/ssh_host_ed25519_key.pub
echo $(ip -br -4 addr show scope global up); echo $(ip -br -6 addr show scope link up)
echo $(systemctl --failed --plain --no-legend)
started() { systemctl show --value --property=ActiveEnterTimestampMonotonic $1.service; }
for unit in $UNITS ssh; do
  [ $(started $unit) -gt $(started ramet-agent) ] || echo -n \"$unit has not started after the gate; \"
done; echo
";

/// Makes a template of a guest and two children, and fails unless they are two; then one more with a static address, and
/// what `more` does with the template when they are gone. `units` are those that the gate holds there; what the two answer
/// to `questions` is returned, beside the identities they were given.
fn individuals(
    world: &World,
    guest: &str,
    units: &[&str],
    questions: &str,
    more: fn(&World, &str) -> Result<()>,
) -> Result<Vec<Answer>> {
    world.create_template(guest, guest, "512M", &["bridge=ramete2e0"])?;
    let questions = format!("UNITS='{}'\n{QUESTIONS}{questions}", units.join(" "));
    let answers = two_children(world, guest, &questions).and_then(|answers| {
        with_a_static_address(world, guest)?;
        world.clear()?;
        more(world, guest)?;
        Ok(answers)
    });
    // Other cases count templates.
    world.clear()?;
    world.ok(["template", "rm", guest])?;
    world.nothing_left()?;
    answers
}

fn two_children(world: &World, guest: &str, questions: &str) -> Result<Vec<Answer>> {
    let forked = world.json(&["fork", guest, "--count", "2"])?;
    let forked = forked.as_array().context("an array")?;
    let (mut common, mut own) = (Vec::new(), Vec::new());
    for child in forked {
        let name = string(child, "/name")?;
        let mac = string(child, "/identity/macs/0")?;
        let address =
            until(Duration::from_secs(60), || world.network.leases()?.remove(mac).context("no lease"))?;
        // A client may probe the address that it was given before it takes it.
        let answer = until(Duration::from_secs(60), || on_the_bridge(world, name, &address, questions))?;
        let lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        let (first, rest) = lines.split_at_checked(9).with_context(|| format!("{lines:?}"))?;
        let [uname, hostname, machine_id, seen_mac, key, inet, inet6, failed, early] = first else {
            bail!("{lines:?}")
        };
        ensure!(uname == name && hostname == name, "{uname} {hostname}");
        ensure!(machine_id == string(child, "/identity/machine_id")?, "{machine_id}");
        ensure!(seen_mac == mac, "{seen_mac} instead of {mac}");
        contains(key, string(child, "/identity/ssh_host_keys/0")?)?;
        contains(inet, &format!(" UP {address}/24"))?;
        contains(inet6, " fe80::")?;
        ensure!(failed.is_empty(), "units that failed in {name}: {failed}");
        ensure!(early.is_empty(), "{name}: {early}");
        common.push([uname, machine_id, mac, key, &address, inet6].map(ToString::to_string));
        own.push((rest.to_vec(), child["identity"].clone()));
    }
    ensure!(common.len() == 2, "{} children", common.len());
    for (one, other) in common[0].iter().zip(&common[1]) {
        ensure!(one != other, "both have {one}");
    }
    // By vsock where systemd has sshd listen there, else by an address that the guest has told.
    let name = string(&forked[0], "/name")?;
    ensure!(world.ssh(name, "uname -n")? == name);

    let template = world.json(&["template", "show", guest])?;
    let parent = string(&template, "/nics/0/mac")?;
    let frames = world.network.frames(&format!("ether host {parent}"))?;
    ensure!(frames == 0, "{frames} frames with the parent's address {parent}");
    Ok(own)
}

/// A child that has its address from its identity, of an image that asks DHCP for one.
fn with_a_static_address(world: &World, guest: &str) -> Result<()> {
    let files = tempfile::tempdir()?;
    let file = files.path().join("identity.toml");
    fs::write(&file, identity::STATIC_IP)?;
    let name = format!("{guest}-static");
    let forked =
        world.json(&["fork", guest, "--name", &name, "--identity", file.to_str().context("a path")?])?;
    let said = until(Duration::from_secs(60), || {
        on_the_bridge(world, &name, identity::STATIC_ADDRESS, identity::WHAT_OF_IP)
    })?;
    identity::is_static(&said)?;
    let leases = world.network.leases()?;
    ensure!(!leases.contains_key(string(&forked, "/0/identity/macs/0")?), "it asked for a lease as well");
    Ok(())
}

/// Runs a command in a child as somebody would who has its address and its host key; what it printed.
fn on_the_bridge(world: &World, child: &str, address: &str, command: &str) -> Result<String> {
    let mut known_hosts = OsString::from("UserKnownHostsFile=");
    known_hosts.push(world.child_file(child, "known_hosts"));
    let mut ssh = Command::new("timeout");
    ssh.args(["--kill-after=5", "120", "ssh", "-o", "ConnectTimeout=10", "-o"]).arg(known_hosts);
    ssh.args(["-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o"]);
    ssh.arg(format!("HostKeyAlias={child}")).args(["-o", "IdentitiesOnly=yes", "-i"]);
    ssh.arg(world.images.join("id_ed25519")).arg(format!("root@{address}")).arg(command);
    succeeded(ssh.stdin(std::process::Stdio::null()))
}
