//! A member through Samba's winbind, by offline domain join (net(8), `offlinejoin`): the machine's password and what is
//! known of the domain go to secrets.tdb, and the domain controller to ask first to a cache.

use super::{
    ApplyError, Tool,
    block::{self, Counts},
    conf, keytab, places,
};
use crate::{root::Root, system::System};
use ramet_proto::domain::{DomainAccount, DomainIdentity};
use std::collections::BTreeSet;
use zeroize::Zeroizing;

const CONF: &str = conf::SMB;

/// What keys of secrets.tdb that hold a computer account's password begin with.
const ACCOUNT_KEYS: &[&[u8]] =
    &[b"SECRETS/MACHINE_PASSWORD", b"SECRETS/MACHINE_DOMAIN_INFO", b"SECRETS/$MACHINE.ACC"];

/// The machine's password and SID; copies have more behind the name (tdbbackup(8)).
const SECRETS: &str = "secrets.tdb";

/// What is of the template's account or of what its domain controllers have said. Not what numbers users and groups
/// (`winbindd_idmap.tdb`): files on the disk have these numbers.
const OLD: &[&str] = &[
    "netlogon_creds_cli.tdb",
    "gencache.tdb",
    "gencache_notrans.tdb",
    "netsamlogon_cache.tdb",
    "winbindd_cache.tdb",
];

/// Where winbind writes a krb5.conf for each domain.
const OLD_KRB5: &str = "smb_krb5";

/// Settings that name a directory, without blanks, and whether it is that of the secrets.
pub(super) const DIRECTORIES: &[(&str, bool)] = &[
    ("privatedir", true),
    ("privatedirectory", true),
    ("lockdirectory", false),
    ("lockdir", false),
    ("statedirectory", false),
    ("cachedirectory", false),
];

/// What keeps a keytab up to date when a password changes (smb.conf(5)), since Samba 4.21.
const SYNC: &str = "sync machine password to keytab";

/// Where Samba keeps what it knows. Which file is in which of them differs between versions and distributions.
#[derive(Debug)]
pub(super) struct Directories {
    pub(super) private: BTreeSet<String>,
    pub(super) caches: BTreeSet<String>,
}

impl Default for Directories {
    /// As they are unless smb.conf says otherwise: Debian's, Fedora's, and older ones.
    fn default() -> Self {
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Self {
            private: set(&["var/lib/samba/private", "etc/samba"]),
            caches: set(&["var/lib/samba", "var/lib/samba/lock", "var/cache/samba", "run/samba"]),
        }
    }
}

impl Directories {
    /// Those in what testparm(1) prints: a value that is not in the files is one of this build.
    fn shown(settings: &str) -> Self {
        let mut directories = Self { private: BTreeSet::new(), caches: BTreeSet::new() };
        for line in settings.lines() {
            let Some((name, value)) = line.split_once(" =") else { continue };
            let name: String = name.split_whitespace().collect();
            if let Some((_, is_private)) = DIRECTORIES.iter().find(|(directory, _)| *directory == name)
                && let Some(path) = conf::inside(value.as_bytes())
            {
                let set = if *is_private { &mut directories.private } else { &mut directories.caches };
                set.insert(path);
            }
        }
        directories
    }

    /// The paths of what is removed but for secrets.tdb, which may stay.
    pub(super) fn files(&self) -> impl Iterator<Item = String> {
        let directories = self.private.iter().chain(&self.caches);
        directories.flat_map(|directory| OLD.iter().map(move |file| format!("{directory}/{file}")))
    }

    /// The files that hold a computer account's password.
    pub(super) fn with_account(&self, root: &Root) -> Result<Vec<String>, ApplyError> {
        let found: Result<Vec<_>, _> =
            self.private.iter().map(|directory| with_account(root, directory)).collect();
        Ok(found?.concat())
    }

