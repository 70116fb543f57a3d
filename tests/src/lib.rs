//! What cases are written with: `ramet` as a user runs it, a bridge with DHCP, and waiting for conditions.

#[cfg(test)]
mod documents;
mod domain;
mod network;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
pub use domain::Domain;
pub use network::Network;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The template that all cases share.
pub const TEMPLATE: &str = "debian";

/// How long a guest may take to boot, on the slowest machine that is worth waiting for.
pub const BOOT_LIMIT: &str = "1500s";

/// How many times slower than usual this machine is; what cases wait for may take as many times longer. An emulated CPU on
/// a busy machine can be several times slower than on a quiet one.
static SLOWNESS: OnceLock<u32> = OnceLock::new();

/// What a template takes to be made at most where nothing is slower than usual, the lab included.
const USUAL: Duration = Duration::from_secs(100);

/// How many times longer than usual to wait.
pub fn slowness() -> u32 {
    SLOWNESS.get().copied().unwrap_or(1)
}

/// A deadline for this machine.
fn patient(deadline: Duration) -> Duration {
    deadline * slowness()
}

/// Everything that the cases share.
pub struct World {
    /// The state directory; large, so not in memory.
    state: TempDir,
    /// `RAMET_IMAGES`.
    pub images: PathBuf,
    /// The bridge.
    pub network: Network,
    /// The content of the shared template's files when it was made, or why it could not be.
    template_sums: OnceLock<Result<String, String>>,
    /// Interfaces of other children of this host, which were there before.
    foreign_taps: Vec<OsString>,
}

/// The NICs of a template: one on the bridge, one on QEMU's user network.
pub const NETS: &[&str] = &["bridge=ramete2e0", "user"];

impl World {
    /// Makes the network and the state directory.
    pub fn make() -> Result<Self> {
        let images = PathBuf::from(std::env::var_os("RAMET_IMAGES").context("RAMET_IMAGES is not set")?);
        let state = tempfile::Builder::new().prefix("ramet-").tempdir_in("/var/lib")?;
        let (network, foreign_taps) = (Network::make()?, taps()?);
        Ok(Self { state, images, network, template_sums: OnceLock::new(), foreign_taps })
    }

    /// Has the template that cases share, and returns what its files held when it was made. It is made for the first that
    /// asks, and tried no second time.
    pub fn shared_template(&self) -> Result<&str> {
        let made = self.template_sums.get_or_init(|| {
            let made = self.create_template("debian", TEMPLATE, "256M", NETS).and_then(|()| self.sums());
            made.map_err(|error| format!("cannot make the template that the cases share: {error:#}"))
        });
        made.as_deref().map_err(|error| anyhow!("{error}"))
    }

    /// Makes the template `name` from the image of `guest`, its progress on stderr.
    pub fn create_template(&self, guest: &str, name: &str, memory: &str, nets: &[&str]) -> Result<()> {
        let begin = Instant::now();
        let disk = self.images.join(format!("{guest}.qcow2"));
        let mut create =
            self.ramet(["template", "create", name, "--timeout", BOOT_LIMIT, "--memory", memory, "--disk"]);
        create.arg(disk).args(nets.iter().flat_map(|net| ["--net", net]));
        let status =
            create.stdout(Stdio::null()).status().with_context(|| format!("cannot run {create:?}"))?;
        ensure!(status.success(), "{create:?}: {status}");
        // The first tells.
        SLOWNESS.get_or_init(|| {
            let times = begin.elapsed().as_secs() / USUAL.as_secs() + 1;
            if times > 1 {
                eprintln!("this machine is slow: conditions are waited for {times} times as long as usual");
            }
            u32::try_from(times).unwrap_or(u32::MAX).min(10)
        });
        Ok(())
    }

    /// A `ramet` command.
    pub fn ramet<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new("ramet");
        command.arg("--state-dir").arg(self.state.path()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `ramet` and fails unless it succeeds; what it printed.
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        succeeded(&mut self.ramet(args))
    }

