//! Children are individuals: by what they say of themselves, and by what is seen of them.

use crate::Case;
use anyhow::{Context as _, Result, ensure};
use ramet_tests::{TEMPLATE, World, contains, string, succeeded, until};
use serde_json::Value;
use std::{collections::HashSet, fs, process::Command, time::Duration};

pub(crate) const CASES: &[Case] = &[
    ("identity::three_children_are_individuals", three_children_are_individuals),
    ("identity::sixteen_at_once_have_nothing_in_common", sixteen_at_once_have_nothing_in_common),
    ("identity::a_given_identity_is_taken_at_its_word", a_given_identity_is_taken_at_its_word),
    ("identity::running_programs_see_the_child", running_programs_see_the_child),
    ("identity::static_addresses_and_keys", static_addresses_and_keys),
];

/// What a child says of itself when it is asked over SSH.
fn asked(world: &World, child: &str) -> Result<Vec<String>> {
    let questions = "uname -n; cat /etc/hostname; cat /etc/machine-id; cat /sys/class/net/e*/address; \
                     head -c 16 /dev/urandom | od -An -tx1 | tr -d ' '; sha256sum < /var/lib/systemd/random-seed; \
                     cat /etc/ssh/ssh_host_ed25519_key.pub; date +%s";
    Ok(world.ssh(child, questions)?.lines().map(str::to_owned).collect())
}

fn three_children_are_individuals(world: &World) -> Result<()> {
    let forked = world.json(&["fork", TEMPLATE, "--count", "3", "--name-prefix", "web"])?;
    let forked = forked.as_array().context("an array")?;
    ensure!(forked.len() == 3, "{} children", forked.len());
    let mut answers = Vec::new();
    for child in forked {
        let name = string(child, "/name")?;
        for stop_line in ["resumed", "identified", "ready"] {
            ensure!(child["timings_ms"][stop_line].is_u64(), "{stop_line}: {child}");
        }
        let answer = asked(world, name)?;
        let [uname, hostname, machine_id, mac, user_mac, random, seed, key, clock] = &answer[..] else {
            anyhow::bail!("{answer:?}");
        };
        ensure!(uname == name && hostname == name, "{uname} {hostname}");
        ensure!(machine_id == string(child, "/identity/machine_id")?, "{machine_id}");
        ensure!(mac == string(child, "/identity/macs/0")?, "{mac}");
        ensure!(user_mac == string(child, "/identity/macs/1")?, "{user_mac}");
        contains(key, string(child, "/identity/ssh_host_keys/0")?)?;
        let here = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let off = here.abs_diff(clock.parse()?);
        ensure!(off <= 5, "its clock is {off} s off");
        answers.push([uname, machine_id, mac, user_mac, random, seed, key].map(Clone::clone));
    }
    for item in 0..answers[0].len() {
        let distinct: HashSet<_> = answers.iter().map(|answer| &answer[item]).collect();
        ensure!(distinct.len() == 3, "shared: {distinct:?}");
    }
    on_the_bridge(world, forked)?;
    agent_is_small(world, "web-1")?;
    let in_use = world.fails(["template", "rm", TEMPLATE])?;
    contains(&in_use, "in use by web-1 web-2 web-3")?;
    world.remove(&["web-1", "web-2", "web-3"])?;
    world.nothing_left()
}

/// Every guest carries the agent: at most 3 MiB on its disk and 4 MiB in its memory.
fn agent_is_small(world: &World, child: &str) -> Result<()> {
    let sizes = world.ssh(
        child,
        "stat -c %s /usr/sbin/ramet-agent; \
         sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$(systemctl show --property=MainPID --value ramet-observe)/status",
    )?;
    let sizes: Vec<u64> = sizes.lines().map(|line| Ok(line.parse()?)).collect::<Result<_>>()?;
    let [program, resident_kib] = sizes[..] else { anyhow::bail!("{sizes:?}") };
    ensure!(program <= 3 << 20, "the agent has {program} bytes");
    ensure!(resident_kib <= 4 << 10, "the agent has {resident_kib} KiB in memory");
    Ok(())
}

