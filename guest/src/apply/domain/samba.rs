//! A member through Samba's winbind, by offline domain join (net(8), `offlinejoin`): the machine's password and what is
//! known of the domain go to secrets.tdb, and the domain controller to ask first to a cache.

use super::{
    ApplyError, Tool,
    block::{self, Counts},
};
use crate::{root::Root, system::System};
use ramet_proto::domain::{DomainAccount, DomainIdentity};
use zeroize::Zeroizing;

const CONF: &str = "etc/samba/smb.conf";

/// The machine's password and SID, where smb.conf(5), `private dir`, is what it is by default.
const SECRETS: &str = "var/lib/samba/private/secrets.tdb";

/// What keys of secrets.tdb that hold a computer account's password begin with.
const ACCOUNT_KEYS: &[&[u8]] =
    &[b"SECRETS/MACHINE_PASSWORD", b"SECRETS/MACHINE_DOMAIN_INFO", b"SECRETS/$MACHINE.ACC"];

/// What is of the template's account or of what its domain controllers have said: a setting that names a directory, and
/// the file there. Not what numbers users and groups (`winbindd_idmap.tdb`): files on the disk have these numbers.
const OLD: &[(&str, &str)] = &[
    ("private dir", "secrets.tdb"),
    ("private dir", "netlogon_creds_cli.tdb"),
    ("lock directory", "gencache.tdb"),
    ("cache directory", "gencache.tdb"),
    ("cache directory", "netsamlogon_cache.tdb"),
    ("state directory", "winbindd_cache.tdb"),
];

/// Where winbind writes a krb5.conf for each domain, in the lock directory.
const OLD_KRB5: (&str, &str) = ("lock directory", "smb_krb5");

/// Removes the template's computer account.
pub(super) fn forget_account(root: &Root) -> Result<(), ApplyError> {
    let Some(bytes) = root.read(SECRETS)?.map(Zeroizing::new) else { return Ok(()) };
    // The file has the machine's SID as well. Keys stand in it as they are, deleted ones included.
    let has = |key: &&[u8]| bytes.windows(key.len()).any(|window| window == *key);
    if ACCOUNT_KEYS.iter().any(has) {
        root.remove(SECRETS)?;
    }
    Ok(())
}

pub(super) fn apply<S: System>(domain: &DomainIdentity, root: &Root, system: &S) -> Result<(), ApplyError> {
    let before = root.read_text(CONF)?.ok_or_else(|| ApplyError::Missing(format!("there is no /{CONF}")))?;
    let after = block::with(&before, own_settings(&domain.account), Counts::Last);
    if after != before {
        root.replace(CONF, after.as_bytes(), 0o644)?;
    }
    let run = |tool: Tool<'_>, what| system.run(&tool.run()).map_err(|error| ApplyError::System(what, error));
    let settings = run(Tool::Settings, "ask Samba for its settings")?;
    check(&settings, &domain.account)?;
    forget(&settings, root)?;
    run(Tool::RequestJoin(&domain.join), "have Samba take on the computer account").map(drop)
}

/// An account that is given to another machine later keeps its password: winbind would change it every week.
fn own_settings(account: &DomainAccount) -> &'static str {
    if account.persistent { "" } else { "[global]\n\tmachine password timeout = 0\n" }
}

/// That Samba is set up for this account. What is not right here would make the join fail, with less of a reason.
fn check(settings: &str, account: &DomainAccount) -> Result<(), ApplyError> {
    let (realm, workgroup) = (account.realm.to_string(), account.workgroup.as_str());
    let mut wanted = vec![
        ("realm", realm.as_str()),
        ("workgroup", workgroup),
        ("security", "ads"),
        ("netbios name", account.name.as_str()),
    ];
    wanted.extend((!account.persistent).then_some(("machine password timeout", "0")));
    for (name, value) in wanted {
        let set = setting(settings, name).unwrap_or_default();
        if !set.eq_ignore_ascii_case(value) {
            return Err(ApplyError::Mismatch(format!(
                "Samba's {name} is {set:?}, and the computer account needs {value}: set it in the image's /{CONF}"
            )));
        }
    }
    Ok(())
}

fn forget(settings: &str, root: &Root) -> Result<(), ApplyError> {
    let directory =
        |name| setting(settings, name).map(|path| path.trim_matches('/')).filter(|path| !path.is_empty());
    for (name, file) in OLD {
        if let Some(directory) = directory(name) {
            root.remove(&format!("{directory}/{file}"))?;
        }
    }
    if let Some(locks) = directory(OLD_KRB5.0) {
        let directory = format!("{locks}/{}", OLD_KRB5.1);
        for name in root.names(&directory)? {
            root.remove(&format!("{directory}/{name}"))?;
        }
    }
    Ok(())
}

/// The value of `name` in what testparm(1) prints: lines `name = value`.
fn setting<'a>(settings: &'a str, name: &str) -> Option<&'a str> {
    settings.lines().find_map(|line| {
        let (key, value) = line.split_once(" =")?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_in_what_testparm_prints() {
        let said = "Load smb config files from /etc/samba/smb.conf\nLoaded services file OK.\n\n[global]\n\
                    \tdns proxy = Yes\n\trealm = AD.EXAMPLE.ORG\n\tnetbios aliases = \n\tsecurity = ADS\n\
                    \tlog file = a = b\n";
        assert_eq!(setting(said, "realm"), Some("AD.EXAMPLE.ORG"));
        assert_eq!(setting(said, "netbios aliases"), Some(""));
        assert_eq!(setting(said, "log file"), Some("a = b"));
        assert_eq!(setting(said, "proxy"), None);
    }
}
