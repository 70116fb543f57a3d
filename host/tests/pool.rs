//! The store of identities, on SQLite and on a real PostgreSQL: each case on both, with as many hosts as it takes.
//!
//! `RAMET_TEST_POSTGRES` is the URL of a PostgreSQL superuser, whose server is started again when it ends: the cases
//! stop it. `cargo xtask test` has such a server. Without it, the cases on PostgreSQL are reported as ignored.

#[path = "pool/cases.rs"]
mod cases;
#[path = "pool/ground.rs"]
mod ground;

use ground::{Engine, Ground};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = cases::run_as_another_process() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Some stop the server for all.
    arguments.test_threads = Some(1);
    let server = std::env::var("RAMET_TEST_POSTGRES").ok();
    if server.is_none() {
        eprintln!(
            "RAMET_TEST_POSTGRES is not set: the cases on PostgreSQL are left out (cargo xtask test has it)"
        );
    }
    let mut trials = Vec::new();
    for (name, case) in cases::ON_BOTH.iter().chain(cases::ON_SQLITE) {
        trials.push(trial("sqlite", name, Engine::Sqlite, *case));
    }
    for (name, case) in cases::ON_BOTH.iter().chain(cases::ON_POSTGRES) {
        let ignored = server.is_none();
        let engine = Engine::Postgres(server.clone().unwrap_or_default());
        trials.push(trial("postgres", name, engine, *case).with_ignored_flag(ignored));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(engine: &str, name: &str, on: Engine, case: cases::Case) -> Trial {
    Trial::test(format!("{engine}::{name}"), move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let ground = Ground::new(&on).await;
            case(&ground).await;
            ground.clear().await;
        });
        Ok(())
    })
}
