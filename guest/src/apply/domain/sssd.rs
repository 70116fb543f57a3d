//! A member through SSSD's provider for Active Directory (sssd-ad(5)): it logs in with the keytab.

use super::{ApplyError, conf, keytab, places};
use crate::root::Root;
use ramet_proto::domain::DomainAccount;

const CONF: &str = conf::SSSD.0;
const SNIPPETS: &str = conf::SSSD.1;

/// Read after sssd.conf and what else is there (sssd.conf(5), "CONFIGURATION SNIPPETS FROM INCLUDE DIRECTORY").
pub(super) const SNIPPET: &str = "etc/sssd/conf.d/99-ramet.conf";

/// What was learned from domain controllers as another machine, tickets and users' hashes among it: directories, and how
/// names in them begin. `secrets` has the tickets of sssd-kcm(8), `keytabs` those of trusted domains.
pub(super) const CACHES: &[(&str, &str)] = &[
    ("var/lib/sss/db", ""),
    ("var/lib/sss/keytabs", ""),
    ("var/lib/sss/mc", ""),
    ("var/lib/sss/secrets", ""),
    ("var/lib/sss/pubconf", "kdcinfo."),
    ("var/lib/sss/pubconf", "kpasswdinfo."),
];

/// Whether somebody has set up SSSD: its configuration is there, or users are looked up in it.
pub(super) fn is_set_up(root: &Root) -> Result<bool, ApplyError> {
    let uses = |text: String| {
        let passwd =
            text.lines().find_map(|line| line.trim_start().strip_prefix("passwd:").map(str::to_owned));
        passwd.is_some_and(|sources| sources.split_ascii_whitespace().any(|source| source == "sss"))
    };
    Ok(root.exists(CONF)? || root.read_lossy(super::NSSWITCH)?.is_some_and(uses))
}

/// Removes what SSSD knows as the template.
pub(super) fn forget(root: &Root) -> Result<(), ApplyError> {
    CACHES.iter().try_for_each(|(directory, start)| places::remove_in(root, directory, start))
}

pub(super) fn apply(account: &DomainAccount, root: &Root) -> Result<(), ApplyError> {
    root.make_dir(SNIPPETS, 0o700)?;
    root.remove(SNIPPET)?;
    Ok(root.replace(SNIPPET, snippet(account).as_bytes(), 0o600)?)
}

/// The domain's settings; the image's own stand in a section of the same name. The domain controller that knows the account
/// goes first, and others are found by DNS (`_srv_`).
fn snippet(account: &DomainAccount) -> String {
    let DomainAccount { realm, name, dc, persistent, .. } = account;
    let domain = realm.dns_domain();
    let mut text = format!(
        "# Written by ramet-agent for each individual.\n\
         [domain/{domain}]\n\
         enabled = true\n\
         id_provider = ad\n\
         ad_domain = {domain}\n\
         ad_server = {dc}, _srv_\n\
         ad_hostname = {}\n\
         krb5_realm = {realm}\n\
         krb5_keytab = /{}\n\
         ldap_krb5_keytab = /{}\n\
         ldap_sasl_authid = {name}$\n",
        account.fqdn(),
        keytab::PATH,
        keytab::PATH,
    );
    if !persistent {
        // It would change every month, and the account is given to another machine later.
        text += "ad_maximum_machine_account_password_age = 0\n";
    }
    text
}
