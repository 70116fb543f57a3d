//! A PostgreSQL server for tests: of its own, in a temporary folder, on a Unix socket.
//!
//! Whenever it ends it is started again, since tests stop it to see what becomes of those who are connected.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};

use crate::sys::{self, Step};

/// How long it may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where Debian and Ubuntu have the servers, one folder for each major version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// What is missing where there is none. It is no file's name: which version the package brings is the distribution's.
const SERVER: &str = "/usr/lib/postgresql/VERSION/bin/initdb";

/// Who runs it, since it refuses to be root's: the user that its package makes.
const USER: &str = "postgres";

/// A server, until it is dropped.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    keeper: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    /// Its process id, or 0.
    pid: AtomicI32,
}

impl Server {
    /// Installs PostgreSQL if it is missing, makes a server and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        if newest(Path::new(VERSIONS)).is_none() {
            sys::need(&[SERVER], &["postgresql"])?;
        }
        let programs = newest(Path::new(VERSIONS)).with_context(|| format!("there is still no {SERVER}"))?;
        let step = Step::begin(format!("starting a PostgreSQL for tests, of {}", programs.display()));
        let folder = tempfile::Builder::new().prefix("ramet-postgres-").tempdir()?;
        if sys::is_root() {
            let user = User::from_name(USER)?.with_context(|| format!("there is no user {USER}"))?;
            chown(folder.path(), Some(user.uid), Some(user.gid))?;
            // Its user's alone, as it was root's.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
        }
        let log = File::create(folder.path().join("log"))?;
        let data = folder.path().join("data");
        let mut initdb = as_its_user(&programs.join("initdb"));
        initdb.args(["--username=ramet", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg("--pgdata").arg(&data).current_dir(folder.path()).stdin(Stdio::null());
        let made = initdb.stdout(log.try_clone()?).stderr(log.try_clone()?).status();
        if !made.with_context(|| format!("cannot start {initdb:?}"))?.success() {
            bail!("{initdb:?}: {}", fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        }
        let shared = Arc::<Shared>::default();
        let keeper = {
            let (shared, programs, folder) = (shared.clone(), programs.clone(), folder.path().to_path_buf());
            thread::spawn(move || keep(&shared, &programs, &folder, &log))
        };
        let server = Self { folder, keeper: Some(keeper), shared };
        server.wait(&programs)?;
        step.done();
        Ok(server)
    }

    /// Its URL, of a user who may do everything.
    pub(crate) fn url(&self) -> String {
        format!("postgres://ramet@localhost/postgres?host={}", self.folder.path().display())
    }

    fn wait(&self, programs: &Path) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let mut ready = Command::new(programs.join("pg_isready"));
        ready.arg("--quiet").arg("--host").arg(self.folder.path());
        while !ready.status().with_context(|| format!("cannot start {ready:?}"))?.success() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("PostgreSQL does not answer after {} s: {log}", DEADLINE.as_secs());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let Some(keeper) = self.keeper.take() else { return };
        while !keeper.is_finished() {
            // It may have been started after the last look.
            let pid = self.shared.pid.load(Ordering::SeqCst);
            if pid != 0 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
            }
            thread::sleep(Duration::from_millis(50));
        }
        let _ = keeper.join();
    }
}

/// Runs the server again and again until it is to stop. It ends with this thread, so with xtask, however that ends
/// (prctl(2), `PR_SET_PDEATHSIG`).
fn keep(shared: &Shared, programs: &Path, folder: &Path, log: &File) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let run = || -> Result<()> {
            let mut server = as_its_user(&programs.join("postgres"));
            server.arg("-D").arg(folder.join("data")).arg("-k").arg(folder);
            server.args(["-c", "listen_addresses="]).current_dir(folder).stdin(Stdio::null());
            let mut child = server.stdout(log.try_clone()?).stderr(log.try_clone()?).spawn()?;
            shared.pid.store(i32::try_from(child.id())?, Ordering::SeqCst);
            let ended = child.wait();
            shared.pid.store(0, Ordering::SeqCst);
            ended?;
            Ok(())
        };
        if let Err(error) = run() {
            eprintln!("xtask: cannot run PostgreSQL: {error:#}");
            return;
        }
    }
}

/// `program` as the user whom PostgreSQL does not refuse, to be ended with the thread that starts it.
fn as_its_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if sys::is_root() {
        command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--init-groups"]);
    }
    command.args(["--pdeathsig", "QUIT", "--"]).arg(program).env("LC_ALL", "C");
    command
}

/// The programs of the newest version in `versions` that is a server.
fn newest(versions: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(versions).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let numbered = folders.filter_map(|path| Some((path.file_name()?.to_str()?.parse::<u32>().ok()?, path)));
    let servers = numbered.map(|(version, path)| (version, path.join("bin")));
    Some(servers.filter(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists()).max()?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_server_is_found_and_clients_are_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(dir.path()), None);
        for (version, programs) in
            [("9", ["initdb", "postgres"]), ("17", ["initdb", "postgres"]), ("18", ["psql", "pg_dump"])]
        {
            let bin = dir.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            for program in programs {
                fs::write(bin.join(program), "").unwrap();
            }
        }
        assert_eq!(newest(dir.path()), Some(dir.path().join("17/bin")));
    }

    #[test]
    fn a_server_that_ends_is_started_again_until_it_is_dropped() {
        let Some(programs) = newest(Path::new(VERSIONS)) else {
            eprintln!("skipped: no PostgreSQL below {VERSIONS}");
            return;
        };
        let server = Server::start().unwrap();
        let pid = || server.shared.pid.load(Ordering::SeqCst);
        let first = pid();
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while pid() == first || pid() == 0 {
            assert!(Instant::now() < deadline, "it is not started again");
            thread::sleep(Duration::from_millis(10));
        }
        server.wait(&programs).unwrap();
        let (last, folder) = (pid(), server.folder.path().to_path_buf());
        drop(server);
        assert!(!folder.exists());
        assert!(kill(Pid::from_raw(last), None).is_err(), "it still runs");
    }
}
