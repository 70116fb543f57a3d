//! What is known of units by their names, and why. A trailing `*` stands for anything.

/// Units that have something in common.
pub(super) struct Group {
    /// Why they are on their list.
    pub(super) why: &'static str,
    /// Their names, without type.
    pub(super) names: &'static [&'static str],
}

/// Units that let somebody in, or that know who they are on. Those of them that start early are held all the same; naming
/// one in `before_gate` is what the doctor warns of.
pub(super) const WAYS_IN: &[Group] = &[
    Group {
        why: "it is a console, where somebody logs in or is root without",
        names: &[
            "agetty*",
            "autovt@*",
            "breakpoint-*",
            "console-getty",
            "console-shell",
            "container-getty@*",
            "debug-shell*",
            "dracut-emergency",
            "dracut-shell*",
            "emergency*",
            "friendly-recovery*",
            "getty*",
            "initial-setup*",
            "kmscon*",
            "rescue*",
            "serial-getty@*",
            "systemd-homed-firstboot",
            "systemd-sysinstall*",
        ],
    },
    Group {
        why: "it is somebody's session, or lets one begin",
        names: &[
            "capsule@*",
            "display-manager",
            "gdm*",
            "greetd",
            "lightdm",
            "lxdm",
            "ly",
            "ly@*",
            "nodm",
            "sddm",
            "systemd-user-sessions",
            "user@*",
            "xdm",
            "xrdp*",
        ],
    },
    Group {
        why: "it lets somebody in, or at a disk, over a network",
        names: &[
            "cockpit*",
            "dropbear*",
            "nbd-server*",
            "ssh*",
            "systemd-journal-gatewayd*",
            "systemd-journal-remote*",
            "systemd-journal-upload*",
            "systemd-storagetm",
            "target*",
            "telnet*",
            "tinyssh*",
        ],
    },
    Group {
        why: "it brings links up, or waits for them to be",
        names: &[
            "NetworkManager*",
            "avahi-*",
            "bluetooth*",
            "connman*",
            "dhclient*",
            "dhcpcd*",
            "ifup@*",
            "ifupdown-wait-online",
            "ifupdown2*",
            "iwd*",
            "iwpmd",
            "netplan-*",
            "netscript*",
            "network",
            "networking",
            "nm-*",
            "openvpn*",
            "ovn-*",
            "ovs-*",
            "ovsdb-server*",
            "openvswitch*",
            "rdma-ndd",
            "systemd-networkd*",
            "systemd-time-wait-sync",
            "tailscaled",
            "wg-quick@*",
            "wicked*",
            "wpa_supplicant*",
        ],
    },
    Group {
        why: "others know it by an identity, or it reaches a disk by one",
        names: &[
            "dbus-broker*",
            "iscsi*",
            "mdmonitor*",
            "nbd@*",
            "nfs-*",
            "nfsdcld",
            "nmb*",
            "nslcd",
            "nvmf-*",
            "open-iscsi*",
            "rpc-*",
            "rpcbind*",
            "samba*",
            "smb*",
            "sssd*",
            "systemd-hostnamed*",
            "systemd-journald@*",
            "systemd-machined*",
            "winbind*",
            "ypbind*",
        ],
    },
    Group {
        why: "it writes this machine's name or id down as it starts",
        names: &[
            "audit-rules",
            "auditd",
            "fapolicyd",
            "kdump*",
            "rsyslog",
            "syslog*",
            "systemd-journalctl*",
            "systemd-machine-tag@*",
            "systemd-report*",
        ],
    },
    Group {
        why: "it does what others tell it, or what its maker knows",
        names: &[
            "afterburn*",
            "amazon-*",
            "anacron*",
            "atd",
            "brltty*",
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
        ],
    },
];

