//! Membership in an Active Directory domain. The host has made the computer account; here the guest is told that it is its
//! own, through Samba's winbind or SSSD. The network is still down, and nothing here needs it.
//!
//! What a template has of an account of its own goes from every child, member or not: whoever holds the keys of a computer
//! account is that computer.

mod block;
mod check;
mod conf;
mod ini;
mod keytab;
pub(crate) mod krb5;
mod places;
mod samba;
mod sssd;
mod tool;

pub(crate) use tool::Tool;

use self::places::Places;
use super::ApplyError;
use crate::{
    config::{Config, DomainClient},
    root::Root,
    system::System,
};
use ramet_proto::{
    Hostname,
    domain::{DomainAccount, DomainEvidence},
    message::{Finding, Identity},
};

const NET: &str = "usr/bin/net";
const WINBINDD: &str = "usr/sbin/winbindd";
const SSSD: &str = "usr/sbin/sssd";
const NSSWITCH: &str = "etc/nsswitch.conf";

/// What makes a guest a member of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// winbindd(8) and net(8).
    Samba,
    /// sssd(8) with its provider sssd-ad(5).
    Sssd,
}

pub(super) fn apply<S: System>(
    identity: &Identity,
    root: &Root,
    system: &S,
    client: DomainClient,
) -> Result<(), ApplyError> {
    let places = Places::find(root)?;
    places.forget(root)?;
    let Some(domain) = &identity.domain else { return Ok(()) };
    let account = &domain.account;
    check_hostname(&identity.hostname, account)?;
    let client = installed(root, client)?;
    krb5::apply(account, root)?;
    match client {
        Client::Samba => samba::apply(domain, root, system)?,
        Client::Sssd => sssd::apply(account, root)?,
    }
    // After Samba, which may have put one there itself.
    keytab::write(&domain.keytab, root, places.dedicated.iter())
}

/// Which client the guest is a member through: the one that is there. Of both it is SSSD if somebody has set it up.
pub(crate) fn installed(root: &Root, wanted: DomainClient) -> Result<Client, ApplyError> {
    let samba = root.exists(NET)? && root.exists(WINBINDD)?;
    let sssd = root.exists(SSSD)?;
    let missing = |what: &str| {
        Err(ApplyError::Missing(format!("{what} installed, so this guest cannot be a member of a domain")))
    };
    match (wanted, samba, sssd) {
        (DomainClient::Auto, true, true) if sssd::is_set_up(root)? => Ok(Client::Sssd),
        (DomainClient::Auto | DomainClient::Samba, true, _) => Ok(Client::Samba),
        (DomainClient::Auto | DomainClient::Sssd, _, true) => Ok(Client::Sssd),
        (DomainClient::Auto, false, false) => missing("neither Samba's winbind nor SSSD is"),
        (DomainClient::Samba, false, _) => {
            missing("Samba's winbind, which /etc/ramet/agent.toml names, is not")
        }
        (DomainClient::Sssd, _, false) => missing("SSSD, which /etc/ramet/agent.toml names, is not"),
    }
}

/// Clients take the machine's account from its name, and others find the machine by it.
fn check_hostname(hostname: &Hostname, account: &DomainAccount) -> Result<(), ApplyError> {
    let short = hostname.as_str().split('.').next().unwrap_or_default();
    if short.eq_ignore_ascii_case(account.name.as_str()) {
        return Ok(());
    }
    Err(ApplyError::Malformed(format!(
        "the hostname is {hostname}, and the computer account is of {}: they have to be the same",
        account.name
    )))
}

/// The account that the keytab is of, if there is one.
pub(super) fn read(root: &Root) -> Result<Option<DomainEvidence>, ApplyError> {
    keytab::read(root)
}

/// That `shown` is the account that was told.
pub(super) fn verify(shown: Option<&DomainEvidence>, identity: &Identity) -> Result<(), ApplyError> {
    let Some(domain) = &identity.domain else { return Ok(()) };
    let (principal, kvno) = (domain.account.principal(), domain.account.kvno);
    match shown {
        Some(shown) if shown.principal.as_str() == principal && shown.kvno == kvno => Ok(()),
        Some(shown) => Err(ApplyError::Mismatch(format!(
            "the keytab is of {}, version {}, and the account is {principal}, version {kvno}",
            shown.principal, shown.kvno
        ))),
        None => Err(ApplyError::Mismatch(format!("there is no keytab of {principal}"))),
    }
}

/// What an identity would meet.
pub(super) fn check(root: &Root, config: &Config) -> Result<Vec<Finding>, ApplyError> {
    check::findings(root, config.domain)
}

#[cfg(test)]
pub(crate) mod tests;
