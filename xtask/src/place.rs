//! Where real VMs can run: on this machine, or in the lab.
//!
//! Decided by trying. `/dev/kvm` existing proves nothing: there are machines with the file, without `vmx` or `svm`,
//! and with a KVM that hangs in a stock kernel. So a boot sector has to come back with the answer it was given.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::config::Config;
use crate::sys::{self, Step};
use crate::tools::{Tools, User, inside};

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// This machine.
    Host,
    /// The lab.
    Lab,
}

/// A boot sector that writes 0x2a to the debug-exit port and halts; QEMU then exits with `0x2a << 1 | 1`.
const TRIAL: [u8; 8] = [0xba, 0xf4, 0x00, 0xb0, 0x2a, 0xee, 0xf4, 0xf4];
const TRIAL_EXIT: i32 = (0x2a << 1) | 1;
const TRIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Finds out, and says why when it is the lab.
pub(crate) fn find(config: &Config) -> Result<Place> {
    match obstacle(config)? {
        None => Ok(Place::Host),
        Some(why) => {
            eprintln!("xtask: real VMs cannot run on this machine ({why}), so they run in the lab");
            Ok(Place::Lab)
        }
    }
}

/// What keeps this machine from running real VMs. The cheap looks come first.
fn obstacle(config: &Config) -> Result<Option<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    if !virtualizes(&cpuinfo) {
        return Ok(Some("its CPU flags show neither vmx nor svm".into()));
    }
    // Not loaded by themselves everywhere. Where it fails, the device is missing and that is the answer.
    for module in ["kvm_intel", "kvm_amd", "vhost_vsock"] {
        let _ = sys::as_root("modprobe").args(["--quiet", module]).stderr(Stdio::null()).status();
    }
    if !opens("/dev/vhost-vsock") {
        return Ok(Some("/dev/vhost-vsock does not open, even after modprobe vhost_vsock".into()));
    }
    if !opens("/dev/kvm") {
        return Ok(Some("/dev/kvm does not open".into()));
    }
    trial(config)
}

fn virtualizes(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

fn opens(device: &str) -> bool {
    if sys::is_root() {
        return OpenOptions::new().read(true).write(true).open(device).is_ok();
    }
    let script = "exec 3<>\"$1\"";
    let status = sys::as_root("sh").args(["-c", script, "sh", device]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Boots the trial sector under KVM.
fn trial(config: &Config) -> Result<Option<String>> {
    let tools = Tools::ensure(config)?;
    let step = Step::begin("trying KVM with a boot sector");
    fs::create_dir_all(&config.target)?;
    let disk =
        tempfile::NamedTempFile::new_in(&config.target).context("cannot write to the target folder")?;
    fs::write(disk.path(), boot_sector()).context("cannot write the trial's boot sector")?;
    let mut child = trial_command(&tools, disk.path()).spawn().context("cannot start QEMU for the trial")?;

    let deadline = Instant::now() + TRIAL_DEADLINE;
    let verdict = loop {
        if let Some(status) = child.try_wait()? {
            break match status.code() {
                Some(TRIAL_EXIT) => None,
                _ => Some(format!("QEMU with KVM did not run a boot sector: {status}")),
            };
        }
        if Instant::now() > deadline {
            // Through sudo and unshare the signal reaches nobody; `timeout` in the command ends QEMU itself.
            child.wait()?;
            break Some(format!("a boot sector under KVM gave no answer in {} s", TRIAL_DEADLINE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    step.done();
    Ok(verdict)
}

fn boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..TRIAL.len()].copy_from_slice(&TRIAL);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn trial_command(tools: &Tools, disk: &Path) -> Command {
    let mut command = tools.command(User::Root, "timeout");
    command
        .args(["--signal=KILL", &(TRIAL_DEADLINE.as_secs() + 1).to_string()])
        .args(["qemu-system-x86_64", "-accel", "kvm", "-machine", "pc", "-m", "16M", "-nodefaults"])
        .args(["-no-user-config", "-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .arg("-drive")
        .arg(format!("file={},format=raw,if=ide,snapshot=on", inside(disk).display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words_of_the_flags_line() {
        assert!(virtualizes("processor: 0\nflags\t\t: fpu svm lm\n"));
        assert!(virtualizes("flags\t\t: fpu vmx\n"));
        assert!(!virtualizes("flags\t\t: fpu svm_lock avmx\n"));
        assert!(!virtualizes("model name\t: svm\nvmx flags\t: vnmi\n"));
    }

    #[test]
    fn the_trial_is_a_boot_sector() {
        let sector = boot_sector();
        assert_eq!(sector[510..], [0x55, 0xaa]);
        assert_eq!(sector[..3], [0xba, 0xf4, 0x00]);
    }
}
