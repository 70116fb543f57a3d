//! Processes, locks, progress.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::config::Config;

/// A line of progress: says at once what begins, and how long it took if that was over a second.
pub(crate) struct Step {
    what: String,
    start: Instant,
}

impl Step {
    /// Says that `what` begins.
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        let what = what.into();
        eprintln!("xtask: {what} ...");
        Self { what, start: Instant::now() }
    }

    /// Says that it is done.
    pub(crate) fn done(self) {
        let took = self.start.elapsed();
        if took > Duration::from_secs(1) {
            eprintln!("xtask: {}: done in {:.1} s", self.what, took.as_secs_f64());
        }
    }
}

/// Whether this process may do what root may.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `program` as root: with sudo when this process is not.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

/// This toolchain's cargo, in the checkout. What the cargo that runs this program has told it of its own package is no
/// business of the others': a dependency (ring) is built again where that differs, and so after each cargo that somebody
/// runs without xtask.
pub(crate) fn cargo(config: &Config) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&config.root);
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(of_package) {
        command.env_remove(name);
    }
    command
}

/// Runs to the end; a failure names the whole command. What it prints goes to standard error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Runs to the end and returns what it prints on standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", output.status);
    }
    Ok(output.stdout)
}

/// Runs to the end, and says each line that it prints after `label`.
pub(crate) fn status_with_lines(command: &mut Command, label: &str) -> io::Result<ExitStatus> {
    let (reader, writer) = io::pipe()?;
    let mut child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The writing ends that this process has are closed with these, and so the last line is found.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for line in BufReader::new(reader).split(b'\n') {
        eprintln!("{label}: {}", String::from_utf8_lossy(&line?));
    }
    child.wait()
}

/// The status that a shell would report: 128 and the signal's number for a process that a signal ended.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// Does `work` for all at the same time.
pub(crate) fn side_by_side<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(join).collect()
    })
}

/// What a thread returns; its panic goes on.
pub(crate) fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Holds an exclusive lock on a file, made when missing, until dropped. Says so when it has to wait.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock on `path`.
    pub(crate) fn take(path: &Path, what: &str) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, _busy)) => {
                eprintln!("xtask: waiting for another xtask ({what}) ...");
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, errno)| errno)
                    .with_context(|| format!("cannot lock {}", path.display()))?
            }
        };
        Ok(Self { _file: file })
    }
}

/// Installs Debian or Ubuntu packages unless all of `files` are there.
pub(crate) fn need(files: &[&str], packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = files.iter().filter(|file| !Path::new(file).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    let step = Step::begin(format!("missing here: {missing:?}, so installing with apt: {list}"));
    let advice = || format!("cannot install {list}: install what gives {missing:?} yourself, then try again");
    // A fresh machine has no package lists, an older one stale ones.
    run(as_root("apt-get").args(["-qq", "update"])).with_context(advice)?;
    run(as_root("env")
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-qq",
            "-y",
            "--no-install-recommends",
            "install",
        ])
        .args(packages))
    .with_context(advice)?;
    step.done();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_once_all_have_ended() {
        let ended = std::sync::atomic::AtomicUsize::new(0);
        let result = side_by_side(&[1, 2, 3], |item| {
            ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            anyhow::ensure!(*item != 2, "not two");
            Ok(*item)
        });
        assert_eq!(result.expect_err("a failure").to_string(), "not two");
        assert_eq!(ended.into_inner(), 3);
    }

    #[test]
    fn a_command_whose_lines_are_marked_is_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; printf two >&2; exit 3"]);
        assert_eq!(status_with_lines(&mut command, "test").expect("a status").code(), Some(3));
    }
}
