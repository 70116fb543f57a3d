//! Developer commands of Ramet, run as `cargo xtask COMMAND`.
//!
//! ```text
//! place   decides where real VMs can run: this machine, or the lab       native  boots guests' roots as containers
//! lab     boots the lab, runs commands in it          images  bakes guest images
//!    \________________ tools: QEMU, mke2fs, ... out of the lab's own root
//!                        \____ cache: artifacts by the hash of what they are made of
//! ```
//!
//! Standard output belongs to the commands that are run; everything xtask says goes to standard error.

mod build;
mod cache;
mod check;
mod config;
mod dc;
mod images;
mod jobs;
mod lab;
mod made;
mod native;
mod package;
mod place;
mod postgres;
mod recipe;
mod roots;
mod run;
mod soak;
mod sys;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Config;
use crate::images::Guest;
use crate::jobs::Part;

/// Developer commands of Ramet.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The machine where KVM and vhost-vsock are real, be it emulated
    #[command(subcommand)]
    Lab(LabCommand),
    /// Bake the guest images and say where they are
    Images {
        /// Only these guests
        guests: Vec<Guest>,
    },
    /// Make the Debian package of the agent and say where it is
    Deb,
    /// Run CMD as root beside the domain controller of the tests, in a network of their own
    Dc {
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Formatting, lints, dependencies, docs: what CI asks for
    Check,
    /// All tests: unit, integration, and end to end on real VMs
    Test {
        #[command(flatten)]
        site: SiteArgs,
        /// Only the end-to-end cases whose names contain this; options of the test program too
        #[arg(last = true)]
        cases: Vec<OsString>,
    },
    /// The agent in the roots of all guests, each booted as a container, and real programs asked who they are
    Native {
        /// Only the cases whose names contain this
        word: Option<String>,
        /// Take what the doctor says now for right: writes images/*/doctor.txt
        #[arg(long, conflicts_with = "word")]
        bless: bool,
    },
    /// Proofs that take too long for every change
    Soak {
        #[command(flatten)]
        site: SiteArgs,
        /// Only this part
        part: Option<soak::Part>,
        /// Of that part only the steps or tools whose names contain this
        word: Option<String>,
    },
    /// The main job on real VMs: an image, a template, three individuals, a login to each
    Demo {
        #[command(flatten)]
        site: SiteArgs,
        /// Make them members of an Active Directory domain, which is started for that
        #[arg(long)]
        domain: bool,
    },
    /// Measure forks beside what they replace, in one run; takes half an hour or more without hardware virtualization
    Bench {
        #[command(flatten)]
        site: SiteArgs,
        /// What is measured, instead of all; what a ratio compares is always in one part
        #[arg(value_name = "PART")]
        parts: Vec<Part>,
        /// Write the figures as JSON into this file
        #[arg(long, value_name = "FILE")]
        json: Option<std::path::PathBuf>,
    },
}

#[derive(clap::Args)]
struct SiteArgs {
    /// Where to run real VMs, instead of finding out
    #[arg(long, env = "RAMET_PLACE", value_enum)]
    place: Option<place::Place>,
}

#[derive(Subcommand)]
enum LabCommand {
    /// Run CMD as root where KVM and vhost-vsock are real, with the built programs on PATH and images in
    /// `RAMET_IMAGES`: on this machine if it can, else in the lab
    Run {
        #[command(flatten)]
        site: SiteArgs,
        /// Use the programs that were built last, say while the checkout does not compile
        #[arg(long)]
        no_build: bool,
        /// Have this guest's image in `RAMET_IMAGES`, too
        #[arg(long = "guest", value_name = "GUEST")]
        guests: Vec<Guest>,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Boot the lab, if it is not up
    Up,
    /// Stop the lab; what is on its disk stays
    Down {
        /// Throw its disk away, too
        #[arg(long)]
        wipe: bool,
    },
    /// A root shell in the lab
    Shell,
    /// Say whether the lab is up, and where its files are
    Status,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Not `{:?}`: that adds a backtrace wherever the environment asks for one in panics.
            eprintln!("xtask: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let config = Config::from_env()?;
    match cli.command {
        Command::Lab(LabCommand::Run { site, no_build, mut guests, command }) => {
            guests.insert(0, Guest::Debian);
            let programs = if no_build {
                build::last(&config)
            } else {
                run::programs(&config, site.place, &guests, &build::OF_TESTS)?
            };
            return run::run(&config, site.place, &guests, &programs, &command, run::Output::Inherited);
        }
        Command::Lab(LabCommand::Up) => drop(lab::ensure_up(&config)?),
        Command::Lab(LabCommand::Down { wipe }) => {
            lab::down(&config, wipe)?;
            // Up only if tests were killed.
            let second = config.second_lab();
            if wipe || lab::is_up(&second) {
                lab::down(&second, wipe)?;
            }
        }
        Command::Lab(LabCommand::Shell) => {
            let lab = lab::ensure_up(&config)?;
            return Ok(sys::exit_code(lab.shell().status()?));
        }
        Command::Lab(LabCommand::Status) => {
            let status = lab::status(&config);
            let second = config.second_lab();
            if lab::is_up(&second) {
                println!("\nthe second lab, for tests:");
                lab::status(&second);
            }
            return Ok(status);
        }
        Command::Images { guests } => {
            let guests = if guests.is_empty() { Guest::value_variants() } else { &guests };
            // Here is where they are made, wherever they will be used.
            let programs = run::programs(&config, Some(place::Place::Host), guests, &[])?;
            println!("{}", images::ensure(&config, guests, &programs)?);
        }
        Command::Deb => {
            let package = package::ensure(&config, &build::programs(&config, &[])?)?;
            println!("{}", package::copy_to_target(&config, &package)?.display());
        }
        Command::Dc { command } => return dc::run(&config, &command),
        Command::Check => check::run(&config)?,
        Command::Test { site, cases } => return jobs::test(&config, site.place, &cases),
        Command::Native { word, bless } => return native::run(&config, word.as_deref(), bless),
        Command::Soak { site, part, word } => {
            return soak::run(&config, site.place, part, word.as_deref());
        }
        Command::Demo { site, domain } => return jobs::demo(&config, site.place, domain),
        Command::Bench { site, parts, json } => {
            return jobs::bench(&config, site.place, &parts, json.as_deref());
        }
    }
    Ok(ExitCode::SUCCESS)
}
