//! An Active Directory domain on the bridge: a Samba domain controller that serves DNS, Kerberos and LDAP.
//!
//! The lab's recipe has made the domain ([`ad-provision`](../../images/lab/root/usr/local/sbin/ad-provision)), each
//! run serves a copy of it ([`ad-dc`](../../images/lab/root/usr/local/sbin/ad-dc)).

use super::{Network, World, network::ip, succeeded};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Samba takes about 20 s to start on the lab's emulated CPU, and more beside guests.
const START_DEADLINE: Duration = Duration::from_secs(180);
/// How long Samba may take to end before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// A domain with a controller that serves it. The controller goes with it, and what it was told with that.
pub struct Domain<'a> {
    network: &'a Network,
    tools: Tools,
    files: TempDir,
    controller: Child,
}

impl<'a> Domain<'a> {
    /// The Kerberos realm.
    pub const REALM: &'static str = "AD.RAMET.TEST";
    /// The NetBIOS name.
    pub const WORKGROUP: &'static str = "RAMET";
    /// The controller's host name.
    pub const CONTROLLER: &'static str = "dc1.ad.ramet.test";
    /// The controller's address on the bridge.
    pub const ADDRESS: &'static str = "10.77.0.2";
    /// Where `ramet` makes accounts.
    pub const OU: &'static str = "OU=Clones,DC=ad,DC=ramet,DC=test";

    /// Starts a controller and waits until it serves. Guests that ask for an address from then on are told that it is
    /// their DNS server.
    pub fn start(network: &'a Network) -> Result<Self> {
        let (tools, files) = (Tools::find()?, tempfile::tempdir_in("/var/lib")?);
        Self::address("replace")?;
        let controller = run(&tools, files.path(), "")?;
        let mut domain = Self { network, tools, files, controller };
        domain.wait_until_it_serves()?;
        fs::write(domain.config(), domain.settings())?;
        let (address, zone) = (Self::ADDRESS, Self::REALM.to_ascii_lowercase());
        network.tell(&format!("option:dns-server,{address}\noption:domain-name,{zone}\n"))?;
        Ok(domain)
    }

    fn wait_until_it_serves(&mut self) -> Result<()> {
        let mut printed = BufReader::new(self.controller.stdout.take().context("no pipe")?);
        let (sender, receiver) = mpsc::channel();
        // Nothing but the first line is ever printed, so the thread ends then, or with the controller.
        thread::spawn(move || {
            let mut line = String::new();
            let _ = sender.send(printed.read_line(&mut line).map(|_| line));
        });
        match receiver.recv_timeout(START_DEADLINE) {
            Ok(Ok(line)) if line.trim() == "ready" => Ok(()),
            other => bail!("the domain controller does not serve: {other:?}; it said: {}", self.log()),
        }
    }

    /// Ends the controller and starts it again, with all it was told and a clock that differs by `offset` from everybody
    /// else's, in the form of faketime(1).
    pub fn restart_with_clock(&mut self, offset: &str) -> Result<()> {
        self.end();
        self.controller = run(&self.tools, self.files.path(), offset)?;
        self.wait_until_it_serves()
    }

    fn end(&mut self) {
        // Samba ends with all its processes once it has read to the end of this.
        drop(self.controller.stdin.take());
        let end = Instant::now() + END_DEADLINE;
        while matches!(self.controller.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.controller.kill();
        let _ = self.controller.wait();
    }

    /// Takes the controller off the network, without a word to anybody.
    pub fn disconnect(&self) -> Result<()> {
        Self::address("del")
    }

    /// Puts it back.
    pub fn connect(&self) -> Result<()> {
        Self::address("replace")
    }

    fn address(verb: &str) -> Result<()> {
        ip(&["addr", verb, &format!("{}/24", Self::ADDRESS), "dev", Network::BRIDGE])
    }

    /// The end of what Samba has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read(self.files.path().join("dc/log/samba")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// `samba-tool` on the directory itself, as an administrator who sits at the controller.
    #[must_use]
    pub fn administrate(&self, arguments: &[&str]) -> Command {
        let config = self.tools.inside(&self.files.path().join("dc/etc/smb.conf"));
        let mut command = self.tools.command("samba-tool");
        command.args(arguments).arg(format!("--configfile={}", config.display()));
        command
    }

    /// The server's URL for `ramet`.
    #[must_use]
    pub fn url(&self) -> String {
        // Only the lab knows the controller by its name; its certificate has both.
        let host = if self.tools.root.is_none() { Self::CONTROLLER } else { Self::ADDRESS };
        format!("ldaps://{host}")
    }

    /// The `domain.toml` of an administrator to whom the OU is delegated.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.files.path().join("domain.toml")
    }

