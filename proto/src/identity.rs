//! Identity types. Each is parsed once, at the edge, and past it always valid.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not the identity it was given as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {what}: {why}")]
pub struct InvalidIdentity {
    what: &'static str,
    value: String,
    why: &'static str,
}

impl InvalidIdentity {
    /// `value`, of which only the beginning is kept: a hostile peer's text may be long.
    pub(crate) fn new(what: &'static str, value: &str, why: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), why }
    }
}

/// String on the outside (`Display`, serde, `FromStr`), parsed value on the inside.
macro_rules! text_form {
    ($name:ident, $what:literal) => {
        impl std::str::FromStr for $name {
            type Err = $crate::identity::InvalidIdentity;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text).map_err(|why| Self::Err::new($what, text, why))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::identity::InvalidIdentity;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use text_form;

/// A host name as in RFC 1123 section 2.1: labels of letters, digits and inner hyphens, joined by dots, and at most
/// 63 characters in all, which is what Linux takes (sethostname(2), `HOST_NAME_MAX` less one for tools that keep a
/// NUL). Never one that programs take for an IPv4 address (`inet_aton(3)`): its last label is no number, decimal or
/// hexadecimal. Case is kept; compare with [`Hostname::same`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hostname(String);

text_form!(Hostname, "a host name (RFC 1123)");

impl Hostname {
    /// The most characters.
    pub const MAX: usize = 63;

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it is empty");
        }
        if text.len() > Self::MAX {
            return Err("it is longer than 63 characters");
        }
        text.split('.').try_for_each(check_label)?;
        if text.rsplit('.').next().is_some_and(is_number) {
            return Err("programs take it for an IPv4 address, since its last label is a number");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether both name the same host: names are compared without regard to case (RFC 4343).
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `inet_aton(3)` takes `label` for a number: decimal or octal digits, or hexadecimal ones after `0x`.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// A label of a name, RFC 1123 section 2.1. Its length is left to the caller.
pub(crate) fn check_label(label: &str) -> Result<(), &'static str> {
    if label.is_empty() {
        return Err("a label is empty");
    }
    if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err("only letters, digits, hyphens and dots are allowed");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("a label starts or ends with a hyphen");
    }
    Ok(())
}

/// A unicast IEEE 802 MAC-48 address, not all zero. Shown as `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr([u8; 6]);

text_form!(MacAddr, "a unicast MAC address");

impl MacAddr {
    /// The address made of `octets`, unless it is a multicast one or all zero.
    pub fn new(octets: [u8; 6]) -> Result<Self, InvalidIdentity> {
        Self::check(octets)
            .map_err(|why| InvalidIdentity::new("a unicast MAC address", &Self(octets).to_string(), why))
    }

    /// The octets in the order of transmission.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "it is not six pairs of hexadecimal digits joined by colons";
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(FORM)?;
            *octet = crate::text::from_hex(part).ok_or(FORM)?[0];
        }
        if parts.next().is_some() {
            return Err(FORM);
        }
        Self::check(octets)
    }

    fn check(octets: [u8; 6]) -> Result<Self, &'static str> {
        if octets[0] & 1 == 1 {
            return Err("it is a multicast address");
        }
        if octets == [0; 6] {
            return Err("it is all zero");
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|octet| write!(f, ":{octet:02x}"))
    }
}

/// A machine id as in machine-id(5): 128 bits, not all zero, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MachineId([u8; 16]);

text_form!(MachineId, "a machine id (machine-id(5))");

impl MachineId {
    /// A new random one, of the form systemd makes (a version 4 UUID).
    #[must_use]
    pub fn random() -> Self {
        Self(*uuid::Uuid::new_v4().as_bytes())
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let bytes = (text.len() == 32).then(|| crate::text::from_hex(text)).flatten();
        match bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()) {
            None => Err("it is not 32 hexadecimal digits"),
            Some(bytes) if bytes == [0; 16] => Err("it is all zero"),
            Some(bytes) => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::text::to_hex(&self.0))
    }
}

/// A security identifier in its string form, MS-DTYP section 2.4.2.1: `S-1-` authority, then 1 to 15 subauthorities.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sid {
    authority: u64,
    subauthorities: Vec<u32>,
}

text_form!(Sid, "a SID (MS-DTYP 2.4.2.1)");

impl Sid {
    /// The SID of a machine or domain: `S-1-5-21-a-b-c`.
    #[must_use]
    pub fn machine([a, b, c]: [u32; 3]) -> Self {
        Self { authority: 5, subauthorities: vec![21, a, b, c] }
    }

