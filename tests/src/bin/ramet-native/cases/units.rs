//! What PID 1 and its units remember.

use crate::case::{
    Ask, Case,
    Must::{Be, Have},
    Outcome::Individuals,
    ask,
};

const WHO: &[u8] = b"[Service]
Type=oneshot
RemainAfterExit=yes
Environment=NODE=%H ID=%m BOOT=%b
ExecStart=/bin/sh -c 'echo $NODE $ID $BOOT > /var/lib/who; echo %l > /var/lib/who.short'
[Install]
WantedBy=multi-user.target
";

const KNOWS: &[Ask] = &[
    ask(
        "%H, %m and %b",
        "cat /var/lib/who; cat /proc/sys/kernel/random/boot_id | tr -d -",
        Have("{hostname} {machine_id} "),
    ),
    ask("%l", "cat /var/lib/who.short", Be("{hostname}")),
    ask(
        "%b is the boot id",
        "test \"$(cut -d' ' -f3 /var/lib/who)\" = \"$(tr -d - < /proc/sys/kernel/random/boot_id)\" && echo same",
        Be("same"),
    ),
    ask(
        "the service",
        "systemctl show -p Environment --value who.service",
        Have("NODE={hostname} ID={machine_id}"),
    ),
];

/// The private /tmp of services that run is not cleaned away, however old what is in it.
const TMP: &[Ask] = &[ask(
    "tmpfiles",
    "printf 'q /tmp 1777 root root 1s\\nq /var/tmp 1777 root root 1s\\n' > /etc/tmpfiles.d/tmp.conf
     before=$(ls -d /tmp/systemd-private-*/tmp /var/tmp/systemd-private-*/tmp); test -n \"$before\" || echo none
     touch /tmp/old /tmp/systemd-private-0123456789abcdef0123456789abcdef-x.service-abc; sleep 2.5
     systemd-tmpfiles --clean >/dev/null 2>&1
     test -e /tmp/old && echo nothing is cleaned
     for one in $before; do test -d $one || echo lost $one; done",
    Be(""),
)];

macro_rules! specifiers {
    ($name:literal, $root:literal) => {
        Case {
            files: &[("etc/systemd/system/who.service", WHO)],
            script: "systemctl --quiet enable who.service",
            ..Case::of($name, $root, Individuals(KNOWS))
        }
    };
}

pub(crate) const CASES: &[Case] = &[
    specifiers!("units::specifiers_in_debian_13", "debian"),
    specifiers!("units::specifiers_in_debian_12", "debian12-nm"),
    specifiers!("units::specifiers_in_sid", "sid"),
    Case::of("units::private_tmp_in_debian_13", "debian", Individuals(TMP)),
    Case::of("units::private_tmp_in_sid", "sid", Individuals(TMP)),
    Case::of("units::private_tmp_of_a_server", "server", Individuals(TMP)),
    Case {
        files: &[("etc/systemd/system/breakpoint-x.service", b"[Unit]\nDefaultDependencies=no\n[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=sysinit.target\n")],
        script: "systemctl --quiet enable breakpoint-x.service",
        ..Case::of(
            "units::an_unknown_early_service_waits",
            "sid",
            Individuals(&[ask(
                "it started after the gate",
                "test $(systemctl show -p ExecMainStartTimestampMonotonic --value breakpoint-x) -gt $(systemctl show -p ActiveEnterTimestampMonotonic --value ramet-agent) && echo after",
                Be("after"),
            )]),
        )
    },
];
