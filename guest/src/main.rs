//! `ramet-agent` holds a guest's boot at the gate until the host has given it an identity.
//!
//! It is what `ramet-agent.service` runs: systemd starts nothing that depends on an identity, and lets nobody in, before
//! this says `READY=1`; if it ends before, systemd powers the machine off. The way there is [`agent`]; the appliers of
//! an identity are in [`apply`].

mod agent;
mod apply;
mod boot;
mod channel;
mod config;
mod entropy;
mod fork;
mod limits;
mod linux;
mod netlink;
mod process;
mod record;
mod root;
mod serve;
mod system;
mod trim;
mod warm;

use std::{path::Path, process::ExitCode};
use system::System;

const HELP: &str = "\
Holds this machine's boot until a Ramet host has given it an identity.

Usage: ramet-agent serve        what ramet-agent.service runs
       ramet-agent --help
       ramet-agent --version

Settings: /etc/ramet/agent.toml
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Option<Vec<_>> = arguments.iter().map(|argument| argument.to_str()).collect();
    match arguments.as_deref() {
        Some(["serve"]) => serve(),
        Some(["--help" | "-h" | "help"]) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(["--version" | "-V"]) => {
            println!("ramet-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    let system = linux::Linux;
    let reason = match root::Root::open(Path::new("/")) {
        Ok(root) => serve::serve(&root, &system).to_string(),
        Err(error) => apply::chain(&error),
    };
    system.console(&format!("this machine has no identity and powers off: {reason}"));
    ExitCode::FAILURE
}
