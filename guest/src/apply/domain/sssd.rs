//! A member through SSSD's provider for Active Directory (sssd-ad(5)): it logs in with the keytab.

use super::ApplyError;
use crate::root::Root;
use ramet_proto::domain::DomainAccount;

const CONF: &str = "etc/sssd/sssd.conf";
const SNIPPETS: &str = "etc/sssd/conf.d";

/// Read after sssd.conf and what else is there (sssd.conf(5), "CONFIGURATION SNIPPETS FROM INCLUDE DIRECTORY").
const SNIPPET: &str = "etc/sssd/conf.d/99-ramet.conf";

/// What was learned from domain controllers as another machine: directories, and how names in them begin.
const CACHES: &[(&str, &str)] = &[
    ("var/lib/sss/db", ""),
    ("var/lib/sss/mc", ""),
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
    Ok(root.exists(CONF)? || root.read_text(super::NSSWITCH)?.is_some_and(uses))
}

pub(super) fn apply(account: &DomainAccount, root: &Root) -> Result<(), ApplyError> {
    for (directory, start) in CACHES {
        for name in root.names(directory)?.iter().filter(|name| name.starts_with(start)) {
            let path = format!("{directory}/{name}");
            if !root.is_dir(&path)? {
                root.remove(&path)?;
            }
        }
    }
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
         ldap_sasl_authid = {name}$\n",
        account.fqdn()
    );
    if !persistent {
        // It would change every month, and the account is given to another machine later.
        text += "ad_maximum_machine_account_password_age = 0\n";
    }
    text
}
