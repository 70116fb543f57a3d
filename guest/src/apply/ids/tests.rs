//! Every row of the tables is tried: a file as the row expects it, in the root of two children.

use super::*;
use crate::apply::{hostname::own_name::Renaming, tests::Fake};
use std::{fs, path::Path};
use tempfile::TempDir;

fn root() -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn put(dir: &Path, path: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A path that the pattern fits.
fn path(pattern: &str) -> String {
    pattern.replace('*', "x")
}

/// What a program leaves in such a file.
fn sample(what: &What) -> Vec<u8> {
    match what {
        What::Set(edit::Key::Line(key), _) => {
            format!("# {key} = no\n{key} = \"old\"\nB\u{fc}ro\n").into_bytes()
        }
        What::Set(edit::Key::Inline(key), _) => format!("{{a {key}=old}}\n").into_bytes(),
        What::Write(New::Noise(..)) => vec![0xee; 48],
        What::Remove | What::Write(_) | What::Make { .. } => b"old\n".to_vec(),
    }
}

#[test]
fn every_row_makes_it_another_in_each_child_and_shows_that() {
    assert!(table::ROWS.len() >= 60, "{} kinds of state", table::ROWS.len());
    for row in table::ROWS {
        let (dir, root) = root();
        let system = Fake::new();
        let file = path(row.path);
        put(dir.path(), &file, sample(&row.what));
        if let What::Make { program, .. } = row.what {
            put(dir.path(), program, "");
        }
        let value = |root: &Root| values(root).unwrap().into_iter().map(|(_, value)| value).next();
        let template = value(&root);
        let shown = !matches!(row.shown, Shown::No);
        assert_eq!(template.is_some(), shown, "{}: the template's", row.path);
        let mut seen = vec![root.read(&file).unwrap()];
        assert_eq!(verify(&root).is_err(), matches!(row.what, What::Remove), "{}", row.path);
        for _ in 0..2 {
            apply(&root, &system).unwrap();
            let after = root.read(&file).unwrap();
            match &row.what {
                What::Remove => assert_eq!(after, None, "{}", row.path),
                What::Write(New::Nothing) => assert_eq!(after.as_deref(), Some(&b""[..]), "{}", row.path),
                What::Make { program, .. } => {
                    let name = program.rsplit('/').next().unwrap();
                    assert!(system.ran.borrow().iter().any(|line| line.starts_with(name)), "{}", row.path);
                }
                What::Write(_) | What::Set(..) => {
                    assert!(!seen.contains(&after), "{}: {after:?} again", row.path);
                    if shown {
                        assert!(value(&root).is_some() && value(&root) != template, "{}", row.path);
                    }
                }
            }
            verify(&root).unwrap();
            seen.push(after);
        }
        assert!(check(&root).unwrap().iter().all(|f| f.grade != Grade::Fatal), "{}", row.path);
        assert!(!row.why.is_empty() && row.why.len() < 200);
    }
}

#[test]
fn names_in_the_table_of_evidence_are_each_their_own() {
    let mut names: Vec<_> = table::ROWS
        .iter()
        .filter_map(|row| match row.shown {
            Shown::No => None,
            Shown::Value(name) | Shown::Digest(name) => Some(name),
        })
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn every_row_of_names_takes_the_childs() {
    let to = Renaming::new(["parent".to_owned()], &"child".parse().unwrap());
    for (pattern, keys) in names::paths() {
        let (dir, root) = root();
        let file = path(pattern);
        let line = |name: &str| match keys {
            [] => format!("{name}.example.org\n"),
            keys => keys.iter().fold("# parent\n".to_owned(), |text, key| {
                format!("{text}{key} = \"{name}.example.org\"\n {key} {name}\nother = parent\n")
            }),
        };
        put(dir.path(), &file, line("parent"));
        for _ in 0..2 {
            rename(&to, &root).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(&file)).unwrap(), line("child"), "{file}");
        }
        put(dir.path(), &file, line("somebody"));
        rename(&to, &root).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(&file)).unwrap(), line("somebody"), "{file}");
    }
}

