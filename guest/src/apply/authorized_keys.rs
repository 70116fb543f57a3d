//! SSH keys of users: `~/.ssh/authorized_keys` (`sshd_config(5)`, `AuthorizedKeysFile`) holds what the identity says and
//! nothing of the template's.

use super::ApplyError;
use crate::root::Root;
use ramet_proto::{
    login::{UserKeys, UserName},
    message::{Finding, Identity},
};

/// passwd(5).
const PASSWD: &str = "etc/passwd";

/// What is needed of a user.
struct User {
    uid: u32,
    gid: u32,
    /// Below the root.
    home: String,
}

pub(super) fn apply(identity: &Identity, root: &Root) -> Result<(), ApplyError> {
    for (n, one) in identity.authorized_keys.iter().enumerate() {
        if identity.authorized_keys[..n].iter().any(|other| other.user == one.user) {
            return Err(ApplyError::Malformed(format!("the keys of {} are named twice", one.user)));
        }
        let user = find(root, &one.user)?;
        let directory = format!("{}/.ssh", user.home);
        root.make_dir(&directory, 0o700)?;
        // A link could lead to a directory of somebody else's, which would be given to this user.
        if !root.is_dir(&directory)? {
            return Err(ApplyError::Mismatch(format!("/{directory} is no directory")));
        }
        root.give(&directory, user.uid, user.gid, 0o700)?;
        let path = format!("{directory}/authorized_keys");
        root.replace(&path, lines(one).as_bytes(), 0o600)?;
        root.give(&path, user.uid, user.gid, 0o600)?;
    }
    Ok(())
}

pub(super) fn verify(identity: &Identity, root: &Root) -> Result<(), ApplyError> {
    for one in &identity.authorized_keys {
        let path = format!("{}/.ssh/authorized_keys", find(root, &one.user)?.home);
        if root.read_text(&path)?.as_deref() != Some(&*lines(one)) {
            return Err(ApplyError::Mismatch(format!("/{path} is not as it was written")));
        }
    }
    Ok(())
}

fn lines(one: &UserKeys) -> String {
    one.keys.iter().fold(String::new(), |text, key| text + &key.to_string() + "\n")
}

fn find(root: &Root, name: &UserName) -> Result<User, ApplyError> {
    let passwd = root.read_text(PASSWD)?.unwrap_or_default();
    let user = passwd.lines().find_map(|line| parse(line, name.as_str()));
    let user = user.ok_or_else(|| ApplyError::Missing(format!("there is no user {name} in /{PASSWD}")))?;
    if !root.exists(&user.home)? {
        return Err(ApplyError::Missing(format!("{name} has no home directory /{}", user.home)));
    }
    Ok(user)
}

/// `line`, if it is the one of `name`.
fn parse(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    let home = fields.nth(1)?.trim_matches('/');
    (!home.is_empty()).then(|| User { uid, gid, home: home.to_owned() })
}

/// What an identity would meet.
pub(super) fn check(_root: &Root) -> Result<Vec<Finding>, ApplyError> {
    Ok(Vec::new())
}
