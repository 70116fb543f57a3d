//! Computer accounts in the directory: made, found, given new passwords and removed, by a user who may do that in one
//! organizational unit.
//!
//! An account that exists is never taken over, whoever it belongs to. What is made carries a stamp in its description,
//! so that after a crash it can be told whose it is.

use super::{
    directory::{Directory, RequestError, code},
    entry::{self, Entry},
    password,
};
use ldap3::{Mod, Scope, ldap_escape};
use ramet_proto::{
    Secret, Sid,
    domain::{DomainAccount, NetbiosName},
    text::Text,
};
use std::{collections::HashSet, time::SystemTime};

/// Something could not be done with an account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Somebody has the name, or a service principal name that goes with it.
    #[error("the name {name} is taken by {by}: choose another, an account that exists is never taken over")]
    Taken {
        /// The name.
        name: NetbiosName,
        /// The distinguished name of who has it.
        by: Text,
    },
    /// The server knows better than the search before.
    #[error("the name {name} is taken ({text}): choose another, an account that exists is never taken over")]
    Exists {
        /// The name.
        name: NetbiosName,
        /// In the directory's words.
        text: Text,
    },
    /// The user may not.
    #[error("{user} may not {action} in {ou} ({text}): delegate it")]
    NoRight {
        /// The user.
        user: String,
        /// What was tried, as a verb.
        action: &'static str,
        /// Where.
        ou: String,
        /// In the directory's words.
        text: Text,
    },
    /// There is no such organizational unit.
    #[error("there is no organizational unit {ou}, or {user} may not see it")]
    NoOu {
        /// The unit.
        ou: String,
        /// The user.
        user: String,
    },
    /// The directory's rules are against it.
    #[error(
        "the domain's rules do not let {user} {action} for {name} ({text}): a service principal name is somebody \
             else's, the password is not to its taste, or the user has made as many accounts as it may"
    )]
    Rules {
        /// The user.
        user: String,
        /// What was tried, as a verb.
        action: &'static str,
        /// For which account.
        name: NetbiosName,
        /// In the directory's words.
        text: Text,
    },
    /// There is no such account: none has its SID, or one of another name.
    #[error("there is no account {name} any more (its SID was {sid})")]
    Gone {
        /// Its name.
        name: NetbiosName,
        /// Its SID.
        sid: Sid,
    },
    /// The password holds what cannot be sent.
    #[error("the password of {0} is not UTF-8")]
    Password(NetbiosName),
    /// The request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl AccountError {
    /// Whether it is not known what became of the request: the account may be there, or have the new password. Search for
    /// the stamp before anything else is done with it.
    #[must_use]
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Request(error) => error.is_unclear(),
            Self::Taken { .. }
            | Self::Exists { .. }
            | Self::NoRight { .. }
            | Self::NoOu { .. }
            | Self::Rules { .. }
            | Self::Gone { .. }
            | Self::Password(_) => false,
        }
    }
}

/// An account as the directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What is needed to be it. The version of its keys is 0 if it never had a password.
    pub account: DomainAccount,
    /// Its distinguished name.
    pub dn: String,
    /// Its description: the stamp of who made it.
    pub description: Option<String>,
    /// Whether it can be used.
    pub enabled: bool,
    /// When it was made.
    pub created: Option<SystemTime>,
    /// When its password was set last.
    pub password_set: Option<SystemTime>,
}

/// What is read of an account.
const ATTRIBUTES: &[&str] = &[
    "sAMAccountName",
    "objectSid",
    "msDS-KeyVersionNumber",
    "description",
    "userAccountControl",
    "whenCreated",
    "pwdLastSet",
];

const CREATE: &str = "make a computer account";
const RESET: &str = "reset a computer's password";
const DELETE: &str = "delete a computer account";
const READ: &str = "read a computer account";