    /// Runs `ramet` and fails unless it fails with exit status 1; what it said on stderr.
    pub fn fails<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        failed(&mut self.ramet(args))
    }

    /// Runs `ramet` with `--json`; what it printed.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let printed = self.ok(args.iter().copied().chain(["--json"]))?;
        serde_json::from_str(&printed).with_context(|| format!("not JSON: {printed}"))
    }

    /// Runs a command in a child over SSH, for two minutes at most if the machine is not slow; what it printed.
    pub fn ssh(&self, child: &str, command: &str) -> Result<String> {
        let key = self.images.join("id_ed25519");
        let ramet = self.ramet([OsStr::new("ssh"), OsStr::new(child), OsStr::new("-i"), key.as_os_str()]);
        Ok(succeeded(limited(&ramet).args(["--", command]))?.trim().to_owned())
    }

    /// A file of a child.
    #[must_use]
    pub fn child_file(&self, child: &str, file: &str) -> PathBuf {
        self.state.path().join("children").join(child).join(file)
    }

    /// A file of a template.
    #[must_use]
    pub fn template_file(&self, template: &str, file: &str) -> PathBuf {
        self.state.path().join("templates").join(template).join(file)
    }

    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// Checksums of the shared template's files, not taken by ramet.
    pub fn sums(&self) -> Result<String> {
        let files = ["ram", "state", "disk.qcow2", "overlay.qcow2", "manifest.json"];
        succeeded(Command::new("b2sum").args(files.map(|file| self.template_file(TEMPLATE, file))))
    }

    /// Fails unless nothing at all is left of any child: no entry, no file, no process, no interface. The kernel may
    /// take a moment to take down what a process that has just ended had open.
    pub fn nothing_left(&self) -> Result<()> {
        until(Duration::from_secs(10), || self.nothing_left_now())
    }

    fn nothing_left_now(&self) -> Result<()> {
        let listed = self.json(&["ls"])?;
        ensure!(listed == Value::Array(Vec::new()), "children are left: {listed}");
        let files: Vec<_> = fs::read_dir(self.state.path().join("children"))?.collect::<Result<_, _>>()?;
        ensure!(files.is_empty(), "files are left: {files:?}");
        let processes = self.processes()?;
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        let mut taps = taps()?;
        taps.retain(|tap| !self.foreign_taps.contains(tap));
        ensure!(taps.is_empty(), "interfaces are left: {taps:?}");
        Ok(())
    }

    /// The QEMU processes of this world's children.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let children = self.state.path().join("children");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let is_qemu =
                fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"qemu-system"));
            if is_qemu && fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&children))
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Removes all children that are left.
    pub fn clear(&self) -> Result<()> {
        let listed = self.json(&["ls"])?;
        let names: Vec<&str> =
            listed.as_array().into_iter().flatten().filter_map(|child| child["name"].as_str()).collect();
        if names.is_empty() { Ok(()) } else { self.remove(&names) }
    }

    /// Removes children, whatever they are.
    pub fn remove(&self, children: &[&str]) -> Result<()> {
        self.ok(["rm"].iter().chain(children)).map(drop)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("{error:?}");
        }
    }
}

/// The interfaces of this host's children.
fn taps() -> Result<Vec<OsString>> {
    let names = fs::read_dir("/sys/class/net")?.filter_map(Result::ok).map(|entry| entry.file_name());
    Ok(names.filter(|name| name.to_string_lossy().starts_with("rmt")).collect())
}

/// `command` for two minutes at most, if the machine is not slow; without its environment.
#[must_use]
pub fn limited(command: &Command) -> Command {
    let mut limited = Command::new("timeout");
    let limit = patient(Duration::from_secs(120)).as_secs().to_string();
    limited.args(["--kill-after=5", &limit]).arg(command.get_program()).args(command.get_args());
    limited.stdin(Stdio::null());
    limited
}

/// Runs `command` and fails unless it succeeds; its stdout.
pub fn succeeded(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", told(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `command` and fails unless it fails with exit status 1; its stderr.
pub fn failed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.code() == Some(1), "{command:?}: {}", told(&output));
    Ok(String::from_utf8(output.stderr)?)
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}\n--- stdout\n{}\n--- stderr\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Fails unless `text` contains `part`.
pub fn contains(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "{part:?} is not in:\n{text}");
    Ok(())
}

/// Waits until `condition` gives something, and fails with the last reason after `deadline`, which is longer where the
/// machine is slow.
pub fn until<T>(deadline: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = patient(deadline);
    let end = Instant::now() + deadline;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("not within {} s", deadline.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// A string in JSON.
pub fn string<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no string {pointer} in {value}"))
}

/// A process that is ended with the case.
pub struct Background(Child);

impl Background {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Ok(Self(command.spawn().with_context(|| format!("cannot run {command:?}"))?))
    }

    /// Sends `signal`, if the process has not ended yet.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        match nix::sys::signal::kill(pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => bail!("cannot send {signal}: {error}"),
        }
    }

    /// Sends `signal` and waits for the end.
    pub fn end(self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Result<ExitStatus> {
        Ok(self.0.wait()?)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Ended already is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
