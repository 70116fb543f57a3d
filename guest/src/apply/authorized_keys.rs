//! SSH keys of users: what sshd reads as a user's authorized keys (`sshd_config(5)`, `AuthorizedKeysFile`) holds what the
//! identity says and nothing of the template's.
//!
//! sshd may read several files, and others for other connections. The keys are in the first of each list, the others are
//! removed. A file that is the same for all users is nobody's: it is left as it is, and named beforehand.

mod users;

use super::{
    ApplyError,
    ssh::{self, Line, Sshd, Who},
};
use crate::root::Root;
use nix::unistd::{Gid, Uid};
use ramet_proto::{
    login::{UserKeys, UserName},
    message::{Finding, Grade, Identity},
};
use users::User;

/// What sshd reads if nothing is said.
const DEFAULT: &[&str] = &[".ssh/authorized_keys", ".ssh/authorized_keys2"];

/// What dropbear(8) reads.
const DROPBEAR: &[&str] = &[".ssh/authorized_keys"];

/// Settings by which somebody gets in without a key of these files.
const OTHER_WAYS: &[(&str, &str)] = &[
    ("authorizedkeyscommand", "AuthorizedKeysCommand"),
    ("trustedusercakeys", "TrustedUserCAKeys"),
    ("authorizedprincipalsfile", "AuthorizedPrincipalsFile"),
    ("authorizedprincipalscommand", "AuthorizedPrincipalsCommand"),
];

/// The files of one user.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Those that get the keys.
    written: Vec<Place>,
    /// Those that go.
    removed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    path: String,
    /// How much of it is the user's home; `None` for a file elsewhere.
    home: Option<usize>,
}

pub(super) fn apply(identity: &Identity, root: &Root) -> Result<(), ApplyError> {
    if identity.authorized_keys.is_empty() {
        return Ok(());
    }
    let sshd = ssh::installed(root)?;
    for (n, one) in identity.authorized_keys.iter().enumerate() {
        if identity.authorized_keys[..n].iter().any(|other| other.user == one.user) {
            return Err(ApplyError::Malformed(format!("the keys of {} are named twice", one.user)));
        }
        let user = users::find(root, &one.user)?;
        let plan = plan(root, &sshd, &user, &one.user)?;
        for place in &plan.written {
            write(root, place, &user, lines(one).as_bytes())?;
        }
        for path in &plan.removed {
            // A directory is no file of keys to sshd.
            if !root.is_dir(path)? {
                root.remove(path)?;
            }
        }
    }
    Ok(())
}

/// Puts `text` where sshd will read and trust it (`sshd_config(5)`, `StrictModes`).
fn write(root: &Root, place: &Place, user: &User, text: &[u8]) -> Result<(), ApplyError> {
    let path = &place.path;
    if root.is_dir(path)? {
        return Err(ApplyError::Mismatch(format!("/{path} is a directory, not a file of keys")));
    }
    let Some(home) = place.home else {
        for (at, _) in path.match_indices('/') {
            let directory = &path[..at];
            if !root.exists(directory)? {
                root.make_dir(directory, 0o755)?;
                // Whatever the umask is: sshd passes it as the user.
                root.give(directory, Uid::effective().as_raw(), Gid::effective().as_raw(), 0o755)?;
            }
        }
        // As the user, too.
        return Ok(root.replace(path, text, 0o644)?);
    };
    for (at, _) in path.match_indices('/').filter(|(at, _)| *at > home) {
        let directory = &path[..at];
        root.make_dir(directory, 0o700)?;
        // A link could lead to a directory of somebody else's, which would be given to this user.
        if !root.is_dir(directory)? {
            return Err(ApplyError::Mismatch(format!(
                "/{directory} is no directory, or a link to one: keys are not written through a link in a user's home"
            )));
        }
        root.give(directory, user.uid, user.gid, 0o700)?;
    }
    root.replace(path, text, 0o600)?;
    Ok(root.give(path, user.uid, user.gid, 0o600)?)
}

pub(super) fn verify(identity: &Identity, root: &Root) -> Result<(), ApplyError> {
    if identity.authorized_keys.is_empty() {
        return Ok(());
    }
    let sshd = ssh::installed(root)?;
    for one in &identity.authorized_keys {
        let plan = plan(root, &sshd, &users::find(root, &one.user)?, &one.user)?;
        for Place { path, .. } in &plan.written {
            if root.read(path)?.as_deref() != Some(lines(one).as_bytes()) {
                return Err(ApplyError::Mismatch(format!("/{path} is not as it was written")));
            }
        }
        for path in &plan.removed {
            if root.exists(path)? && !root.is_dir(path)? {
                return Err(ApplyError::Mismatch(format!("/{path} still has keys of the template")));
            }
        }
    }
    Ok(())
}

fn lines(one: &UserKeys) -> String {
    one.keys.iter().fold(String::new(), |text, key| text + &key.to_string() + "\n")
}

