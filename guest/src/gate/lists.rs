//! What is known of units by their names. A trailing `*` stands for anything.

/// Units that let somebody in, or send something with an identity. Those of them that start early are held all the
/// same; naming one in `before_gate` is what the doctor warns of.
pub(super) const WAYS_IN: &[&str] = &[
    // Consoles.
    "agetty*",
    "autovt@*",
    "console-getty",
    "container-getty@*",
    "debug-shell*",
    "emergency*",
    "friendly-recovery*",
    "getty*",
    "initial-setup*",
    "kmscon*",
    "rescue*",
    "serial-getty@*",
    // Sessions.
    "display-manager",
    "gdm*",
    "greetd",
    "lightdm",
    "lxdm",
    "ly",
    "sddm",
    "systemd-user-sessions",
    "user@*",
    "xdm",
    "xrdp*",
    // Remote logins, and disks offered to others.
    "cockpit*",
    "dropbear*",
    "ssh*",
    "systemd-storagetm",
    "telnet*",
    // Networks, and what waits for them, which would keep a template from being settled.
    "NetworkManager*",
    "avahi-*",
    "connman*",
    "dhclient*",
    "dhcpcd*",
    "ifup@*",
    "ifupdown-wait-online",
    "iwd",
    "netplan-*",
    "networking",
    "nm-*",
    "systemd-networkd*",
    "systemd-time-wait-sync",
    "wicked*",
    "wpa_supplicant*",
    // Identities that others know, and disks that are reached by one. dbus-broker is told the machine-id as it starts.
    "dbus-broker*",
    "iscsi*",
    "nfs-*",
    "nmb*",
    "nslcd",
    "nvmefc-*",
    "nvmf-*",
    "open-iscsi*",
    "rpc-*",
    "rpcbind*",
    "samba*",
    "smb*",
    "sssd*",
    "winbind*",
    // Programs of others.
    "afterburn*",
    "amazon-*",
    "anacron*",
    "atd",
    "cloud-*",
    "coreos-*",
    "cron*",
    "google-*",
    "hv-*",
    "hyperv*",
    "ignition*",
    "incus-agent*",
    "lxd-agent*",
    "open-vm-tools*",
    "qemu-guest-agent*",
    "qemu-ga*",
    "rc-local",
    "vgauth*",
    "vmtoolsd*",
    "waagent*",
    "walinuxagent*",
];

/// Early units that are known to be harmless: they prepare disks, devices, the kernel and the console, or end the
/// machine. Only the doctor asks.
pub(super) const HARMLESS: &[&str] = &[
    "alsa-*",
    "apparmor*",
    "audit*",
    "auth-rpcgss-module",
    "blk-availability",
    "bootc-*",
    "btrfs*",
    "clevis*",
    "cryptdisks*",
    "dm-event*",
    "dracut-*",
    "ebtables",
    "finalrd",
    "fwupd-offline-update",
    "grub2-*",
    "haveged*",
    "hwclock*",
    "ifupdown-pre",
    "import-state",
    "initrd-*",
    "ip6tables*",
    "iptables*",
    "keyboard-setup",
    "kmod*",
    "ldconfig",
    "loadmodules",
    "lvm*",
    "mdadm*",
    "mdcheck*",
    "mdmon*",
    "modprobe@*",
    "multipath*",
    "netfilter-persistent",
    "nis-domainname",
    "nftables",
    "ostree-*",
    "packagekit-offline-update",
    "pam_namespace",
    "plymouth-*",
    "procps*",
    "quota*",
    "ramet-links",
    "resolvconf*",
    "rngd*",
    "selinux-*",
    "snapd.apparmor",
    "system-update-cleanup",
    "systemd-*",
    "udev*",
    "ufw",
    "zfs-*",
    "zvol*",
];

/// Early units that other generators or udev make, so that the generator cannot see their files. A name that ends in
/// `-` is a prefix (systemd.unit(5)).
pub(super) const MADE_LATER: &[&str] = &[
    "lvm-activate-.service",
    "lvm2-activation-early.service",
    "lvm2-activation-net.service",
    "lvm2-activation.service",
    "systemd-cryptsetup@.service",
    "systemd-fsck-root.service",
    "systemd-fsck-usr.service",
    "systemd-fsck@.service",
    "systemd-growfs-root.service",
    "systemd-growfs@.service",
    "systemd-hibernate-resume.service",
    "systemd-hibernate-resume@.service",
    "systemd-integritysetup@.service",
    "systemd-makefs@.service",
    "systemd-mkswap@.service",
    "systemd-pcrfs@.service",
    "systemd-validatefs@.service",
    "systemd-veritysetup@.service",
    "zfs-load-key-.service",
    "zfs-load-key@.service",
];

/// Whether `unit` is on `list`.
pub(super) fn has(list: &[&str], unit: &str) -> bool {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(start) => stem.starts_with(start),
        None => stem == *entry,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        for unit in
            ["getty@.service", "ssh.socket", "sshd@.service", "systemd-networkd.service", "rescue.service"]
        {
            assert!(has(WAYS_IN, unit), "{unit}");
        }
        for unit in
            ["systemd-network-generator.service", "systemd-udevd.service", "atdata.service", "dbus.service"]
        {
            assert!(!has(WAYS_IN, unit), "{unit}");
        }
        assert!(MADE_LATER.iter().all(|unit| has(HARMLESS, unit) && !has(WAYS_IN, unit)));
    }
}
