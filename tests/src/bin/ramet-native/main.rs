//! The agent in roots of real guests, at native speed: each root is booted as a container, the agent gives it an identity
//! at its gate, and the guest's own programs are asked what they make of it. Run as root by `cargo xtask native`, in mount,
//! process and network namespaces of its own.
//!
//! What is the kernel's alone (memory, random pool, clock, NICs) takes a VM: that is `ramet-e2e`.

mod case;
mod cases;
mod child;
mod container;
mod doctor;
mod setting;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use setting::Setting;
use std::{
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The two children of a case boot side by side.
    arguments.test_threads = Some(1);
    let setting = match Setting::make() {
        Ok(setting) => Arc::new(Mutex::new(setting)),
        Err(error) => {
            eprintln!("cannot make the place that the cases run in: {error:?}");
            return ExitCode::FAILURE;
        }
    };
    let roots: Vec<String> = lock(&setting).roots().map(str::to_owned).collect();
    let mut trials = Vec::new();
    for root in roots {
        let setting = setting.clone();
        trials.push(Trial::ignorable_test(format!("doctor::{root}"), move || {
            Ok(match doctor::compare(&lock(&setting), &root)? {
                None => Completion::Completed,
                Some(why) => Completion::ignored_with(why),
            })
        }));
    }
    for case in cases::all() {
        let setting = setting.clone();
        trials.push(Trial::test(case.name, move || {
            let begin = Instant::now();
            let result = case::run(&lock(&setting), &case, cases::USUAL);
            eprint!("{:.1} s ", begin.elapsed().as_secs_f64());
            result.map_err(|error| Failed::from(format!("{error:#}")))
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn lock(setting: &Mutex<Setting>) -> std::sync::MutexGuard<'_, Setting> {
    setting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