/// Where the keys of a user are to be, and where none.
fn plan(root: &Root, sshd: &[Sshd], user: &User, name: &UserName) -> Result<Plan, ApplyError> {
    let who = Who { name: name.as_str(), groups: &user.groups };
    let mut lists: Vec<(Vec<String>, &str)> = Vec::new();
    let default = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect();
    for one in sshd {
        let is_off = |line: Option<&Line>| {
            line.is_some_and(|line| line.arguments.first().is_some_and(|v| v.eq_ignore_ascii_case(b"no")))
        };
        let settings = one.settings.alternatives("pubkeyauthentication", &who);
        if settings.iter().copied().all(is_off) {
            let at = settings.iter().flatten().next().map_or("sshd_config", |line| &line.at);
            return Err(ApplyError::Mismatch(format!(
                "{at}: PubkeyAuthentication is off, so the keys of {name} would let nobody in: turn it on"
            )));
        }
        for line in one.settings.alternatives("authorizedkeysfile", &who) {
            match line {
                None => lists.push((default(DEFAULT), "sshd's default")),
                Some(line) => {
                    let files = (0..line.arguments.len()).map(|n| line.text(n).map(str::to_owned));
                    lists.push((files.collect::<Result<_, _>>()?, &line.at));
                }
            }
        }
    }
    if sshd.is_empty() {
        lists.push((default(DEFAULT), "sshd's default"));
    }
    if ssh::has_dropbear(root)? {
        lists.push((default(DROPBEAR), "dropbear's own"));
    }
    let mut plan = Plan::default();
    let mut refused = None;
    for (files, at) in lists {
        let mut own = Vec::new();
        for file in files.iter().filter(|file| !file.eq_ignore_ascii_case("none")) {
            own.extend(expand(file, at, user, name)?);
        }
        let mut own = own.into_iter();
        match own.next() {
            Some(first) => plan.written.push(first),
            None => {
                refused.get_or_insert_with(|| {
                    format!("{at}: AuthorizedKeysFile names no file that is {name}'s alone: add .ssh/authorized_keys")
                });
            }
        }
        plan.removed.extend(own.map(|place| place.path));
    }
    if let (true, Some(refused)) = (plan.written.is_empty(), refused) {
        return Err(ApplyError::Mismatch(refused));
    }
    // Not read by this sshd, perhaps by another, or when the setting goes.
    for file in DEFAULT {
        plan.removed.extend(expand(file, "", user, name)?.map(|place| place.path));
    }
    let mut once: Vec<Place> = Vec::new();
    for place in plan.written {
        if !once.iter().any(|other| other.path == place.path) {
            once.push(place);
        }
    }
    plan.removed.retain(|path| !once.iter().any(|place| place.path == *path));
    plan.written = once;
    Ok(plan)
}

/// The file that `pattern` means for `user` (`sshd_config(5)`, "TOKENS"); `None` if it is the same for every user.
fn expand(pattern: &str, at: &str, user: &User, name: &UserName) -> Result<Option<Place>, ApplyError> {
    let (mut path, mut is_own) = (String::new(), false);
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            path.push(char);
            continue;
        }
        let token = chars.next();
        is_own |= token != Some('%');
        match token {
            Some('%') => path.push('%'),
            Some('h') => {
                path.push('/');
                path.push_str(&user.home);
            }
            Some('u') => path.push_str(name.as_str()),
            Some('U') => path.push_str(&user.uid.to_string()),
            Some(_) | None => {
                return Err(ApplyError::Malformed(format!(
                    "{at}: AuthorizedKeysFile has {pattern}, and only %%, %h, %u and %U are known in it: correct it"
                )));
            }
        }
    }
    let relative = !path.starts_with(['/', '~']);
    if relative {
        path = format!("{}/{path}", user.home);
    } else if let Some(rest) = path.strip_prefix("~/") {
        path = format!("root/{rest}");
    }
    if !is_own && !relative {
        return Ok(None);
    }
    // As one name, so that two that mean one file are one.
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(ApplyError::Malformed(format!(
            "{at}: AuthorizedKeysFile has {pattern}: write it without .."
        )));
    }
    let path = parts.join("/");
    let inside = match &*user.home {
        "" => Some(0),
        home => path.strip_prefix(home).filter(|rest| rest.starts_with('/')).map(|_| home.len()),
    };
    Ok(Some(Place { home: inside, path }))
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let sshd = ssh::installed(root)?;
    let mut found: Vec<Finding> = Vec::new();
    let mut add = |grade, what: String, fix| {
        if !found.iter().any(|other| other.what.as_str() == what) {
            found.push(Finding::new(grade, &what, fix));
        }
    };
    users::readable(root)?;
    for one in &sshd {
        for (keyword, name) in OTHER_WAYS {
            for line in one.settings.all(keyword) {
                if !line.arguments.first().is_none_or(|value| value.eq_ignore_ascii_case(b"none")) {
                    let what =
                        format!("{}: {name} lets in others than those whose keys the identity has", line.at);
                    add(Grade::Open, what, "take the line out, unless they may log in to every child");
                }
            }
        }
        for line in one.settings.all("authorizedkeysfile") {
            let mut own = 0;
            for n in 0..line.arguments.len() {
                let file = line.text(n)?;
                let shared = file.starts_with(['/', '~'])
                    && !["%h", "%u", "%U"].iter().any(|token| file.replace("%%", "").contains(token));
                if file.eq_ignore_ascii_case("none") {
                    continue;
                }
                if shared {
                    let what = format!(
                        "{}: {file} is read for every user: who has a key in it gets in, whatever the identity says",
                        line.at
                    );
                    add(Grade::Open, what, "take it out, unless they may log in to every child");
                } else {
                    own += 1;
                }
            }
            if own == 0 {
                let what = format!(
                    "{}: AuthorizedKeysFile names no file of one user: a child that is to get keys would end",
                    line.at
                );
                add(Grade::Broken, what, "add .ssh/authorized_keys, or fork with no authorized_keys");
            }
        }
        for line in one.settings.all("pubkeyauthentication") {
            if line.arguments.first().is_some_and(|value| value.eq_ignore_ascii_case(b"no")) {
                let what =
                    format!("{}: PubkeyAuthentication is off: keys of an identity let nobody in", line.at);
                add(Grade::Broken, what, "turn it on, or fork with no authorized_keys");
            }
        }
    }
    for (path, what) in users::unfit(root, DEFAULT)? {
        add(
            Grade::Broken,
            format!("/{path} {what}: its user can be given no keys"),
            "put a directory of its own there, without chattr +i, or fork with no keys for this user",
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
