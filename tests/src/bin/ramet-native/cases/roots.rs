//! Each root as it is.

use crate::case::{
    Ask, Case,
    Must::{Differ, Have},
    Outcome::Individuals,
    ask,
};

pub(crate) const CASES: &[Case] = &[
    Case::of("roots::debian", "debian", Individuals(ADDRESS)),
    Case::of("roots::debian12_nm", "debian12-nm", Individuals(SAMBA)),
    Case::of("roots::debian13_ifupdown", "debian13-ifupdown", Individuals(ADDRESS)),
    Case::of("roots::debian13_samba", "debian13-samba", Individuals(SAMBA)),
    Case::of("roots::debian13_sssd", "debian13-sssd", Individuals(ADDRESS)),
    Case::of("roots::cloud", "cloud", Individuals(ADDRESS)),
    Case::of("roots::server", "server", Individuals(ADDRESS)),
    Case::of("roots::sid", "sid", Individuals(ADDRESS)),
    Case::of("roots::dropbear", "dropbear", Individuals(ADDRESS)),
];

/// The address it was told, by the service that the root has.
const ADDRESS: &[Ask] = &[
    ask("IP address", "ip -4 -br addr show {nic}", Have("{address}/24")),
    ask("random bytes", "head -c 16 /dev/urandom | od -An -tx1", Differ),
];

const SAMBA: &[Ask] = &[
    ask("IP address", "ip -4 -br addr show {nic}", Have("{address}/24")),
    ask("the machine's SID, asked of Samba", "net getlocalsid 2>/dev/null | sed 's/.*: //'", Differ),
    ask("Samba's configuration", "testparm -s 2>/dev/null", Have("[global]")),
];
