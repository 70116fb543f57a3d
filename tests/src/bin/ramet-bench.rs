//! How long a fork takes, beside what it replaces, in one run on one image. `cargo xtask bench` runs it where KVM and
//! vhost-vsock are real. Markdown on stdout, and JSON into the file named by the first argument.
//!
//! Every figure is the median of [`RUNS`] and named with its stop line: resumed, identified, ready.

use anyhow::{Context as _, Result, ensure};
use ramet::{
    agent::{Agent, AgentError},
    net::NetSpec,
    qemu::{
        self,
        argv::{Begin, Cable, Ram, Vm},
        process::{self, Process},
        qmp::Qmp,
    },
    state::StateDir,
    template::{Template, files},
    vsock::ReservedCid,
};
use ramet_proto::MacAddr;
use ramet_tests::World;
use serde::Serialize;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Of each measurement.
const RUNS: usize = 5;

/// The templates that are forked from: their names, and their RAM.
const TEMPLATES: [(&str, &str); 3] = [("small", "512M"), ("middle", "2G"), ("large", "4G")];

/// One measurement.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    unit: &'static str,
    median: u64,
    runs: Vec<u64>,
}

/// What two measurements of this run say together.
#[derive(Debug, Serialize)]
struct Ratio {
    what: &'static str,
    value: f64,
    /// What it is to be: at least or at most.
    goal: String,
    reached: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    machine: String,
    figures: Vec<Figure>,
    ratios: Vec<Ratio>,
}

impl Report {
    fn add(&mut self, what: &str, unit: &'static str, mut runs: Vec<u64>) -> u64 {
        runs.sort_unstable();
        let median = runs.get(runs.len() / 2).copied().unwrap_or_default();
        eprintln!("bench: {what}: {median} {unit} {runs:?}");
        self.figures.push(Figure { what: what.to_owned(), unit, median, runs });
        median
    }

    fn at_least(&mut self, what: &'static str, (dividend, divisor): (u64, u64), goal: f64) {
        let ratio = quotient(dividend, divisor);
        self.ratios.push(Ratio {
            what,
            value: ratio,
            goal: format!("at least {goal}"),
            reached: ratio >= goal,
        });
    }

