//! Host names that are numbered.

use ramet_proto::{Hostname, identity::InvalidIdentity};
use std::{fmt, str::FromStr};

/// A host name with a place for a number: `vdi-{}` or `vdi-{:04}`, which pads it with zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostnamePattern {
    before: String,
    /// The fewest digits; 0 where the pattern does not say.
    digits: usize,
    after: String,
}

/// A text that is no [`HostnamePattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern of host names: it needs {{}} or {{:04}} once, and a host name around it")]
pub struct InvalidPattern(String);

impl HostnamePattern {
    /// The host name with `number` in it.
    pub fn hostname(&self, number: u64) -> Result<Hostname, InvalidIdentity> {
        let Self { before, digits, after } = self;
        format!("{before}{number:0digits$}{after}").parse()
    }
}

impl FromStr for HostnamePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPattern(text.chars().take(80).collect());
        let (before, rest) = text.split_once('{').ok_or_else(invalid)?;
        let (form, after) = rest.split_once('}').ok_or_else(invalid)?;
        let digits = match form.strip_prefix(":0") {
            None if form.is_empty() => 0,
            None => return Err(invalid()),
            Some(digits) => {
                digits.parse().ok().filter(|digits| (1..=9).contains(digits)).ok_or_else(invalid)?
            }
        };
        let pattern = Self { before: before.to_owned(), digits, after: after.to_owned() };
        // A second place or a wrong character makes no host name, whatever the number.
        pattern.hostname(1).map_err(|_| invalid())?;
        Ok(pattern)
    }
}

impl fmt::Display for HostnamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digits {
            0 => write!(f, "{}{{}}{}", self.before, self.after),
            digits => write!(f, "{}{{:0{digits}}}{}", self.before, self.after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_their_place() {
        for (pattern, number, name) in [
            ("vdi-{:04}", 7, "vdi-0007"),
            ("vdi-{}", 7, "vdi-7"),
            ("{}.lab.example", 12, "12.lab.example"),
            ("w{:02}x", 1234, "w1234x"),
        ] {
            let parsed: HostnamePattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.hostname(number).unwrap().as_str(), name);
        }
        let long = format!("{}{{}}", "a".repeat(62)).parse::<HostnamePattern>().unwrap();
        assert!(long.hostname(9).is_ok() && long.hostname(10).is_err());
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "vdi",
            "vdi-{",
            "vdi-}",
            "{}-{}",
            "a_{}",
            "-{}",
            "{:4}",
            "{:00}",
            "{:010}",
            "{x}",
            "10.0.0.{}",
        ] {
            assert!(bad.parse::<HostnamePattern>().is_err(), "{bad:?}");
        }
    }
}