#[test]
fn every_row_of_what_can_only_be_told_is_told() {
    for (pattern, holds, with) in tell::samples() {
        let (dir, root) = root();
        let file = path(pattern);
        for other in with.iter().take(1) {
            put(dir.path(), &path(other), "");
        }
        put(dir.path(), &file, format!("# {}\n", holds.join(" ")));
        let told = |root: &Root| {
            tell::check(root).unwrap().iter().any(|f| f.what.as_str().starts_with(&format!("/{file}: ")))
        };
        assert_eq!(told(&root), holds.is_empty(), "{file}: a comment is none");
        put(dir.path(), &file, format!("{}\n", holds.join(" x\n")));
        let before = root.read(&file).unwrap();
        assert!(told(&root), "{file}");
        apply(&root, &Fake::new()).unwrap();
        assert_eq!(root.read(&file).unwrap(), before, "{file} is left");
    }
}

#[test]
fn ids_nobody_lists_are_each_childs_own() {
    let mut seen = Vec::new();
    for seed in 0..2_u8 {
        let (dir, root) = root();
        let system = Fake::new();
        system.drawn.set(100 * seed);
        put(dir.path(), "etc/hostid", [1, 2, 3, 4]);
        put(dir.path(), "etc/openvswitch/system-id.conf", "d9aa0fd3-dbbb-4b43-9b8d-8e5a5b5b5b5b\n");
        put(dir.path(), "etc/machine-info", "PRETTY_HOSTNAME=Golden\nCHASSIS=vm\n");
        apply(&root, &system).unwrap();
        let name = format!("child-{seed}");
        rename(&Renaming::new(["parent".to_owned()], &name.parse().unwrap()), &root).unwrap();
        let hostid = root.read("etc/hostid").unwrap().unwrap();
        assert_eq!(hostid.len(), 4);
        let ovs = root.read_text("etc/openvswitch/system-id.conf").unwrap().unwrap();
        assert!(ovs.len() == 37 && ovs.ends_with('\n'), "{ovs:?}");
        let info = root.read_text("etc/machine-info").unwrap().unwrap();
        assert_eq!(info, format!("PRETTY_HOSTNAME={name}\nCHASSIS=vm\n"));
        seen.push((hostid, ovs, values(&root).unwrap()));
    }
    assert!(seen[0].0 != seen[1].0 && seen[0].1 != seen[1].1 && seen[0].2 != seen[1].2);
    assert_ne!(seen[0].0, [1, 2, 3, 4]);
}

#[test]
fn a_directory_is_emptied_and_no_link_in_it_followed() {
    let (dir, root) = root();
    put(dir.path(), "etc/pki/consumer/a/cert.pem", "");
    put(dir.path(), "etc/passwd", "");
    std::os::unix::fs::symlink("../..", dir.path().join("etc/pki/consumer/up")).unwrap();
    apply(&root, &Fake::new()).unwrap();
    assert!(dir.path().join("etc/passwd").exists());
    assert_eq!(root.names("etc/pki/consumer").unwrap(), ["a"]);
    assert!(root.names("etc/pki/consumer/a").unwrap().is_empty());
}

#[test]
fn what_others_know_by_it_is_left() {
    let (dir, root) = root();
    put(dir.path(), "etc/hostid", "1234");
    put(dir.path(), "etc/zfs/zpool.cache", "");
    put(dir.path(), "var/lib/snmp/snmpd.conf", "usmUser 1 3 0x80\noldEngineID 0x80\n");
    put(dir.path(), "var/lib/glusterd/glusterd.info", "UUID=x\n");
    put(dir.path(), "var/lib/glusterd/peers/y", "");
    apply(&root, &Fake::new()).unwrap();
    assert_eq!(root.read("etc/hostid").unwrap().unwrap(), b"1234");
    assert_eq!(root.read("var/lib/glusterd/glusterd.info").unwrap().unwrap(), b"UUID=x\n");
    assert!(values(&root).unwrap().is_empty(), "what is left is no evidence");
    let found = check(&root).unwrap();
    for path in ["/etc/zfs/zpool.cache", "/var/lib/snmp/snmpd.conf", "/var/lib/glusterd/peers/y"] {
        assert!(
            found.iter().any(|f| f.grade == Grade::Broken && f.what.as_str().starts_with(path)),
            "{path}"
        );
    }
}

