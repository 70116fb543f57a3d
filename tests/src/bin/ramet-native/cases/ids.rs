//! Keys, ids and names that nobody lists.

use crate::case::{
    Case,
    Must::{Be, Differ, Have, Lack},
    Outcome::{Either, Individuals},
    ask,
};

/// Both children's differ.
macro_rules! file {
    ($path:literal) => {
        ask($path, concat!("sha256sum < ", $path), Differ)
    };
}

pub(crate) const CASES: &[Case] = &[
    Case::of(
        "ids::of_a_server",
        "server",
        Individuals(&[
            file!("/etc/ssl/private/ssl-cert-snakeoil.key"),
            file!("/etc/ssl/certs/ssl-cert-snakeoil.pem"),
            ask(
                "the certificate is of the key",
                "openssl x509 -in /etc/ssl/certs/ssl-cert-snakeoil.pem -noout -pubkey | sha256sum > /tmp/1
                 openssl pkey -in /etc/ssl/private/ssl-cert-snakeoil.key -pubout | sha256sum | cmp - /tmp/1",
                Be(""),
            ),
            file!("/etc/xrdp/rsakeys.ini"),
            file!("/etc/bind/rndc.key"),
            file!("/etc/unbound/unbound_server.key"),
            file!("/etc/unbound/unbound_control.key"),
            ask("popularity-contest", "grep ^MY_HOSTID= /etc/popularity-contest.conf", Differ),
            ask("SNMP's engine", "grep oldEngineID /var/lib/snmp/snmpd.conf; true", Lack("0x80001f8880aabbccdd00112233")),
            file!("/etc/openvswitch/system-id.conf"),
            file!("/etc/hostid"),
            ask("hostid(1)", "hostid", Differ),
            ask("BIND's rndc reads its key", "rndc-confgen -h >/dev/null 2>&1; test -s /etc/bind/rndc.key && stat -c %U:%G:%a /etc/bind/rndc.key", Be("bind:bind:640")),
            ask("mailname", "cat /etc/mailname", Be("{hostname}")),
            ask("exim's names", "grep dc_other_hostnames /etc/exim4/update-exim4.conf.conf", Have("{hostname}")),
            ask("exim itself", "exim4 -bP primary_hostname", Have("{hostname}")),
            ask("the pretty name", "hostnamectl --pretty", Lack("server")),
        ]),
    ),
    Case::of(
        "ids::of_dropbear",
        "dropbear",
        Individuals(&[
            ask(
                "what dropbear offers",
                "systemctl is-active dropbear; ssh-keyscan -t ed25519 -p 2222 127.0.0.1 2>/dev/null | grep -v '^#' | cut -d' ' -f2,3",
                Have("ssh-ed25519"),
            ),
            ask(
                "dropbear's key",
                "ssh-keyscan -t ed25519 -p 2222 127.0.0.1 2>/dev/null | grep -v '^#' | cut -d' ' -f2,3",
                Differ,
            ),
            file!("/etc/dropbear/dropbear_rsa_host_key"),
            file!("/etc/dropbear/dropbear_ecdsa_host_key"),
        ]),
    ),
    Case {
        files: &[
            ("etc/krb5.conf", b"[libdefaults]\n\tdefault_keytab_name = FILE:/etc/krb5/host.keytab\n"),
            ("etc/krb5/host.keytab", b"\x05\x02template"),
            (
                "etc/sssd/sssd.conf",
                b"[sssd]\ndomains = ad.example.org\n[domain/ad.example.org]\nid_provider = ad\nkrb5_keytab = /etc/sssd/golden.keytab\n",
            ),
            ("etc/sssd/golden.keytab", b"\x05\x02template"),
        ],
        script: "chmod 0600 /etc/sssd/sssd.conf /etc/krb5/host.keytab /etc/sssd/golden.keytab",
        ..Case::of(
            "ids::keytabs_in_other_places",
            "debian13-sssd",
            Either(
                "keytab",
                &[ask("keytabs", "ls /etc/krb5/host.keytab /etc/sssd/golden.keytab 2>/dev/null; true", Be(""))],
            ),
        )
    },
    Case {
        script: "sed -i '/\\[global\\]/a kerberos method = dedicated keytab\\ndedicated keytab file = /etc/samba/samba.keytab' /etc/samba/smb.conf
            printf '\\005\\002template' > /etc/samba/samba.keytab",
        ..Case::of(
            "ids::keytab_of_samba_in_another_place",
            "debian13-samba",
            Either("keytab", &[ask("keytabs", "ls /etc/samba/samba.keytab 2>/dev/null; true", Be(""))]),
        )
    },
];
