//! sshd: which keys it offers, and whom it lets in.

use crate::case::{
    Ask, Case,
    Must::{Be, Differ, Have, Lack},
    Outcome::{Either, Individuals},
    Told, ask,
};

const ROOT: Told = Told { users: &["root"], ..Told::ADDRESS };

/// The key that it was told of logs in, the template's does not.
const LOGINS: &[Ask] = &[
    ask(
        "the own key logs in",
        "ssh -i /run/native/own -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR root@127.0.0.1 echo in",
        Be("in"),
    ),
    ask(
        "the template's key does not",
        "ssh -i /run/native/old -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR root@127.0.0.1 echo in || true",
        Lack("in\n"),
    ),
    ask(
        "the template's key is refused",
        "ssh -i /run/native/old -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR root@127.0.0.1 echo in || true",
        Have("Permission denied"),
    ),
];

pub(crate) const CASES: &[Case] = &[
    Case {
        files: &[(
            "etc/ssh/sshd_config.d/10-site.conf",
            b"HostKey /etc/ssh/ssh_host_rsa_key\nHostKey /etc/ssh/ssh_host_ecdsa_key\n",
        )],
        script: "ssh-keygen -A",
        ..Case::of(
            "ssh::host_keys_of_other_kinds",
            "debian",
            Either(
                "HostKey",
                &[
                    ask("sshd runs", "systemctl is-active ssh", Be("active")),
                    ask("what it offers", "ssh-keyscan -t rsa,ecdsa 127.0.0.1 2>/dev/null | grep -v '^#' | cut -d' ' -f3 | sort", Differ),
                ],
            ),
        )
    },
    Case {
        files: &[("etc/ssh/sshd_config.d/10-site.conf", b"HostKey /var/lib/site/ssh/host_ed25519\n")],
        script: "mkdir -p /var/lib/site/ssh; ssh-keygen -q -t ed25519 -N '' -f /var/lib/site/ssh/host_ed25519",
        ..Case::of(
            "ssh::host_key_in_another_place",
            "debian",
            Either(
                "/var/lib/site/ssh/host_ed25519",
                &[ask("what it offers", "ssh-keyscan 127.0.0.1 2>/dev/null | grep -v '^#' | cut -d' ' -f3", Differ)],
            ),
        )
    },
    Case {
        script: "for kind in rsa ecdsa ed25519; do : > /etc/ssh/ssh_host_${kind}_key; : > /etc/ssh/ssh_host_${kind}_key.pub; done
            mkdir /etc/ssh/ssh_host_keys.old; echo x > /etc/ssh/ssh_host_keys.old/x",
        ..Case::of(
            "ssh::empty_host_keys_and_a_directory",
            "debian",
            Individuals(&[ask("the directory", "cat /etc/ssh/ssh_host_keys.old/x", Be("x"))]),
        )
    },
    Case {
        files: &[("root/.ssh/authorized_keys2", b"{old_key}\n")],
        script: "chmod 0700 /root/.ssh; chmod 0600 /root/.ssh/*",
        told: ROOT,
        ..Case::of("ssh::authorized_keys_in_a_second_file", "debian", Individuals(LOGINS))
    },
    Case {
        files: &[
            ("etc/ssh/sshd_config.d/keys.conf", b"AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"),
            ("etc/ssh/authorized_keys/root", b"{old_key}\n"),
        ],
        told: ROOT,
        ..Case::of("ssh::authorized_keys_in_etc", "debian", Either("AuthorizedKeysFile", LOGINS))
    },
    Case {
        files: &[
            ("etc/ssh/sshd_config.d/keys.conf", b"Match User root\nAuthorizedKeysFile /etc/ssh/authorized_keys/%u\n"),
            ("etc/ssh/authorized_keys/root", b"{old_key}\n"),
        ],
        told: ROOT,
        ..Case::of("ssh::authorized_keys_of_a_match_block", "debian", Either("AuthorizedKeysFile", LOGINS))
    },
    Case {
        files: &[("root/.ssh/authorized_keys", b"{old_key}\n")],
        script: "chmod 0700 /root/.ssh; chmod 0600 /root/.ssh/*",
        told: ROOT,
        ..Case::of("ssh::started_by_its_socket", "dropbear", Individuals(LOGINS))
    },
];