/// Early units that are let go, each name in full: what is not here waits, unless the gate could not be reached without.
/// systemd's own are those of its releases 252 to 262.
pub(super) const HARMLESS: &[Group] = &[
    Group {
        why: "it finds devices and loads their drivers",
        names: &[
            "ifupdown-pre",
            "kmod",
            "kmod-static-nodes",
            "loadmodules",
            "modprobe@",
            "rdma-load-modules@",
            "systemd-modules-load",
            "systemd-hwdb-update",
            "systemd-udev-load-credentials",
            "systemd-udev-settle",
            "systemd-udev-trigger",
            "systemd-udevd",
            "udev",
        ],
    },
    Group {
        why: "it makes disks and file systems usable",
        names: &[
            "bcache",
            "blk-availability",
            "boot-sysctl",
            "btrfs-scan",
            "clevis-luks-askpass",
            "clevis-luks-pkcs11-askpass",
            "cryptdisks",
            "cryptdisks-early",
            "dm-event",
            "lvm-activate-",
            "lvm2-activation",
            "lvm2-activation-early",
            "lvm2-activation-net",
            "lvm2-lvmpolld",
            "lvm2-monitor",
            "lvm2-pvscan@",
            "mdadm-grow-continue@",
            "mdadm-last-resort@",
            "mdadm-shutdown",
            "mdadm-waitidle",
            "mdmon@",
            "multipathd",
            "nvmefc-boot-connections",
            "ostree-finalize-staged",
            "ostree-finalize-staged-hold",
            "ostree-remount",
            "quota",
            "quotaon",
            "quotaon-root",
            "quotaon@",
            "stratis-fstab-setup@",
            "stratis-fstab-setup-with-network@",
            "stratisd-min-postinitrd",
            "systemd-cryptsetup@",
            "systemd-fsck-root",
            "systemd-fsck-usr",
            "systemd-fsck@",
            "systemd-fsckd",
            "systemd-growfs-root",
            "systemd-growfs@",
            "systemd-integritysetup@",
            "systemd-loop@",
            "systemd-makefs@",
            "systemd-mkswap@",
            "systemd-quotacheck",
            "systemd-quotacheck-root",
            "systemd-quotacheck@",
            "systemd-remount-fs",
            "systemd-repart",
            "systemd-validatefs@",
            "systemd-veritysetup@",
            "systemd-zram-setup@",
            "vdo",
            "zfs-import",
            "zfs-import-cache",
            "zfs-import-scan",
            "zfs-import@",
            "zfs-load-key",
            "zfs-load-key-",
            "zfs-load-key@",
            "zfs-load-module",
            "zfs-mount",
            "zfs-mount@",
            "zfs-volume-wait",
            "zvol_wait",
        ],
    },
    Group {
        why: "it writes files that are the same on each machine",
        names: &[
            "import-state",
            "ldconfig",
            "pam_namespace",
            "resolvconf",
            "systemd-confext",
            "systemd-firstboot",
            "systemd-journal-catalog-update",
            "systemd-pstore",
            "systemd-sysext",
            "systemd-sysusers",
            "systemd-tmpfiles-clean",
            "systemd-tmpfiles-setup",
            "systemd-tmpfiles-setup-dev",
            "systemd-tmpfiles-setup-dev-early",
            "systemd-update-done",
            "systemd-update-utmp",
            "systemd-userdb-load-credentials",
            "systemd-volatile-root",
        ],
    },
    Group {
        why: "what it keeps is replaced in each child, or journald's, which is restarted",
        names: &[
            "systemd-boot-random-seed",
            "systemd-boot-system-token",
            "systemd-journal-flush",
            "systemd-journald",
            "systemd-machine-id-commit",
            "systemd-random-seed",
        ],
    },
    Group {
        why: "it sets up the kernel: limits, formats, profiles, packet filters",
        names: &[
            "apparmor",
            "auth-rpcgss-module",
            "ebtables",
            "ferm",
            "haveged",
            "ip6tables",
            "ipset",
            "iptables",
            "netfilter-persistent",
            "nftables",
            "nis-domainname",
            "procps",
            "rngd",
            "selinux-autorelabel",
            "selinux-autorelabel-mark",
            "selinux-check-proper-disable",
            "snapd.apparmor",
            "systemd-binfmt",
            "systemd-coredump-register",
            "systemd-coredump@",
            "systemd-coredumpd",
            "systemd-network-generator",
            "systemd-oomd",
            "systemd-sysctl",
            "ufw",
        ],
    },
    Group {
        why: "it sets up a clock, a console, sound or a backlight",
        names: &[
            "alsa-restore",
            "alsa-state",
            "console-setup",
            "fake-hwclock",
            "fake-hwclock-load",
            "hwclock-load",
            "keyboard-setup",
            "plymouth-quit",
            "plymouth-quit-wait",
            "plymouth-read-write",
            "plymouth-start",
            "setvtrgb",
            "systemd-ask-password-console",
            "systemd-ask-password-plymouth",
            "systemd-backlight@",
            "systemd-mute-console@",
            "systemd-rfkill",
            "systemd-vconsole-setup",
        ],
    },
    Group {
        why: "it serves this machine only, and asks who that is each time, or never",
        names: &[
            "systemd-initctl",
            "systemd-mountfsd",
            "systemd-nsresourced",
            "systemd-resolved",
            "systemd-timesyncd",
            "systemd-userdbd",
        ],
    },
    Group {
        why: "it keeps the boot loader's files or counts",
        names: &[
            "bootc-status-updated",
            "grub2-systemd-integration",
            "systemd-bless-boot",
            "systemd-boot-clear-sysfail",
            "systemd-boot-update",
            "systemd-bootchart",
            "systemd-hibernate-clear",
        ],
    },
    Group {
        why: "it speaks to a TPM, and does nothing without",
        names: &[
            "systemd-pcrfs-root",
            "systemd-pcrfs@",
            "systemd-pcrlock-file-system",
            "systemd-pcrlock-firmware-code",
            "systemd-pcrlock-firmware-config",
            "systemd-pcrlock-machine-id",
            "systemd-pcrlock-make-policy",
            "systemd-pcrlock-secureboot-authority",
            "systemd-pcrlock-secureboot-policy",
            "systemd-pcrmachine",
            "systemd-pcrnvdone",
            "systemd-pcrosseparator",
            "systemd-pcrphase",
            "systemd-pcrphase-factory-reset",
            "systemd-pcrphase-storage-target-mode",
            "systemd-pcrphase-sysinit",
            "systemd-pcrproduct",
            "systemd-tpm2-setup",
            "systemd-tpm2-setup-early",
        ],
    },
    Group {
        why: "it belongs to the end of this machine's run, or to an update without users",
        names: &[
            "bootc-finalize-staged",
            "dnf-system-upgrade",
            "dnf-system-upgrade-cleanup",
            "dnf5-offline-transaction",
            "dnf5-offline-transaction-cleanup",
            "dracut-shutdown",
            "fake-hwclock-save",
            "finalrd",
            "fwupd-offline-update",
            "packagekit-offline-update",
            "plymouth-halt",
            "plymouth-kexec",
            "plymouth-poweroff",
            "plymouth-reboot",
            "plymouth-switch-root-initramfs",
            "system-update-cleanup",
            "systemd-bsod",
            "systemd-exit",
            "systemd-halt",
            "systemd-hibernate-resume",
            "systemd-hibernate-resume@",
            "systemd-kexec",
            "systemd-poweroff",
            "systemd-reboot",
            "systemd-soft-reboot",
            "systemd-update-utmp-runlevel",
        ],
    },
    Group { why: "it holds the links until the gate is open", names: &["ramet-links"] },
];

