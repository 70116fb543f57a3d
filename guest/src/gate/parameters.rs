//! What a parameter of the kernel's command line does to the gate, or to an identity (kernel-command-line(7),
//! bootparam(7), dracut.cmdline(7), initramfs-tools(7), systemd-network-generator(8)).

use super::credentials;
use crate::{boot, ini::boolean};
use ramet_proto::message::Grade;

/// How bad a parameter is, and why, if it is any of that.
pub(super) fn effect(word: &str) -> Option<(Grade, String)> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    // The kernel takes either character.
    let key = key.replace('_', "-");
    let told = ways_in(&key, value).or_else(|| identity(&key, value)).or_else(|| network(&key, value));
    told.map(|(grade, why)| (grade, why.to_owned())).or_else(|| named(&key, value))
}

type Effect = Option<(Grade, &'static str)>;

/// Shells before the gate, or beside it.
fn ways_in(key: &str, value: &str) -> Effect {
    let off = boolean(value) == Some(false);
    match key {
        "init" if !matches!(value, "/sbin/init" | "/lib/systemd/systemd" | "/usr/lib/systemd/systemd") => {
            Some((Grade::Open, "another program runs in place of systemd, without a gate"))
        }
        "rdinit" | "rd.break" | "rd.systemd.break" => {
            Some((Grade::Open, "it gives a shell before systemd is there"))
        }
        "break" | "rd.shell" if !off => Some((Grade::Open, "it may give a shell before systemd is there")),
        "rd.systemd.debug-shell" if !off => {
            Some((Grade::Open, "it gives a shell in the initrd, which may outlive it"))
        }
        "rd.systemd.unit" | "rd.emergency"
            if !matches!(value, "initrd.target" | "reboot" | "poweroff" | "halt") =>
        {
            Some((Grade::Open, "the initrd may end in a shell before systemd is there"))
        }
        "systemd.break" => Some((
            Grade::Open,
            "a shell of root's, without a password, stands in the way of boot once the gate is open",
        )),
        "systemd.crash-shell" if !off => {
            Some((Grade::Open, "if systemd crashes there is a shell of root's, gate or not"))
        }
        "systemd.mask" if value == boot::UNIT => Some((Grade::Broken, "nothing that waits will ever start")),
        "systemd.unit" | "rescue" | "emergency" | "single" | "s" | "S" | "1" => {
            Some((Grade::Note, "it boots to another target; shells there wait at the gate"))
        }
        "systemd.debug-shell" if !off => Some((Grade::Note, "its shell waits at the gate, then is root's")),
        "systemd.confirm-spawn" if !off => {
            Some((Grade::Broken, "systemd asks at the console before it starts the agent"))
        }
        _ => None,
    }
}

/// Who the machine is, said anew at each boot.
fn identity(key: &str, value: &str) -> Effect {
    match key {
        "systemd.machine-id" if value == "firmware" => Some((
            Grade::Fatal,
            "the machine-id is the firmware's UUID at each boot: no child keeps its own after a reboot",
        )),
        "ds" | "ci.ds" | "ci.datasource" | "cc" | "cloud-config-url" => Some((
            Grade::Broken,
            "cloud-init is told where an identity is, and that goes before the child's own",
        )),
        _ => None,
    }
}

/// Links that are up, or have an address, before the gate or after a reboot.
fn network(key: &str, value: &str) -> Effect {
    match key {
        "ip" if value.starts_with(|c: char| c.is_ascii_digit()) || value.starts_with('[') => Some((
            Grade::Broken,
            "every child would have this address, and what else it says, after a reboot, before the gate too",
        )),
        "ip" if !matches!(value, "off" | "none" | "") => {
            Some((Grade::Note, "the initrd brings links up at each boot, before the gate"))
        }
        "rd.neednet" if boolean(value) == Some(true) => {
            Some((Grade::Note, "the initrd brings links up at each boot, before the gate"))
        }
        "ifname" | "BOOTIF" => {
            Some((Grade::Broken, "it knows a link by the template's address, which no child's has"))
        }
        "bond" | "bridge" | "team" | "vlan" => Some((
            Grade::Note,
            "it makes a device of its own at each boot, in the initrd too; systemd-networkd waits at the gate for that",
        )),
        "netconsole" => {
            Some((Grade::Open, "the kernel itself sends, with the template's address, before the gate"))
        }
        "netroot" | "nfsroot" | "iscsi-initiator" => Some((Grade::Fatal, ROOT_FAR_AWAY)),
        "root"
            if value == "/dev/nfs"
                || ["nfs", "iscsi:", "nbd:", "cifs:", "fcoe:", "live:http", "ceph"]
                    .iter()
                    .any(|start| value.starts_with(start)) =>
        {
            Some((Grade::Fatal, ROOT_FAR_AWAY))
        }
        _ => None,
    }
}

const ROOT_FAR_AWAY: &str = "the root is reached over a network, which a template has to be without";

/// What has its value in the answer.
fn named(key: &str, value: &str) -> Option<(Grade, String)> {
    match key {
        "systemd.hostname" | "systemd.machine-id" if !value.is_empty() => {
            Some((Grade::Fatal, format!("every child would be {value} again after a reboot")))
        }
        "systemd.set-credential" | "systemd.set-credential-binary" => {
            let (name, text) = value.split_once(':').unwrap_or((value, ""));
            let text = Some(text).filter(|t| key == "systemd.set-credential" && !t.is_empty());
            credentials::effect(name, text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_bad_each_is() {
        let table: &[(Grade, &[&str])] = &[
            (
                Grade::Fatal,
                &[
                    "systemd.hostname=golden",
                    "systemd.machine_id=0123456789abcdef0123456789abcdef",
                    "systemd.machine_id=firmware",
                    "systemd.set_credential=system.hostname:golden",
                    "systemd.set_credential=system.machine_id:0123456789abcdef0123456789abcdef",
                    "systemd.set_credential_binary=system.hostname:Z29sZGVu",
                    "root=/dev/nfs",
                    "root=nfs:192.0.2.1:/x",
                    "netroot=iscsi:192.0.2.1::::iqn.x",
                ],
            ),
            (
                Grade::Open,
                &[
                    "init=/bin/sh",
                    "rdinit=/bin/sh",
                    "rd.break",
                    "rd.break=pre-mount",
                    "rd.shell",
                    "break=premount",
                    "systemd.break",
                    "systemd.break=pre-basic",
                    "rd.systemd.break=pre-mount",
                    "rd.systemd.debug_shell",
                    "rd.systemd.debug-shell=1",
                    "rd.systemd.unit=emergency.target",
                    "rd.emergency",
                    "systemd.crash_shell",
                    "systemd.crash_shell=yes",
                    "netconsole=@192.0.2.9/ens2,@192.0.2.1/",
                    "systemd.set_credential=login.noauth:yes",
                    "systemd.set_credential=systemd.unit-dropin.ramet-agent.service:x",
                ],
            ),
            (
                Grade::Broken,
                &[
                    "systemd.mask=ramet-agent.service",
                    "ip=192.0.2.9::192.0.2.1:255.255.255.0:golden:ens2:none",
                    "ip=[2001:db8::1]::[2001:db8::2]:64:golden:ens2:none",
                    "ifname=lan:52:54:00:12:34:56",
                    "ds=nocloud;s=http://192.0.2.1/",
                    "ds=nocloud-net",
                ],
            ),
            (
                Grade::Note,
                &[
                    "systemd.unit=rescue.target",
                    "single",
                    "systemd.debug_shell",
                    "ip=dhcp",
                    "rd.neednet=1",
                    "bond=bond0:ens2,ens3",
                    "vlan=v:ens2",
                ],
            ),
        ];
        for (grade, words) in table {
            for word in *words {
                assert_eq!(effect(word).map(|(grade, _)| grade), Some(*grade), "{word}");
            }
        }
        for word in [
            "quiet",
            "root=PARTUUID=1",
            "init=/sbin/init",
            "rd.shell=0",
            "systemd.crash_shell=no",
            "rd.emergency=poweroff",
            "ip=off",
            "net.ifnames=0",
            "systemd.mask=other.service",
            "console=ttyS0",
        ] {
            assert_eq!(effect(word), None, "{word}");
        }
        assert_eq!(
            effect("systemd.hostname=golden").unwrap().1,
            "every child would be golden again after a reboot"
        );
    }
}
