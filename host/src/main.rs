//! `ramet`: the command line.

mod cli;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
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
