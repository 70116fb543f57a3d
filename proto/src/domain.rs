//! Membership in an Active Directory domain: a computer account, and what a guest needs to be it.

use crate::{
    identity::{InvalidIdentity, Sid, check_label, text_form},
    network::DomainName,
    secret::Secret,
    text::Text,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The public part of a computer account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainAccount {
    /// The domain's Kerberos realm. Its DNS domain is the same in lower case (MS-KILE, section 1.3.2, and practice).
    pub realm: Realm,
    /// The domain's `NetBIOS` name, which Samba calls its workgroup.
    pub workgroup: NetbiosName,
    /// The account's `sAMAccountName` without the `$` at its end: the machine's `NetBIOS` name.
    pub name: NetbiosName,
    /// The account's `objectSid`.
    pub sid: Sid,
    /// The version of its keys (`msDS-KeyVersionNumber`).
    pub kvno: u32,
    /// The domain controller that made the account or set its password last: the one that surely knows it.
    pub dc: DomainName,
    /// The machine keeps the account for good and changes its password as it likes. Otherwise the account is given to
    /// another machine later, and the guest must not change the password.
    #[serde(default)]
    pub persistent: bool,
}

impl DomainAccount {
    /// The account's principal, `NAME$@REALM`.
    #[must_use]
    pub fn principal(&self) -> String {
        format!("{}$@{}", self.name, self.realm)
    }

    /// The machine's name in the DNS domain.
    #[must_use]
    pub fn fqdn(&self) -> String {
        format!("{}.{}", self.name.to_string().to_ascii_lowercase(), self.realm.dns_domain())
    }
}

/// A computer account with what proves to be it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainIdentity {
    /// Which account.
    pub account: DomainAccount,
    /// The account's keys, as a keytab file of version 0x0502 (MIT krb5, "The keytab file format").
    pub keytab: Secret,
    /// `ODJ_PROVISION_DATA` in the form that `djoin /requestodj` and `net offlinejoin requestodj` read: the bytes of
    /// the text file.
    pub join: Secret,
}

/// What a guest reads back of its keytab: the account's principal and the highest version of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainEvidence {
    /// `NAME$@REALM`.
    pub principal: Text,
    /// The version of the key.
    pub kvno: u32,
}

/// What a member of a domain found when it tried its account on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinEvidence {
    /// What was run, in this order; each succeeded.
    pub checks: Vec<JoinCheck>,
}

/// A command that showed the membership to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCheck {
    /// The command.
    pub command: Text,
    /// The end of what it printed.
    pub printed: Text,
    /// Milliseconds from the message `join` to its success, by the guest's monotonic clock.
    pub after_ms: u64,
}

/// A Kerberos realm that is a DNS domain in upper case, as those of Active Directory are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Realm(DomainName);

text_form!(Realm, "a Kerberos realm");

impl Realm {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err("it is not in upper case");
        }
        text.parse().map(Self).map_err(|_| "it is not a domain (RFC 1035)")
    }

    /// The DNS domain.
    #[must_use]
    pub fn dns_domain(&self) -> String {
        self.0.to_string().to_ascii_lowercase()
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A `NetBIOS` name of a machine or a domain: 1 to 15 letters, digits and inner hyphens, not digits alone, kept in
/// upper case. What Windows allows besides (MS-NBTE, section 2.2.1) makes no host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NetbiosName(String);

text_form!(NetbiosName, "a NetBIOS name");

impl NetbiosName {
    /// The most characters.
    pub const MAX: usize = 15;

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > Self::MAX {
            return Err("it is longer than 15 characters");
        }
        check_label(text)?;
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("it is a number");
        }
        Ok(Self(text.to_ascii_uppercase()))
    }

    /// The name, in upper case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetbiosName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<&DomainName> for Realm {
    type Error = InvalidIdentity;

    fn try_from(domain: &DomainName) -> Result<Self, Self::Error> {
        domain.to_string().to_ascii_uppercase().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netbios_names_are_short_and_in_upper_case() {
        for (text, name) in [("vdi-0001", "VDI-0001"), ("A", "A"), ("abcdefghijklmno", "ABCDEFGHIJKLMNO")] {
            assert_eq!(text.parse::<NetbiosName>().unwrap().as_str(), name);
        }
        for bad in ["", "abcdefghijklmnop", "12", "a.b", "-a", "a_b", "a$", "é"] {
            assert!(bad.parse::<NetbiosName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn realms_are_domains_in_upper_case() {
        let realm: Realm = "AD.EXAMPLE.ORG".parse().unwrap();
        assert_eq!(realm.dns_domain(), "ad.example.org");
        assert_eq!(Realm::try_from(&"ad.example.org".parse::<DomainName>().unwrap()).unwrap(), realm);
        for bad in ["", "ad.example.org", "A..B", "A B"] {
            assert!(bad.parse::<Realm>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_others_know_the_account_by() {
        let account = DomainAccount {
            realm: "AD.EXAMPLE.ORG".parse().unwrap(),
            workgroup: "EXAMPLE".parse().unwrap(),
            name: "vdi-1".parse().unwrap(),
            sid: "S-1-5-21-1-2-3-1104".parse().unwrap(),
            kvno: 1,
            dc: "dc1.ad.example.org".parse().unwrap(),
            persistent: false,
        };
        assert_eq!(account.principal(), "VDI-1$@AD.EXAMPLE.ORG");
        assert_eq!(account.fqdn(), "vdi-1.ad.example.org");
    }
}
