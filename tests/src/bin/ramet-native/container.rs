//! A root, booted as a container by systemd-nspawn(1).

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Where control groups are: mounted for systemd alone, or beside others of version 1.
const CGROUPS: [&str; 3] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup"];

/// Starts nspawn in control groups of its own, since two in one would be in each other's way.
const START: &str = r#"group=$1; shift
for place in "$@"; do
  [ "$place" = -- ] && break
  mkdir -p "$place/$group" && echo $$ > "$place/$group/cgroup.procs" || exit 1
  shift
done
shift
exec systemd-nspawn "$@""#;

/// Links made so far.
static LINKS: AtomicU32 = AtomicU32::new(0);

/// How long a question to a program in a container may take.
const QUESTION_SECONDS: &str = "40";

/// A container that runs; it ends with this.
pub(crate) struct Container {
    nspawn: Child,
    /// Its first process, as seen from here.
    pid: Pid,
    group: String,
    console: PathBuf,
}

impl Container {
    /// Boots `root`. `folder` appears in it as /run/native, `nic` with the address `mac` is its only NIC.
    pub(crate) fn boot(name: &str, root: &Path, folder: &Path, nic: &str, mac: &str) -> Result<Self> {
        let _ = run(&["ip", "netns", "delete", name]);
        run(&["ip", "netns", "add", name])?;
        // Names of links are short.
        let end = format!("native{}", LINKS.fetch_add(1, Ordering::Relaxed));
        run(&[
            "ip", "link", "add", &end, "type", "veth", "peer", "name", nic, "netns", name, "address", mac,
        ])?;
        run(&["ip", "link", "set", &end, "up"])?;
        run(&["ip", "-n", name, "link", "set", "lo", "up"])?;

        // Unlike that of any other stage on this machine, whose processes may have the same numbers.
        let group = format!("ramet-native{}", root.display().to_string().replace('/', "-"));
        let console = folder.join("console");
        let output = File::create(&console)?;
        let places = if Path::new(CGROUPS[0]).exists() { &CGROUPS[..2] } else { &CGROUPS[2..] };
        let nspawn = Command::new("sh")
            .args(["-c", START, "sh", &group])
            .args(places)
            .args(["--", "--quiet", "--register=no", "--keep-unit", "--boot", "--console=pipe"])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            // What is one memory image in a VM: all children begin with the template's machine-id.
            .arg(format!("--uuid={TEMPLATE_MACHINE_ID}"))
            .arg(format!("--machine={name}"))
            .arg(format!("--network-namespace-path=/run/netns/{name}"))
            // Of that network alone. nspawn gives it only with networks that it makes.
            .arg("--capability=CAP_NET_ADMIN")
            .arg(format!("--bind={}:/run/native", folder.display()))
            .arg("--directory")
            .arg(root)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start systemd-nspawn")?;
        let mut container = Self { nspawn, pid: Pid::from_raw(0), group, console };
        container.pid = container.first_process()?;
        Ok(container)
    }

    fn first_process(&mut self) -> Result<Pid> {
        let parent = self.nspawn.id().to_string();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for entry in fs::read_dir("/proc")?.flatten() {
                let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
                let field = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                    line.split_whitespace().last().map(str::to_owned)
                };
                if field("PPid:").as_ref() == Some(&parent) && field("NSpid:").as_deref() == Some("1") {
                    let name = entry.file_name();
                    return Ok(Pid::from_raw(name.to_str().context("no number")?.parse()?));
                }
            }
            ensure!(self.runs()?, "systemd-nspawn has ended: {}", self.last_words());
            ensure!(Instant::now() < deadline, "systemd-nspawn starts nothing: {}", self.last_words());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has not ended.
    pub(crate) fn runs(&mut self) -> Result<bool> {
        Ok(self.nspawn.try_wait()?.is_none())
    }

    /// The end of what came to its console.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(8)..].join(" / ")
    }

    /// What `script` prints in it, run by sh(1) as root; standard error too.
    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        let pid = self.pid.to_string();
        let output = Command::new("nsenter")
            .args(["--target", &pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--root"])
            .args([
                "env",
                "-C",
                "/",
                "-i",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL=C.UTF-8",
                "HOME=/root",
            ])
            .args(["timeout", QUESTION_SECONDS, "sh", "-c", &format!("exec 2>&1; {script}")])
            .stdin(Stdio::null())
            .output()
            .context("cannot run nsenter")?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        bail!("`{script}` in the container: {}: {text} {said}", output.status)
    }
}

/// The machine-id of a template that had none in its image.
pub(crate) const TEMPLATE_MACHINE_ID: &str = "7e3a11ed7e3a11ed7e3a11ed7e3a11ed";

impl Drop for Container {
    fn drop(&mut self) {
        // With its first process all others end. Without one, there is nspawn alone.
        if self.pid.as_raw() > 0 {
            let _ = kill(self.pid, Signal::SIGKILL);
        } else {
            let _ = self.nspawn.kill();
        }
        let _ = self.nspawn.wait();
        for place in CGROUPS {
            let group = format!("{place}/{}", self.group);
            if Path::new(&group).exists() {
                let _ = run(&["find", &group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
            }
        }
    }
}

/// Runs a program of this machine, which has to end well.
pub(crate) fn run(line: &[&str]) -> Result<()> {
    let output = Command::new(line[0]).args(&line[1..]).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", line[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", line.join(" "), output.status, said.trim());
    Ok(())
}