/// The children have addresses of their own by DHCP, reach each other, and sshd there shows the reported key.
fn on_the_bridge(world: &World, forked: &[Value]) -> Result<()> {
    let mut addresses = Vec::new();
    let mut client_ids = HashSet::new();
    for child in forked {
        let mac = string(child, "/identity/macs/0")?;
        let address =
            until(Duration::from_secs(60), || world.network.leases()?.remove(mac).context("no lease"))?;
        client_ids.extend(world.network.client_ids()?.remove(mac).filter(|id| id.len() > 20));
        let shown = until(Duration::from_secs(30), || {
            let shown = world.json(&["show", string(child, "/name")?])?;
            ensure!(
                shown["addresses"].as_array().is_some_and(|all| all.contains(&address.clone().into())),
                "{shown}"
            );
            Ok(shown)
        })?;
        ensure!(shown["memory"]["shared"].as_u64() > Some(0), "{shown}");
        let private = shown["memory"]["private_dirty"].as_u64().context("memory")?;
        ensure!(private < 128 << 20, "{} MiB are private to an idle child", private >> 20);
        addresses.push(address);
    }
    let distinct: HashSet<_> = addresses.iter().collect();
    ensure!(distinct.len() == addresses.len(), "{addresses:?}");
    // Made of the machine-id, by a networkd that was started in the template.
    ensure!(client_ids.len() == addresses.len(), "{client_ids:?}");
    world.ssh("web-1", &format!("ping -c 1 -W 10 {}", addresses[1]))?;
    world.ssh("web-2", &format!("ping -c 1 -W 10 {}", addresses[2]))?;
    let scanned = succeeded(Command::new("ssh-keyscan").args(["-t", "ed25519", "-T", "30", &addresses[0]]))?;
    contains(&scanned, string(&forked[0], "/identity/ssh_host_keys/0")?)
}

/// Not waited for until they are ready: by then everything has been applied, read back and compared.
fn sixteen_at_once_have_nothing_in_common(world: &World) -> Result<()> {
    let asked = "udp dst port 67";
    let before = world.network.frames(asked)?;
    let forked = world.json(&["fork", TEMPLATE, "--count", "16", "--wait", "identified"])?;
    let children = distinct(&forked, 16)?;
    let mut samples = HashSet::new();
    for child in &children {
        let record: Value = serde_json::from_slice(&fs::read(world.child_file(child, "child.json"))?)?;
        samples.insert(string(&record, "/evidence/random_sample")?.to_owned());
    }
    ensure!(samples.len() == 16, "random samples: {samples:?}");
    let macs = forked.as_array().context("an array")?.iter().map(|child| string(child, "/identity/macs/0"));
    let own = macs.collect::<Result<Vec<_>>>()?.join(" or ether src ");
    let own = format!("{asked} and (ether src {own})");
    // Few have got as far as to ask, but some will.
    until(Duration::from_secs(120), || {
        ensure!(world.network.frames(&own)? > 0, "nobody has asked for an address");
        Ok(())
    })?;
    let (all, own) = (world.network.frames(asked)?, world.network.frames(&own)?);
    // Counted later, so there may be more.
    ensure!(own >= all - before, "{all} requests for addresses, {before} of them earlier, {own} of children");
    // Nobody need wait for sixteen to be ready either: without those who do, they can be removed.
    let waiting = format!("--state-dir {} finish", world.state_dir().display());
    succeeded(Command::new("pkill").args(["-KILL", "-f", "--", &waiting]))?;
    world.remove(&children)?;
    world.nothing_left()
}

/// The names of children that were forked at once, if there are so many, and nothing of what they were given twice.
fn distinct(forked: &Value, count: usize) -> Result<Vec<&str>> {
    let forked = forked.as_array().context("an array")?;
    ensure!(forked.len() == count, "{} children", forked.len());
    for pointer in [
        "/name",
        "/identity/hostname",
        "/identity/machine_id",
        "/identity/machine_sid",
        "/cid",
        "/pid",
        "/identity/instance_id",
        "/identity/macs/0",
        "/identity/macs/1",
        "/identity/ssh_host_keys/0",
    ] {
        let distinct: HashSet<_> =
            forked.iter().filter_map(|child| child.pointer(pointer)).map(Value::to_string).collect();
        ensure!(distinct.len() == count, "{pointer}: {distinct:?}");
    }
    Ok(forked.iter().filter_map(|child| child["name"].as_str()).collect())
}

fn a_given_identity_is_taken_at_its_word(world: &World) -> Result<()> {
    let files = tempfile::tempdir()?;
    let file = files.path().join("identity.toml");
    fs::write(
        &file,
        "hostname = \"Payroll.example.org\"\nmachine_id = \"0123456789abcdef0123456789abcdef\"\n\
         machine_sid = \"S-1-5-21-1-2-3\"\nmacs = [\"52:54:00:aa:00:01\", \"52:54:00:aa:00:02\"]\n",
    )?;
    let file = file.to_str().context("a path")?;
    let forked = world.json(&["fork", TEMPLATE, "--identity", file, "--wait", "identified"])?;
    ensure!(string(&forked, "/0/name")? == "Payroll", "{forked}");
    ensure!(string(&forked, "/0/identity/machine_sid")? == "S-1-5-21-1-2-3", "{forked}");
    // What waits for nobody goes on in the background.
    until(Duration::from_secs(120), || {
        let shown = world.json(&["show", "Payroll"])?;
        ensure!(shown["state"] == "ready" && shown["timings_ms"]["ready"].is_u64(), "{shown}");
        Ok(())
    })?;
    let said = world.ssh("Payroll", "uname -n; cat /etc/machine-id /sys/class/net/e*/address")?;
    let expected =
        "Payroll.example.org\n0123456789abcdef0123456789abcdef\n52:54:00:aa:00:01\n52:54:00:aa:00:02";
    ensure!(said == expected, "{said}");
    let again = world.fails(["fork", TEMPLATE, "--name", "other", "--identity", file])?;
    contains(&again, "in use by the child Payroll")?;
    world.remove(&["Payroll"])?;
    world.nothing_left()
}

