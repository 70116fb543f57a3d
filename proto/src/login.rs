//! Who may log in: user names and the SSH keys they are let in with.

use crate::identity::text_form;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The SSH keys of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserKeys {
    /// Who. The guest must know the user.
    pub user: UserName,
    /// The keys, in place of those that the user has in the template. None locks the user out.
    pub keys: Vec<AuthorizedKey>,
}

/// A user's login name: 1 to 32 letters, digits, dots, underscores and hyphens, the first a letter or an underscore
/// (useradd(8), "CAVEATS", and the dots that directory services have).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UserName(String);

text_form!(UserName, "a user name");

impl UserName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if !(1..=32).contains(&text.len()) {
            return Err("it is not 1 to 32 characters long");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return Err("it does not begin with a letter or an underscore");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err("only letters, digits, dots, underscores and hyphens are allowed");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A line of `authorized_keys` (sshd(8), "`AUTHORIZED_KEYS` FILE FORMAT"): an algorithm that OpenSSH knows, a key, perhaps
/// a comment; no options. The key's form is checked, not the key itself: OpenSSH does that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AuthorizedKey(String);

text_form!(AuthorizedKey, "a line of authorized_keys without options");

/// What ssh-keygen(1) makes, security keys included.
const ALGORITHMS: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

impl AuthorizedKey {
    /// The most characters: RSA with 16,384 bits takes under 2,800.
    pub const MAX: usize = 4096;

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > Self::MAX {
            return Err("it is longer than 4096 characters");
        }
        if text.contains(char::is_control) {
            return Err("it is not one line of printable characters");
        }
        let mut words = text.split(' ');
        if !words.next().is_some_and(|word| ALGORITHMS.contains(&word)) {
            return Err("it does not begin with the name of a key's algorithm");
        }
        // Every key begins with the length of its algorithm's name in four bytes (RFC 4253, section 6.6).
        let is_base64 = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        if !words.next().is_some_and(|word| word.starts_with("AAAA") && is_base64(word)) {
            return Err("its key is not base64");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        for good in ["root", "_apt", "jane.doe", "a", "web-1", &"a".repeat(32)] {
            assert_eq!(good.parse::<UserName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "1a", ".a", "a:b", "a/b", "..", "a b", "ä", "a\n", &"a".repeat(33)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn authorized_keys() {
        for good in ["ssh-ed25519 AAAAC3Nz", "ssh-rsa AAAAB3+/= jane at home", "ssh-ed25519 AAAAC3Nz ä"] {
            assert_eq!(good.parse::<AuthorizedKey>().unwrap().to_string(), good);
        }
        let long = "ssh-rsa ".to_owned() + &"A".repeat(5000);
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 ",
            "ssh-ed25519  AAAAC3Nz",
            "ssh-dss AAAAC3Nz",
            "command=\"id\" ssh-ed25519 AAAAC3Nz",
            "# ssh-ed25519 AAAAC3Nz",
            " ssh-ed25519 AAAAC3Nz",
            "ssh-ed25519 AAAAC3Nz\nssh-rsa AAAA",
            "ssh-ed25519 AAAA\x1b[2J",
            "ssh-ed25519 C3Nz",
            &long,
        ] {
            assert!(bad.parse::<AuthorizedKey>().is_err(), "{bad:?}");
        }
    }
}
