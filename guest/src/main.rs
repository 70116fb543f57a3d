//! `ramet-agent` holds a guest's boot at the gate until the host has given it an identity.
//!
//! It is what `ramet-agent.service` runs: systemd starts nothing that depends on an identity, and lets nobody in, before
//! this says `READY=1`; if it ends before, systemd powers the machine off. The way there is [`agent`]; the appliers of
//! an identity are in [`apply`]. Past the gate another process of it answers the host, [`observer`].

mod agent;
mod apply;
mod boot;
mod channel;
mod config;
mod conversation;
mod entropy;
mod error;
mod fork;
mod gate;
mod glob;
mod ini;
mod join;
mod limits;
mod linux;
mod log;
mod manager_bus;
#[cfg(test)]
mod native;
mod netlink;
mod observer;
mod process;
mod record;
mod root;
mod serve;
mod system;
mod trim;
mod warm;

use gate::{doctor, generator, show};
use root::{FileError, Root};
use std::{ffi::OsString, path::Path, process::ExitCode};
use system::System;

const HELP: &str = "\
Holds this machine's boot until a Ramet host has given it an identity.

Usage: ramet-agent serve                               what ramet-agent.service runs: the gate
       ramet-agent observe                             what ramet-observe.service runs, past the gate
       ramet-agent gate show [--root DIR] [--json]     which units start before the gate, and which wait
       ramet-agent doctor [--root DIR] [--json]        what is open, or will not work; exits with 1 if anything is
       ramet-agent --help
       ramet-agent --version

DIR is the root of another system, such as an image that is being built.

Settings: /etc/ramet/agent.toml
";

/// What is asked of the files of a system.
struct Question<'a> {
    root: &'a str,
    json: bool,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next();
    let arguments: Vec<OsString> = arguments.collect();
    if generator::is_called(program.as_ref()) {
        return generator::run(&arguments);
    }
    let arguments: Option<Vec<_>> = arguments.iter().map(|argument| argument.to_str()).collect();
    match arguments.as_deref() {
        Some(["serve"]) => serve(),
        Some(["observe"]) => observe(),
        Some(["gate", "show", options @ ..]) => ask(options, show::run),
        Some(["doctor", options @ ..]) => ask(options, doctor::run),
        Some(["--help" | "-h" | "help"]) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some(["--version" | "-V"]) => {
            println!("ramet-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    log!("{}", HELP.trim_end());
    ExitCode::from(2)
}

fn ask(options: &[&str], answer: fn(&Root, bool) -> Result<ExitCode, FileError>) -> ExitCode {
    let Some(question) = question(options) else { return usage() };
    Root::open(Path::new(question.root)).and_then(|root| answer(&root, question.json)).unwrap_or_else(
        |error| {
            crate::log!("ramet-agent: {}", error::chain(&error));
            ExitCode::FAILURE
        },
    )
}

fn question<'a>(mut options: &[&'a str]) -> Option<Question<'a>> {
    let mut question = Question { root: "/", json: false };
    loop {
        options = match options {
            [] => return Some(question),
            ["--json", rest @ ..] => {
                question.json = true;
                rest
            }
            ["--root", root, rest @ ..] => {
                question.root = root;
                rest
            }
            [option, rest @ ..] => {
                question.root = option.strip_prefix("--root=")?;
                rest
            }
        };
    }
}

fn open_root() -> Result<Root, FileError> {
    // An identity has keys and passwords: they are in no core file and for no debugger (PR_SET_DUMPABLE in prctl(2)).
    let _ = nix::sys::prctl::set_dumpable(false);
    // A journal that is full must not hold up who is to be told, nor anything else.
    log::never_wait();
    Root::open(Path::new("/"))
}

fn serve() -> ExitCode {
    let system = linux::Linux;
    let reason = match open_root().map(|root| serve::hold(&root, &system)) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.to_string(),
        Err(error) => error::chain(&error),
    };
    system.console(&format!("this machine has no identity and powers off: {reason}"));
    ExitCode::FAILURE
}

fn observe() -> ExitCode {
    let reason = match open_root().map(|root| serve::observe(&root, &linux::Linux)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error::chain(&error),
        Err(error) => error::chain(&error),
    };
    log!("{reason}");
    ExitCode::FAILURE
}
