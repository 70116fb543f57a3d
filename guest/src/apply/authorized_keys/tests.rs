use super::*;
use ramet_proto::login::UserKeys;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

const JANE: &str = "jane:x:4242:4343:Jane:/home/jane:/bin/sh\n";
const OLD: &str = "ssh-ed25519 AAAAC3NzTEMPLATE old\n";
const NEW: &str = "ssh-ed25519 AAAAC3NzNEW jane\n";

struct Guest {
    dir: tempfile::TempDir,
    root: Root,
}

impl Guest {
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let guest = Self { root: Root::open(dir.path()).unwrap(), dir };
        for (path, text) in
            [("etc/passwd", JANE), ("usr/sbin/sshd", ""), ("home/jane/x", ""), ("etc/ssh/moduli", "")]
                .iter()
                .chain(files)
        {
            guest.file(path, text.as_bytes());
        }
        guest
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn fork(&self) -> Result<(), ApplyError> {
        let identity = identity("jane");
        apply(&identity, &self.root)?;
        verify(&identity, &self.root)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(path)).ok()
    }

    fn finds(&self, grade: Grade, what: &str) {
        let found = check(&self.root).unwrap();
        assert!(
            found.iter().any(|f| f.grade == grade && f.what.as_str().contains(what)),
            "{what}: {found:?}"
        );
    }
}

fn identity(user: &str) -> Identity {
    let keys = vec![NEW.trim().parse().unwrap()];
    Identity {
        authorized_keys: vec![UserKeys { user: user.parse().unwrap(), keys }],
        ..crate::apply::tests::identity()
    }
}

/// Giving files to others takes root.
fn is_root() -> bool {
    let is = nix::unistd::Uid::effective().is_root();
    if !is {
        eprintln!("SKIPPED: this is not root");
    }
    is
}

type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// What sshd is told, where the template's keys are, and where the child's are then; the others are gone.
#[test]
fn keys_are_where_sshd_reads_them_and_in_no_other_file() {
    if !is_root() {
        return;
    }
    let home = "home/jane/.ssh/authorized_keys";
    let second = "home/jane/.ssh/authorized_keys2";
    let etc = "etc/ssh/authorized_keys/jane";
    let cases: &[Case<'_>] = &[
        ("", &[home, second], &[home]),
        ("AuthorizedKeysFile .ssh/authorized_keys2\n", &[second], &[second]),
        ("AuthorizedKeysFile /etc/ssh/authorized_keys/%u\n", &[etc], &[etc]),
        (
            "AuthorizedKeysFile=\"/etc/ssh/authorized_keys/%u\" %h/.ssh/authorized_keys\n",
            &[etc, home],
            &[etc],
        ),
        ("AuthorizedKeysFile /etc/ssh/k/%U\n", &[home, second], &["etc/ssh/k/4242"]),
        ("AuthorizedKeysFile /srv/100%%/%u\n", &[], &["srv/100%/jane"]),
        ("AuthorizedKeysFile none .config/keys\n", &["home/jane/.config/keys"], &["home/jane/.config/keys"]),
        ("Match User jane\nAuthorizedKeysFile /etc/ssh/authorized_keys/%u\n", &[etc], &[etc]),
        ("Match Group jane\nAuthorizedKeysFile /etc/ssh/authorized_keys/%u\n", &[etc], &[etc]),
        ("Match User bob\nAuthorizedKeysFile /etc/ssh/authorized_keys/%u\n", &[home, second], &[home]),
        // Which of them counts depends on the connection: both have the keys.
        (
            "Match Address 10.0.0.0/8\nAuthorizedKeysFile /etc/ssh/authorized_keys/%u\n",
            &[etc, home],
            &[etc, home],
        ),
        ("AuthorizedKeysFile /etc/ssh/all .ssh/authorized_keys\n", &[home], &[home]),
    ];
    for (config, old, new) in cases {
        let guest = Guest::with(&[("etc/ssh/sshd_config", config), ("etc/group", "jane:x:4343:\n")]);
        for path in *old {
            guest.file(path, OLD.as_bytes());
        }
        for _ in 0..2 {
            guest.fork().unwrap_or_else(|error| panic!("{config}: {error}"));
            for path in *new {
                assert_eq!(guest.read(path).as_deref(), Some(NEW), "{config}: {path}");
            }
            for path in old.iter().filter(|path| !new.contains(path)) {
                assert_eq!(guest.read(path), None, "{config}: {path}");
            }
        }
        for path in *new {
            let meta = fs::metadata(guest.dir.path().join(path)).unwrap();
            let expected = if path.starts_with("home") { (4242, 4343, 0o600) } else { (0, 0, 0o644) };
            assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o777), expected, "{config}");
        }
    }
}

