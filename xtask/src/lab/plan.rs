//! QEMU's command line for the lab. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

/// Never more than a lab has use for.
const MOST_MIB: u64 = 8192;

/// Everything that QEMU is told. Paths are as the tools see them.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) memory_mib: u64,
    /// Holds `vmlinuz` and `initrd.img`.
    pub(crate) boot: PathBuf,
    /// Holds `disk.qcow2`, gets `serial.log` and `pid`.
    pub(crate) state: PathBuf,
    /// Shared read-only as /binaries.
    pub(crate) programs: PathBuf,
    /// Shared read-only as /artifacts.
    pub(crate) artifacts: PathBuf,
    /// On 127.0.0.1, forwarded to the lab's sshd.
    pub(crate) port: u16,
}

impl Plan {
    /// Arguments of `qemu-system-x86_64`.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let state = self.state.display();
        let share = |path: &PathBuf, tag: &str| {
            // One cache holds files of several file systems only if somebody mounted one there; remap keeps inodes apart.
            format!(
                "local,path={},mount_tag={tag},security_model=none,readonly=on,multidevs=remap",
                path.display()
            )
        };
        let pairs = [
            ("-name", "ramet-lab".into()),
            ("-machine", "q35".into()),
            // SVM with nested paging is what TCG can emulate, on any CPU.
            ("-accel", "tcg,thread=multi".into()),
            ("-cpu", format!("max,+svm,{}", CPU_WITHOUT.map(|feature| format!("-{feature}")).join(","))),
            // One CPU. With two, about one nested guest in 25 went wrong: it ran on with its host's registers, or its
            // QEMU did with the guest's. With one, none of 33 did.
            ("-smp", "1".into()),
            ("-m", format!("{}M", self.memory_mib)),
            ("-kernel", self.boot.join("vmlinuz").display().to_string()),
            ("-initrd", self.boot.join("initrd.img").display().to_string()),
            ("-append", APPEND.into()),
            // Lost with the outer machine's power, and then made again.
            (
                "-drive",
                format!("file={state}/disk.qcow2,format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"),
            ),
            ("-device", "virtio-blk-pci,drive=disk".into()),
            ("-netdev", format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.port)),
            ("-device", "virtio-net-pci,netdev=net,romfile=".into()),
            ("-device", "virtio-rng-pci".into()),
            ("-virtfs", share(&self.artifacts, "artifacts")),
            ("-virtfs", share(&self.programs, "binaries")),
            ("-serial", format!("file:{state}/serial.log")),
            ("-display", "none".into()),
            ("-pidfile", format!("{state}/pid")),
        ];
        let switches = ["-nodefaults", "-no-user-config", "-daemonize"].map(OsString::from);
        let pairs = pairs.into_iter().flat_map(|(option, value)| [option.into(), value.into()]);
        switches.into_iter().chain(pairs).collect()
    }
}

/// What TCG emulates at a price, so that neither the lab nor its guests are to use it:
const CPU_WITHOUT: [&str; 19] = [
    // a fifth level of page tables, twice over with nested paging;
    "la57",
    // "fast" string instructions, which take as long for a byte as others do for eight;
    "erms",
    "fsrm",
    // a second TLB for the kernel's accesses to user memory;
    "smap",
    // registers to save at each switch and each exit of a guest;
    "pku",
    "mpx",
    "xsave",
    "xsaveopt",
    "xgetbv1",
    "xsaveerptr",
    "avx",
    "avx2",
    "f16c",
    "fma",
    // ciphers and checksums, whose modules test themselves when udev loads them.
    "aes",
    "vaes",
    "pclmulqdq",
    "vpclmulqdq",
    "sha-ni",
];

/// The lab is no boundary: what guards against side channels and the like only costs emulated instructions. Its timer ticks
/// and is not set anew for each tick and for each of its guests' ticks, each of which would be an exit. Its guests are not
/// to load KVM in turn. Its disk is lost with the outer machine's power anyway, so it is written when somebody syncs or
/// memory runs short: a parent's RAM is a file, and each time that is written, every page of it costs the parent an exit
/// more.
const APPEND: &str = "root=/dev/vda rootflags=noatime rw console=ttyS0 quiet mitigations=off audit=0 apparmor=0 \
                      random.trust_cpu=on systemd.firstboot=off nohz=off highres=off \
                      kvm.halt_poll_ns=0 kvm_amd.nested=0 \
                      sysctl.vm.dirty_writeback_centisecs=0 sysctl.vm.dirty_background_ratio=50 \
                      sysctl.vm.dirty_ratio=70";

/// Half of the machine's memory, in MiB, up to what a lab has use for. `meminfo` is as in `proc_meminfo(5)`.
pub(crate) fn memory_mib(meminfo: &str) -> u64 {
    mib_of(meminfo, "MemTotal:").map_or(MOST_MIB / 2, |total| (total / 2).min(MOST_MIB))
}

/// Whether two labs can run side by side: one has a single CPU and fills its memory with its guests' files.
pub(crate) fn two_fit(meminfo: &str, cpus: usize) -> bool {
    let for_the_rest = 2048;
    cpus >= 2 && mib_of(meminfo, "MemAvailable:").is_some_and(|mib| mib >= 2 * MOST_MIB + for_the_rest)
}

fn mib_of(meminfo: &str, field: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_half_and_at_most_8_gib() {
        assert_eq!(memory_mib("MemTotal:        8388608 kB\nMemFree: 1 kB\n"), 4096);
        assert_eq!(memory_mib("MemTotal:       65000000 kB\n"), 8192);
        assert_eq!(memory_mib(""), 4096);
    }

    #[test]
    fn two_labs_want_two_cpus_and_room_for_both() {
        let enough = "MemTotal: 25165824 kB\nMemAvailable:   18874368 kB\n";
        assert!(two_fit(enough, 2));
        assert!(!two_fit(enough, 1));
        assert!(!two_fit("MemTotal: 25165824 kB\nMemAvailable:   18874367 kB\n", 8));
        assert!(!two_fit("", 8));
    }

    #[test]
    fn arguments_hold_the_plan() {
        let plan = Plan {
            memory_mib: 1000,
            boot: "/b".into(),
            state: "/s".into(),
            programs: "/p".into(),
            artifacts: "/a".into(),
            port: 4022,
        };
        let line = plan.arguments().join(std::ffi::OsStr::new(" ")).into_string().expect("UTF-8");
        for part in [
            "-smp 1 -m 1000M",
            "-kernel /b/vmlinuz -initrd /b/initrd.img",
            "file=/s/disk.qcow2,",
            "hostfwd=tcp:127.0.0.1:4022-:22",
            "path=/a,mount_tag=artifacts,security_model=none,readonly=on",
            "path=/p,mount_tag=binaries,security_model=none,readonly=on",
            "-pidfile /s/pid",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
