//! QEMU's version.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A version of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct QemuVersion {
    /// 10 in 10.0.2.
    pub major: u16,
    /// 0 in 10.0.2.
    pub minor: u16,
    /// 2 in 10.0.2.
    pub micro: u16,
}

/// The oldest that can fork: `memory-backend-file,rom=off` and migration to a `file:` came with it.
pub const OLDEST: QemuVersion = QemuVersion { major: 8, minor: 2, micro: 0 };

/// A text without a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a QEMU version")]
pub struct InvalidVersion(String);

impl FromStr for QemuVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '.').map(str::parse);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(micro))) => Ok(Self { major, minor, micro }),
            _ => Err(InvalidVersion(text.chars().take(80).collect())),
        }
    }
}

impl QemuVersion {
    /// The version in what `qemu-system-x86_64 --version` prints.
    #[must_use]
    pub fn from_banner(banner: &str) -> Option<Self> {
        banner.split_whitespace().skip_while(|word| *word != "version").nth(1)?.parse().ok()
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl TryFrom<String> for QemuVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<QemuVersion> for String {
    fn from(version: QemuVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let banner = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)\nCopyright (c) 2003-2025";
        let version = QemuVersion::from_banner(banner).unwrap();
        assert_eq!(version.to_string(), "10.0.2");
        assert!(version > OLDEST);
        assert!("7.2.0".parse::<QemuVersion>().unwrap() < OLDEST);
        assert_eq!(QemuVersion::from_banner("something else"), None);
    }
}
