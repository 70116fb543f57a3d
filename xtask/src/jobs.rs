//! `test`, `demo` and `bench`: programs of tests/, run where real VMs can run.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::build::{self, PROFILE};
use crate::config::Config;
use crate::dc;
use crate::images::{self, Guest};
use crate::lab;
use crate::native;
use crate::place::{self, Place};
use crate::postgres;
use crate::run::{self, Output};
use crate::sys::{self, Step};

const BENCH: &str = "ramet-bench";
const END_TO_END: &str = "ramet-e2e";

/// End-to-end cases of the first of two labs, as `ramet-e2e` is asked for them: most of those that make templates of other
/// guests. They take about as long as all others and the tests that need no VM. A new case of `guests::` runs in both labs
/// until one of the lists leaves it out.
const FIRST: &[&str] = &["guests::", "--skip", "ifupdown"];

/// All others.
const SECOND: &[&str] = &["--skip", "guests::domain::", "--skip", "guests::network::debian_12"];

/// What the demo needs. Its first run has to make it, and somebody waits for it.
const FEW: &[Guest] = &[Guest::Debian];

/// Unit and integration tests here, and the end-to-end cases: in two labs, if they run in a lab and this machine has room.
pub(crate) fn test(config: &Config, place: Option<Place>, cases: &[OsString]) -> Result<ExitCode> {
    let guests = Guest::value_variants();
    // Named cases are end-to-end ones, asked for to be quick.
    if !cases.is_empty() {
        return job(config, place, guests, END_TO_END, cases);
    }
    // None is up yet, if two are to fit.
    let two_fit = lab::two_fit()?;
    leaving_the_lab(config, || {
        let programs = run::programs(config, place, guests, &[END_TO_END, native::PROGRAM])?;
        let place = place.map_or_else(|| place::find(config, &programs), Ok)?;
        let halved = two_fit && place == Place::Lab;
        let end_to_end = |config: &Config, label: &str, cases: &[&str]| {
            let command: Vec<OsString> = [END_TO_END].iter().chain(cases).map(OsString::from).collect();
            let output = if halved { Output::Lines(label) } else { Output::Inherited };
            run::run(config, Some(place), guests, &programs, &command, output)
        };
        // Before two labs ask for them at once.
        images::ensure(config, guests, &programs)?;
        // A lab has one CPU, so there is one for the tests here. Only when they have passed is it the second lab's.
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                test_here(config)?;
                // Beside the first lab, as the tests above.
                let native = native::cases(config, &programs, false, &[])?;
                if !halved || native != ExitCode::SUCCESS {
                    return Ok(native);
                }
                let config = config.second_lab();
                leaving_the_lab(&config, || end_to_end(&config, "lab 2", SECOND))
            });
            let first = end_to_end(config, "lab 1", if halved { FIRST } else { &[] });
            let (second, first) = (sys::join(second)?, first?);
            Ok(if first == ExitCode::SUCCESS { second } else { first })
        })
    })
}

/// Tests that need no VM.
fn test_here(config: &Config) -> Result<()> {
    let mut beside_dc = dc::tests(config)?;
    let server = postgres::Server::start()?;
    let step = Step::begin("unit and integration tests: cargo test --workspace");
    let mut tests = sys::cargo(config);
    tests.args(["test", "--workspace", "--profile", PROFILE, "--quiet", "--jobs", "1"]);
    // Without it the tests that need it would be left out.
    tests.env("RAMET_TEST_POSTGRES", server.url());
    sys::run(&mut tests)?;
    step.done();
    let step = Step::begin("tests with a domain controller: cargo test --test directory");
    sys::run(&mut beside_dc).inspect(|()| step.done())
}

/// The main job, from an image to three individuals; with `domain` to three members of one.
pub(crate) fn demo(config: &Config, place: Option<Place>, domain: bool) -> Result<ExitCode> {
    if domain {
        job(config, place, &[Guest::Debian13Samba], "ramet-demo", &["--domain".into()])
    } else {
        job(config, place, FEW, "ramet-demo", &[])
    }
}

