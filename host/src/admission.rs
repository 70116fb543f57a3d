//! Whether a fork or a template can work on this host now, found out before anything is made.

use crate::{
    net::{NetError, NetSpec, check_bridge},
    template::Template,
    vsock,
};
use serde::{Deserialize, Serialize};
use std::{fs::File, io, path::Path};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

const MIB: u64 = 1 << 20;

/// What a child is expected to need of the host's memory beside what it shares: QEMU itself, and what it writes until
/// it is idle. Measured figures are in docs/benchmarks.md.
const CHILD_MEMORY: u64 = 96 * MIB;

/// What a child is expected to write to its overlay until it is idle.
const CHILD_DISK: u64 = 64 * MIB;

/// The CPU as the guest sees it with `-cpu host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// `GenuineIntel`, `AuthenticAMD`, ...
    pub vendor: String,
    /// The model's name.
    pub model: String,
    /// Features, sorted (`flags` in /proc/cpuinfo).
    pub flags: Vec<String>,
}

/// Why something cannot work here and now.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// No hardware virtualization.
    #[error(
        "cannot open /dev/kvm: enable virtualization in the firmware, load kvm_intel or kvm_amd, and run as root \
             or in the group kvm (ramet doctor says more)"
    )]
    Kvm(#[source] io::Error),
    /// No vsock for guests.
    #[error(
        "cannot open {}: load the module (modprobe vhost_vsock) and run as root or in the group kvm",
        vsock::DEVICE
    )]
    Vsock(#[source] io::Error),
    /// Not enough memory.
    #[error("too little memory: {what} needs about {} MiB, {} MiB are available", .needed / MIB, .available / MIB)]
    Memory {
        /// For what.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        available: u64,
    },
    /// Not enough disk.
    #[error("too little disk: {what} needs about {} MiB in {dir}, {} MiB are free", .needed / MIB, .available / MIB)]
    Disk {
        /// For what.
        what: String,
        /// Where.
        dir: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        available: u64,
    },
    /// Another CPU.
    #[error("the template was made on another CPU ({}, {}) than this host's ({}, {}): create it again here",
            .theirs.vendor, .theirs.model, .ours.vendor, .ours.model)]
    Cpu {
        /// The template's.
        theirs: Box<CpuModel>,
        /// This host's.
        ours: Box<CpuModel>,
    },
    /// A CPU without features that the template's guest has found.
    #[error("this host's CPU lacks what the template's guest uses: {0}; create the template again here")]
    CpuFlags(String),
    /// /proc/cpuinfo cannot be read.
    #[error("cannot tell this host's CPU from /proc/cpuinfo: {0}")]
    CpuUnknown(String),
    /// A network is missing.
    #[error(transparent)]
    Net(#[from] NetError),
}

impl CpuModel {
    /// This host's.
    pub fn of_this_host() -> Result<Self, AdmissionError> {
        use procfs::Current as _;
        let unknown = |error: String| AdmissionError::CpuUnknown(error);
        let info = procfs::CpuInfo::current().map_err(|error| unknown(error.to_string()))?;
        let field = |key: &str| {
            info.get_field(0, key).map(str::to_owned).ok_or_else(|| unknown(format!("it has no {key}")))
        };
        let mut flags: Vec<String> = field("flags")?.split_whitespace().map(str::to_owned).collect();
        flags.sort();
        Ok(Self { vendor: field("vendor_id")?, model: field("model name")?, flags })
    }

    /// Whether a guest suspended on a CPU `self` can go on on a CPU `host`. With `-cpu host` the guest has found every
    /// feature of its CPU and may use any, so none may be missing.
    pub fn check(&self, host: &Self) -> Result<(), AdmissionError> {
        if (&self.vendor, &self.model) != (&host.vendor, &host.model) {
            return Err(AdmissionError::Cpu { theirs: Box::new(self.clone()), ours: Box::new(host.clone()) });
        }
        let missing: Vec<&str> =
            self.flags.iter().filter(|flag| !host.flags.contains(flag)).map(String::as_str).collect();
        if missing.is_empty() { Ok(()) } else { Err(AdmissionError::CpuFlags(missing.join(" "))) }
    }
}

