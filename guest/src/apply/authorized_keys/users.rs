//! Users of passwd(5) and group(5), whose fields are bytes.

use crate::{
    apply::{ApplyError, ssh::behind_links},
    root::{FileError, Root},
};
use ramet_proto::login::UserName;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// What is needed of a user.
#[derive(Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Below the root; empty if it is the root.
    pub(super) home: String,
    /// The names of the groups.
    pub(super) groups: Vec<Vec<u8>>,
}

pub(super) fn find(root: &Root, name: &UserName) -> Result<User, ApplyError> {
    let passwd = root.read(PASSWD)?.unwrap_or_default();
    let entry = lines(&passwd).find(|fields| fields.first() == Some(&name.as_str().as_bytes()));
    let Some(entry) = entry else {
        return Err(ApplyError::Missing(format!(
            "there is no user {name} in /{PASSWD}: one of LDAP, SSSD, winbind, systemd-homed or userdb can be given no keys \
             here; add the user to the image, or take the keys out of the identity"
        )));
    };
    let number = |n: usize| entry.get(n).and_then(|field| str::from_utf8(field).ok()?.parse().ok());
    let (Some(uid), Some(gid), Some(home)) = (number(2), number(3), entry.get(5)) else {
        return Err(ApplyError::Malformed(format!(
            "the line of {name} in /{PASSWD} is not as passwd(5) has it"
        )));
    };
    let home = str::from_utf8(home).map_err(|_| {
        ApplyError::Malformed(format!("the home directory of {name} in /{PASSWD} is no UTF-8: rename it"))
    })?;
    let parts: Vec<_> = home.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if !home.starts_with('/') || parts.contains(&"..") {
        return Err(ApplyError::Malformed(format!(
            "the home directory of {name} in /{PASSWD} is \"{home}\", no absolute path"
        )));
    }
    let home = parts.join("/");
    if !home.is_empty() && !root.is_dir(&behind_links(root, &home)?)? {
        return Err(ApplyError::Missing(format!(
            "{name} has no home directory /{home}: make it in the image (one that is mounted or made at the first login \
             is not there yet)"
        )));
    }
    Ok(User { uid, gid, groups: groups(root, name, gid)?, home })
}

fn groups(root: &Root, name: &UserName, gid: u32) -> Result<Vec<Vec<u8>>, FileError> {
    let text = root.read(GROUP)?.unwrap_or_default();
    let gid = gid.to_string();
    let is_in = |fields: &Vec<&[u8]>| {
        let members = fields.get(3).copied().unwrap_or_default();
        fields.get(2) == Some(&gid.as_bytes())
            || members.split(|byte| *byte == b',').any(|member| member == name.as_str().as_bytes())
    };
    Ok(lines(&text).filter(is_in).filter_map(|fields| fields.first().map(|name| name.to_vec())).collect())
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b':').collect())
}

/// That the files can be read at all.
pub(super) fn readable(root: &Root) -> Result<(), FileError> {
    root.read(PASSWD)?;
    root.read(GROUP)?;
    Ok(())
}

/// Files of keys, and their directories, that are not written to, of all users.
pub(super) fn unfit(root: &Root, files: &[&str]) -> Result<Vec<(String, &'static str)>, FileError> {
    let passwd = root.read(PASSWD)?.unwrap_or_default();
    let mut found = Vec::new();
    for fields in lines(&passwd) {
        let Some(home) = fields.get(5).and_then(|home| str::from_utf8(home).ok()) else { continue };
        let home = home.trim_matches('/');
        if home.is_empty() {
            continue;
        }
        for path in files.iter().map(|file| format!("{home}/{file}")).chain([format!("{home}/.ssh")]) {
            if root.is_immutable(&path)? {
                found.push((path, "is immutable"));
            }
        }
        if root.link(&format!("{home}/.ssh"))?.is_some() {
            found.push((format!("{home}/.ssh"), "is a link"));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
