//! hostname(5), the kernel's nodename, the machine's own names in hosts(5), and its name in the files of programs.

mod hosts;
pub(super) mod own_name;

use super::{ApplyError, ids};
use crate::{
    log,
    root::{FileError, Root},
    system::System,
};
use own_name::Renaming;
use ramet_proto::{
    Hostname,
    message::{Finding, Grade, Identity},
};

const NAME: &str = "etc/hostname";
const HOSTS: &str = "etc/hosts";

/// uname(2)'s nodename, where only files can be looked at.
const KERNELS: &str = "proc/sys/kernel/hostname";

/// `proc_pid_mountinfo(5)`, where a system runs.
const MOUNTS: &str = "proc/self/mountinfo";

/// What the file is where there is none, or an empty one: the name that programs cannot be without.
const NO_HOSTS: &[u8] = b"127.0.0.1\tlocalhost\n";

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    let name = &identity.hostname;
    let kernels = system.hostname().map_err(|error| ApplyError::System("ask for the hostname", error))?;
    let mut names = Renaming::new(static_name(root)?.into_iter().chain([kernels]), name);
    let before = root.read(HOSTS)?.filter(|bytes| !bytes.is_empty());
    let bytes = before.as_deref().unwrap_or(NO_HOSTS);
    hosts::learn(bytes, &mut names);
    if root.is_immutable(HOSTS)? {
        log!("/{HOSTS} is immutable, so it is left as it is");
    } else {
        let domain = identity.domain.as_ref().map(|domain| domain.account.fqdn());
        let after = hosts::hosts(bytes, &names, name, domain.as_deref());
        if before.as_ref() != Some(&after) {
            root.edit(HOSTS, &after, 0o644)?;
        }
    }
    ids::rename(&names, root)?;
    // Last: whoever does this again after a power cut finds the template's name until everything else is done.
    root.replace(NAME, format!("{name}\n").as_bytes(), 0o644)?;
    system.set_hostname(name).map_err(|error| ApplyError::System("set the kernel's hostname", error))
}

/// The name in hostname(5): its first line that is no comment.
fn static_name(root: &Root) -> Result<Option<String>, FileError> {
    let text = match root.read_lossy(NAME) {
        // A directory, say: that it cannot be replaced is told then.
        Err(_) if !root.is_regular(NAME)? => None,
        text => text?,
    };
    let name = |text: String| {
        text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
    };
    Ok(text.and_then(name))
}

/// That the file says what the kernel will say after the next boot.
pub(super) fn verify(name: &Hostname, root: &Root) -> Result<(), ApplyError> {
    let text = root.read_lossy(NAME)?.unwrap_or_default();
    if text.trim_end() == name.as_str() {
        return Ok(());
    }
    Err(ApplyError::Mismatch(format!("/{NAME} is {:?}, not {name}", text.trim_end())))
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = replaceable(NAME, root)?.into_iter().collect::<Vec<_>>();
    found.extend(mounted_over(root)?);
    let bytes = root.read(HOSTS)?.unwrap_or_default();
    if root.is_immutable(HOSTS)? {
        let what = format!(
            "/{HOSTS} is immutable and is left as it is: a child's name is not in it, names of the template's in it stay"
        );
        found.push(Finding::new(
            Grade::Broken,
            &what,
            "chattr -i /etc/hosts, if children are to be found by it",
        ));
    }
    let names = names_of_template(root)?;
    for line in hosts::elsewhere(&bytes, &names) {
        let what =
            format!("/{HOSTS} gives the template's name to another address, in every child, too: {line}");
        found.push(Finding::new(
            Grade::Note,
            &what,
            "take the line out of the image if it is of the template itself",
        ));
    }
    Ok(found)
}

/// What lies over the files, so that they cannot be replaced (rename(2), `EBUSY`).
fn mounted_over(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mounts = root.read_lossy(MOUNTS)?.unwrap_or_default();
    let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect::<Vec<_>>();
    points.dedup();
    let over = points
        .into_iter()
        .filter(|point| [NAME, HOSTS].iter().any(|file| point.strip_prefix('/') == Some(*file)));
    let finding = |point: &str| {
        let what = format!("something is mounted over {point}: no child can have its own");
        Finding::new(Grade::Fatal, &what, &format!("umount {point}, and keep what it has in the file"))
    };
    Ok(over.map(finding).collect())
}

/// What the template is called, as far as files tell. It is renamed to nobody: any name will do to find it.
pub(super) fn names_of_template(root: &Root) -> Result<Renaming, ApplyError> {
    let kernels = root.read_lossy(KERNELS)?.map(|text| text.trim().to_owned());
    let nobody = "child".parse().map_err(|_| ApplyError::Malformed("no host name".into()))?;
    let mut names = Renaming::new(static_name(root)?.into_iter().chain(kernels), &nobody);
    hosts::learn(&root.read(HOSTS)?.unwrap_or_default(), &mut names);
    Ok(names)
}

/// Nothing, or why the file at `path`, which every child needs to be its own, cannot be replaced.
pub(super) fn replaceable(path: &str, root: &Root) -> Result<Option<Finding>, ApplyError> {
    let directory = path.rsplit_once('/').map_or(".", |(directory, _)| directory);
    let (what, fix) = if root.is_immutable(path)? {
        (format!("/{path} is immutable"), format!("chattr -i /{path}"))
    } else if root.is_immutable(directory)? {
        (format!("/{directory} is immutable"), format!("chattr -i /{directory}"))
    } else if root.is_dir(path)? {
        (format!("/{path} is a directory, not a file"), format!("rmdir /{path}"))
    } else {
        return Ok(None);
    };
    Ok(Some(Finding::new(Grade::Fatal, &format!("{what}: no child can have its own"), &fix)))
}

#[cfg(test)]
pub(super) mod tests;
