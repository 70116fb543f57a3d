//! The main job on real VMs, start to end: a template, three individuals forked from it, a look at each, and away. With
//! `--domain` they are members of an Active Directory domain, whose controller is a real one on their bridge.
//! `cargo xtask demo` runs it where KVM and vhost-vsock are real.

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, TableStyle};
use ramet_tests::{Domain, World, string, succeeded, until};
use serde_json::Value;
use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const HEADER: [&str; 11] = [
    "NAME",
    "HOSTNAME",
    "MAC",
    "MACHINE ID",
    "IP",
    "SSH HOST KEY",
    "RESUMED ms",
    "IDENTIFIED ms",
    "READY ms",
    "PRIVATE MiB",
    "SHARED MiB",
];

/// What there is to see of a member of a domain besides.
const MEMBER_HEADER: [&str; 6] = ["NAME", "ACCOUNT", "ACCOUNT SID", "KEY VERSION", "READY ms", "JOINED ms"];

/// The pool of the members' accounts.
const POOL: &str = "demo-pc";

fn main() -> Result<()> {
    let in_domain = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--domain") => true,
        Some(other) => bail!("{other}: only --domain is known here"),
    };
    let begin = Instant::now();
    let say = |step: &str| eprintln!("demo [{:5.1} s] {step}", begin.elapsed().as_secs_f64());
    say("making a bridge with a DHCP server");
    let world = World::make()?;
    let domain = in_domain.then(|| {
        say("starting a domain controller, and making three computer accounts as an administrator would");
        let domain = Domain::start(&world.network)?;
        domain.provision(&world, POOL, 3)?;
        Ok::<_, anyhow::Error>(domain)
    });
    let domain = domain.transpose()?;
    say("making a template: the parent boots once, to its gate");
    let guest = if in_domain { "debian13-samba" } else { "debian" };
    world.create_template(guest, "demo", "512M", &["bridge=ramete2e0"])?;
    say("forking three children from it, side by side");
    let mut fork = world.ramet(["fork", "demo", "--count", "3", "--json"]);
    if in_domain {
        fork.args(["--pool", POOL]);
    }
    let forked = fork.stderr(Stdio::inherit()).output().context("cannot run ramet")?;
    anyhow::ensure!(forked.status.success(), "ramet fork: {}", forked.status);
    let forked: Vec<Value> = serde_json::from_slice(&forked.stdout)?;
    say("asking each for its address");
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(HEADER);
    for child in &forked {
        table.add_row(row(&world, child)?);
    }
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\n{table}\n")?;
    if in_domain {
        let mut table = Table::new();
        table.load_style(TableStyle::new()).set_header(MEMBER_HEADER);
        for child in &forked {
            table.add_row(member_row(child)?);
        }
        writeln!(stdout, "{table}\n")?;
    }
    let commands: &[&str] = if in_domain { &["hostname -f", "net ads testjoin"] } else { &["hostname"] };
    for child in &forked {
        let name = string(child, "/name")?;
        say(&format!("logging in to {name} over SSH"));
        for command in commands {
            writeln!(stdout, "ramet ssh {name} -- {command}    {}", world.ssh(name, command)?)?;
        }
    }
    say("cleaning up");
    let mut remove = world.ramet(["rm"]);
    remove.args(forked.iter().map(|child| string(child, "/name")).collect::<Result<Vec<_>>>()?);
    if let Some(domain) = &domain {
        // The accounts get new passwords: those that the children had are worth nothing any more.
        remove.arg("--config").arg(domain.config());
    }
    succeeded(&mut remove)?;
    world.ok(["template", "rm", "demo"])?;
    world.nothing_left()?;
    say("done: nothing is left");
    Ok(())
}

/// What is shown of a child: what it reported, and what is seen of it.
fn row(world: &World, child: &Value) -> Result<Vec<String>> {
    let name = string(child, "/name")?;
    let shown = until(Duration::from_secs(60), || {
        let shown = world.json(&["show", name])?;
        anyhow::ensure!(shown["addresses"][0].is_string(), "{name} has no address yet");
        Ok(shown)
    })?;
    let known_hosts = world.child_file(name, "known_hosts");
    let fingerprint = succeeded(Command::new("ssh-keygen").arg("-lf").arg(known_hosts))?;
    let text = |pointer: &str| Ok::<_, anyhow::Error>(string(&shown, pointer)?.to_owned());
    let ms = |stop_line: &str| shown["timings_ms"][stop_line].to_string();
    let mib = |part: &str| {
        shown["memory"][part].as_u64().map(|bytes| (bytes >> 20).to_string()).unwrap_or_default()
    };
    Ok(vec![
        name.to_owned(),
        text("/identity/hostname")?,
        text("/identity/macs/0")?,
        text("/identity/machine_id")?,
        text("/addresses/0")?,
        fingerprint.split(' ').nth(1).unwrap_or_default().to_owned(),
        ms("resumed"),
        ms("identified"),
        ms("ready"),
        mib("private_dirty"),
        mib("shared"),
    ])
}

/// What is shown of a member of a domain besides.
fn member_row(child: &Value) -> Result<Vec<String>> {
    let account = &child["identity"]["domain"];
    let ms = |stop_line: &str| child["timings_ms"][stop_line].to_string();
    Ok(vec![
        string(child, "/name")?.to_owned(),
        format!("{}$@{}", string(account, "/name")?, string(account, "/realm")?),
        string(account, "/sid")?.to_owned(),
        account["kvno"].to_string(),
        ms("ready"),
        ms("joined"),
    ])
}