    /// Whether it has the form of a machine's or domain's SID.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.authority == 5 && self.subauthorities.len() == 4 && self.subauthorities[0] == 21
    }

    /// The SID in its binary form (MS-DTYP, section 2.4.2.2), as directories keep it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidIdentity> {
        let invalid =
            |why| InvalidIdentity::new("a binary SID (MS-DTYP 2.4.2.2)", &crate::text::to_hex(bytes), why);
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| invalid("it is too short"))?;
        let [revision, count, authority @ ..] = *head;
        let (parts, odd) = rest.as_chunks::<4>();
        if revision != 1 {
            return Err(invalid("its revision is not 1"));
        }
        if !(1..=15).contains(&count) || parts.len() != usize::from(count) || !odd.is_empty() {
            return Err(invalid("it does not have as many subauthorities as it says, or not 1 to 15"));
        }
        Ok(Self {
            authority: authority.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
            subauthorities: parts.iter().map(|part| u32::from_le_bytes(*part)).collect(),
        })
    }

    /// Its binary form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let [_, _, authority @ ..] = self.authority.to_be_bytes();
        let count = u8::try_from(self.subauthorities.len()).unwrap_or(u8::MAX);
        let mut bytes = vec![1, count];
        bytes.extend(authority);
        bytes.extend(self.subauthorities.iter().flat_map(|part| part.to_le_bytes()));
        bytes
    }

    /// The SID of the domain that an account's is in, and the account's relative id; `None` if it is not of that form.
    #[must_use]
    pub fn in_domain(&self) -> Option<(Self, u32)> {
        let (rid, domain) = self.subauthorities.split_last()?;
        let domain = Self { authority: self.authority, subauthorities: domain.to_vec() };
        domain.is_machine().then_some((domain, *rid))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        const NUMBER: &str = "a part is not a decimal number in range";
        let mut parts = text.split('-');
        if !parts.next().is_some_and(|part| part.eq_ignore_ascii_case("S")) || parts.next() != Some("1") {
            return Err("it does not start with S-1-");
        }
        let authority = match parts.next() {
            None => return Err("it has no authority"),
            // From 2^32 on the authority is written as 12 hexadecimal digits.
            Some(part) if part.len() == 14 && (part.starts_with("0x") || part.starts_with("0X")) => {
                // `from_str_radix` would take a sign.
                crate::text::from_hex(&part[2..])
                    .ok_or(NUMBER)?
                    .iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            Some(part) => u64::from(decimal(part).ok_or(NUMBER)?),
        };
        let subauthorities: Vec<u32> = parts.map(decimal).collect::<Option<_>>().ok_or(NUMBER)?;
        match subauthorities.len() {
            0 => Err("it has no subauthority"),
            1..=15 => Ok(Self { authority, subauthorities }),
            _ => Err("it has more than 15 subauthorities"),
        }
    }
}

/// A decimal number without sign or leading zero.
fn decimal(part: &str) -> Option<u32> {
    let canonical = part == "0" || !part.starts_with('0');
    (canonical && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok()).flatten()
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if u32::try_from(self.authority).is_ok() {
            write!(f, "S-1-{}", self.authority)?;
        } else {
            write!(f, "S-1-0x{:012x}", self.authority)?;
        }
        self.subauthorities.iter().try_for_each(|part| write!(f, "-{part}"))
    }
}

/// Names one individual for its whole life, reboots included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(uuid::Uuid);

impl InstanceId {
    /// A new one, like no other.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

impl std::str::FromStr for InstanceId {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidIdentity::new("an instance id", text, "it is not a UUID"))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version 4 UUID (RFC 9562, section 5.4) made of random `bytes`, as text.
#[must_use]
pub fn uuid_v4(bytes: [u8; 16]) -> String {
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// The id of one boot, as in random(4), `boot_id`. Shown as a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BootId(uuid::Uuid);

text_form!(BootId, "a boot id");

impl BootId {
    fn parse(text: &str) -> Result<Self, &'static str> {
        // Of a UUID's forms the one with hyphens: what two guests show as different is different.
        let canonical = text.len() == 36 && !text.contains(|c: char| c.is_ascii_uppercase());
        canonical.then(|| text.parse().ok()).flatten().map(Self).ok_or("it is not a UUID in lower case")
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A public key in OpenSSH's one-line form, without a comment: `ssh-ed25519 AAAA…` (sshd(8), "`AUTHORIZED_KEYS` FILE
/// FORMAT"). Its form is checked, not the key itself: OpenSSH does that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SshPublicKey {
    algorithm: String,
    base64: String,
}

text_form!(SshPublicKey, "an SSH public key");

impl SshPublicKey {
    /// The most characters of a key: RSA with 16,384 bits takes under 2,800.
    pub const MAX: usize = 4096;

    /// The algorithm's name, `ssh-ed25519` for one.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > Self::MAX {
            return Err("it is longer than 4096 characters");
        }
        let mut words = text.split_ascii_whitespace();
        let (Some(algorithm), Some(base64)) = (words.next(), words.next()) else {
            return Err("it is not an algorithm and a key");
        };
        // One that starts with a sign would mean more than a name in ssh_config(5), HostKeyAlgorithms.
        let named = algorithm.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !named || !algorithm.bytes().all(|b| b.is_ascii_alphanumeric() || b"-@.".contains(&b)) {
            return Err("its algorithm is not a name");
        }
        if !base64.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
            return Err("its key is not base64");
        }
        Ok(Self { algorithm: algorithm.to_owned(), base64: base64.to_owned() })
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.base64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames() {
        let longest = "a".repeat(63);
        for good in
            ["a", "web-1", "Web01", "3com", "a.example.org", "123.lab", "0xyz", "a1", longest.as_str()]
        {
            assert_eq!(good.parse::<Hostname>().unwrap().to_string(), good);
        }
        let too_long = "a".repeat(64);
        let numbers = ["10.0.0.1", "123", "0177", "0x7f000001", "0X1", "0x", "a.0x1f", "web.1"];
        for bad in numbers {
            assert!(bad.parse::<Hostname>().unwrap_err().to_string().contains("number"), "{bad:?}");
        }
        let bad = ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "ä", "a\n", too_long.as_str()];
        for bad in bad {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
        assert!("Web".parse::<Hostname>().unwrap().same(&"wEB".parse().unwrap()));
    }

