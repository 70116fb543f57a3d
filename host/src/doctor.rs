//! Whether this host can fork, found out by trying.

use crate::{
    admission::free_space,
    qemu::{QEMU, img::QEMU_IMG, version},
    vsock::{self, ReservedCid},
};
use serde::Serialize;
use std::{
    fs, io,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// Whether forking is impossible without it.
    pub required: bool,
    /// What was found.
    pub detail: String,
    /// What to do, if it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
}

/// Tries everything. Takes a second or two on a host where it works.
#[must_use]
pub fn examine(state_dir: &Path) -> Vec<Check> {
    let checks = [
        (
            "qemu",
            true,
            qemu(),
            "install QEMU 8.2 or newer (Debian 13, Ubuntu 24.04: apt install qemu-system-x86)",
        ),
        ("qemu-img", true, qemu_img(), "install it (Debian, Ubuntu: apt install qemu-utils)"),
        (
            "kvm",
            true,
            kvm(),
            "enable virtualization in the firmware (or nested virtualization in the hypervisor above), load \
                              kvm_intel or kvm_amd, and run as root or in the group kvm",
        ),
        (
            "vhost-vsock",
            true,
            vhost_vsock(),
            "load the module (modprobe vhost_vsock) and run as root or in the group kvm",
        ),
        (
            "vsock source port",
            true,
            source_port(),
            "run as root, or give ramet the capability (setcap cap_net_bind_service=ep)",
        ),
        (
            "state directory",
            true,
            state_directory(state_dir),
            "run as root, or choose a directory of yours with --state-dir",
        ),
        (
            "bridge networks",
            false,
            tap(),
            "run as root and load the module tun: needed for --net bridge=NAME only",
        ),
        (
            "ssh",
            false,
            program("ssh", "-V"),
            "install it (Debian, Ubuntu: apt install openssh-client): needed for ramet ssh only",
        ),
    ];
    let check = |(name, required, result, fix): (_, _, Result<String, String>, _)| match result {
        Ok(detail) => Check { name, ok: true, required, detail, fix: None },
        Err(detail) => Check { name, ok: false, required, detail, fix: Some(fix) },
    };
    checks.into_iter().map(check).collect()
}

/// The first line that a program prints when asked for its version.
fn program(program: &str, flag: &str) -> Result<String, String> {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{program} is not on PATH"),
        _ => format!("cannot run {program}: {error}"),
    })?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

fn qemu() -> Result<String, String> {
    let banner = program(QEMU, "--version")?;
    match version::QemuVersion::from_banner(&banner) {
        Some(found) if found >= version::OLDEST => Ok(found.to_string()),
        Some(found) => Err(format!("{found} is too old, {} or newer is needed", version::OLDEST)),
        None => Err(format!("{QEMU} does not tell its version but {banner:?}")),
    }
}

fn qemu_img() -> Result<String, String> {
    program(QEMU_IMG, "--version")
}

/// A boot sector that writes 0x10 to the port of QEMU's isa-debug-exit: `mov dx,0xf4; mov al,0x10; out dx,al; hlt`.
const BOOT_CODE: [u8; 9] = [0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, 0xf4, 0xeb, 0xfd];
/// QEMU's exit status then: the value doubled, plus one.
const EXIT_STATUS: i32 = 0x10 * 2 + 1;
/// A guest of one sector ends in far less than a second, nested in an emulated host in a few.
const TRIAL: Duration = Duration::from_secs(30);

/// Runs a guest. `/dev/kvm` alone proves nothing: on a host without the CPU's extensions it may be there and not work.
fn kvm() -> Result<String, String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let extension = flags.split_whitespace().find(|flag| matches!(*flag, "vmx" | "svm"));
    let extension = extension.ok_or("the CPU shows neither vmx nor svm")?;
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    let trial = || -> io::Result<Result<String, String>> {
        let dir = TempDir::new()?;
        let disk = dir.path().join("boot");
        // SeaBIOS boots no smaller virtio disk.
        let mut image = vec![0; 1 << 20];
        image[..BOOT_CODE.len()].copy_from_slice(&BOOT_CODE);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&disk, image)?;
        let begin = Instant::now();
        let mut qemu = Command::new(QEMU)
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-m", "32"])
            .args(["-machine", "q35,accel=kvm", "-cpu", "host"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-device", "virtio-blk-pci,drive=boot", "-drive"])
            .arg(format!("if=none,id=boot,format=raw,readonly=on,file={}", disk.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        while begin.elapsed() < TRIAL {
            match qemu.try_wait()? {
                Some(status) if status.code() == Some(EXIT_STATUS) => {
                    let took = begin.elapsed().as_millis();
                    return Ok(Ok(format!("{extension}; a guest of one sector ran in {took} ms")));
                }
                Some(status) => {
                    return Ok(Err(format!("QEMU could not run a guest of one sector ({status})")));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        qemu.kill()?;
        qemu.wait()?;
        Ok(Err(format!("a guest of one sector did not run within {} s", TRIAL.as_secs())))
    };
    trial().unwrap_or_else(|error| Err(format!("a guest of one sector could not be tried: {error}")))
}

fn vhost_vsock() -> Result<String, String> {
    ReservedCid::take().map(|_| "context ids are to be had".to_owned()).map_err(|error| crate::chain(&error))
}

fn source_port() -> Result<String, String> {
    vsock::check_source_port()
        .map(|()| "guests can be dialled".to_owned())
        .map_err(|error| crate::chain(&error))
}

fn state_directory(path: &Path) -> Result<String, String> {
    let state = crate::state::StateDir::open(path).map_err(|error| crate::chain(&error))?;
    tempfile::tempfile_in(state.root())
        .map_err(|error| format!("cannot write to {}: {error}", path.display()))?;
    let free =
        free_space(state.root()).map_or_else(String::new, |bytes| format!(", {} MiB free", bytes >> 20));
    Ok(format!("{}{free}", state.root().display()))
}

fn tap() -> Result<String, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".to_owned());
    }
    let open = fs::File::options().read(true).write(true).open("/dev/net/tun");
    open.map(|_| "TAP interfaces are to be had".to_owned()).map_err(|error| format!("/dev/net/tun: {error}"))
}
