//! krb5.conf(5): the realm of the account is the default. Which of its domain controllers are asked is left to DNS, so
//! that one that is taken out of service later is not missed; winbind and SSSD find them by themselves and are told which
//! one knows the account for sure.

use super::{
    ApplyError,
    block::{self, Counts},
    keytab,
};
use crate::root::Root;
use ramet_proto::domain::DomainAccount;

pub(super) const CONF: &str = "etc/krb5.conf";

pub(super) fn apply(account: &DomainAccount, root: &Root) -> Result<(), ApplyError> {
    let before = root.read(CONF)?.unwrap_or_default();
    let after = block::with(&before, &defaults(account), Counts::First);
    if after != before {
        root.edit(CONF, &after, 0o644)?;
    }
    Ok(())
}

/// `rdns`: a name that reverse DNS makes up is no principal in Active Directory. An image may have set another keytab.
fn defaults(account: &DomainAccount) -> String {
    format!(
        "[libdefaults]\n\tdefault_realm = {}\n\tdns_lookup_kdc = true\n\trdns = false\n\
         \tdefault_keytab_name = FILE:/{}\n",
        account.realm,
        keytab::PATH
    )
}

/// Settings for who is to ask the domain controller that knows the account, and no other.
pub(crate) fn pinned(account: &DomainAccount) -> String {
    format!("[realms]\n\t{} = {{\n\t\tkdc = {}\n\t}}\n", account.realm, account.dc)
}
