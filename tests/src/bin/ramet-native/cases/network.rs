//! Who is in charge of the network, and what it makes of a static address.

use crate::case::{
    Ask, Case,
    Must::{Be, Have, Lack},
    Outcome::{Either, Individuals, NotThisIdentity},
    Told, ask,
};

/// It has the address it was told, and no other.
const ADDRESS: Ask = ask(
    "IP addresses",
    "ip -4 -br addr show {nic} | awk '{ for (i = 3; i <= NF; i++) print $i }'",
    Be("{address}/24"),
);
/// What is early was.
const EARLY: Ask = ask(
    "the early service",
    "test $(systemctl show -p ExecMainStartTimestampMonotonic --value early) -lt \
     $(systemctl show -p ActiveEnterTimestampMonotonic --value ramet-agent) && echo before",
    Be("before"),
);
const ALONE: &[Ask] = &[ADDRESS];

/// The same, by ifupdown, which knows the interface.
const BY_IFUPDOWN: &[Ask] = &[
    ADDRESS,
    ask("ifquery", "ifquery {nic}", Have("{address}")),
    ask("ifquery, interfaces that are up", "ifquery --state", Have("{nic}")),
];

/// Starts before the gate, since the settings name it.
macro_rules! early {
    ($command:literal) => {
        &[
            ("etc/ramet/agent.toml", b"before_gate = [\"dbus.service\", \"early.service\"]\n"),
            (
                "etc/systemd/system/early.service",
                concat!(
                    "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '",
                    $command,
                    "'\n[Install]\nWantedBy=sysinit.target\n"
                )
                .as_bytes(),
            ),
        ]
    };
}

/// interfaces(5) with `$source`.
macro_rules! sources {
    ($source:literal) => {
        &[(
            "etc/network/interfaces",
            concat!(
                $source,
                "\nauto lo\niface lo inet loopback\nallow-hotplug enlan\niface enlan inet dhcp\n"
            )
            .as_bytes(),
        )]
    };
}

pub(crate) const CASES: &[Case] = &[
    Case::of("network::by_netplan_alone", "cloud", Individuals(ALONE)),
    Case::of("network::ifupdown_beside_network_manager_with_an_alias", "dropbear", Individuals(BY_IFUPDOWN)),
    Case {
        files: sources!("source /etc/network/interfaces.d/*.cfg"),
        ..Case::of("network::interfaces_sources_only_cfg", "debian13-ifupdown", Either("interfaces", BY_IFUPDOWN))
    },
    Case {
        files: sources!("# source /etc/network/interfaces.d/*"),
        ..Case::of("network::interfaces_sources_in_a_comment", "debian13-ifupdown", Either("interfaces", BY_IFUPDOWN))
    },
    Case {
        files: sources!("source interfaces.d/*"),
        ..Case::of("network::interfaces_sources_relative", "debian13-ifupdown", Individuals(BY_IFUPDOWN))
    },
    Case {
        files: sources!("source /etc/network/interfaces.d/lan"),
        script: "touch /etc/network/interfaces.d/lan",
        ..Case::of("network::interfaces_sources_one_file", "debian13-ifupdown", Either("interfaces", BY_IFUPDOWN))
    },
    Case {
        files: sources!("source-directory /etc/network/interfaces.d"),
        ..Case::of("network::interfaces_sources_a_directory", "debian13-ifupdown", Individuals(BY_IFUPDOWN))
    },
    Case {
        files: &[(
            "etc/network/interfaces",
            b"source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\nauto enlan\niface enlan inet dhcp\nauto enlan:0\niface enlan:0 inet static\n    address 192.0.2.200/24\n",
        )],
        ..Case::of("network::alias_stanza", "debian13-ifupdown", Individuals(BY_IFUPDOWN))
    },
    Case {
        files: &[(
            "etc/network/interfaces",
            b"source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\nauto br0\niface br0 inet static\n    bridge_ports enlan\n    address 192.0.2.200/24\n",
        )],
        ..Case::of("network::bridge_over_the_nic", "debian13-ifupdown", NotThisIdentity("br0"))
    },
    Case {
        files: early!("ip address add 198.51.100.9/24 dev enlan; ip link set enlan up"),
        script: "systemctl --quiet enable early.service",
        ..Case::of("network::address_given_before_the_gate", "debian13-ifupdown", Either("enlan", &[EARLY, ADDRESS]))
    },
    Case {
        files: early!("ip link add br0 type bridge; ip link set ens2 master br0; ip link set br0 up"),
        script: "systemctl --quiet enable early.service",
        told: Told::NOTHING,
        ..Case::of(
            "network::bridge_made_before_the_gate",
            "debian",
            Either("br0", &[EARLY, ask("the template's address", "ip -br link", Lack("52:54:00:00:00:01"))]),
        )
    },
    Case {
        script: "systemctl --quiet enable systemd-networkd; systemctl --quiet mask systemd-networkd",
        ..Case::of(
            "network::networkd_enabled_and_masked",
            "debian12-nm",
            Individuals(&[ADDRESS, ask("NetworkManager", "nmcli -g IP4.ADDRESS device show {nic}", Have("{address}"))]),
        )
    },
    Case::of(
        "network::network_manager",
        "debian12-nm",
        Individuals(&[ADDRESS, ask("NetworkManager", "nmcli -g GENERAL.STATE device show {nic}", Have("connected"))]),
    ),
    Case {
        script: "systemctl --quiet disable systemd-networkd; printf 'network: {version: 2, renderer: NetworkManager}\\n' > /etc/netplan/50-lan.yaml",
        ..Case::of("network::netplan_for_a_service_that_is_not_there", "cloud", NotThisIdentity("NetworkManager"))
    },
];