    /// Removes the template's computer account, and what Samba has learned as it.
    pub(super) fn forget(&self, root: &Root) -> Result<(), ApplyError> {
        for path in self.with_account(root)? {
            places::remove_all(root, &path)?;
        }
        for path in self.files() {
            places::remove_all(root, &path)?;
        }
        self.caches
            .iter()
            .try_for_each(|directory| places::remove_in(root, &format!("{directory}/{OLD_KRB5}"), ""))
    }
}

/// The files in `directory` that hold a computer account's password.
fn with_account(root: &Root, directory: &str) -> Result<Vec<String>, ApplyError> {
    let mut found = Vec::new();
    for name in root.names(directory)?.iter().filter(|name| name.starts_with(SECRETS)) {
        let path = format!("{directory}/{name}");
        // What is no file is none of Samba's, and a link may lead nowhere.
        if places::chain_of(root, &path)?.is_empty() {
            continue;
        }
        let bytes = root.read(&path)?.map(Zeroizing::new).unwrap_or_default();
        // The file has the machine's SID as well. Keys stand in it as they are, deleted ones included.
        let has = |key: &&[u8]| bytes.windows(key.len()).any(|window| window == *key);
        if ACCOUNT_KEYS.iter().any(has) {
            found.push(path);
        }
    }
    Ok(found)
}

pub(super) fn apply<S: System>(domain: &DomainIdentity, root: &Root, system: &S) -> Result<(), ApplyError> {
    let image = root.read(CONF)?.ok_or_else(|| ApplyError::Missing(format!("there is no /{CONF}")))?;
    let own = |lines: &str| -> Result<(), ApplyError> {
        let after = block::with(&image, lines, Counts::Last);
        if root.read(CONF)?.as_deref() != Some(&after) {
            root.edit(CONF, &after, 0o644)?;
        }
        Ok(())
    };
    let run = |tool: Tool<'_>, what| system.run(&tool.run()).map_err(|error| ApplyError::System(what, error));
    let lines = own_settings(&domain.account);
    own(lines)?;
    let settings = run(Tool::Settings, "ask Samba for its settings")?;
    check(&settings, &domain.account)?;
    let shown = Directories::shown(&settings);
    shown.forget(root)?;
    for directory in &shown.private {
        // Of the account that is given here the old password would be kept.
        root.remove(&format!("{directory}/{SECRETS}"))?;
    }
    // What the image has set would ask a domain controller. The keytab is written anew after this.
    if setting(&settings, SYNC).is_some_and(|value| !value.is_empty()) {
        let offline = format!("\t{SYNC} = /{}:account_name:machine_password\n", keytab::PATH);
        own(&format!("{}{offline}", if lines.is_empty() { "[global]\n" } else { lines }))?;
    }
    run(Tool::RequestJoin(&domain.join), "have Samba take on the computer account").map(drop)?;
    // Not before: the join would ask a domain controller.
    if domain.account.persistent { own(&lasting_settings(domain, &settings)?) } else { own(lines) }
}

/// An account that is given to another machine later keeps its password: winbind would change it every week.
fn own_settings(account: &DomainAccount) -> &'static str {
    if account.persistent { "" } else { "[global]\n\tmachine password timeout = 0\n" }
}

/// A machine that keeps its account may change the password, and the keytab has to follow. Before Samba 4.21 that is done
/// by net(8) (`ads changetrustpw`), and not by winbindd, which therefore is told not to change it.
fn lasting_settings(domain: &DomainIdentity, settings: &str) -> Result<String, ApplyError> {
    let both = "[global]\n\tkerberos method = secrets and keytab\n";
    if setting(settings, SYNC).is_none() {
        return Ok(format!("{both}\tmachine password timeout = 0\n"));
    }
    // One file can have one such list, and what is not in it is removed from the file.
    let principals = keytab::principals(&domain.keytab)?.join(",");
    Ok(format!("{both}\t{SYNC} = \"/{}:spns={principals}:sync_kvno:machine_password\"\n", keytab::PATH))
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