#[test]
fn the_step_ends_where_the_keys_would_not_be_read() {
    for (config, what) in [
        ("AuthorizedKeysFile none\n", "names no file"),
        ("AuthorizedKeysFile /etc/ssh/everybody\n", "names no file"),
        ("PubkeyAuthentication no\n", "PubkeyAuthentication is off"),
    ] {
        let guest = Guest::with(&[("etc/ssh/sshd_config", config)]);
        let error = guest.fork().unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("sshd_config, line 1"), "{error}");
        guest.finds(Grade::Broken, what);
        assert_eq!(guest.read("etc/ssh/everybody"), None, "no other user gets jane's keys");
    }
    let guest = Guest::with(&[("etc/ssh/sshd_config", "AuthorizedKeysFile /x/%i\n")]);
    assert!(guest.fork().unwrap_err().to_string().contains("only %%, %h"));
}

#[test]
fn other_ways_in_are_named() {
    for (config, what) in [
        ("AuthorizedKeysCommand /usr/bin/sss_ssh_authorizedkeys\n", "AuthorizedKeysCommand"),
        ("TrustedUserCAKeys /etc/ssh/ca.pub\n", "TrustedUserCAKeys"),
        ("Match User bob\nAuthorizedPrincipalsFile /etc/ssh/p/%u\n", "AuthorizedPrincipalsFile"),
        (
            "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/admins\n",
            "/etc/ssh/admins is read for every user",
        ),
    ] {
        Guest::with(&[("etc/ssh/sshd_config", config)]).finds(Grade::Open, what);
    }
    let quiet =
        "AuthorizedKeysCommand none\nTrustedUserCAKeys none\nAuthorizedKeysFile .ssh/authorized_keys\n";
    assert_eq!(check(&Guest::with(&[("etc/ssh/sshd_config", quiet)]).root).unwrap(), []);
}

#[test]
fn passwd_is_of_any_bytes_and_size() {
    if !is_root() {
        return;
    }
    let guest = Guest::with(&[]);
    let mut passwd = b"jos\xe9:x:1:1:Jos\xe9:/home/jos\xe9:/bin/sh\n".to_vec();
    for n in 0..60_000 {
        passwd.extend(format!("user{n}:x:{n}:{n}:A user of the institute:/home/user{n}:/bin/sh\n").bytes());
    }
    passwd.extend(JANE.replace("Jane", "X").bytes().map(|byte| if byte == b'X' { 0xe9 } else { byte }));
    guest.file("etc/passwd", &passwd);
    guest.fork().unwrap();
    assert_eq!(guest.read("home/jane/.ssh/authorized_keys").as_deref(), Some(NEW));
    assert_eq!(fs::read(guest.dir.path().join("etc/passwd")).unwrap(), passwd);
}

#[test]
fn a_user_that_is_not_here_or_has_no_home_is_named() {
    for (passwd, what) in [
        ("root:x:0:0::/root:/bin/sh\n", "LDAP"),
        ("jane:x:4242:4343:Jane:/home/away:/bin/sh\n", "no home directory /home/away"),
        ("jane:x:4242\n", "passwd(5)"),
        ("jane:x:a:b:Jane:/home/jane:/bin/sh\n", "passwd(5)"),
        ("jane:x:1:1:Jane:home:/bin/sh\n", "no absolute path"),
        ("", "LDAP"),
    ] {
        let guest = Guest::with(&[("etc/passwd", passwd)]);
        let error = guest.fork().unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("jane"), "{error}");
    }
}

