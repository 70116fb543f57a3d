//! Commands in the lab, over one shared SSH connection.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// How to reach the lab's sshd.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Working folder of every ssh: the control socket is named relative to it, since the name of a socket may have
    /// no more than a hundred bytes and a checkout's may be longer.
    folder: PathBuf,
    keys: PathBuf,
    port: u16,
}

impl Connection {
    /// State in `folder`, `id_ed25519` and `known_hosts` in `keys`.
    pub(crate) fn new(folder: &Path, keys: &Path, port: u16) -> Self {
        Self { folder: folder.into(), keys: keys.into(), port }
    }

    /// Runs `arguments` in the lab, each arriving unchanged.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut ssh = self.ssh(&["-T"]);
        ssh.arg("lab").arg(quote(arguments));
        ssh
    }

    /// The same with a terminal.
    pub(crate) fn interactive<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut ssh = self.ssh(&["-t"]);
        ssh.arg("lab").arg(quote(arguments));
        ssh
    }

    /// Whether the lab runs a command before the deadline; one try, which a lab that is not up refuses early. Sets the
    /// shared connection up.
    pub(crate) fn answers(&self, deadline: Duration) -> bool {
        self.runs("true", Instant::now() + deadline)
    }

    /// The same, tried again until the deadline: a lab full of busy VMs is slow to let a new connection in.
    pub(crate) fn answers_in_the_end(&self, deadline: Duration) -> bool {
        let deadline = Instant::now() + deadline;
        let mut told = false;
        while !self.runs("true", deadline) {
            if Instant::now() > deadline {
                return false;
            }
            if !told {
                eprintln!("xtask: the lab does not answer at once, trying again ...");
                told = true;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// Lets the lab write its disk back, as far as it can until the deadline.
    pub(crate) fn sync(&self, deadline: Duration) {
        self.runs("sync", Instant::now() + deadline);
    }

    /// Whether a program succeeds before the deadline.
    fn runs(&self, program: &str, deadline: Instant) -> bool {
        let mut ssh = self.command(&[program]);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut ssh) = ssh.spawn() else { return false };
        loop {
            match ssh.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
                Ok(None) | Err(_) => {
                    let _ = ssh.kill();
                    let _ = ssh.wait();
                    return false;
                }
            }
        }
    }

    /// Ends the shared connection.
    pub(crate) fn close(&self) {
        let mut ssh = self.ssh(&["-O", "exit"]);
        let _ = ssh.arg("lab").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    fn ssh(&self, first: &[&str]) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.current_dir(&self.folder).args(options(&self.keys, self.port)).args(first);
        ssh
    }
}

/// Options that make ssh independent of the user's own configuration and never ask.
fn options(keys: &Path, port: u16) -> Vec<OsString> {
    let file = |option: &str, name: &str| {
        let mut value = OsString::from(option);
        value.push("=\"");
        value.push(keys.join(name));
        value.push("\"");
        value
    };
    let values = [
        "BatchMode=yes".into(),
        "HostName=127.0.0.1".into(),
        format!("Port={port}").into(),
        "User=root".into(),
        // The lab's host key was made with it; the outer machine's port changes from boot to boot.
        "HostKeyAlias=lab".into(),
        "StrictHostKeyChecking=yes".into(),
        file("UserKnownHostsFile", "known_hosts"),
        file("IdentityFile", "id_ed25519"),
        "IdentitiesOnly=yes".into(),
        "ControlMaster=auto".into(),
        "ControlPath=ssh".into(),
        "ControlPersist=yes".into(),
        "ConnectTimeout=5".into(),
        "ServerAliveInterval=15".into(),
        "ServerAliveCountMax=8".into(),
        "LogLevel=ERROR".into(),
    ];
    let config: [OsString; 2] = ["-F".into(), "none".into()];
    config.into_iter().chain(values.into_iter().flat_map(|value: OsString| ["-o".into(), value])).collect()
}

/// One line for a POSIX shell that gives exactly these arguments.
fn quote<A: AsRef<OsStr>>(arguments: &[A]) -> OsString {
    let mut line = Vec::new();
    for argument in arguments {
        if !line.is_empty() {
            line.push(b' ');
        }
        line.push(b'\'');
        for byte in argument.as_ref().as_bytes() {
            match byte {
                b'\'' => line.extend_from_slice(br"'\''"),
                byte => line.push(*byte),
            }
        }
        line.push(b'\'');
    }
    OsString::from_vec(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_gives_back_what_was_quoted() {
        let arguments: Vec<OsString> = vec![
            "plain".into(),
            String::new().into(),
            "two words\nand a line".into(),
            "it's $HOME `id` \\ \" * ! -- ~".into(),
            OsString::from_vec(vec![0xff, b'\'', 0x80]),
        ];
        let script = [OsStr::new("printf '%s\\0' "), &quote(&arguments)].join(OsStr::new(""));
        let output = Command::new("sh").arg("-c").arg(script).output().expect("a shell");
        let mut expected = arguments.join(OsStr::new("\0")).into_vec();
        expected.push(0);
        assert_eq!(output.stdout, expected);
    }

    #[test]
    fn a_folder_with_a_space_is_one_value() {
        let options = options(Path::new("/a b"), 1);
        assert!(options.contains(&"IdentityFile=\"/a b/id_ed25519\"".into()));
    }
}
