//! Names of templates and children.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The name of a template or a child. Children are named like hosts, since a generated hostname is the child's name:
/// 1 to 63 letters, digits and inner hyphens. It is safe as a file name and on a command line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(String);

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 63 letters, digits and inner hyphens")]
pub struct InvalidName(String);

impl Name {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether two names are the same host name, which has no case.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let characters = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let good =
            (1..=63).contains(&text.len()) && characters && !text.starts_with('-') && !text.ends_with('-');
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidName(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_file_names() {
        for good in ["a", "web-1", "Debian13"] {
            assert_eq!(good.parse::<Name>().unwrap().to_string(), good);
        }
        let long = "x".repeat(64);
        for bad in ["", ".", "..", "a/b", "../a", ".hidden", "-a", "a-", "a b", "a\n", "ä", long.as_str()] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
