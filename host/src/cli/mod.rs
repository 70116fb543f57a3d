//! The commands, as thin as they can be: arguments in, the library called, results out. stdout is data, stderr is
//! progress and errors; exit status 0 is done, 1 failed and undone, 2 bad usage.

mod child;
mod console;
mod doctor;
mod domain;
mod fork;
mod output;
mod parse;
mod pool;
mod progress;
mod ssh;
mod template;
mod verify;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use ramet::{
    name::Name,
    pool::{Settings, StoreUrl, Stores},
    state::StateDir,
};
use std::{path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{self, format::FmtSpan},
    prelude::*,
};

/// Fork a suspended VM into individuals: QEMU/KVM clones, each with an identity of its own before anyone can log in.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    /// Show what is done on stderr; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Where templates and children are kept
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "RAMET_STATE_DIR",
        default_value = "/var/lib/ramet"
    )]
    state_dir: PathBuf,
    /// Where pools of identities are kept: `sqlite:///FILE`, or `postgres://USER@HOST/DATABASE` with the password in
    /// ~/.pgpass or in the variable; without it, a SQLite file in the state directory
    #[arg(long, global = true, value_name = "URL", env = "RAMET_STORE", hide_env_values = true)]
    store: Option<StoreUrl>,
    /// The key that machine passwords in that store are sealed with: 32 random bytes, readable by its owner only
    #[arg(long, global = true, value_name = "FILE", env = "RAMET_KEY_FILE")]
    key_file: Option<PathBuf>,
}

impl Global {
    fn stores(&self) -> Stores {
        Stores::new(Settings { url: self.store.clone(), key_file: self.key_file.clone() })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether this host can fork, found out by trying
    Doctor(doctor::Args),
    /// Make, list, check and remove templates
    #[command(subcommand)]
    Template(template::Command),
    /// Fork children from a template
    Fork(fork::Args),
    /// Keep identities in advance, each leased to one child at a time
    #[command(subcommand)]
    Pool(pool::Command),
    /// Keep computer accounts in an Active Directory domain, which pools lease to children
    #[command(subcommand)]
    Domain(domain::Command),
    /// List children
    Ls(child::ListArgs),
    /// Show all that is known of a child
    Show(child::ShowArgs),
    /// Attach to a child's serial console
    Console(console::Args),
    /// Log in to a child, its host key already known
    Ssh(ssh::Args),
    /// Connect stdin and stdout to a child's sshd, for OpenSSH's `ProxyCommand`
    #[command(hide = true)]
    SshProxy(ssh::ProxyArgs),
    /// Ask running children again who they are, and look at them from outside
    Verify(verify::Args),
    /// Stop children: press the power button, wait, then end them
    Stop(child::StopArgs),
    /// Boot stopped children from their own disks, with the identity they have
    Start(child::StartArgs),
    /// End children and remove all of them
    Rm(child::RemoveArgs),
    /// Go on with a child that `fork --wait` has left; its lock is on stdin
    #[command(hide = true)]
    Finish {
        /// The child
        child: Name,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Messages of the library on stderr, as many as `verbose` asks for; `RAMET_LOG` says more exactly which.
pub(crate) fn trace(verbose: u8) {
    let nothing = Targets::new();
    let filter = match verbose {
        0 => nothing.with_default(LevelFilter::ERROR),
        1 => nothing.with_target("ramet", LevelFilter::DEBUG),
        _ => nothing.with_default(LevelFilter::DEBUG),
    };
    let filter = match std::env::var("RAMET_LOG").as_deref() {
        Err(_) | Ok("") => filter,
        Ok(asked) => asked.parse().unwrap_or_else(|error| {
            eprintln!("ramet: RAMET_LOG is not a filter such as ramet=debug, so it is left out: {error}");
            filter
        }),
    };
    let layer = fmt::layer().with_span_events(FmtSpan::CLOSE).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// The error and its causes on one line, none said twice.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    ramet::chain(error.as_ref())
}

pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let directory = cli.global.state_dir.clone();
    match &cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "ramet", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        // It finds out itself whether there is a state directory.
        Command::Doctor(args) => return doctor::run(&directory, args),
        _ => {}
    }
    let state = StateDir::open(&directory)?;
    let stores = cli.global.stores();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start")?.block_on(async {
        match cli.command {
            Command::Doctor(_) | Command::Completions { .. } => unreachable!("handled above"),
            Command::Template(command) => template::run(&state, command).await,
            Command::Fork(args) => fork::run(&state, &stores, args).await,
            Command::Finish { child } => fork::finish(&state, &stores, &child).await,
            Command::Pool(command) => pool::run(&state, stores.get(&state).await?, command).await,
            Command::Domain(command) => domain::run(&state, &stores, command).await,
            Command::Ls(args) => child::list(&state, &args),
            Command::Show(args) => child::show(&state, &args).await,
            Command::Console(args) => console::run(&state, &args).await,
            Command::Ssh(args) => ssh::run(&state, &args),
            Command::SshProxy(args) => ssh::proxy(&state, &args).await,
            Command::Verify(args) => verify::run(&state, &args).await,
            Command::Stop(args) => child::stop(&state, &args).await,
            Command::Start(args) => child::start(&state, &stores, &args).await,
            Command::Rm(args) => child::remove(&state, &stores, &args).await,
        }
    })
}

