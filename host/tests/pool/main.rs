//! The store of identities, on SQLite and on a real PostgreSQL: each case on both, with as many hosts as it takes.
//!
//! `RAMET_TEST_POSTGRES` is the URL of a PostgreSQL superuser, whose server is started again when it ends: the cases
//! stop it. `cargo xtask test` has such a server. Without it, the cases on PostgreSQL are reported as ignored.

mod accounts;
mod faults;
mod ground;
mod leases;

use futures::{FutureExt as _, future::LocalBoxFuture};
use ground::{Engine, Ground};
use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

type Case = fn(&Ground) -> LocalBoxFuture<'_, ()>;

macro_rules! cases {
    ($($module:ident::$case:ident),* $(,)?) => {
        &[$((stringify!($case), |ground| $module::$case(ground).boxed_local())),*]
    };
}

const ON_BOTH: &[(&str, Case)] = cases![
    leases::every_identity_is_given_once,
    leases::all_or_none,
    leases::two_who_want_too_much_together,
    leases::an_empty_pool_says_so,
    leases::a_lease_asked_for_again_is_the_same,
    faults::a_command_killed_at_any_moment_leaves_a_whole_store,
    faults::a_newer_schema_is_refused,
    faults::a_new_store_is_made_once_by_all_who_open_it,
    accounts::a_wrong_or_missing_key_is_refused,
    accounts::a_password_is_sealed_handed_over_and_forgotten,
    accounts::an_account_comes_back_through_quarantine_only,
    accounts::a_persistent_account_says_so_until_it_is_back,
    accounts::an_intent_is_found_again,
    leases::names_addresses_and_accounts_are_unique,
    leases::two_hosts_add_at_once,
    leases::a_pool_is_removed_when_nobody_needs_it,
    leases::a_lost_host_keeps_nothing_and_gives_nothing,
    leases::the_sweep_takes_what_no_child_has,
    leases::history_tells_all,
    leases::the_longest_unused_comes_first,
    leases::a_lease_takes_milliseconds,
];

const ON_SQLITE: &[(&str, Case)] = cases![accounts::only_the_owner_reads_the_files];

const ON_POSTGRES: &[(&str, Case)] =
    cases![faults::a_server_that_crashes_in_the_middle_loses_nothing, faults::no_password_is_told];

fn main() -> ExitCode {
    if let Some(code) = faults::run_as_another_process() {
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
    for (name, case) in ON_BOTH.iter().chain(ON_SQLITE) {
        trials.push(trial("sqlite", name, Engine::Sqlite, *case));
    }
    for (name, case) in ON_BOTH.iter().chain(ON_POSTGRES) {
        let ignored = server.is_none();
        let engine = Engine::Postgres(server.clone().unwrap_or_default());
        trials.push(trial("postgres", name, engine, *case).with_ignored_flag(ignored));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(engine: &str, name: &str, on: Engine, case: Case) -> Trial {
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