#[test]
fn a_key_that_nothing_here_can_make_is_told_and_a_program_that_fails_ends_it() {
    let (dir, root) = root();
    put(dir.path(), "etc/ssl/private/ssl-cert-snakeoil.key", "k");
    apply(&root, &Fake::new()).unwrap();
    let found = check(&root).unwrap();
    assert!(matches!(&found[..], [only] if only.grade == Grade::Open), "{found:?}");
    put(dir.path(), "usr/sbin/make-ssl-cert", "");
    assert!(check(&root).unwrap().is_empty());
    let system = Fake::new();
    system.answer("make-ssl-cert", Err("no openssl"));
    assert!(apply(&root, &system).is_err());
}

/// Every way in which a file is not as expected: it is right afterwards, or an error and a finding name it.
#[test]
fn odd_files_are_mended_left_or_named() {
    type Change = fn(&Path);
    let changes: &[(&str, Change)] = &[
        ("empty", |path| fs::write(path, "").unwrap()),
        ("binary", |path| fs::write(path, [0xff, 0, b'=', 0x80]).unwrap()),
        ("10 MiB", |path| fs::write(path, vec![b'x'; 10 << 20]).unwrap()),
        ("a dangling link", |path| std::os::unix::fs::symlink("/nowhere", path).unwrap()),
        ("a link to itself", |path| std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap()),
        ("a link out of the root", |path| {
            std::os::unix::fs::symlink("../../../../../../../../etc/passwd", path).unwrap();
        }),
        ("a directory", |path| fs::create_dir(path).unwrap()),
    ];
    let files = [
        "etc/hostid",
        "etc/popularity-contest.conf",
        "etc/docker/key.json",
        "var/lib/filebeat/meta.json",
        "etc/puppetlabs/puppet/ssl",
        "etc/mailname",
        "etc/machine-info",
        "etc/wireguard/wg0.conf",
    ];
    let to = Renaming::new(["parent".to_owned()], &"child".parse().unwrap());
    for file in files {
        for (what, change) in changes {
            let (dir, root) = root();
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            change(&dir.path().join(file));
            let found = check(&root);
            let fatal = found.as_ref().map_or(true, |found| found.iter().any(|f| f.grade == Grade::Fatal));
            let applied =
                apply(&root, &Fake::new()).and_then(|()| rename(&to, &root)).and_then(|()| values(&root));
            if let Err(error) = &applied {
                let said = crate::error::chain(error);
                assert!(said.contains(file), "{file}, {what}: {said}");
            }
            assert_eq!(applied.is_err(), fatal, "{file}, {what}: {applied:?} {found:?}");
        }
    }
}

#[test]
fn an_immutable_file_is_told_of_beforehand() {
    use crate::apply::hostname::tests::immutable;
    let (dir, root) = root();
    put(dir.path(), "etc/hostid", "1234");
    put(dir.path(), "etc/hostname", "parent\n");
    put(dir.path(), "etc/mailname", "parent\n");
    if !immutable(&dir.path().join("etc/hostid"), true) || !immutable(&dir.path().join("etc/mailname"), true)
    {
        return;
    }
    let found = check(&root).unwrap();
    let to = Renaming::new(["parent".to_owned()], &"child".parse().unwrap());
    let (applied, renamed) = (apply(&root, &Fake::new()), rename(&to, &root));
    immutable(&dir.path().join("etc/hostid"), false);
    immutable(&dir.path().join("etc/mailname"), false);
    assert!(applied.is_err(), "an id of the template's cannot stay");
    renamed.unwrap();
    let said: Vec<_> = found.iter().map(|f| (f.grade, f.what.as_str())).collect();
    assert!(
        said.iter().any(|(g, w)| *g == Grade::Fatal && w.starts_with("/etc/hostid is immutable")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|(g, w)| *g == Grade::Broken && w.starts_with("/etc/mailname is immutable")),
        "{said:?}"
    );
}

