//! The main job on real VMs, start to end: a template, three individuals forked from it, a look at each, and away.
//! `cargo xtask demo` runs it where KVM and vhost-vsock are real.

use anyhow::{Context as _, Result};
use comfy_table::{Table, TableStyle};
use ramet_tests::{World, string, succeeded, until};
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

fn main() -> Result<()> {
    let begin = Instant::now();
    let say = |step: &str| eprintln!("demo [{:5.1} s] {step}", begin.elapsed().as_secs_f64());
    say("making a bridge with a DHCP server");
    let world = World::make()?;
    say("making a template: the parent boots once, to its gate");
    world.create_template("demo", "512M", &["bridge=ramete2e0"])?;
    say("forking three children from it, side by side");
    let mut fork = world.ramet(["fork", "demo", "--count", "3", "--json"]);
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
    for child in &forked {
        let name = string(child, "/name")?;
        say(&format!("logging in to {name} over SSH"));
        writeln!(stdout, "ramet ssh {name} -- hostname    {}", world.ssh(name, "hostname")?)?;
    }
    say("cleaning up");
    let names: Vec<&str> = forked.iter().map(|child| string(child, "/name")).collect::<Result<_>>()?;
    world.remove(&names)?;
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