    fn settings(&self) -> String {
        let quoted = |path: &Path| Value::from(path.display().to_string()).to_string();
        format!(
            "realm = \"{}\"\nservers = [\"{}\"]\nca_file = {}\nou = \"{}\"\nuser = \"ramet@ad.ramet.test\"\n\
             password_file = {}\n",
            Self::REALM,
            self.url(),
            quoted(&self.ca_file()),
            Self::OU,
            quoted(&self.password_file("ramet")),
        )
    }

    /// Makes a pool, called `name`, with `count` accounts named after it.
    pub fn provision(&self, world: &World, name: &str, count: usize) -> Result<()> {
        world.ok(["pool", "create", name, "--hostnames", &format!("{name}-{{:02}}")])?;
        let mut provision = world.ramet(["domain", "provision", "--json", "--pool", name, "--count"]);
        let made = succeeded(provision.arg(count.to_string()).arg("--config").arg(self.config()))?;
        let made: Value = serde_json::from_str(&made)?;
        ensure!(made["made"].as_array().is_some_and(|made| made.len() == count), "{made}");
        Ok(())
    }

    /// The CA of its certificate, a PEM file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.tools.outside("/srv/ad/tls/ca.pem")
    }

    /// The file with the password of `user`: `administrator`; `ramet`, to whom the OU is delegated; `reader`, who may
    /// only log in; `alice`, a user.
    #[must_use]
    pub fn password_file(&self, user: &str) -> PathBuf {
        self.tools.outside("/srv/ad/secrets").join(user)
    }
}

impl Drop for Domain<'_> {
    fn drop(&mut self) {
        self.end();
        let quiet = self.network.tell("").and(Self::address("del"));
        if let Err(error) = quiet {
            eprintln!("{error:?}");
        }
    }
}

/// A controller that serves the domain in `files`.
fn run(tools: &Tools, files: &Path, offset: &str) -> Result<Child> {
    let mut controller = tools.command("ad-dc");
    controller.arg(tools.inside(&files.join("dc"))).arg(offset).stdin(Stdio::piped()).stdout(Stdio::piped());
    controller.spawn().with_context(|| format!("cannot run {controller:?}"))
}

/// Where the controller's programs are: here in the lab, else in its root, which `RAMET_LAB_ROOT` names.
struct Tools {
    root: Option<PathBuf>,
}

/// As `cargo xtask` runs a tool: the outer file system appears below `/host`.
const ENTER: &str = r#"set -e; root=$1
mount --rbind / "$root/host"
for folder in dev proc sys; do mount --rbind "/$folder" "$root/$folder"; done
for folder in run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
exec chroot "$@""#;

impl Tools {
    fn find() -> Result<Self> {
        if Path::new("/srv/ad").exists() {
            return Ok(Self { root: None });
        }
        let root = env::var_os("RAMET_LAB_ROOT").context("no domain here: RAMET_LAB_ROOT is not set")?;
        Ok(Self { root: Some(root.into()) })
    }

    fn command(&self, program: &str) -> Command {
        let Some(root) = &self.root else { return Command::new(program) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]).arg(root).arg(program);
        command
    }

    /// Where one of these programs sees a file of this machine.
    fn inside(&self, path: &Path) -> PathBuf {
        if self.root.is_none() {
            path.to_owned()
        } else {
            Path::new("/host").join(path.strip_prefix("/").unwrap_or(path))
        }
    }

    /// Where this machine sees a file of theirs.
    fn outside(&self, path: &str) -> PathBuf {
        match &self.root {
            None => path.into(),
            Some(root) => root.join(path.trim_start_matches('/')),
        }
    }
}