/// The whole of it: what stays the template's ends the child.
#[test]
fn a_program_that_makes_no_other_key_is_found_out() {
    use crate::apply::{
        self, Order,
        tests::{identity, template},
    };
    let (dir, root) = template();
    put(dir.path(), "etc/ssl/private/ssl-cert-snakeoil.key", "k");
    put(dir.path(), "usr/sbin/make-ssl-cert", "");
    let system = Fake::new();
    *system.root.borrow_mut() = root.outside("");
    let identity = identity();
    let order = Order {
        identity: &identity,
        received: std::time::Instant::now(),
        stale: crate::apply::Stale::default(),
    };
    fs::write(dir.path().join("etc/ramet/agent.toml"), "").unwrap();
    let config = crate::config::Config::load(&root).unwrap();
    let failure = apply::apply(&order, &root, &system, &config).unwrap_err();
    assert!(failure.detail.as_str().contains("snakeoil_key is still the template's"), "{failure}");
}

#[test]
fn a_file_made_anew_by_a_program_stays_its_servers() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let (dir, root) = root();
    put(dir.path(), "k", "old");
    let file = dir.path().join("k");
    let group = if nix::unistd::Uid::effective().is_root() { 1234 } else { nix::unistd::getgid().as_raw() };
    chown(&file, None, Some(group)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let made = keeping_owners(&["k", "never/there"], &root, || {
        fs::remove_file(&file).unwrap();
        fs::write(&file, "new").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        Ok(())
    });
    made.unwrap();
    let now = fs::metadata(&file).unwrap();
    assert_eq!((now.gid(), now.mode() & 0o7777), (group, 0o640));
}

/// The same for files that have an applier of their own.
#[test]
fn odd_files_of_other_appliers_are_mended_or_named() {
    use crate::apply::{entropy, names, network, tests::identity};
    type Change = fn(&Path);
    let changes: &[(&str, Change)] = &[
        ("empty", |path| fs::write(path, "").unwrap()),
        ("binary", |path| fs::write(path, [0xff, 0, b'=', 0x80]).unwrap()),
        ("10 MiB", |path| fs::write(path, vec![b'x'; 10 << 20]).unwrap()),
        ("a dangling link", |path| std::os::unix::fs::symlink("/nowhere", path).unwrap()),
        ("a link to itself", |path| std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
    ];
    let files = [
        "etc/iscsi/initiatorname.iscsi",
        "etc/nvme/hostnqn",
        "etc/nvme/hostid",
        "var/lib/systemd/random-seed",
        "var/lib/systemd/credential.secret",
        "var/lib/dhcpcd/duid",
        "var/lib/dhcpcd/secret",
        "var/lib/NetworkManager/secret_key",
    ];
    for file in files {
        for (what, change) in changes {
            let (dir, root) = root();
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            change(&dir.path().join(file));
            let checks = [entropy::check(&root), names::check(&root), network::check(&root)];
            let fatal = checks.iter().any(|found| match found {
                Ok(found) => found.iter().any(|f| f.grade == Grade::Fatal),
                Err(_) => true,
            });
            let system = Fake::new();
            let applied = entropy::apply(&identity(), &root, &system)
                .and_then(|()| network::apply(&root, &system))
                .and_then(|()| names::apply(&root, &system))
                .and_then(|()| names::values(&root))
                .and_then(|_| network::values(&root));
            if let Err(error) = &applied {
                let said = crate::error::chain(error);
                assert!(said.contains(file), "{file}, {what}: {said}");
            }
            assert_eq!(applied.is_err(), fatal, "{file}, {what}: {applied:?} {checks:?}");
        }
    }
}
