//! End-to-end cases over real VMs. Needs root, KVM, vhost-vsock, `ramet` on PATH and `RAMET_IMAGES`, which is what
//! `cargo xtask lab run` gives.
//!
//! One template serves all cases but those about other guests: making it takes a cold boot. The last cases look at it
//! again, bit for bit.
//!
//! With `RAMET_TEST_DEADLINE` (seconds since 1970), cases that would begin later are reported as ignored, with that reason:
//! for where somebody has no more time to wait.

mod cases;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use ramet_tests::World;
use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A case: what it shows, and how.
pub(crate) type Case = (&'static str, fn(&World) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Guests share the host's two or so CPUs, and some cases count processes.
    arguments.test_threads = Some(1);
    let deadline = std::env::var("RAMET_TEST_DEADLINE").ok();
    let deadline =
        deadline.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds.parse().expect("seconds")));
    let world = match (!arguments.list).then(World::make).transpose() {
        Ok(world) => world.map(Arc::new),
        Err(error) => {
            eprintln!("cannot make the world that the cases run in: {error:?}");
            return ExitCode::FAILURE;
        }
    };
    let trials = |cases: &[Case], share_template: bool, deadline: Option<SystemTime>| -> Vec<Trial> {
        let trial = |&(name, case): &Case| {
            let world = world.clone();
            Trial::ignorable_test(name, move || {
                if deadline.is_some_and(|deadline| SystemTime::now() > deadline) {
                    return Ok(Completion::ignored_with("no time is left (RAMET_TEST_DEADLINE)"));
                }
                let world = world.as_ref().ok_or("no world to run in")?;
                if share_template {
                    world.shared_template()?;
                }
                let begin = Instant::now();
                let result = case(world);
                eprint!("{} s ", begin.elapsed().as_secs());
                // What a failed case leaves must not fail the next.
                let cleared = world.clear();
                result.and(cleared).map_err(|error| Failed::from(format!("{error:#}")))?;
                Ok(Completion::Completed)
            })
        };
        cases.iter().map(trial).collect()
    };
    let mut all = trials(&cases::shared(), true, deadline);
    all.extend(trials(&cases::guests(), false, deadline));
    let last = trials(&cases::last(), true, None);
    if arguments.list {
        all.extend(last);
        return libtest_mimic::run(&arguments, all).exit_code();
    }
    let conclusion = libtest_mimic::run(&arguments, all);
    if conclusion.num_passed == 0 && conclusion.num_ignored > 0 {
        // The last ones would make the shared template for nothing.
        eprintln!("no time was left for a single case: nothing is known");
        return ExitCode::FAILURE;
    }
    let last = libtest_mimic::run(&arguments, last);
    if conclusion.has_failed() || last.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