/// Targets that end the machine's run. What only they start has to start while the gate goes down.
pub(super) const ENDS: &[&str] = &[
    "exit.target",
    "factory-reset.target",
    "final.target",
    "halt.target",
    "kexec.target",
    "poweroff.target",
    "reboot.target",
    "shutdown.target",
    "soft-reboot.target",
    "umount.target",
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
    "systemd-zram-setup@.service",
    "zfs-load-key-.service",
    "zfs-load-key@.service",
];

/// Why `unit` is on `list`, if it is.
pub(super) fn why(list: &[Group], unit: &str) -> Option<&'static str> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    // What is known of a template is known of its instances.
    let template = stem.split_once('@').map_or(String::new(), |(prefix, _)| format!("{prefix}@"));
    let is = |name: &str| match name.strip_suffix('*') {
        Some(start) => stem.starts_with(start),
        None => stem == name || template == name,
    };
    list.iter().find(|group| group.names.iter().any(|name| is(name))).map(|group| group.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name() {
        for unit in [
            "getty@.service",
            "ssh.socket",
            "sshd@.service",
            "systemd-networkd.service",
            "rescue.service",
            "breakpoint-pre-basic.service",
            "auditd.service",
            "mdmonitor.service",
            "kdump-tools.service",
            "ovs-vswitchd.service",
            "ovsdb-server.service",
            "nfsdcld.service",
            "systemd-journald@x.service",
        ] {
            assert!(why(WAYS_IN, unit).is_some(), "{unit}");
            assert!(why(HARMLESS, unit).is_none(), "{unit}");
        }
        for unit in
            ["systemd-network-generator.service", "systemd-udevd.service", "atdata.service", "dbus.service"]
        {
            assert!(why(WAYS_IN, unit).is_none(), "{unit}");
        }
        assert!(why(HARMLESS, "systemd-fsck@dev-sda1.service").is_some());
        for unit in MADE_LATER {
            assert!(why(HARMLESS, unit).is_some() && why(WAYS_IN, unit).is_none(), "{unit}");
        }
    }

    /// One that nobody has looked at is not let go because of how its name begins.
    #[test]
    fn what_is_harmless_is_named_in_full() {
        let names: Vec<_> = HARMLESS.iter().flat_map(|group| group.names).collect();
        assert!(names.iter().all(|name| !name.contains('*')));
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "a name is there twice");
        assert!(names.iter().all(|name| why(WAYS_IN, name).is_none()), "a name is on both lists");
        assert!(why(HARMLESS, "systemd-of-next-year.service").is_none());
    }
}