impl Directory {
    /// Makes an account with `password`, described by `stamp`.
    ///
    /// Any number may be made at once. After an error that [is unclear](AccountError::is_unclear) the account may exist.
    pub async fn create(
        &self,
        name: &NetbiosName,
        password: &Secret,
        stamp: &str,
    ) -> Result<DomainAccount, AccountError> {
        let unicode_pwd =
            password::to_unicode_pwd(password).ok_or_else(|| AccountError::Password(name.clone()))?;
        self.check_free(name).await?;
        let dn = self.dn(name);
        let new = NewAccount::new(name, &self.fqdn(name), self.encryption_types, stamp);
        let added = self.link.ldap().add(&dn, new.attributes(&unicode_pwd)).await;
        self.link.accept(CREATE, added).map_err(|error| self.explain(error, name, None))?;
        let found = self.link.entry(READ, &dn, ATTRIBUTES).await?;
        let found = found.and_then(|entry| self.found(&entry));
        Ok(found.ok_or_else(|| self.link.incomplete(READ, "the account it has just made"))?.account)
    }

    /// The account that was made with `stamp`, if there is one.
    pub async fn find_stamped(&self, stamp: &str) -> Result<Option<Found>, AccountError> {
        let filter = format!("(&(objectCategory=computer)(description={}))", ldap_escape(stamp));
        Ok(self.find_in_ou(&filter).await?.into_iter().next())
    }

    /// All computer accounts in the organizational unit, by name. Those whose names no host can have are left out: they
    /// were not made here.
    pub async fn list(&self) -> Result<Vec<Found>, AccountError> {
        let mut found = self.find_in_ou("(objectCategory=computer)").await?;
        found.sort_by(|a, b| a.account.name.cmp(&b.account.name));
        Ok(found)
    }

    /// The account `name`, wherever in the domain it is.
    pub async fn read(&self, name: &NetbiosName) -> Result<Option<Found>, AccountError> {
        let filter = format!("(sAMAccountName={name}$)");
        let entries = self.link.search(READ, &self.base, Scope::Subtree, &filter, ATTRIBUTES).await?;
        Ok(entries.iter().find_map(|entry| self.found(entry)))
    }

    /// Sets a new password and returns the account with its new version. Tickets that were issued before stay good until
    /// they expire.
    pub async fn reset(
        &self,
        account: &DomainAccount,
        password: &Secret,
    ) -> Result<DomainAccount, AccountError> {
        let name = &account.name;
        let unicode_pwd =
            password::to_unicode_pwd(password).ok_or_else(|| AccountError::Password(name.clone()))?;
        self.check_same(account).await?;
        let dn = by_sid(&account.sid);
        let change = Mod::Replace(&b"unicodePwd"[..], HashSet::from([&unicode_pwd[..]]));
        let changed = self.link.ldap().modify(&dn, vec![change]).await;
        let explain = |error| self.explain(error, name, Some(&account.sid));
        self.link.accept(RESET, changed).map_err(explain)?;
        let found = self.link.entry(READ, &dn, ATTRIBUTES).await?;
        let found = found.and_then(|entry| self.found(&entry)).ok_or_else(|| gone(account))?;
        Ok(DomainAccount { persistent: account.persistent, ..found.account })
    }

    /// Removes the account.
    pub async fn delete(&self, account: &DomainAccount) -> Result<(), AccountError> {
        self.check_same(account).await?;
        let deleted = self.link.ldap().delete(&by_sid(&account.sid)).await;
        let explain = |error| self.explain(error, &account.name, Some(&account.sid));
        self.link.accept(DELETE, deleted).map_err(explain)
    }

    /// Fails unless the SID is still that of the account's name. In a directory that was restored from a backup it may be
    /// somebody else's, who is not to be touched.
    async fn check_same(&self, account: &DomainAccount) -> Result<(), AccountError> {
        let entry = self.link.entry(READ, &by_sid(&account.sid), &["sAMAccountName"]).await?;
        let entry = entry.ok_or_else(|| gone(account))?;
        // A user who may not read it knows nothing, least of all that the account is gone.
        let name = entry.text("sAMAccountName");
        let name = name.ok_or_else(|| self.link.incomplete(READ, "the account's name"))?;
        if name.eq_ignore_ascii_case(&format!("{}$", account.name)) { Ok(()) } else { Err(gone(account)) }
    }