/// Cancelled by Ctrl-C and by SIGTERM, so that what was begun is undone in order.
fn cancelled_by_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cancel = token.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            eprintln!("ramet: interrupted, undoing");
            cancel.cancel();
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contract_parses() {
        for line in [
            "ramet doctor --json",
            "ramet template create debian --disk x.qcow2 --memory 1G --cpus 2 --net user --net bridge=br0 --timeout 300s",
            "ramet template create debian --disk x.qcow2 --strict --json",
            "ramet template create debian --disk x.qcow2",
            "ramet template ls --json",
            "ramet template show debian --json",
            "ramet template verify debian --json",
            "ramet template rm debian --json",
            "ramet fork debian --name web-1 --identity id.toml --wait identified --json",
            "ramet fork debian --count 3 --name-prefix web --wait resumed",
            "ramet fork debian",
            "ramet ls --json",
            "ramet show web-1 --json",
            "ramet console web-1",
            "ramet verify",
            "ramet verify web-1 web-2 --json",
            "ramet stop web-1 --json",
            "ramet start web-1 --json",
            "ramet rm web-1 web-2 --json",
            "ramet rm web-1 --config domain.toml",
            "ramet ssh web-1 -i key -l root -- hostname -f",
            "ramet -v --state-dir /tmp/x ls",
            "ramet ls --state-dir /tmp/x -vv",
            "ramet pool create lab --hostnames vdi-{:04} --macs 52:54:01 --nics 2 --json",
            "ramet pool create lab --hostnames vdi-{} --macs 52:54:01:00:00:01-52:54:01:00:ff:ff",
            "ramet pool create lab --hostnames vdi-{}",
            "ramet pool add lab --count 3 --json",
            "ramet pool import lab ids.csv --dry-run --json",
            "ramet pool ls --json",
            "ramet pool show lab --json --store postgres://ramet@db/ids --key-file key",
            "ramet pool history vdi-1 --json",
            "ramet pool rm lab --json",
            "ramet pool reconcile --json",
            "ramet pool quarantine --host 00000000-0000-4000-8000-000000000001 --json",
            "ramet pool release vdi-1 vdi-2 --json",
            "ramet fork debian --count 3 --pool lab --persistent --wait joined",
            "ramet domain provision --config domain.toml --pool lab --count 200 --parallel 16 --json",
            "ramet domain ls --config domain.toml --json",
            "ramet domain retire --config domain.toml --pool lab --json",
            "ramet domain retire --config domain.toml --pool lab --delete vdi-0001",
            "ramet domain reconcile --config domain.toml --dry-run --stale 10min --json",
            "ramet completions bash",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "ramet",
            "ramet fork",
            "ramet fork debian --name web_1",
            "ramet fork debian --name a --count 2",
            "ramet fork debian --count 0",
            "ramet fork debian --name-prefix web",
            "ramet fork debian --count 2 --identity id.toml",
            "ramet template create debian",
            "ramet template create ../debian --disk x",
            "ramet template create debian --disk x --memory 1X",
            "ramet template create debian --disk x --net bridge",
            "ramet template create debian --disk x --timeout soon",
            "ramet fork debian --persistent",
            "ramet fork debian --pool lab --identity id.toml",
            "ramet domain provision --pool lab --count 1",
            "ramet domain provision --config domain.toml --pool lab --count 0",
            "ramet domain retire --config domain.toml",
            "ramet pool create lab",
            "ramet pool create lab --hostnames vdi",
            "ramet pool create lab --hostnames vdi-{} --nics 2",
            "ramet pool create lab --hostnames vdi-{} --macs 01:00:5e",
            "ramet pool add lab",
            "ramet pool add lab --count 0",
            "ramet pool quarantine --host web",
            "ramet pool ls --store mysql://u@h/d",
            "ramet rm",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
