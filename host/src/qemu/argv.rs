//! QEMU's command line, as a pure function of what the VM is to be.
//!
//! A parent and its children must have the same devices in the same order, or the parent's device state does not
//! load. So both are built here and differ only in where RAM and network come from.

use super::files;
use crate::net::{NetSpec, tap_name};
use ramet_proto::MacAddr;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The file descriptor at which QEMU finds the open `/dev/vhost-vsock` that holds its CID.
pub const VHOST_FD: i32 = 4;

/// The id of the RAM block. It is in the device state, so it can never change.
const RAM: &str = "ram";

/// The id of the NIC's network, with which QEMU is told of its cable.
#[must_use]
pub fn net_id(nic: usize) -> String {
    format!("net{nic}")
}

/// What a VM's RAM is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ram {
    /// A file that receives every write: a parent's.
    Shared(PathBuf),
    /// A template's file, mapped privately and opened read-only: a child's.
    CopyOnWrite(PathBuf),
    /// Memory of its own: a child that was stopped and is started again.
    Anonymous,
}

/// How a VM begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the firmware's first instruction, at once.
    Boot,
    /// With device state to be loaded, then stopped.
    Incoming,
}

/// Whether a VM's NICs reach the network that they are meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cable {
    /// Like a child's.
    Plugged,
    /// Like a parent's: the same kind of backend, since it decides which offloads the guest's driver settles on, but
    /// connected to nothing.
    Unplugged,
}

/// Everything QEMU's command line depends on.
#[derive(Clone, Debug)]
pub struct Vm<'a> {
    /// Shown in the process list.
    pub name: &'a str,
    /// Machine type: `q35` for a parent, the versioned name it stands for in a child.
    pub machine: &'a str,
    /// Bytes of RAM.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Where RAM comes from.
    pub ram: Ram,
    /// How it begins.
    pub begin: Begin,
    /// NICs in order: the address after a reset, and the network.
    pub nics: &'a [(MacAddr, NetSpec)],
    /// Whether the NICs are connected.
    pub cable: Cable,
    /// The context id that the descriptor [`VHOST_FD`] holds.
    pub cid: u32,
}

impl Vm<'_> {
    /// The arguments, without the program.
    #[must_use]
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv = Argv::default();
        argv.pair("-name", format!("{},process=ramet/{}", self.name, self.name));
        argv.flags(&["-nodefaults", "-no-user-config", "-display none", "-vga none"]);
        argv.pair("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        self.machine(&mut argv);
        argv.pair("-pidfile", files::PID);
        argv.pair("-qmp", format!("unix:{},server=on,wait=off", files::QMP));
        argv.pair("-rtc", "base=utc");
        self.devices(&mut argv);
        if self.begin == Begin::Incoming {
            argv.flags(&["-S", "-incoming defer"]);
        }
        argv.0
    }

    fn machine(&self, argv: &mut Argv) {
        // HPET, VMware's port, SATA and SMBus would only cost the guest exits and drivers, and the state bytes. SMM makes
        // the BIOS read the disk through it, which costs a cold boot a third of its time; only UEFI with secure boot
        // needs it.
        let options =
            format!("accel=kvm,smm=off,vmport=off,hpet=off,sata=off,smbus=off,memory-backend={RAM}");
        argv.pair("-machine", format!("{},{options}", self.machine));
        argv.pair("-cpu", "host");
        argv.pair("-smp", self.cpus.to_string());
        argv.pair("-m", format!("{}B", self.memory));
        let (path, access) = match &self.ram {
            Ram::Anonymous => {
                return argv.pair("-object", format!("memory-backend-ram,id={RAM},size={}", self.memory));
            }
            Ram::Shared(path) => (path, "share=on"),
            Ram::CopyOnWrite(path) => (path, "share=off,readonly=on,rom=off"),
        };
        let mut object =
            OsString::from(format!("memory-backend-file,id={RAM},size={},{access},mem-path=", self.memory));
        object.push(escaped(path));
        argv.pair("-object", object);
    }

    fn devices(&self, argv: &mut Argv) {
        argv.pair("-device", "vmgenid,guid=auto");
        argv.pair(
            "-chardev",
            format!(
                "socket,id=console,path={},server=on,wait=off,logfile={},logappend=on",
                files::CONSOLE,
                files::CONSOLE_LOG
            ),
        );
        argv.pair("-serial", "chardev:console");
        argv.pair(
            "-blockdev",
            format!("qcow2,node-name=disk,discard=unmap,file.driver=file,file.filename={}", files::DISK),
        );
        argv.pair("-device", "virtio-blk-pci,drive=disk");
        argv.pair("-device", format!("vhost-vsock-pci,guest-cid={},vhostfd={VHOST_FD}", self.cid));
        for (index, (mac, net)) in self.nics.iter().enumerate() {
            let id = net_id(index);
            let tap = || format!("tap,id={id},ifname={},script=no,downscript=no", tap_name(self.cid, index));
            match (net, self.cable) {
                (NetSpec::User, Cable::Plugged) => argv.pair("-netdev", format!("user,id={id}")),
                (NetSpec::User, Cable::Unplugged) => {
                    argv.pair("-netdev", format!("user,id={id},restrict=on"));
                }
                // A TAP interface is connected by making it a port of the bridge, not here.
                (NetSpec::Bridge(_), _) => argv.pair("-netdev", tap()),
                (NetSpec::None, _) => argv.pair("-netdev", format!("hubport,id={id},hubid={index}")),
            }
            // Without a boot ROM: guests boot from their disk. Without guest_announce: a child has nothing to announce
            // when it is resumed, and QEMU 10.0 crashes at a guest's reset if it was told to announce zero times.
            argv.pair("-device", format!("virtio-net-pci,netdev={id},mac={mac},romfile=,guest_announce=off"));
        }
    }
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn pair(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }

    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().flat_map(|flag| flag.split(' ')).map(OsString::from));
    }
}

