//! Entries of a directory, and how it writes what is in them.

use ldap3::{ResultEntry, SearchEntry};
use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

/// An entry as it was found: its name, and the values of the attributes that were asked for.
pub(super) struct Entry {
    pub(super) dn: String,
    values: HashMap<String, Vec<Vec<u8>>>,
}

impl Entry {
    pub(super) fn new(found: ResultEntry) -> Self {
        let SearchEntry { dn, attrs, bin_attrs } = SearchEntry::construct(found);
        // A binary value that happens to be UTF-8 is among the texts.
        let texts = attrs
            .into_iter()
            .map(|(name, values)| (name, values.into_iter().map(String::into_bytes).collect::<Vec<_>>()));
        let values = texts.chain(bin_attrs).map(|(name, values)| (name.to_ascii_lowercase(), values));
        Self { dn, values: values.collect() }
    }

    /// The values of an attribute that are text.
    pub(super) fn texts(&self, attribute: &str) -> impl Iterator<Item = &str> {
        let values = self.values.get(&attribute.to_ascii_lowercase()).map(Vec::as_slice).unwrap_or_default();
        values.iter().filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// The first value of an attribute.
    pub(super) fn bytes(&self, attribute: &str) -> Option<&[u8]> {
        self.values.get(&attribute.to_ascii_lowercase())?.first().map(Vec::as_slice)
    }

    /// The same, as text.
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        self.texts(attribute).next()
    }

    /// The same, parsed.
    pub(super) fn parse<T: std::str::FromStr>(&self, attribute: &str) -> Option<T> {
        self.text(attribute)?.parse().ok()
    }
}

/// The distinguished name of a DNS domain (RFC 2247): `ad.example.org` is `DC=ad,DC=example,DC=org`.
pub(super) fn domain_dn(dns_domain: &str) -> String {
    dns_domain.split('.').map(|label| format!("DC={label}")).collect::<Vec<_>>().join(",")
}

/// Whether the entry `dn` is at or below `base`. What else spells a name differently, spaces for one, is not undone.
pub(super) fn is_below(dn: &str, base: &str) -> bool {
    let (dn, base) = (dn.to_lowercase(), base.to_lowercase());
    dn.strip_suffix(&base).is_some_and(|rest| rest.is_empty() || rest.ends_with(','))
}

/// A time in the form `20261124203855.0Z` (RFC 4517, section 3.3.13), as far as directories use it: in UTC, to the
/// second.
pub(super) fn generalized_time(text: &str) -> Option<SystemTime> {
    let (digits, rest) = text.split_at_checked(14)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) || !rest.starts_with(['.', 'Z']) || !rest.ends_with('Z') {
        return None;
    }
    let part = |from, to| &digits[from..to];
    let rfc3339 = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    humantime::parse_rfc3339(&rfc3339).ok()
}

/// A `FILETIME` (MS-DTYP, section 2.3.3): units of 100 ns since 1601. 0 is never.
pub(super) fn file_time(units: u64) -> Option<SystemTime> {
    /// From 1601-01-01 to 1970-01-01.
    const EPOCH: Duration = Duration::from_secs(11_644_473_600);
    let since_1601 = Duration::from_nanos_u128(u128::from(units) * 100);
    Some(SystemTime::UNIX_EPOCH + since_1601.checked_sub(EPOCH)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_have_names_in_the_directory() {
        assert_eq!(domain_dn("ad.example.org"), "DC=ad,DC=example,DC=org");
        assert!(is_below("OU=Clones,DC=ad,DC=example", "dc=AD,dc=example"));
        assert!(is_below("DC=ad,DC=example", "DC=ad,DC=example"));
        assert!(!is_below("OU=Clones,DC=bad,DC=example", "DC=ad,DC=example"));
        assert!(!is_below("OU=Clones,XDC=ad,DC=example", "DC=ad,DC=example"));
    }

    #[test]
    fn times() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_552_735);
        for good in ["20261124203855.0Z", "20261124203855Z"] {
            assert_eq!(generalized_time(good), Some(expected), "{good}");
        }
        for bad in ["", "20261124203855", "20261324203855Z", "20261124203855+0100", "2026-11-24Z", "é"] {
            assert_eq!(generalized_time(bad), None, "{bad}");
        }
        assert_eq!(file_time((1_795_552_735 + 11_644_473_600) * 10_000_000), Some(expected));
        assert_eq!(file_time(0), None);
        assert!(file_time(u64::MAX).is_some());
    }
}