    /// Fails if somebody has the name, or a service principal name that the new account's would clash with: `HOST` stands
    /// for many service classes, and each of them for it. The directory checks the same, but not in every version and
    /// not in as clear words.
    async fn check_free(&self, name: &NetbiosName) -> Result<(), AccountError> {
        let filter = taken_filter(name, &self.fqdn(name), &self.host_aliases);
        let action = "tell whether a name is taken";
        let taken =
            self.link.search(action, &self.base, Scope::Subtree, &filter, &["sAMAccountName"]).await?;
        match taken.first() {
            None => Ok(()),
            Some(by) => Err(AccountError::Taken { name: name.clone(), by: Text::new(&by.dn) }),
        }
    }

    async fn find_in_ou(&self, filter: &str) -> Result<Vec<Found>, AccountError> {
        match self.link.search(READ, &self.ou, Scope::Subtree, filter, ATTRIBUTES).await {
            Ok(entries) => Ok(entries.iter().filter_map(|entry| self.found(entry)).collect()),
            Err(RequestError::Refused { code: code::NO_SUCH_OBJECT, .. }) => Err(self.no_ou()),
            Err(error) => Err(error.into()),
        }
    }

    /// `entry` as an account; `None` if it is none that a host can be.
    fn found(&self, entry: &Entry) -> Option<Found> {
        /// `ADS_UF_ACCOUNTDISABLE` (MS-ADTS, section 2.2.16).
        const DISABLED: u32 = 2;
        let domain = &self.domain;
        let account = DomainAccount {
            realm: domain.realm.clone(),
            workgroup: domain.workgroup.clone(),
            name: entry.text("sAMAccountName")?.strip_suffix('$')?.parse().ok()?,
            sid: Sid::from_bytes(entry.bytes("objectSid")?).ok()?,
            kvno: entry.parse("msDS-KeyVersionNumber").unwrap_or(0),
            dc: domain.controller.name.clone(),
            persistent: false,
        };
        Some(Found {
            account,
            dn: entry.dn.clone(),
            description: entry.text("description").map(str::to_owned),
            enabled: entry.parse::<u32>("userAccountControl").is_some_and(|flags| flags & DISABLED == 0),
            created: entry.text("whenCreated").and_then(entry::generalized_time),
            password_set: entry.parse("pwdLastSet").and_then(entry::file_time),
        })
    }

    /// What a refusal means for the account `name`, which has `sid` if it is known to exist.
    fn explain(&self, error: RequestError, name: &NetbiosName, sid: Option<&Sid>) -> AccountError {
        let (code, action, text) = match error {
            RequestError::Refused { code, action, ref text, .. } => (code, action, text.clone()),
            error @ (RequestError::Lost { .. }
            | RequestError::Timeout { .. }
            | RequestError::Incomplete { .. }) => return error.into(),
        };
        let (name, user) = (name.clone(), self.user.clone());
        match (code, sid) {
            (code::ENTRY_ALREADY_EXISTS, _) => AccountError::Exists { name, text },
            (code::INSUFFICIENT_ACCESS_RIGHTS, _) => {
                AccountError::NoRight { user, action, ou: self.ou.clone(), text }
            }
            (code::CONSTRAINT_VIOLATION | code::UNWILLING_TO_PERFORM, _) => {
                AccountError::Rules { user, action, name, text }
            }
            (code::NO_SUCH_OBJECT, Some(sid)) => AccountError::Gone { name, sid: sid.clone() },
            (code::NO_SUCH_OBJECT, None) => self.no_ou(),
            (_other, _) => error.into(),
        }
    }

    fn no_ou(&self) -> AccountError {
        AccountError::NoOu { ou: self.ou.clone(), user: self.user.clone() }
    }

    fn fqdn(&self, name: &NetbiosName) -> String {
        format!("{}.{}", name.as_str().to_ascii_lowercase(), self.domain.realm.dns_domain())
    }
}

fn gone(account: &DomainAccount) -> AccountError {
    AccountError::Gone { name: account.name.clone(), sid: account.sid.clone() }
}

/// The form of a distinguished name that finds an account wherever it was moved, and never another one of the same name
/// (MS-ADTS, section 3.1.1.3.1.2.4).
fn by_sid(sid: &Sid) -> String {
    format!("<SID={sid}>")
}

