//! The files as they are found in the field.

use super::*;
use crate::apply::tests::{Fake, identity};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};
use tempfile::TempDir;

fn root(hosts: &[u8]) -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    fs::write(dir.path().join(NAME), "parent\n").unwrap();
    fs::write(dir.path().join(HOSTS), hosts).unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn applied(root: &Root) -> Result<Vec<u8>, ApplyError> {
    apply(&identity(), root, &Fake::new())?;
    Ok(root.read(HOSTS)?.unwrap_or_default())
}

/// Sets or takes away `i` of chattr(1); says whether the file system has it and this may.
pub(in crate::apply) fn immutable(path: &Path, on: bool) -> bool {
    let file = fs::File::open(path).unwrap();
    let set = ioctl_getflags(&file).and_then(|mut flags| {
        flags.set(IFlags::IMMUTABLE, on);
        ioctl_setflags(&file, flags)
    });
    if let Err(error) = &set {
        eprintln!("SKIPPED: {} cannot be made immutable here: {error}", path.display());
    }
    set.is_ok()
}

#[test]
fn a_large_hosts_file_keeps_every_line() {
    use std::fmt::Write as _;
    let mut text = "127.0.0.1 localhost\n".to_owned();
    for n in 0..60_000 {
        writeln!(text, "0.0.0.0 ads-{n}.tracker.example").unwrap();
    }
    text += "10.9.8.7 files.corp.example files\n";
    let (_dir, root) = root(text.as_bytes());
    let wanted = text.replacen("localhost\n", "localhost\n127.0.1.1\tweb-1\n", 1);
    assert!(applied(&root).unwrap() == wanted.as_bytes(), "some line is lost");
}

#[test]
fn a_hosts_file_that_is_no_utf_8_is_carried_through() {
    let (_dir, root) = root(b"# Drucker im B\xfcro\n10.1.2.3 drucker\n127.0.1.1 parent B\xfcro\n");
    assert_eq!(applied(&root).unwrap(), b"# Drucker im B\xfcro\n10.1.2.3 drucker\n127.0.1.1 web-1 B\xfcro\n");
    assert_eq!(applied(&root).unwrap(), b"# Drucker im B\xfcro\n10.1.2.3 drucker\n127.0.1.1 web-1 B\xfcro\n");
}

#[test]
fn both_names_of_the_template_go_the_kernels_and_the_files() {
    let (dir, root) = root(b"127.0.0.1 localhost golden parent\n");
    fs::write(dir.path().join(NAME), "# by the installer\ngolden.example.org\n").unwrap();
    assert_eq!(applied(&root).unwrap(), b"127.0.0.1 localhost\n127.0.1.1\tweb-1\n");
    assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), b"web-1\n");
}

/// Every way in which either file is not as expected: it is right afterwards, or the error names it, and then the check of
/// the image did so before.
#[test]
fn odd_files_are_mended_or_named() {
    type Change = fn(&Path);
    let changes: &[(&str, Change, bool)] = &[
        ("missing", |path| fs::remove_file(path).unwrap(), true),
        ("empty", |path| fs::write(path, "").unwrap(), true),
        ("binary", |path| fs::write(path, [0xff, 0, 0x0a, 0x80]).unwrap(), true),
        ("10 MiB", |path| fs::write(path, vec![b'x'; 10 << 20]).unwrap(), true),
        (
            "mode 000",
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(),
            nix::unistd::Uid::effective().is_root(),
        ),
        (
            "dangling link",
            |path| {
                fs::remove_file(path).unwrap();
                symlink("/nowhere/at/all", path).unwrap();
            },
            true,
        ),
        (
            "link out of the root",
            |path| {
                fs::remove_file(path).unwrap();
                symlink("../../../../../../etc/passwd", path).unwrap();
            },
            true,
        ),
        (
            "directory",
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            false,
        ),
    ];
    for file in [NAME, HOSTS] {
        for (what, change, works) in changes {
            let (dir, root) = root(b"127.0.0.1 localhost\n127.0.1.1 parent\n");
            change(&dir.path().join(file));
            let said = check(&root);
            let before =
                said.as_ref().map_or(1, |found| found.iter().filter(|f| f.grade == Grade::Fatal).count());
            match apply(&identity(), &root, &Fake::new()) {
                Ok(()) => {
                    assert!(works, "{file} {what}: silently done");
                    assert_eq!(before, 0, "{file} {what}: {said:?}");
                    verify(&identity().hostname, &root).unwrap();
                    let hosts = root.read(HOSTS).unwrap().unwrap();
                    let own = hosts.windows(15).any(|w| w == b"127.0.1.1\tweb-1" || w == b"127.0.1.1 web-1");
                    assert!(own, "{file} {what}");
                }
                Err(error) => {
                    assert!(!works, "{file} {what}: {}", crate::error::chain(&error));
                    assert!(crate::error::chain(&error).contains(file), "{file} {what}");
                    assert_ne!(before, 0, "{file} {what}: not said beforehand");
                }
            }
        }
    }
}

