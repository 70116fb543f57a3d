//! Configuration of others, as their programs read it.

use super::*;
use proptest::prelude::*;
use std::{fs, os::unix::fs::symlink};
use tempfile::TempDir;

fn root(files: &[(&str, &[u8])]) -> (TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    (dir, root)
}

fn values(conf: &Conf, name: &str) -> Vec<String> {
    conf.all(name).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

const NAME: &str = "default_keytab_name";

#[test]
fn kerberos_settings_are_found_in_whatever_is_included() {
    let main = b"# B\xfcro\n[libdefaults]\n  default_keytab_name = FILE:/etc/a\n  x = {\n default_keytab_name = no\n }\n\
                 include /etc/more\nincludedir /etc/krb5.conf.d/\n include /etc/not-at-the-beginning\n\
                 [realms]\ndefault_keytab_name = no\n";
    let (dir, root) = root(&[
        ("etc/krb5.conf", main),
        ("etc/more", b"[libdefaults]\ndefault_keytab_name* = \"/etc/b\"\r\n"),
        ("etc/krb5.conf.d/x-1", b"[libdefaults]\ndefault_keytab_name=WRFILE:/etc/c\n"),
        ("etc/krb5.conf.d/y.conf", b"[LibDefaults]\n\tdefault_keytab_name = /etc/d\n"),
        ("etc/krb5.conf.d/z.rpmsave", b"[libdefaults]\ndefault_keytab_name = no\n"),
        ("etc/krb5.conf.d/.z.conf", b"[libdefaults]\ndefault_keytab_name = no\n"),
        ("etc/not-at-the-beginning", b"[libdefaults]\ndefault_keytab_name = no\n"),
    ]);
    let conf = Conf::kerberos(&root);
    assert_eq!(values(&conf, NAME), ["FILE:/etc/a", "/etc/b", "WRFILE:/etc/c", "/etc/d"]);
    assert_eq!(conf.unclear, [""; 0]);

    for (text, unclear) in [
        ("module /usr/lib/x.so:y\n", "/etc/krb5.conf: module /usr/lib/x.so:y"),
        ("include more\n", "/etc/krb5.conf: include more"),
        ("include /etc/krb5.conf\n", "/etc/krb5.conf: include /etc/krb5.conf"),
    ] {
        fs::write(dir.path().join("etc/krb5.conf"), text).unwrap();
        assert_eq!(Conf::kerberos(&root).unclear, [unclear]);
    }
}

#[test]
fn samba_settings_are_found_in_whatever_is_included() {
    let main = b"# B\xfcro\n[global]\n\tprivate dir = /srv/a\n\tinclude = /etc/samba/more.conf\n[share]\n\tprivate dir = no\n\
                 \tinclude = /etc/samba/global.conf\n";
    let (dir, root) = root(&[
        ("etc/samba/smb.conf", main),
        ("etc/samba/more.conf", b"Private Dir = /srv/b\n"),
        ("etc/samba/global.conf", b"private dir = no\n[global]\nprivatedir = /srv/c\n"),
    ]);
    let conf = Conf::samba(&root);
    assert_eq!(values(&conf, "privatedir"), ["/srv/a", "/srv/b", "/srv/c"]);
    assert_eq!(conf.last("privatedir"), Some(&b"/srv/c"[..]));
    assert_eq!(conf.unclear, [""; 0]);

    for (text, unclear) in [
        ("include = /etc/samba/%m.conf", "/etc/samba/smb.conf: include = /etc/samba/%m.conf"),
        ("include = registry", "/etc/samba/smb.conf: include = registry"),
        ("config backend = registry", "/etc/samba/smb.conf: config backend = registry"),
        ("config file = /etc/samba/%L", "/etc/samba/smb.conf: configfile = /etc/samba/%L"),
        ("include = /etc/samba/smb.conf", "/etc/samba/smb.conf: include = /etc/samba/smb.conf"),
    ] {
        fs::write(dir.path().join("etc/samba/smb.conf"), format!("[global]\n{text}\n")).unwrap();
        assert_eq!(Conf::samba(&root).unclear, [unclear]);
    }
}

#[test]
fn sssd_settings_are_found_in_its_snippets() {
    let (_dir, root) = root(&[
        ("etc/sssd/sssd.conf", b"[domain/a]\nkrb5_keytab = /etc/a\n"),
        ("etc/sssd/conf.d/b.conf", b"# B\xfcro\n[domain/a]\n  krb5_keytab=/etc/b\n"),
        ("etc/sssd/conf.d/.c.conf", b"[domain/a]\nkrb5_keytab = no\n"),
        ("etc/sssd/conf.d/d.bak", b"[domain/a]\nkrb5_keytab = no\n"),
    ]);
    assert_eq!(values(&Conf::sssd(&root), "krb5_keytab"), ["/etc/a", "/etc/b"]);
}

type Spoil = fn(&TempDir, &str);
type Read = fn(&Root) -> Conf;

/// Missing, empty, a directory, a dangling link, a link out of the root, large, binary: read, or named.
#[test]
fn a_file_that_is_not_as_expected_is_read_or_named() {
    let cases: [(&str, bool, Spoil); 7] = [
        ("missing", false, |_, _| {}),
        ("empty", false, |dir, path| fs::write(dir.path().join(path), b"").unwrap()),
        ("a directory", true, |dir, path| fs::create_dir(dir.path().join(path)).unwrap()),
        ("a dangling link", false, |dir, path| symlink("/nowhere", dir.path().join(path)).unwrap()),
        ("a link out of the root", false, |dir, path| {
            symlink("../../../../../../etc/passwd", dir.path().join(path)).unwrap();
        }),
        ("large", false, |dir, path| fs::write(dir.path().join(path), vec![b'\n'; 10 << 20]).unwrap()),
        ("binary", false, |dir, path| {
            let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
            fs::write(dir.path().join(path), bytes).unwrap();
        }),
    ];
    let files: [(&str, Read); 4] = [
        ("etc/krb5.conf", Conf::kerberos),
        ("etc/samba/smb.conf", Conf::samba),
        ("etc/sssd/sssd.conf", Conf::sssd),
        ("etc/sssd/conf.d/a.conf", Conf::sssd),
    ];
    for (path, read) in files {
        for (name, is_named, spoil) in cases {
            let (dir, root) = root(&[("etc/x", b"")]);
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            spoil(&dir, path);
            let unclear = read(&root).unclear;
            assert_eq!(!unclear.is_empty(), is_named, "{path} is {name}: {unclear:?}");
            assert!(unclear.iter().all(|one| one.contains(path)), "{unclear:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (_dir, root) = root(&[("etc/krb5.conf", &bytes), (SMB, &bytes), (SSSD.0, &bytes)]);
        let _ = (Conf::kerberos(&root), Conf::samba(&root), Conf::sssd(&root));
    }
}