    fn at_most(&mut self, what: &'static str, (dividend, divisor): (u64, u64), goal: f64) {
        let ratio = quotient(dividend, divisor);
        self.ratios.push(Ratio {
            what,
            value: ratio,
            goal: format!("at most {goal}"),
            reached: ratio <= goal,
        });
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds and MiB are far below 2^52")]
fn quotient(dividend: u64, divisor: u64) -> f64 {
    (dividend as f64 / divisor.max(1) as f64 * 100.0).round() / 100.0
}

fn main() -> Result<()> {
    let world = World::make()?;
    for (name, memory) in TEMPLATES {
        eprintln!("bench: making the template {name}, {memory}");
        world.create_template(name, memory, &["bridge=ramete2e0"])?;
    }
    let mut report = Report { machine: machine()?, ..Report::default() };
    let (cold, [small, _, large]) = boots_and_forks(&world, &mut report)?;
    let (fork, copy) = restores(&world, &mut report)?;
    at_once(&world, &mut report)?;

    report.at_least("cold boot to ready : fork to identified", (cold, small.identified), 30.0);
    report.at_least("cold boot to ready : fork to ready", (cold, small.ready), 10.0);
    report.at_most("fork to identified, 4 GiB : 512 MiB", (large.identified, small.identified), 1.25);
    report.at_least("restore that copies all RAM : fork, 2 GiB, to resumed", (copy, fork), 5.0);
    report.at_most("private MiB of an idle child, QEMU included : 1", (small.private, 1), 60.0);
    print(&report);
    if let Some(path) = std::env::args_os().nth(1) {
        fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    }
    let missed = report.ratios.iter().filter(|ratio| !ratio.reached).count();
    ensure!(missed == 0, "{missed} goals were missed");
    Ok(())
}

fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown CPU");
    let cpus = std::thread::available_parallelism()?;
    let emulated = if cpuinfo.contains("hypervisor") { ", itself a VM" } else { "" };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{cpus} × {model}{emulated}, Linux {}", kernel.trim()))
}

/// Medians of forks from one template.
struct Fork {
    identified: u64,
    ready: u64,
    private: u64,
}

/// Cold boots, and forks from each template.
fn boots_and_forks(world: &World, report: &mut Report) -> Result<(u64, [Fork; 3])> {
    world.ok(["fork", "small", "--name", "cold"])?;
    world.ok(["stop", "cold", "--timeout", "120s"])?;
    // In turns, so that whatever else the machine does falls on all alike; the first turn warms up.
    let mut cold = Vec::new();
    let mut runs: [[Vec<u64>; 5]; 3] = Default::default();
    for run in 0..=RUNS {
        let started: Value = world.json(&["start", "cold"])?;
        world.ok(["stop", "cold", "--timeout", "120s"])?;
        // What it has written is not for a fork to wait for.
        nix::unistd::sync();
        if run > 0 {
            cold.push(started[0]["boot_ms"].as_u64().context("a figure")?);
        }
        for (of_template, (template, _)) in runs.iter_mut().zip(TEMPLATES) {
            let forked = world.json(&["fork", template, "--name", "one"])?;
            let shown = world.json(&["show", "one"])?;
            let times = ["resumed", "identified", "ready"].map(|line| forked[0]["timings_ms"][line].as_u64());
            let memory = ["private_dirty", "shared"]
                .map(|part| shown["memory"][part].as_u64().map(|bytes| bytes >> 20));
            world.remove(&["one"])?;
            if run > 0 {
                for (values, value) in of_template.iter_mut().zip(times.into_iter().chain(memory)) {
                    values.push(value.context("a figure")?);
                }
            }
        }
    }
    world.remove(&["cold"])?;
    let cold = report.add("cold boot to ready, 512M", "ms", cold);
    let mut medians = Vec::new();
    for ([resumed, identified, ready, private, shared], (_, memory)) in runs.into_iter().zip(TEMPLATES) {
        report.add(&format!("fork to resumed, {memory}"), "ms", resumed);
        let identified = report.add(&format!("fork to identified, {memory}"), "ms", identified);
        let ready = report.add(&format!("fork to ready, {memory}"), "ms", ready);
        let private = report.add(&format!("private memory at ready, {memory}"), "MiB", private);
        report.add(&format!("shared memory at ready, {memory}"), "MiB", shared);
        medians.push(Fork { identified, ready, private });
    }
    Ok((cold, medians.try_into().map_err(|_| anyhow::anyhow!("three templates"))?))
}

fn at_once(world: &World, report: &mut Report) -> Result<()> {
    let mut runs: [Vec<u64>; 3] = Default::default();
    for _ in 0..RUNS {
        let forked = world.json(&["fork", "small", "--count", "8"])?;
        let forked = forked.as_array().context("an array")?;
        for (values, stop_line) in runs.iter_mut().zip(["resumed", "identified", "ready"]) {
            let last = forked.iter().filter_map(|child| child["timings_ms"][stop_line].as_u64()).max();
            values.push(last.context("a figure")?);
        }
        let names: Vec<&str> = forked.iter().filter_map(|child| child["name"].as_str()).collect();
        world.remove(&names)?;
    }
    for (values, stop_line) in runs.into_iter().zip(["resumed", "identified", "ready"]) {
        report.add(&format!("8 forks at once, the last to {stop_line}, 512M"), "ms", values);
    }
    Ok(())
}

/// A VM that holds the device state of a template, and RAM.
struct Restored {
    process: Process,
    qmp: Qmp,
    cid: u32,
}

/// Forks beside restores that copy all RAM: the same QEMU with the same devices, stopped at the same line.
fn restores(world: &World, report: &mut Report) -> Result<(u64, u64)> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let state = StateDir::open(world.state_dir())?;
        let template = Template::open(&state, &"middle".parse()?)?;
        // As deep as a child's: the overlay names its backing file by a relative path.
        let dir = world.state_dir().join("bench/one");
        fs::create_dir_all(&dir)?;
        let full = dir.join("full.state");
        let shared = Ram::CopyOnWrite(template.file(files::RAM));
        let mut source = restore(&template, &dir, shared.clone(), &template.file(files::STATE)).await?;
        source.qmp.save_state("full.state", true, Duration::from_secs(600)).await?;
        source.process.kill()?;