/// A path as the value of an option: a comma is written twice (qemu(1)).
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let bytes = path.as_os_str().as_bytes();
    OsString::from_vec(
        bytes.iter().flat_map(|&b| std::iter::repeat_n(b, if b == b',' { 2 } else { 1 })).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(ram: Ram, begin: Begin, cable: Cable) -> Vec<String> {
        let nics = [
            ("52:54:00:00:00:01".parse().unwrap(), NetSpec::User),
            ("52:54:00:00:00:02".parse().unwrap(), "bridge=br0".parse().unwrap()),
        ];
        let vm = Vm {
            name: "web-1",
            machine: "pc-q35-10.0",
            memory: 1 << 30,
            cpus: 2,
            ram,
            begin,
            nics: &nics,
            cable,
            cid: 0x1234,
        };
        vm.argv().into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    /// The guest-visible part: what the device state must fit.
    fn devices(argv: &[String]) -> Vec<&String> {
        argv.iter().zip(&argv[1..]).filter(|(flag, _)| *flag == "-device").map(|(_, value)| value).collect()
    }

    #[test]
    fn parent_and_child_have_the_same_devices_in_the_same_order() {
        let parent = argv(Ram::Shared("ram".into()), Begin::Boot, Cable::Unplugged);
        let child = argv(Ram::CopyOnWrite("/t/ram".into()), Begin::Incoming, Cable::Plugged);
        assert_eq!(devices(&parent), devices(&child));
        assert_eq!(devices(&child).len(), 5);
    }

    #[test]
    fn a_child_cannot_write_the_templates_ram() {
        let child = argv(Ram::CopyOnWrite("/a,b/ram".into()), Begin::Incoming, Cable::Plugged);
        assert!(child.contains(
            &"memory-backend-file,id=ram,size=1073741824,share=off,readonly=on,rom=off,mem-path=/a,,b/ram".to_owned()
        ));
        assert!(child.windows(2).any(|pair| pair == ["-incoming", "defer"]));
    }

    #[test]
    fn a_parent_reaches_no_network() {
        let parent = argv(Ram::Shared("ram".into()), Begin::Boot, Cable::Unplugged);
        assert!(parent.contains(&"user,id=net0,restrict=on".to_owned()));
        assert!(!parent.iter().any(|arg| arg.contains("br0")));
    }

    #[test]
    fn a_restarted_child_has_memory_of_its_own() {
        let child = argv(Ram::Anonymous, Begin::Boot, Cable::Plugged);
        assert!(child.contains(&"memory-backend-ram,id=ram,size=1073741824".to_owned()));
        assert!(!child.iter().any(|arg| arg.contains("mem-path")));
    }
}
