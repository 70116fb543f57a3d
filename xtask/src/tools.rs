//! QEMU, mke2fs, sfdisk, grub-mkimage and the like, all out of the lab's own root.
//!
//! The outer machine's versions differ, may be absent, or cannot be installed beside what is there. The lab's root has
//! to exist anyway and holds the versions that the recipes were tried with. A tool runs chrooted in it, in a mount
//! namespace of its own, where the whole outer file system appears below `/host`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::config::Config;
use crate::roots::{self, Root};
use crate::sys;

/// Runs in the new namespace: `$1` is the root, the rest is for what follows. The outer `/` is bound first, so what is
/// mounted afterwards does not appear in it, and the root seen through `/host` is as it is on disk.
const FURNISH: &str = "set -e; root=$1; shift
mount --rbind / \"$root/host\"
mount --rbind /dev \"$root/dev\"
mount --rbind /proc \"$root/proc\"
mount --rbind /sys \"$root/sys\"
mount -t tmpfs tmpfs \"$root/tmp\"
";

/// What follows for a tool.
const ENTER: &str = "exec chroot \"$@\"";

/// Who a tool runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum User {
    /// For what reads or makes files of several owners.
    Root,
    /// The user who runs xtask: what the tool makes is theirs.
    Caller,
}

/// The tools' root.
#[derive(Debug)]
pub(crate) struct Tools {
    root: Root,
}

impl Tools {
    /// Makes the root if it is not in the cache.
    pub(crate) fn ensure(config: &Config) -> Result<Self> {
        sys::need(&["/usr/bin/unshare", "/usr/sbin/chroot"], &["util-linux", "coreutils"])?;
        Ok(Self { root: roots::lab(config)? })
    }

    /// The root: the lab's.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// A tool, ready for its arguments. Paths among them go through [`inside`].
    pub(crate) fn command(&self, user: User, program: &str) -> Command {
        let mut command = sys::as_root("unshare");
        command.args(arguments(&self.root.path, user, program));
        command
    }

    /// A script for sh(1), ready for its arguments, that runs as root beside the tools and not among them: the file
    /// system is the outer one, with the tools' root furnished at `$root`. Its network is its own, with nothing in it.
    pub(crate) fn script(&self, script: &str) -> Command {
        let mut command = sys::as_root("unshare");
        command.args(["--mount", "--propagation", "private", "--net", "sh", "-c"]);
        command.args([&format!("{FURNISH}{script}"), "sh"]).arg(&self.root.path);
        command
    }
}

/// Where a tool sees an outer path.
pub(crate) fn inside(path: &Path) -> PathBuf {
    let mut inner = OsString::from("/host");
    inner.push(path);
    inner.into()
}

fn arguments(root: &Path, user: User, program: &str) -> Vec<OsString> {
    let script = format!("{FURNISH}{ENTER}");
    let mut arguments: Vec<OsString> =
        ["--mount", "--propagation", "private", "sh", "-c", &script, "sh"].map(OsString::from).to_vec();
    arguments.push(root.into());
    if let User::Caller = user {
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        arguments.push(format!("--userspec={uid}:{gid}").into());
    }
    arguments.push(root.into());
    arguments.push(OsStr::new(program).into());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_paths_are_below_host() {
        assert_eq!(inside(Path::new("/a/b")), Path::new("/host/a/b"));
    }

    #[test]
    fn a_tool_is_chrooted_and_may_drop_root() {
        let root = Path::new("/r");
        let plain = arguments(root, User::Root, "mke2fs");
        assert_eq!(plain[plain.len() - 3..], ["/r", "/r", "mke2fs"].map(OsString::from));
        let dropped = arguments(root, User::Caller, "qemu");
        assert!(dropped[dropped.len() - 3].to_str().is_some_and(|arg| arg.starts_with("--userspec=")));
    }
}
