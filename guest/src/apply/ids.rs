//! What programs know a machine by, in files: keys, ids, seeds, names. The tables say what there is and what becomes of it;
//! here is what the words of the tables mean.
//!
//! A program that makes a key or id anew when it starts, past the gate, has its file removed. Where a program does not, or
//! would make it from something that all children share (the SMBIOS UUID, the build's time), a new one is written.

mod edit;
mod names;
mod table;
mod tell;

use super::{
    ApplyError,
    hostname::{own_name::Renaming, replaceable},
    random_uuid,
};
use crate::{glob, limits::programs, log, process::Run, root::Root, system::System};
use nix::errno::Errno;
use ramet_proto::{
    message::{Finding, Grade},
    text::to_hex,
};
use ssh_key::sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A state of the machine, and what becomes of it.
struct Row {
    /// Below the root. `*` stands for anything within one component.
    path: &'static str,
    what: What,
    shown: Shown,
    unless: Unless,
    /// Whose it is and what two machines with one of it are to others.
    #[cfg_attr(not(test), allow(dead_code, reason = "for who reads the table"))]
    why: &'static str,
}

/// What becomes of it.
enum What {
    /// The file goes; of a directory, every file in it.
    Remove,
    /// The file holds this and nothing else.
    Write(New),
    /// What this key has in the file is another.
    Set(edit::Key, New),
    /// The files go, and this program makes them again: only where it is installed.
    Make { files: &'static [&'static str], program: &'static str, arguments: &'static [&'static str] },
}

/// A new value.
#[derive(Clone, Copy)]
enum New {
    Uuid,
    /// As many random bytes, in hexadecimal digits.
    Hex(usize),
    /// The same with these characters before it.
    After(&'static str, usize),
    /// As many characters of Base64.
    Base64(usize),
    /// As many random bytes as there were, but within these bounds.
    Noise(usize, usize),
    Nothing,
}

/// What of it the host compares between siblings.
enum Shown {
    No,
    /// The value, by this name.
    Value(&'static str),
    /// Something that shows whether it is the same and not what it is.
    Digest(&'static str),
}

/// When it is left as it is.
enum Unless {
    Never,
    /// One of these is there.
    There(&'static [&'static str]),
    /// The file has this text.
    Holds(&'static str),
}

impl Row {
    /// Whether the file at `path` is to be left as it is.
    fn is_left(&self, path: &str, root: &Root) -> Result<bool, ApplyError> {
        Ok(match self.unless {
            Unless::Never => false,
            Unless::There(patterns) => any(patterns, root)?,
            Unless::Holds(text) => edit::holds(&content(path, root)?.unwrap_or_default(), text),
        })
    }
}

/// Makes every state of the table the child's own, or nobody's.
pub(super) fn apply<S: System>(root: &Root, system: &S) -> Result<(), ApplyError> {
    for row in table::ROWS {
        for path in glob::expand(root, row.path)? {
            if !row.is_left(&path, root)? {
                change(&row.what, &path, root, system)?;
            }
        }
    }
    Ok(())
}

fn change<S: System>(what: &What, path: &str, root: &Root, system: &S) -> Result<(), ApplyError> {
    match what {
        What::Remove => remove(path, root),
        What::Write(new) => {
            let before = content(path, root)?.unwrap_or_default();
            let mut bytes = Zeroizing::new(fresh(*new, before.len(), system)?);
            if before.ends_with(b"\n") && !matches!(new, New::Noise(..) | New::Nothing) {
                bytes.push(b'\n');
            }
            match root.replace(path, &bytes, 0o600) {
                // A boot loader's file system may be one that is not written to; then its loader cannot, either.
                Err(error) if error.is(Errno::EROFS) && path.contains("/loader/") => {
                    log!("{error}: it is read-only");
                    Ok(())
                }
                replaced => Ok(replaced?),
            }
        }
        What::Set(key, new) => {
            let before = content(path, root)?.unwrap_or_default();
            if edit::values(&before, key).is_empty() {
                return Ok(());
            }
            let value = Zeroizing::new(fresh(*new, 0, system)?);
            Ok(root.edit(path, &edit::set(&before, key, &value), 0o600)?)
        }
        What::Make { files, program, arguments } => {
            if !root.exists(program)? {
                log!("/{path} stays the template's: there is no /{program} to make another");
                return Ok(());
            }
            let run = Run::new(program.rsplit('/').next().unwrap_or(program), arguments, programs::MAKE);
            let made = [&[path][..], files].concat();
            keeping_owners(&made, root, || {
                for file in *files {
                    root.remove(file)?;
                }
                let ran = system.run(&run);
                ran.map_err(|error| ApplyError::System("make a key anew with its package's program", error))?;
                Ok(())
            })
        }
    }
}

/// Does `work` on files, and gives each of them back to whose it was: xrdp-keygen(8), for one, makes a file of root's, which
/// the package gave to its server's user.
fn keeping_owners(
    files: &[&str],
    root: &Root,
    work: impl FnOnce() -> Result<(), ApplyError>,
) -> Result<(), ApplyError> {
    let owners = files.iter().map(|file| root.owner(file)).collect::<Result<Vec<_>, _>>()?;
    work()?;
    for (file, owner) in files.iter().zip(owners) {
        if let (Some((uid, gid, mode)), Some(_)) = (owner, root.owner(file)?) {
            root.give(file, uid, gid, mode)?;
        }
    }
    Ok(())
}

/// Removes the file at `path`; of a directory, all files. A link to one is followed there, and nowhere below.
fn remove(path: &str, root: &Root) -> Result<(), ApplyError> {
    let names = match root.names(path) {
        Ok(names) => names,
        Err(error) if error.is(Errno::ENOTDIR) => Vec::new(),
        Err(_) if !root.is_dir(path)? => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    for name in &names {
        let path = format!("{path}/{name}");
        if root.is_dir(&path)? {
            remove(&path, root)?;
        } else {
            root.remove(&path)?;
        }
    }
    if names.is_empty() && !root.is_dir(path)? {
        root.remove(path)?;
    }
    Ok(())
}

fn fresh<S: System>(new: New, length: usize, system: &S) -> Result<Vec<u8>, ApplyError> {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let random = |length: usize| {
        let mut bytes = Zeroizing::new(vec![0; length]);
        system.random(&mut bytes).map_err(|error| ApplyError::System("draw random bytes", error))?;
        Ok::<_, ApplyError>(bytes)
    };
    Ok(match new {
        New::Uuid => random_uuid(system)?.into_bytes(),
        New::Hex(n) => to_hex(&random(n)?).into_bytes(),
        New::After(start, n) => format!("{start}{}", to_hex(&random(n)?)).into_bytes(),
        New::Base64(n) => random(n)?.iter().map(|byte| BASE64[usize::from(byte % 64)]).collect(),
        New::Noise(least, most) => random(length.clamp(least, most))?.to_vec(),
        New::Nothing => Vec::new(),
    })
}

/// Has files that say who this machine is by the template's name say it by the child's.
pub(super) fn rename(to: &Renaming, root: &Root) -> Result<(), ApplyError> {
    for (path, after) in names::changed(to, root)? {
        if root.is_immutable(&path)? {
            log!("/{path} is immutable, so the template's name stays in it");
        } else {
            root.edit(&path, &after, 0o644)?;
        }
    }
    Ok(())
}

/// The values that no two machines may share, of those there are.
pub(super) fn values(root: &Root) -> Result<Vec<(String, String)>, ApplyError> {
    let mut found = Vec::new();
    for row in table::ROWS {
        let (Shown::Value(name) | Shown::Digest(name)) = row.shown else { continue };
        for path in glob::expand(root, row.path)? {
            if row.is_left(&path, root)? || is_beyond(&row.what, root)? {
                continue;
            }
            let Some(bytes) = content(&path, root)?.map(Zeroizing::new) else { continue };
            let value = match &row.what {
                What::Set(key, _) => edit::values(&bytes, key).first().map(|range| &bytes[range.clone()]),
                What::Remove | What::Write(_) | What::Make { .. } => Some(&bytes[..]),
            };
            let Some(value) = value.filter(|value| !value.trim_ascii().is_empty()) else { continue };
            let text = match (&row.shown, &row.what) {
                (Shown::Digest(_), _) => format!("sha256:{}", to_hex(&Sha256::digest(value))),
                (_, What::Write(New::Noise(..))) => to_hex(value),
                (Shown::No | Shown::Value(_), _) => String::from_utf8_lossy(value.trim_ascii()).into_owned(),
            };
            let name = if row.path.contains('*') { format!("{name}/{path}") } else { name.to_owned() };
            found.push((name, text));
        }
    }
    Ok(found)
}

/// That what goes is gone.
pub(super) fn verify(root: &Root) -> Result<(), ApplyError> {
    for row in table::ROWS.iter().filter(|row| matches!(row.what, What::Remove)) {
        for path in glob::expand(root, row.path)? {
            if !row.is_left(&path, root)?
                && let Some(path) = file_in(&path, root)?
            {
                return Err(ApplyError::Mismatch(format!("/{path} is there again")));
            }
        }
    }
    Ok(())
}

/// The first file at or below `path`.
fn file_in(path: &str, root: &Root) -> Result<Option<String>, ApplyError> {
    if !root.is_dir(path)? {
        return Ok(Some(path.to_owned()));
    }
    for name in root.names(path)? {
        if let Some(file) = file_in(&format!("{path}/{name}"), root)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Whether nothing here makes it anew: it is told of, and no evidence.
fn is_beyond(what: &What, root: &Root) -> Result<bool, ApplyError> {
    Ok(match what {
        What::Make { program, .. } => !root.exists(program)?,
        What::Remove | What::Write(_) | What::Set(..) => false,
    })
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    for row in table::ROWS {
        for path in glob::expand(root, row.path)? {
            if row.is_left(&path, root)? {
                continue;
            }
            match &row.what {
                What::Remove if root.is_dir(&path)? => {}
                What::Make { program, .. } if !root.exists(program)? => {
                    let what = format!("/{path} is the same in all children: nothing here makes another");
                    let fix = format!(
                        "install what has /{program}, remove the file, or make it in a site's applier"
                    );
                    found.push(Finding::new(Grade::Open, &what, &fix));
                }
                What::Set(key, _)
                    if edit::values(&content(&path, root)?.unwrap_or_default(), key).is_empty() => {}
                What::Remove | What::Write(_) | What::Set(..) | What::Make { .. } => {
                    found.extend(replaceable(&path, root)?);
                }
            }
        }
    }
    found.extend(names::check(root)?);
    found.extend(tell::check(root)?);
    Ok(found)
}

/// What the file at `path` holds, if it is one: a directory or a link in a circle has nothing in it.
pub(super) fn content(path: &str, root: &Root) -> Result<Option<Vec<u8>>, ApplyError> {
    if root.is_dir(path)? {
        return Ok(None);
    }
    match root.read(path) {
        Err(error) if error.is(Errno::ELOOP) || error.is(Errno::EISDIR) => Ok(None),
        read => Ok(read?),
    }
}

/// Whether something is at one of the `patterns`.
fn any(patterns: &[&str], root: &Root) -> Result<bool, ApplyError> {
    for pattern in patterns {
        if !glob::expand(root, pattern)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
