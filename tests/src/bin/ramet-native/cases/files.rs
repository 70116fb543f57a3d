//! A file is not as expected.

use crate::case::{
    Case,
    Must::{Be, Have},
    Outcome::{Either, Individuals, Refused},
    ask,
};

pub(crate) const CASES: &[Case] = &[
    Case {
        script: "{ printf '127.0.0.1 localhost\\n127.0.1.1 debian\\n'
            seq -f '0.0.0.0 ads-%.0f.tracker.example' 60000
            echo '10.9.8.7 files.corp.example files'; } > /etc/hosts",
        ..Case::of(
            "files::hosts_of_sixty_thousand_lines",
            "debian",
            Individuals(&[
                ask("the last line", "tail -n 1 /etc/hosts", Be("10.9.8.7 files.corp.example files")),
                ask("its lines", "grep -c tracker /etc/hosts", Be("60000")),
                ask("a name", "getent hosts files.corp.example", Have("10.9.8.7")),
                ask("the template's name", "grep -cw debian /etc/hosts; true", Be("0")),
            ]),
        )
    },
    Case {
        files: &[("etc/hosts", b"# Drucker im B\xfcro\n127.0.0.1 localhost\n10.1.2.3 drucker\n")],
        script: "usermod -c \"$(printf 'Jos\\351')\" root 2>/dev/null || sed -i \"s/^root:x:0:0:root/root:x:0:0:$(printf 'Jos\\351')/\" /etc/passwd",
        told: crate::case::Told { users: &["root"], ..crate::case::Told::ADDRESS },
        ..Case::of(
            "files::bytes_that_are_no_utf8",
            "debian",
            Individuals(&[
                ask("a foreign line", "head -n 1 /etc/hosts | od -An -tx1 | tr -d ' \\n'", Have("42fc726f")),
                ask("a name", "getent hosts drucker", Have("10.1.2.3")),
                ask("the user", "getent passwd root | od -An -tx1 | tr -d ' \\n'", Have("4a6f73e9")),
            ]),
        )
    },
    Case {
        script: "printf '127.0.0.1 localhost debian\\n::1 debian.example.org debian\\n127.0.1.1 debian app.local\\n192.0.2.250 db\\n' > /etc/hosts",
        ..Case::of(
            "files::hosts_with_the_name_on_other_lines",
            "debian",
            Individuals(&[
                ask("the template's name", "grep -cw debian /etc/hosts; true", Be("0")),
                ask("an alias", "getent hosts app.local", Have("127.0.1.1")),
                ask("another host", "getent hosts db", Have("192.0.2.250")),
            ]),
        )
    },
    Case {
        // Its owner wants it as it is. The child's name is there, or it could not be looked up.
        files: &[("etc/hosts", b"127.0.0.1 localhost\n127.0.1.1 kiwi-1\n")],
        immutable: &["etc/hosts"],
        ..Case::of(
            "files::immutable_hosts",
            "debian",
            Either(
                "hosts",
                &[ask("it is left", "echo >> /etc/hosts && echo written || true", Have("not permitted"))],
            ),
        )
    },
    Case {
        immutable: &["etc/hostname"],
        ..Case::of("files::immutable_hostname", "debian", Refused("hostname"))
    },
    Case {
        script: "rm -f /etc/hosts; mkdir /etc/hosts",
        ..Case::of("files::hosts_is_a_directory", "debian", Refused("hosts"))
    },
];