#[test]
fn an_empty_hosts_file_gets_localhost_as_a_missing_one_does() {
    let (_dir, root) = root(b"");
    assert_eq!(applied(&root).unwrap(), b"127.0.0.1\tlocalhost\n127.0.1.1\tweb-1\n");
}

#[test]
fn an_immutable_hosts_file_is_left_alone_and_named() {
    let (dir, root) = root(b"127.0.1.1 parent\n");
    let path = dir.path().join(HOSTS);
    if !immutable(&path, true) {
        return;
    }
    let (after, found) = (applied(&root), check(&root).unwrap());
    immutable(&path, false);
    assert_eq!(after.unwrap(), b"127.0.1.1 parent\n");
    let [only] = &found[..] else { panic!("{found:?}") };
    assert!(
        only.grade == Grade::Broken && only.what.as_str().contains("/etc/hosts is immutable"),
        "{only:?}"
    );
}

#[test]
fn an_immutable_hostname_or_machine_id_is_fatal_beforehand() {
    for file in [NAME, "etc/machine-id", "etc"] {
        let (dir, root) = root(b"");
        fs::write(dir.path().join("etc/machine-id"), "").unwrap();
        let path = dir.path().join(file);
        if !immutable(&path, true) {
            return;
        }
        let found = [check(&root).unwrap(), crate::apply::machine_id::check(&root).unwrap()].concat();
        let failed = apply(&identity(), &root, &Fake::new())
            .and_then(|()| crate::apply::machine_id::apply(&identity(), &root, &Fake::new()));
        immutable(&path, false);
        let fatal =
            found.iter().find(|f| f.grade == Grade::Fatal).unwrap_or_else(|| panic!("{file}: {found:?}"));
        assert!(fatal.fix.as_str().contains(&format!("chattr -i /{file}")), "{fatal:?}");
        assert!(failed.is_err(), "{file}");
    }
}

#[test]
fn a_name_of_the_template_on_a_lan_address_is_noted() {
    let (_dir, root) = root(b"192.0.2.9 parent.example.org parent\n");
    let found = check(&root).unwrap();
    let [only] = &found[..] else { panic!("{found:?}") };
    assert!(only.what.as_str().ends_with("192.0.2.9 parent.example.org parent"), "{only:?}");
    assert_eq!(applied(&root).unwrap(), b"192.0.2.9 parent.example.org parent\n127.0.1.1\tweb-1\n");
}

#[test]
fn the_name_in_the_files_of_programs_is_the_childs() {
    let (dir, root) = root(b"127.0.1.1 parent.example parent\n192.0.2.9 www.example\n");
    fs::write(dir.path().join("etc/mailname"), "parent.example\n").unwrap();
    fs::create_dir(dir.path().join("etc/postfix")).unwrap();
    let main =
        "myhostname = parent.example\nmydestination = $myhostname, parent, www.example,\n\tlocalhost\n";
    fs::write(dir.path().join("etc/postfix/main.cf"), main).unwrap();
    for _ in 0..2 {
        applied(&root).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("etc/mailname")).unwrap(), "web-1.example\n");
        let wanted = main.replace("parent", "web-1");
        assert_eq!(fs::read_to_string(dir.path().join("etc/postfix/main.cf")).unwrap(), wanted);
    }
}

#[test]
fn a_file_that_something_is_mounted_over_is_fatal_beforehand() {
    let (dir, root) = root(b"");
    fs::create_dir_all(dir.path().join("proc/self")).unwrap();
    let mounts = "29 1 254:1 / / rw - ext4 /dev/vda1 rw\n40 29 0:25 /hosts /etc/hosts rw - tmpfs tmpfs rw\n";
    fs::write(dir.path().join(MOUNTS), mounts).unwrap();
    let found = check(&root).unwrap();
    let [only] = &found[..] else { panic!("{found:?}") };
    assert!(only.grade == Grade::Fatal && only.what.as_str().contains("mounted over /etc/hosts"), "{only:?}");
}
