//! Where real VMs can run: on this machine, or in the lab.
//!
//! Decided by trying, which is `ramet doctor`'s business: `/dev/kvm` existing proves nothing.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

use crate::build::Programs;
use crate::config::Config;
use crate::sys::{self, Step};

/// Where to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// This machine.
    Host,
    /// The lab.
    Lab,
}

/// What Ramet needs of a host, and what the programs of tests/ need beside: as files, and as packages.
const NEEDED: ([&str; 7], [&str; 7]) = (
    [
        "/usr/bin/qemu-system-x86_64",
        "/usr/bin/qemu-img",
        "/usr/bin/ssh",
        "/usr/sbin/dnsmasq",
        "/usr/bin/tcpdump",
        "/usr/sbin/ip",
        "/usr/bin/pkill",
    ],
    ["qemu-system-x86", "qemu-utils", "openssh-client", "dnsmasq-base", "tcpdump", "iproute2", "procps"],
);

/// What `ramet doctor --json` prints.
#[derive(Deserialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    ok: bool,
    required: bool,
    detail: String,
}

/// Finds out, and says why when it is the lab.
pub(crate) fn find(config: &Config, programs: &Programs) -> Result<Place> {
    match obstacle(config, programs)? {
        None => Ok(Place::Host),
        Some(why) => {
            eprintln!("xtask: real VMs cannot run on this machine ({why}), so they run in the lab");
            Ok(Place::Lab)
        }
    }
}

/// What keeps this machine from running real VMs. The cheap look comes first: it spares an installation.
fn obstacle(config: &Config, programs: &Programs) -> Result<Option<String>> {
    if has_no_virtualization()? {
        return Ok(Some("its CPU flags show neither vmx nor svm".into()));
    }
    let Some(ramet) = programs.named("ramet") else { return Ok(Some("ramet is not built".into())) };
    if let Err(error) = sys::need(&NEEDED.0, &NEEDED.1) {
        return Ok(Some(format!("{error:#}")));
    }
    // Not loaded by themselves everywhere. Where it fails, a device is missing and the doctor says so.
    for module in ["kvm_intel", "kvm_amd", "vhost_vsock", "tun"] {
        let _ = sys::as_root("modprobe").args(["--quiet", module]).stderr(Stdio::null()).status();
    }
    let step = Step::begin("asking ramet doctor about this machine");
    let mut doctor = sys::as_root(ramet);
    doctor.args(["doctor", "--json", "--state-dir"]).arg(config.target.join("doctor"));
    let output = doctor.stdin(Stdio::null()).output().context("cannot run ramet doctor")?;
    step.done();
    let report: Report = serde_json::from_slice(&output.stdout).context("ramet doctor printed no report")?;
    Ok(report.obstacle())
}

impl Report {
    fn obstacle(&self) -> Option<String> {
        if self.ok {
            return None;
        }
        let failed = self.checks.iter().find(|check| check.required && !check.ok);
        Some(
            failed
                .map_or_else(|| "it is not fit".into(), |check| format!("{}: {}", check.name, check.detail)),
        )
    }
}

/// Whether this machine's CPU leaves only the lab.
pub(crate) fn has_no_virtualization() -> Result<bool> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    Ok(!virtualizes(&cpuinfo))
}

fn virtualizes(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
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
    fn the_doctors_first_required_failure_is_the_obstacle() {
        let report = |ok| -> Report {
            let checks = r#"[{"name":"ssh","ok":false,"required":false,"detail":"none"},
                             {"name":"kvm","ok":false,"required":true,"detail":"no answer","fix":"enable it"}]"#;
            serde_json::from_str(&format!(r#"{{"ok":{ok},"checks":{checks}}}"#)).unwrap()
        };
        assert_eq!(report(false).obstacle().as_deref(), Some("kvm: no answer"));
        assert_eq!(report(true).obstacle(), None);
    }
}