/// What is measured. The same names are `ramet-bench`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What a lease of an identity costs, on SQLite and on PostgreSQL
    Leases,
    /// Cold boots, and forks from templates of three sizes
    Forks,
    /// A restore that copies all RAM
    Restores,
    /// Eight forks side by side
    AtOnce,
    /// Members of a domain
    Members,
}

/// Figures as tables on standard output, and as JSON into `json`: of leases, which need no VM and are measured here, and of
/// VMs.
pub(crate) fn bench(
    config: &Config,
    place: Option<Place>,
    parts: &[Part],
    json: Option<&Path>,
) -> Result<ExitCode> {
    let parts = if parts.is_empty() { Part::value_variants() } else { parts };
    let (here, at_site): (Vec<Part>, Vec<Part>) = parts.iter().partition(|part| **part == Part::Leases);
    let figures = tempfile::tempdir()?;
    let [leases, vms] = ["leases", "vms"].map(|name| figures.path().join(name));
    let measured = if here.is_empty() { ExitCode::SUCCESS } else { bench_leases(config, &leases)? };
    let status = if at_site.is_empty() {
        ExitCode::SUCCESS
    } else {
        bench_vms(config, place, &at_site, json.map(|_| vms.as_path()))?
    };
    if let Some(json) = json {
        // What there is: VMs that could not be measured are no reason to lose the rest.
        let read = |path: &PathBuf| serde_json::from_reader(File::open(path).ok()?).ok();
        let reports: Vec<serde_json::Value> = [leases, vms].iter().filter_map(read).collect();
        let text = serde_json::to_vec_pretty(&reports)?;
        std::fs::write(json, text).with_context(|| format!("cannot write {}", json.display()))?;
    }
    Ok(if measured == ExitCode::SUCCESS { status } else { measured })
}

fn bench_leases(config: &Config, json: &Path) -> Result<ExitCode> {
    let programs = build::programs(config, &[BENCH])?;
    let program = programs.named(BENCH).context("the benchmark is not built")?;
    let server = postgres::Server::start()?;
    let mut command = Command::new(program);
    command.arg("leases").arg("--postgres").arg(server.url()).arg("--json").arg(json);
    Ok(sys::exit_code(command.status().with_context(|| format!("cannot run {command:?}"))?))
}

fn bench_vms(config: &Config, place: Option<Place>, parts: &[Part], json: Option<&Path>) -> Result<ExitCode> {
    let guests: &[Guest] =
        if parts.contains(&Part::Members) { &[Guest::Debian, Guest::Debian13Sssd] } else { FEW };
    let names = parts.iter().filter_map(ValueEnum::to_possible_value);
    let names: Vec<OsString> = names.map(|name| name.get_name().into()).collect();
    let Some(json) = json else { return job(config, place, guests, BENCH, &names) };
    // The file is written at the site, so it comes back by standard output, and the tables go to standard error.
    let script = "rm -f /tmp/ramet-bench.json; ramet-bench --json /tmp/ramet-bench.json \"$@\" >&2; status=$?
                  cat /tmp/ramet-bench.json; exit $status";
    let command = [&["sh", "-c", script, BENCH].map(OsString::from)[..], &names].concat();
    build_and_run(config, place, guests, BENCH, &command, Output::To(File::create(json)?))
}

fn job(
    config: &Config,
    place: Option<Place>,
    guests: &[Guest],
    program: &str,
    arguments: &[OsString],
) -> Result<ExitCode> {
    let mut command = vec![OsString::from(program)];
    command.extend_from_slice(arguments);
    build_and_run(config, place, guests, program, &command, Output::Inherited)
}

fn build_and_run(
    config: &Config,
    place: Option<Place>,
    guests: &[Guest],
    program: &str,
    command: &[OsString],
    output: Output<'_>,
) -> Result<ExitCode> {
    leaving_the_lab(config, || {
        let programs = run::programs(config, place, guests, &[program])?;
        run::run(config, place, guests, &programs, command, output)
    })
}

/// Does `work`, and leaves the lab as it was found: up or down.
pub(crate) fn leaving_the_lab(config: &Config, work: impl FnOnce() -> Result<ExitCode>) -> Result<ExitCode> {
    let was_up = lab::is_up(config);
    let result = work();
    if !was_up && lab::is_up(config) {
        lab::down(config, false)?;
    }
    result
}
