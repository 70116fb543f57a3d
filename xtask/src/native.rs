use std::process::ExitCode;
use anyhow::Result;
use crate::{config::Config, roots};
const ROOTS: &[&str] = &["debian","debian12-nm","debian13-ifupdown","debian13-samba","debian13-sssd","cloud","server","sid","dropbear"];
pub(crate) fn run(config: &Config, word: Option<&str>, _bless: bool) -> Result<ExitCode> {
    for name in ROOTS.iter().filter(|name| word.is_none_or(|word| **name == word)) {
        println!("{name} {}", roots::guest(config, name)?.path.display());
    }
    Ok(ExitCode::SUCCESS)
}