    #[test]
    fn mac_addresses() {
        let mac: MacAddr = "52:54:00:AB:cd:ef".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:ef");
        assert_eq!("52-54-00-ab-cd-ef".parse(), Ok(mac));
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:ef:01",
            "5254.00ab.cdef",
            "52:54:00:ab:cd:e",
            "52:54:00:ab:cd:eg",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "52:54-00:ab:cd:ef",
            "+1:54:00:ab:cd:ef",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn machine_ids() {
        let id: MachineId = "0123456789ABCDEF0123456789abcdef".parse().unwrap();
        assert_eq!(id.to_string(), "0123456789abcdef0123456789abcdef");
        for bad in ["", "0123", "00000000000000000000000000000000", "0123456789abcdef0123456789abcdeg"] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad:?}");
        }
        assert_ne!(MachineId::random(), MachineId::random());
    }

    #[test]
    fn sids() {
        for good in
            ["S-1-0-0", "S-1-5-21-1-2-4294967295", "S-1-0x123456789abc-7", "S-1-5-32-544", "S-1-4294967295-1"]
        {
            assert_eq!(good.parse::<Sid>().unwrap().to_string(), good);
        }
        let sixteen = format!("S-1-5{}", "-1".repeat(16));
        for bad in [
            "",
            "S-1",
            "S-1-5",
            "S-2-5-21",
            "S-1-5-",
            "S-1-5-4294967296",
            "S-1-5-+1",
            "S-1-5-01",
            "S-1-5- 1",
            "X-1-5-1",
            "S-1-0x+23456789abc-7",
            "S-1-0x123456789abcd-7",
            "S-1-0x1234-7",
            sixteen.as_str(),
        ] {
            assert!(bad.parse::<Sid>().is_err(), "{bad:?}");
        }
        let small: Sid = "s-1-0X000000000005-21".parse().unwrap();
        assert_eq!(small.to_string(), "S-1-5-21");
        assert!(Sid::machine([1, 2, 3]).is_machine());
        assert!(!"S-1-5-32-544".parse::<Sid>().unwrap().is_machine());
    }

    #[test]
    fn instance_ids() {
        let id = InstanceId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("web-1".parse::<InstanceId>().is_err());
    }

    #[test]
    fn binary_sids() {
        let account: Sid = "S-1-5-21-1-2-4294967295-1104".parse().unwrap();
        let bytes = account.to_bytes();
        assert_eq!(crate::text::to_hex(&bytes), "0105000000000005150000000100000002000000ffffffff50040000");
        assert_eq!(Sid::from_bytes(&bytes).unwrap(), account);
        assert_eq!(account.in_domain(), Some((Sid::machine([1, 2, u32::MAX]), 1104)));
        assert_eq!("S-1-5-32-544".parse::<Sid>().unwrap().in_domain(), None);
        for bad in [&bytes[..27], &bytes[1..], &[1, 0, 0, 0, 0, 0, 0, 5], &[]] {
            assert!(Sid::from_bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn boot_ids() {
        let text = uuid_v4([0xff; 16]);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(text.parse::<BootId>().unwrap().to_string(), text);
        for bad in ["", "ffffffffffff4fffbfffffffffffffff", "FFFFFFFF-ffff-4fff-bfff-ffffffffffff", "x"] {
            assert!(bad.parse::<BootId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ssh_public_keys_lose_their_comment() {
        let key: SshPublicKey = "ssh-ed25519 AAAAC3Nz root@parent\n".parse().unwrap();
        assert_eq!(key.to_string(), "ssh-ed25519 AAAAC3Nz");
        for bad in ["", "ssh-ed25519", "ssh-ed25519 \x1b[2J", "a,b AAAA", "* AAAA", "-ssh-rsa AAAA"] {
            assert!(bad.parse::<SshPublicKey>().is_err(), "{bad:?}");
        }
    }
}
