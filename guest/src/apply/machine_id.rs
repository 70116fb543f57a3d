//! machine-id(5).

use super::{ApplyError, hostname::replaceable};
use crate::{root::Root, system::System};
use ramet_proto::{
    MachineId,
    message::{Finding, Identity},
};
use std::{fs, path::PathBuf};

const PATH: &str = "etc/machine-id";

/// Copies of it: D-Bus's own where it is a file and no link, and systemd's own while /etc could not be written
/// (systemd-machine-id-commit.service(8)).
const COPIES: &[&str] = &["var/lib/dbus/machine-id", "run/machine-id"];

/// Where the boot loader's menu has its entries, each under the machine-id of who made it (kernel-install(8),
/// `BOOT/loader/entries/ENTRY-TOKEN-KERNEL-VERSION.conf`).
const ENTRIES: &[&str] = &["boot/loader/entries", "efi/loader/entries", "boot/efi/loader/entries"];

/// By what kernel-install(8) calls entries, if not by the machine-id.
const TOKEN: &str = "etc/kernel/entry-token";

pub(super) fn apply<S: System>(identity: &Identity, root: &Root, system: &S) -> Result<(), ApplyError> {
    keep_entry_token(root)?;
    let bytes = format!("{}\n", identity.machine_id).into_bytes();
    system
        .uncover(&mount_point(root))
        .map_err(|error| ApplyError::System("unmount what lies over /etc/machine-id", error))?;
    root.replace(PATH, &bytes, 0o444)?;
    for copy in COPIES {
        if root.is_regular(copy)? {
            root.replace(copy, &bytes, 0o444)?;
        }
    }
    Ok(())
}

/// The path by which the kernel knows the file, were something mounted over it: without the links that lead to it.
fn mount_point(root: &Root) -> PathBuf {
    let path = root.outside(PATH);
    let parent = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
    parent.and_then(|parent| Some(parent.join(path.file_name()?))).unwrap_or(path)
}

/// Has the next kernel's package take the place of the entries that are there: under the child's machine-id they would be
/// nobody's, and never go.
fn keep_entry_token(root: &Root) -> Result<(), ApplyError> {
    // What cannot be read is no id, and is told when it cannot be replaced.
    let text = root.read_lossy(PATH).ok().flatten();
    let Some(old) = text.and_then(|text| text.trim().parse::<MachineId>().ok()) else {
        return Ok(());
    };
    if root.exists(TOKEN)? {
        return Ok(());
    }
    let start = format!("{old}-");
    for directory in ENTRIES {
        if root.names(directory)?.iter().any(|name| name.starts_with(&start)) {
            root.make_dir("etc/kernel", 0o755)?;
            return Ok(root.replace(TOKEN, format!("{old}\n").as_bytes(), 0o644)?);
        }
    }
    Ok(())
}

/// What the file says.
pub(super) fn read(root: &Root) -> Result<MachineId, ApplyError> {
    let text = root.read_lossy(PATH)?.ok_or_else(|| ApplyError::Missing(format!("/{PATH} is not there")))?;
    text.trim_end().parse().map_err(|error| ApplyError::Mismatch(format!("/{PATH}: {error}")))
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    Ok(replaceable(PATH, root)?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::tests::{Fake, identity};
    use std::os::unix::fs::symlink;

    const OLD: &str = "0123456789abcdef0123456789abcdef";

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn entries_of_the_boot_loader_stay_the_machines_own() {
        let (dir, root) = root();
        fs::write(dir.path().join(PATH), OLD).unwrap();
        fs::create_dir_all(dir.path().join("boot/loader/entries")).unwrap();
        fs::write(dir.path().join(format!("boot/loader/entries/{OLD}-6.12.conf")), "").unwrap();
        for _ in 0..2 {
            apply(&identity(), &root, &Fake::new()).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(TOKEN)).unwrap(), format!("{OLD}\n"));
        }
        let (dir, root) = self::root();
        fs::write(dir.path().join(PATH), OLD).unwrap();
        apply(&identity(), &root, &Fake::new()).unwrap();
        assert!(!dir.path().join(TOKEN).exists(), "there are no entries");
    }

    #[test]
    fn a_link_in_the_way_is_no_mount_missed() {
        let (dir, root) = root();
        fs::rename(dir.path().join("etc"), dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("etc")).unwrap();
        let real = fs::canonicalize(dir.path()).unwrap().join("real/machine-id");
        assert_eq!(mount_point(&root), real);
    }

    #[test]
    fn odd_files_are_replaced_or_named() {
        type Change = fn(&std::path::Path);
        let changes: &[(&str, Change, bool)] = &[
            ("missing", |_| (), true),
            ("empty", |path| fs::write(path, "").unwrap(), true),
            ("uninitialized", |path| fs::write(path, "uninitialized\n").unwrap(), true),
            ("binary", |path| fs::write(path, [0xff, 0]).unwrap(), true),
            ("10 MiB", |path| fs::write(path, vec![b'0'; 10 << 20]).unwrap(), true),
            ("a dangling link", |path| symlink("/nowhere", path).unwrap(), true),
            ("a link out of the root", |path| symlink("../../../../etc/machine-id", path).unwrap(), true),
            ("a directory", |path| fs::create_dir(path).unwrap(), false),
        ];
        for (what, change, works) in changes {
            let (dir, root) = root();
            change(&dir.path().join(PATH));
            let named = check(&root).unwrap().len();
            let identity = identity();
            match apply(&identity, &root, &Fake::new()) {
                Ok(()) => {
                    assert!(*works && named == 0, "{what}");
                    assert_eq!(read(&root).unwrap(), identity.machine_id, "{what}");
                }
                Err(error) => {
                    assert!(!*works && named == 1, "{what}: {error}");
                    assert!(crate::error::chain(&error).contains(PATH), "{what}");
                }
            }
        }
    }
}
