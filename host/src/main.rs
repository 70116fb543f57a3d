//! `ramet`: the command line.

mod cli;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Passwords and keys go through this process: they are in no core file and for no debugger (PR_SET_DUMPABLE in
    // prctl(2)). Programs that it starts are what they are.
    let _ = nix::sys::prctl::set_dumpable(false);
    let cli = cli::Cli::parse();
    cli::trace(cli.verbose);
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            // One line per cause, the last of which says what to do.
            eprintln!("ramet: {}", cli::explain(&error));
            ExitCode::FAILURE
        }
    }
}