#[test]
fn homes_behind_links_will_do_but_no_link_within_a_home() {
    if !is_root() {
        return;
    }
    let guest = Guest::with(&[("var/home/jane/x", "")]);
    fs::remove_dir_all(guest.dir.path().join("home")).unwrap();
    symlink("var/home", guest.dir.path().join("home")).unwrap();
    guest.fork().unwrap();
    assert_eq!(guest.read("var/home/jane/.ssh/authorized_keys").as_deref(), Some(NEW));

    let guest = Guest::with(&[("root/.ssh/authorized_keys", OLD)]);
    symlink("/root/.ssh", guest.dir.path().join("home/jane/.ssh")).unwrap();
    guest.finds(Grade::Broken, "/home/jane/.ssh is a link");
    let error = guest.fork().unwrap_err().to_string();
    assert!(error.contains("/home/jane/.ssh is no directory"), "{error}");
    assert_eq!(guest.read("root/.ssh/authorized_keys").as_deref(), Some(OLD));
    assert_eq!(fs::metadata(guest.dir.path().join("root/.ssh")).unwrap().uid(), 0);

    // A link in the file's own place is replaced.
    let guest = Guest::with(&[("srv/keys", OLD), ("home/jane/.ssh/x", "")]);
    symlink("/srv/keys", guest.dir.path().join("home/jane/.ssh/authorized_keys")).unwrap();
    guest.fork().unwrap();
    assert_eq!(guest.read("srv/keys").as_deref(), Some(OLD));
    assert_eq!(guest.read("home/jane/.ssh/authorized_keys").as_deref(), Some(NEW));
}

/// Every file that is read, as it should not be: no panic, and either the keys are there or the error names a file.
#[test]
fn no_form_of_a_file_is_passed_over() {
    if !is_root() {
        return;
    }
    let keys = "home/jane/.ssh/authorized_keys";
    for path in [
        "etc/passwd",
        "etc/group",
        "etc/ssh/sshd_config",
        "home/jane/.ssh",
        keys,
        "home/jane/.ssh/authorized_keys2",
    ] {
        for form in ["missing", "empty", "directory", "dangling", "outside", "large", "binary"] {
            let guest = Guest::with(&[("etc/group", ""), ("etc/ssh/sshd_config", ""), ("home/jane/y", "")]);
            let file = guest.dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&file);
            match form {
                "missing" => {}
                "empty" => guest.file(path, b""),
                "directory" => fs::create_dir(&file).unwrap(),
                "dangling" => symlink("/nowhere/at/all", &file).unwrap(),
                "outside" => symlink("../../../../../../../../etc/passwd", &file).unwrap(),
                "large" => guest.file(path, &vec![b'#'; 10 << 20]),
                _ => guest.file(path, b"\0\xff\n\x80 \x01\n\"\n"),
            }
            let _ = check(&guest.root);
            match guest.fork() {
                Ok(()) => assert_eq!(guest.read(keys).as_deref(), Some(NEW), "{path} {form}"),
                Err(error) => {
                    let error = crate::error::chain(&error);
                    assert!(error.contains("etc/") || error.contains("home/jane"), "{path} {form}: {error}");
                }
            }
        }
    }
}

proptest::proptest! {
    /// Foreign lines of passwd(5), whatever they are, hide nobody and make nothing panic.
    #[test]
    fn lines_of_others_hide_nobody(
        before in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        config in "(Match|AuthorizedKeysFile) [a-zA-Z%/ .,!*]{0,20}",
    ) {
        let guest = Guest::with(&[("etc/ssh/sshd_config", &config)]);
        let mut passwd = before;
        passwd.extend(b"\n");
        passwd.extend(JANE.bytes());
        guest.file("etc/passwd", &passwd);
        let user = users::find(&guest.root, &"jane".parse().unwrap()).unwrap();
        proptest::prop_assert_eq!((user.uid, user.gid, &*user.home), (4242, 4343, "home/jane"));
        let sshd = ssh::installed(&guest.root).unwrap();
        if let Ok(plan) = plan(&guest.root, &sshd, &user, &"jane".parse().unwrap()) {
            proptest::prop_assert!(!plan.written.is_empty());
            proptest::prop_assert!(plan.written.iter().all(|place| !plan.removed.contains(&place.path)));
        }
        let _ = check(&guest.root);
    }
}