/// What has run in the template, and what the kernel tells, is the child's as well.
fn running_programs_see_the_child(world: &World) -> Result<()> {
    let forked = world.json(&["fork", TEMPLATE, "--count", "2"])?;
    let mut boot_ids = HashSet::new();
    for child in forked.as_array().context("an array")? {
        let (name, machine_id) = (string(child, "/name")?, string(child, "/identity/machine_id")?);
        let manager =
            "org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.DBus.Peer GetMachineId";
        let said = world.ssh(name, &format!("cat /proc/sys/kernel/random/boot_id; busctl call {manager}"))?;
        let (boot_id, manager) = said.split_once('\n').context("two lines")?;
        contains(manager, machine_id)?;
        ensure!(boot_ids.insert(boot_id.to_owned()), "{boot_id} twice");
        // journald is restarted beside what else is left of boot, and has all of that in the child's journal.
        let journal = format!(
            "journalctl --directory /var/log/journal/{machine_id} --no-pager -o cat _BOOT_ID={}",
            boot_id.replace('-', "")
        );
        until(Duration::from_secs(60), || {
            contains(&world.ssh(name, &journal)?, "Reached target multi-user.target")
        })?;
    }
    world.remove(&["debian-1", "debian-2"])?;
    world.nothing_left()
}

/// Out of the DHCP server's range.
pub(crate) const STATIC_ADDRESS: &str = "10.77.0.251";
/// What an identity file says of a NIC with that address.
pub(crate) const STATIC_IP: &str = "[[ip]]\naddresses = [\"10.77.0.251/24\"]\ngateways = [\"10.77.0.1\"]\n\
                                    dns = [\"10.77.0.53\"]\nsearch = [\"example.org\"]\n";
/// What to ask a child that has it.
pub(crate) const WHAT_OF_IP: &str = "ip -br addr; ip route; cat /etc/resolv.conf";

/// Looks at a child's answer.
pub(crate) fn is_static(said: &str) -> Result<()> {
    for part in ["10.77.0.251/24", "default via 10.77.0.1 ", "search example.org", "nameserver 10.77.0.53"] {
        contains(said, part)?;
    }
    Ok(())
}

/// Addresses from an identity file instead of DHCP, and SSH keys in place of the image's.
fn static_addresses_and_keys(world: &World) -> Result<()> {
    let files = tempfile::tempdir()?;
    let (file, key) = (files.path().join("identity.toml"), files.path().join("key"));
    succeeded(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "jane", "-f"]).arg(&key),
    )?;
    let janes = fs::read_to_string(key.with_extension("pub"))?;
    // This is how the case gets in afterwards.
    let ours =
        succeeded(Command::new("ssh-keygen").arg("-y").arg("-f").arg(world.images.join("id_ed25519")))?;
    let keys = [ours.trim(), janes.trim()];
    fs::write(&file, format!("{STATIC_IP}[[authorized_keys]]\nuser = \"root\"\nkeys = {keys:?}\n"))?;
    let file = file.to_str().context("a path")?;
    let forked = world.json(&["fork", TEMPLATE, "--name", "static", "--identity", file])?;
    let mac = string(&forked, "/0/identity/macs/0")?;
    until(Duration::from_secs(60), || {
        succeeded(Command::new("ping").args(["-c", "1", "-W", "2", STATIC_ADDRESS]))
    })?;
    let said = world.ssh("static", &format!("cat ~/.ssh/authorized_keys; {WHAT_OF_IP}"))?;
    ensure!(said.starts_with(&keys.join("\n")) && said.matches("ssh-").count() == 2, "{said}");
    is_static(&said)?;
    ensure!(!world.network.leases()?.contains_key(mac), "it asked for a lease as well");
    let again = world.fails(["fork", TEMPLATE, "--name", "other", "--identity", file])?;
    contains(&again, "10.77.0.251 is in use by the child static")?;
    world.remove(&["static"])?;
    world.nothing_left()
}