/// Fails unless KVM and vsock can be used.
pub fn check_devices() -> Result<(), AdmissionError> {
    let open = |path: &str| File::options().read(true).write(true).open(path);
    open("/dev/kvm").map_err(AdmissionError::Kvm)?;
    open(vsock::DEVICE).map_err(AdmissionError::Vsock)?;
    Ok(())
}

/// Fails unless `count` children of `template` can be forked into `dir` now.
pub fn check_fork(template: &Template, count: u64, dir: &Path) -> Result<(), AdmissionError> {
    let manifest = &template.manifest;
    check_devices()?;
    manifest.cpu.check(&CpuModel::of_this_host()?)?;
    for nic in &manifest.nics {
        if let NetSpec::Bridge(bridge) = &nic.net {
            check_bridge(bridge)?;
        }
    }
    let what = format!("forking {count} of {}", template.name);
    check_memory(&what, count * CHILD_MEMORY.min(manifest.memory))?;
    check_disk(&what, count * CHILD_DISK, dir)
}

/// Fails unless a parent with `memory` bytes of RAM and a disk of `disk` bytes fits into `dir`.
pub fn check_create(memory: u64, disk: u64, dir: &Path) -> Result<(), AdmissionError> {
    check_devices()?;
    check_memory("the parent", memory)?;
    check_disk("the template", memory + disk, dir)
}

/// Fails unless `needed` bytes of memory are available.
pub fn check_memory(what: &str, needed: u64) -> Result<(), AdmissionError> {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    match System::new_with_specifics(memory).map(|system| system.available_memory()) {
        Ok(available) if available < needed => {
            Err(AdmissionError::Memory { what: what.to_owned(), needed, available })
        }
        // What cannot be told is found out when it is used.
        _ => Ok(()),
    }
}

/// Fails unless `needed` bytes are free where `dir` is.
pub fn check_disk(what: &str, needed: u64, dir: &Path) -> Result<(), AdmissionError> {
    match free_space(dir) {
        Some(available) if available < needed => Err(AdmissionError::Disk {
            what: what.to_owned(),
            dir: dir.display().to_string(),
            needed,
            available,
        }),
        // What cannot be told is found out when it is written.
        _ => Ok(()),
    }
}

/// Bytes free on the file system that holds `dir`, for this user (statvfs(3)). Not sysinfo's list of disks, which
/// leaves out tmpfs and network file systems.
#[must_use]
pub fn free_space(dir: &Path) -> Option<u64> {
    let file_system = nix::sys::statvfs::statvfs(dir).ok()?;
    file_system.blocks_available().checked_mul(file_system.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(model: &str, flags: &[&str]) -> CpuModel {
        CpuModel {
            vendor: "AuthenticAMD".into(),
            model: model.into(),
            flags: flags.iter().map(|&flag| flag.into()).collect(),
        }
    }

    #[test]
    fn a_cpu_may_have_more_but_not_less() {
        let template = cpu("EPYC", &["avx2", "svm"]);
        assert!(template.check(&cpu("EPYC", &["avx2", "avx512f", "svm"])).is_ok());
        let error = template.check(&cpu("EPYC", &["svm"])).unwrap_err();
        assert!(error.to_string().contains("lacks what the template's guest uses: avx2"), "{error}");
        let error = template.check(&cpu("Ryzen", &["avx2", "svm"])).unwrap_err();
        assert!(error.to_string().contains("EPYC"), "{error}");
    }

    #[test]
    fn this_hosts_cpu_is_known() {
        let here = CpuModel::of_this_host().unwrap();
        assert!(!here.flags.is_empty());
        here.check(&here).unwrap();
    }

    #[test]
    fn too_little_says_how_much() {
        let error = check_memory("this", u64::MAX).unwrap_err();
        assert!(error.to_string().starts_with("too little memory: this needs about"), "{error}");
        let dir = std::env::temp_dir();
        if free_space(&dir).is_some() {
            let error = check_disk("this", u64::MAX, &dir).unwrap_err();
            assert!(error.to_string().starts_with("too little disk"), "{error}");
        }
        check_memory("this", 1).unwrap();
    }
}
