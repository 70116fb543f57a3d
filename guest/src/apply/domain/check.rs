//! What of an image's membership in a domain an identity cannot make right, told when a template is made.

use super::{
    ApplyError,
    conf::{self, Conf},
    installed, keytab, krb5,
    places::{Left, Places},
    sssd,
};
use crate::{config::DomainClient, error::chain, root::Root};
use ramet_proto::message::{Finding, Grade};

/// Where ipa-client-install(1) keeps that this machine is enrolled, and certmonger(8) whose keys it renews.
const IPA: &str = "etc/ipa/default.conf";
const CERTMONGER: &str = "var/lib/certmonger/requests";

/// The directory of a domain controller's accounts (samba-tool(8)).
const DIRECTORY: &str = "sam.ldb";

const CHATTR: &str = "chattr -i it in the image: every child has to replace it";

pub(super) fn findings(root: &Root, client: DomainClient) -> Result<Vec<Finding>, ApplyError> {
    let places = Places::find(root)?;
    let mut found = secrets(root, &places)?;
    found.extend(member(root, client, &places)?);
    Ok(found)
}

/// What would stay in every child, or end it.
fn secrets(root: &Root, places: &Places) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    for path in places.present(root)? {
        if root.is_immutable(&path)? {
            found.push(Finding::new(
                Grade::Fatal,
                &format!("/{path} is the template's and immutable"),
                CHATTR,
            ));
        }
    }
    for what in &places.unclear {
        let fix =
            "name the file itself: a keytab, a secret or tickets that only this leads to stay in every child";
        found.push(Finding::new(Grade::Open, &format!("cannot be followed: {what}"), fix));
    }
    for (path, left) in places.left(root)? {
        let what = match left {
            Left::Of(principal) => format!("/{path} has keys of {principal}, and every child gets them"),
            Left::Unread => format!("/{path} is no keytab that can be read, and every child gets it"),
        };
        let fix =
            "remove it from the image; where it is needed, give each child its own by an applier of the site";
        found.push(Finding::new(Grade::Open, &what, fix));
    }
    for directory in &places.samba.private {
        let path = format!("{directory}/{DIRECTORY}");
        if root.exists(&path)? {
            let what =
                format!("/{path}: this image is a domain controller, and every child would be the same one");
            found.push(Finding::new(Grade::Open, &what, "make templates of members only"));
        }
    }
    if root.exists(IPA)? {
        let what = format!(
            "/{IPA}: the image is enrolled with FreeIPA; a child loses the keytab and is enrolled no more"
        );
        let fix = "run ipa-client-install --uninstall in the image, and enroll each child by an applier of the site";
        found.push(Finding::new(Grade::Broken, &what, fix));
    }
    if !root.names(CERTMONGER)?.is_empty() {
        let what =
            format!("/{CERTMONGER}: certmonger's certificates and keys are the template's in every child");
        let fix = "stop tracking them in the image (getcert stop-tracking) and remove the keys";
        found.push(Finding::new(Grade::Open, &what, fix));
    }
    Ok(found)
}

/// What would end a child that is given an account, and no other.
fn member(root: &Root, client: DomainClient, places: &Places) -> Result<Vec<Finding>, ApplyError> {
    let broken = |what: &str, fix: &str| {
        Finding::new(Grade::Broken, &format!("no child can be a member of a domain: {what}"), fix)
    };
    let client = match installed(root, client) {
        Ok(client) => client,
        // An image that is not meant for members says nothing of it.
        Err(_) if client == DomainClient::Auto => return Ok(Vec::new()),
        Err(error) => return Ok(vec![broken(&chain(&error), "install it, or correct the setting")]),
    };
    let mut found = Vec::new();
    let edited = match client {
        super::Client::Samba => conf::SMB,
        super::Client::Sssd => sssd::SNIPPET,
    };
    for path in [krb5::CONF, edited] {
        if root.is_immutable(path)? {
            found.push(broken(&format!("/{path} is immutable"), CHATTR));
        }
        match root.read(path) {
            Ok(None) if path == conf::SMB => {
                found.push(broken(
                    &format!("there is no /{path}"),
                    "set up Samba for the domain (docs/domain.md)",
                ));
            }
            Ok(_) => {}
            Err(error) => found.push(broken(&chain(&error), "make it a file, or remove it")),
        }
    }
    for path in std::iter::once(keytab::PATH).chain(places.dedicated.iter().map(String::as_str)) {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        if root.is_dir(path)? {
            found.push(broken(&format!("/{path} is a directory"), "remove it"));
        } else if !root.exists(directory)? {
            found.push(broken(&format!("there is no /{directory} for its keytab"), "make it, owned by root"));
        }
    }
    let smb = Conf::samba(root);
    let is_ads = smb.last("security").is_some_and(|value| value.eq_ignore_ascii_case(b"ads"));
    if client == super::Client::Samba && is_ads {
        if smb.last("realm").is_none_or(<[u8]>::is_empty) {
            found.push(broken(
                &format!("/{} has security = ads and no realm", conf::SMB),
                "set the domain's realm",
            ));
        }
        if smb.last("netbiosname").is_some_and(|value| !value.is_empty()) {
            let what = format!("/{} has a netbios name, and a child's is its own", conf::SMB);
            found.push(broken(&what, "remove the setting: Samba takes the host's name"));
        }
        if places.other_smb_conf {
            let what = format!(
                "/{} leads to another file by config file, and what is set for a child is in the first",
                conf::SMB
            );
            found.push(broken(&what, "use include, or put the settings into the first file"));
        }
    }
    Ok(found)
}