        let mut runs: [Vec<u64>; 4] = Default::default();
        for run in 0..=RUNS {
            let kinds = [(shared.clone(), template.file(files::STATE)), (Ram::Anonymous, full.clone())];
            for (index, (ram, file)) in kinds.into_iter().enumerate() {
                let begin = Instant::now();
                let elapsed = || u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
                let mut restored = restore(&template, &dir, ram, &file).await?;
                restored.qmp.cont().await?;
                let resumed = elapsed();
                Agent::dial(restored.cid, Duration::from_secs(60), || Ok::<_, AgentError>(())).await?;
                let answered = elapsed();
                restored.process.kill()?;
                if run > 0 {
                    runs[index * 2].push(resumed);
                    runs[index * 2 + 1].push(answered);
                }
            }
        }
        process::kill(&dir).await?;
        fs::remove_dir_all(&dir)?;
        let [fork, fork_answered, copy, copy_answered] = runs;
        let fork = report.add("QEMU with copy-on-write RAM to resumed, 2G", "ms", fork);
        report.add("QEMU with copy-on-write RAM to the agent's first answer, 2G", "ms", fork_answered);
        let copy = report.add("QEMU that copies all RAM to resumed, 2G", "ms", copy);
        report.add("QEMU that copies all RAM to the agent's first answer, 2G", "ms", copy_answered);
        Ok((fork, copy))
    })
}

async fn restore(template: &Template, dir: &Path, ram: Ram, state: &Path) -> Result<Restored> {
    let disk = dir.join(qemu::files::DISK);
    fs::copy(template.file(files::OVERLAY), &disk)?;
    let mut permissions = fs::metadata(&disk)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&disk, permissions)?;
    let manifest = &template.manifest;
    let nics: Vec<(MacAddr, NetSpec)> = manifest.nics.iter().map(|nic| (nic.mac, nic.net.clone())).collect();
    let with_ram = ram == Ram::Anonymous || state.starts_with(dir);
    let cid = ReservedCid::take()?;
    let number = cid.cid();
    let vm = Vm {
        name: "bench",
        machine: &manifest.machine,
        memory: manifest.memory,
        cpus: manifest.cpus,
        ram,
        begin: Begin::Incoming,
        nics: &nics,
        cable: Cable::Unplugged,
        cid: number,
    };
    let mut process = Process::spawn(dir, &vm.argv(), cid, u64::MAX)?;
    let mut qmp = Qmp::connect_to_new(&mut process, dir).await?;
    qmp.load_state(state, with_ram, Duration::from_secs(600)).await?;
    Ok(Restored { process, qmp, cid: number })
}

fn print(report: &Report) {
    println!("{}\n\n| what | median | runs |\n|---|---|---|", report.machine);
    for figure in &report.figures {
        println!("| {} | {} {} | {:?} |", figure.what, figure.median, figure.unit, figure.runs);
    }
    println!("\n| ratio | measured | goal | |\n|---|---|---|---|");
    for ratio in &report.ratios {
        let verdict = if ratio.reached { "reached" } else { "missed" };
        println!("| {} | {:.2} | {} | {verdict} |", ratio.what, ratio.value, ratio.goal);
    }
}