/// A filter (RFC 4515) for whoever has the name or a service principal name of that host.
fn taken_filter(name: &NetbiosName, fqdn: &str, host_aliases: &[String]) -> String {
    let classes = host_aliases.iter().map(String::as_str).chain(["RestrictedKrbHost"]);
    let principals = classes.flat_map(|class| [format!("{class}/{name}"), format!("{class}/{fqdn}")]);
    let principals = principals.map(|spn| ["(servicePrincipalName=", &*ldap_escape(spn), ")"].concat());
    let principals: String = principals.collect();
    format!("(|(sAMAccountName={name}$)(dNSHostName={fqdn}){principals})")
}

/// The attributes of an account that is to be made, its password aside.
struct NewAccount(Vec<(&'static str, Vec<String>)>);

impl NewAccount {
    fn new(name: &NetbiosName, fqdn: &str, encryption_types: u32, stamp: &str) -> Self {
        /// `ADS_UF_WORKSTATION_TRUST_ACCOUNT` (MS-ADTS, section 2.2.16).
        const WORKSTATION: u32 = 0x1000;
        let services = ["HOST", "RestrictedKrbHost"];
        let principals =
            services.iter().flat_map(|class| [format!("{class}/{name}"), format!("{class}/{fqdn}")]);
        Self(vec![
            ("objectClass", vec!["computer".to_owned()]),
            ("sAMAccountName", vec![format!("{name}$")]),
            ("userAccountControl", vec![WORKSTATION.to_string()]),
            ("dNSHostName", vec![fqdn.to_owned()]),
            ("servicePrincipalName", principals.collect()),
            ("msDS-SupportedEncryptionTypes", vec![encryption_types.to_string()]),
            ("description", vec![stamp.to_owned()]),
        ])
    }

    /// As the LDAP library takes them. It copies the password, and does not wipe that copy.
    fn attributes<'a>(&'a self, unicode_pwd: &'a [u8]) -> Vec<(&'a [u8], HashSet<&'a [u8]>)> {
        let attributes = self.0.iter().map(|(name, values)| {
            (name.as_bytes(), values.iter().map(String::as_bytes).collect::<HashSet<_>>())
        });
        attributes.chain([(&b"unicodePwd"[..], HashSet::from([unicode_pwd]))]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_by_any_alias_of_its_host() {
        let aliases = ["HOST".to_owned(), "cifs".to_owned()];
        let filter = taken_filter(&"vdi-1".parse().unwrap(), "vdi-1.ad.example.org", &aliases);
        assert_eq!(
            filter,
            "(|(sAMAccountName=VDI-1$)(dNSHostName=vdi-1.ad.example.org)\
             (servicePrincipalName=HOST/VDI-1)(servicePrincipalName=HOST/vdi-1.ad.example.org)\
             (servicePrincipalName=cifs/VDI-1)(servicePrincipalName=cifs/vdi-1.ad.example.org)\
             (servicePrincipalName=RestrictedKrbHost/VDI-1)\
             (servicePrincipalName=RestrictedKrbHost/vdi-1.ad.example.org))"
        );
    }

    #[test]
    fn a_new_account_has_all_its_attributes_at_once() {
        let new = NewAccount::new(&"vdi-1".parse().unwrap(), "vdi-1.ad.example.org", 24, "ramet:1:2");
        let attributes = new.attributes(b"\"\0x\0\"\0");
        let values = |name: &str| {
            let mut found = attributes.iter().filter(|(attribute, _)| *attribute == name.as_bytes());
            let mut values: Vec<_> =
                found.next().unwrap().1.iter().map(|value| String::from_utf8_lossy(value)).collect();
            values.sort();
            values.join(" ")
        };
        assert_eq!(values("sAMAccountName"), "VDI-1$");
        assert_eq!(values("userAccountControl"), "4096");
        assert_eq!(
            values("servicePrincipalName"),
            "HOST/VDI-1 HOST/vdi-1.ad.example.org RestrictedKrbHost/VDI-1 RestrictedKrbHost/vdi-1.ad.example.org"
        );
        assert_eq!(values("unicodePwd"), "\"\0x\0\"\0");
        assert_eq!(attributes.len(), 8);
    }
}
