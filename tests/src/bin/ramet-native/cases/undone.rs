//! What undoes an identity later.

use crate::case::{
    Case,
    Must::{Be, Have, Lack},
    Outcome::{Either, Named},
    Told, ask,
};

pub(crate) const CASES: &[Case] = &[
    Case::of(
        "undone::by_cloud_init",
        "cloud",
        Either(
            "cloud-init",
            &[
                ask("cloud-init is through", "cloud-init status --wait >/dev/null 2>&1; cloud-init status", Have("done")),
                ask("uname", "uname -n", Be("{hostname}")),
                ask("/etc/hostname", "cat /etc/hostname", Be("{hostname}")),
                ask("/etc/hosts", "cat /etc/hosts", Lack("golden")),
                ask("its name, looked up", "getent hosts {hostname}", Have("{hostname}")),
                ask("host keys", "cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f1,2 | sort", Be("{host_keys}")),
                ask(
                    "what sshd offers",
                    "ssh-keyscan 127.0.0.1 2>/dev/null | grep -v '^#' | cut -d' ' -f2,3 | sort",
                    Be("{host_keys}"),
                ),
                ask("the instance", "cat /run/cloud-init/.instance-id /var/lib/cloud/data/instance-id", Lack("iid-golden-7")),
                ask("IP address", "ip -4 -br addr show {nic}", Have("{address}/24")),
            ],
        ),
    ),
    Case {
        files: &[
            ("var/lib/cloud/seed/nocloud/user-data", b""),
            ("etc/cloud/cloud.cfg.d/91-net.cfg", b"network: {config: disabled}\n"),
        ],
        told: Told::NOTHING,
        ..Case::of(
            "undone::by_cloud_init_without_user_data",
            "cloud",
            Either(
                "cloud-init",
                &[
                    ask("cloud-init is through", "cloud-init status --wait >/dev/null 2>&1; cloud-init status", Have("done")),
                    ask("uname", "uname -n", Be("{hostname}")),
                    ask("host keys", "cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f1,2 | sort", Be("{host_keys}")),
                ],
            ),
        )
    },
    Case {
        // What `systemd-creds setup` and `systemd-creds encrypt` leave; in an image that never ran they cannot.
        script: "mkdir -p /etc/credstore.encrypted; head -c 64 /dev/urandom | base64 > /etc/credstore.encrypted/tok
            head -c 4096 /dev/urandom > /var/lib/systemd/credential.secret",
        ..Case::of("undone::encrypted_credentials", "debian", Named("credstore.encrypted", &[]))
    },
];
