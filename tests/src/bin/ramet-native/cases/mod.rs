//! The cases.

mod files;
mod ids;
mod network;
mod roots;
mod ssh;
mod undone;
mod units;

use crate::case::{
    Ask, Case,
    Must::{Be, Have},
    ask,
};

pub(crate) fn all() -> Vec<Case> {
    [roots::CASES, files::CASES, ids::CASES, network::CASES, ssh::CASES, undone::CASES, units::CASES].concat()
}

/// What is asked of every child: that its own programs agree on who it is.
pub(crate) const USUAL: &[Ask] = &[
    ask("uname", "uname -n", Be("{hostname}")),
    ask("hostnamectl", "hostnamectl --static", Be("{hostname}")),
    ask("its own name, looked up", "getent hosts {hostname}", Have("{hostname}")),
    ask("machine-id", "cat /etc/machine-id", Be("{machine_id}")),
    ask("boot id", "cat /proc/sys/kernel/random/boot_id", Be("{boot_id}")),
    ask(
        "PID 1's machine-id",
        "busctl call org.freedesktop.systemd1 / org.freedesktop.DBus.Peer GetMachineId",
        Have("{machine_id}"),
    ),
    ask(
        "journald",
        "logger -t judge hello; journalctl --sync; journalctl -t judge -o verbose",
        Have("{machine_id}"),
    ),
    ask("MAC address", "ip -br link show {nic}", Have("{mac}")),
    ask("sshd's configuration", "mkdir -p /run/sshd; sshd -t", Be("")),
    ask(
        "host keys that SSH servers offer",
        // A second server is at the second port, where there is one.
        "for port in 22 2222; do ssh-keyscan -p $port 127.0.0.1 2>/dev/null; done |
         grep -v '^#' | cut -d' ' -f2,3 | sort -u",
        Be("{host_keys}"),
    ),
    ask(
        "the template's machine-id in files",
        "grep -rIlsF {template_machine_id} /etc /var/lib /run | grep -v ^/run/native; true",
        Be(""),
    ),
];
