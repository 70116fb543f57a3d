use super::*;
use crate::apply::tests::{Fake, identity};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

struct Guest {
    dir: tempfile::TempDir,
    root: Root,
    system: Fake,
    config: Config,
}

impl Guest {
    /// A root with `files`, and sshd.
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let guest = Self {
            root: Root::open(dir.path()).unwrap(),
            dir,
            system: Fake::new(),
            config: Config::default(),
        };
        for (path, text) in files.iter().chain(&[("usr/sbin/sshd", ""), ("etc/ssh/moduli", "")]) {
            guest.file(path, text.as_bytes());
        }
        *guest.system.root.borrow_mut() = guest.root.outside("");
        guest
    }

    fn file(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Applies and verifies as a fork does; the keys it then has.
    fn fork(&self) -> Result<Vec<String>, ApplyError> {
        let before = inherited(&self.root)?;
        apply(&identity(), &self.root, &self.system, &self.config)?;
        let keys = public_keys(&self.root)?;
        verify(&keys, &before, &self.root, &self.config)?;
        Ok(keys.iter().map(ToString::to_string).collect())
    }

    fn findings(&self) -> Vec<(Grade, String)> {
        let found = check(&self.root, &self.config).unwrap();
        found.iter().map(|finding| (finding.grade, finding.what.to_string())).collect()
    }

    fn finds(&self, grade: Grade, what: &str) {
        let found = self.findings();
        assert!(found.iter().any(|(g, w)| *g == grade && w.contains(what)), "{what}: {found:?}");
    }
}

const KEYGEN: (&str, &str) = ("usr/bin/ssh-keygen", "");

#[test]
fn keys_are_of_the_kinds_that_sshd_is_configured_for() {
    let guest = Guest::with(&[
        KEYGEN,
        ("etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\n"),
        (
            "etc/ssh/sshd_config.d/10-site.conf",
            "HostKey /etc/ssh/ssh_host_rsa_key\nHostKey /etc/ssh/ssh_host_ecdsa_key\n",
        ),
        ("etc/ssh/ssh_host_rsa_key", "old"),
        ("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAAold\n"),
        ("etc/ssh/ssh_host_ed25519_key", "old"),
    ]);
    assert_eq!(guest.findings(), []);
    for _ in 0..2 {
        let keys = guest.fork().unwrap();
        assert!(keys[0].starts_with("ssh-rsa ") && keys[1].starts_with("ssh-ecdsa "), "{keys:?}");
        assert!(!guest.root.exists("etc/ssh/ssh_host_ed25519_key").unwrap(), "the template's");
    }
    fs::remove_file(guest.dir.path().join(KEYGEN.0)).unwrap();
    guest.finds(Grade::Fatal, "takes ssh-keygen");
    let error = guest.fork().unwrap_err().to_string();
    assert!(error.contains("10-site.conf, line 1") && error.contains("install"), "{error}");
    assert!(!guest.root.exists("etc/ssh/ssh_host_rsa_key").unwrap(), "an old key goes in any case");
}

#[test]
fn a_key_in_another_directory_is_the_childs_own_and_reported() {
    for (line, path) in [
        ("HostKey /var/lib/site/ssh/host_ed25519", "var/lib/site/ssh/host_ed25519"),
        ("hostkey=\"/var/lib/site/a key\"", "var/lib/site/a key"),
        ("HostKey ~/host_ed25519", "root/host_ed25519"),
    ] {
        let guest = Guest::with(&[("etc/ssh/sshd_config", line)]);
        let mut seen = Vec::new();
        guest.file(path, b"x");
        guest.file(&format!("{path}.pub"), b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== template\n");
        for _ in 0..2 {
            let keys = guest.fork().unwrap();
            assert!(keys.len() == 1 && !seen.contains(&keys[0]), "{keys:?}");
            seen.extend(keys);
            let mode = fs::metadata(guest.dir.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "though the old one was open to others");
        }
    }
}

#[test]
fn a_link_to_a_key_stays_one_and_what_it_leads_to_is_new() {
    let guest = Guest::with(&[("persist/ssh/key", "the template's")]);
    symlink("/persist/ssh/key", guest.dir.path().join("etc/ssh/ssh_host_ed25519_key")).unwrap();
    for _ in 0..2 {
        assert_eq!(guest.fork().unwrap().len(), 1);
        assert_ne!(guest.root.read("persist/ssh/key").unwrap().unwrap(), b"the template's");
    }
    assert!(guest.root.link("etc/ssh/ssh_host_ed25519_key").unwrap().is_some());
    // One that leads nowhere is none.
    fs::remove_dir_all(guest.dir.path().join("persist")).unwrap();
    assert_eq!(guest.fork().unwrap().len(), 1);
    assert!(guest.root.is_regular("etc/ssh/ssh_host_ed25519_key").unwrap());
}

#[test]
fn a_key_in_a_directory_that_is_not_there_is_refused() {
    let guest = Guest::with(&[("etc/ssh/sshd_config", "HostKey /nowhere/ed25519\n")]);
    guest.finds(Grade::Fatal, "no host key can be made at /nowhere/ed25519");
    assert!(guest.fork().unwrap_err().to_string().contains("sshd_config, line 1"));
}

#[test]
fn what_is_deleted_need_not_be_readable() {
    let pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2Vw\n-----END PUBLIC KEY-----\n";
    let huge = "A".repeat(10 << 20);
    for text in ["", pem, "ssh-ed25519", "\u{0}\u{1}", huge.as_str()] {
        let guest = Guest::with(&[
            ("etc/ssh/ssh_host_rsa_key", text),
            ("etc/ssh/ssh_host_rsa_key.pub", text),
            ("etc/ssh/ssh_host_ed25519_key", text),
            ("etc/ssh/ssh_host_ed25519_key.pub", text),
            ("etc/ssh/ssh_host_rsa_key.bak", text),
            ("etc/ssh/ssh_host_keys.old/ssh_host_rsa_key", "k"),
        ]);
        guest.file("etc/ssh/ssh_host_ecdsa_key.pub", b"\xff\xfe");
        guest.finds(Grade::Note, "ssh_host_keys.old is a directory");
        assert_eq!(guest.fork().unwrap().len(), 1);
        let left = guest.root.names("etc/ssh").unwrap();
        assert_eq!(left, ["moduli", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "ssh_host_keys.old"]);
    }
}

/// The files that are read, each as it should not be: never a panic, and either a key or a word about it.
#[test]
fn no_form_of_a_file_is_passed_over() {
    for path in [
        "etc/ssh/sshd_config",
        "etc/ssh/sshd_config.d/a.conf",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "etc/default/ssh",
        "usr/lib/systemd/system/ssh.service",
        "etc/dropbear/dropbear_ed25519_host_key",
    ] {
        for form in ["missing", "empty", "directory", "dangling", "outside", "large", "binary"] {
            let guest = Guest::with(&[
                ("etc/ssh/sshd_config", "Include sshd_config.d/*\n"),
                ("etc/ssh/sshd_config.d/a.conf", "Port 22\n"),
                ("etc/default/ssh", "SSHD_OPTS=\n"),
                ("usr/lib/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n"),
                ("etc/dropbear/x", ""),
            ]);
            let file = guest.dir.path().join(path);
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
            let said = check(&guest.root, &guest.config);
            match guest.fork() {
                Ok(keys) => assert_eq!(keys.len(), 1, "{path} {form}"),
                Err(error) => {
                    assert!(crate::error::chain(&error).contains("etc/"), "{path} {form}: {error}");
                    let is_said =
                        said.is_err() || said.unwrap().iter().any(|finding| finding.grade == Grade::Fatal);
                    assert!(is_said, "{path} {form}: {error} comes at the fork");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_made_is_refused_beforehand() {
    for (config, grade, what) in [
        ("HostKey /etc/ssh/key\n", Grade::Fatal, "of which kind"),
        ("HostKeyAgent /run/agent\n", Grade::Fatal, "HostKeyAgent keeps"),
        ("HostKey /etc/ssh/dsa_key\n", Grade::Broken, "DSA"),
        ("HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub\n", Grade::Note, "vouches"),
        ("HostKeyAlgorithms rsa-sha2-*\n", Grade::Broken, "has none of the kinds"),
        ("HostKeyAlgorithms -ssh-ed25519\n", Grade::Broken, "has none of the kinds"),
        ("HostKey\n", Grade::Broken, "would not start"),
    ] {
        let guest = Guest::with(&[("etc/ssh/sshd_config", config)]);
        guest.finds(grade, what);
        assert_eq!(guest.fork().is_err(), grade == Grade::Fatal, "{config}");
    }
    let guest = Guest::with(&[("proc/sys/crypto/fips_enabled", "1\n")]);
    guest.finds(Grade::Broken, "FIPS");
    let guest = Guest::with(&[("etc/ssh/old_backup", "-----BEGIN OPENSSH PRIVATE KEY-----\n")]);
    guest.finds(Grade::Note, "etc/ssh/old_backup is a private key");
    let fine = Guest::with(&[("etc/ssh/sshd_config", "HostKeyAlgorithms +ssh-rsa\nHostKeyAgent none\n")]);
    assert_eq!(fine.findings(), []);
}

#[test]
fn what_makes_keys_that_nobody_is_told_of_is_named() {
    let suse = "[Service]\nExecStartPre=/usr/sbin/sshd-gen-keys-start\nExecStart=/usr/sbin/sshd -D\n";
    let guest = Guest::with(&[
        ("usr/lib/systemd/system/sshd.service", suse),
        ("usr/lib/systemd/system/sshdgenkeys.service", "[Service]\nExecStart=/usr/bin/ssh-keygen -A\n"),
        ("usr/lib/systemd/system/sshdgenkeys.service.d/50-ramet-keys.conf", ""),
        ("var/lib/dpkg/info/openssh-server.postinst", ""),
    ]);
    guest.finds(Grade::Broken, "system/sshd.service makes the host keys");
    guest.finds(Grade::Note, "upgrade of openssh-server");
    assert_eq!(guest.findings().len(), 2, "what is kept from it is not named");
    guest.file("etc/ssh/sshd_config", b"HostKey /etc/ssh/ssh_host_ed25519_key\n");
    assert_eq!(guest.findings(), [], "there is none missing");
}

/// sshd as its unit starts it, and one built by hand.
#[test]
fn options_and_other_installations_count() {
    for files in [
        &[("etc/default/ssh", "SSHD_OPTS=\"-o HostKey=/srv/ed25519\"\n")][..],
        &[("etc/default/ssh", "SSHD_OPTS='-4 -h /srv/ed25519'\n")],
        &[("etc/default/ssh", "SSHD_OPTS=-f/srv/config\n"), ("srv/config", "HostKey /srv/ed25519\n")],
        &[
            ("usr/local/sbin/sshd", ""),
            ("usr/local/etc/sshd_config", "Include extra\n"),
            ("usr/local/etc/extra", "HostKey /srv/ed25519\n"),
        ],
        &[("usr/etc/ssh/sshd_config", "HostKey /srv/ed25519\n")],
        &[(
            "etc/systemd/system/ssh-admin.service.d/x.conf",
            "[Service]\nExecStart=\nExecStart=-/usr/sbin/sshd -D -o \"HostKey /srv/ed25519\"\n",
        )],
    ] {
        let guest = Guest::with(files);
        guest.file("srv/ed25519", b"old");
        guest.file(
            "usr/lib/systemd/system/ssh.service",
            b"[Service]\nEnvironmentFile=-/etc/default/ssh\nExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n",
        );
        guest.fork().unwrap();
        assert_ne!(guest.root.read("srv/ed25519").unwrap().unwrap(), b"old", "{files:?}");
    }
}

#[test]
fn keys_of_dropbear_and_tinyssh_are_the_childs_own() {
    let guest = Guest::with(&[
        ("usr/sbin/dropbear", ""),
        ("etc/default/dropbear", "DROPBEAR_EXTRA_ARGS=\"-s -r /srv/dropbear_ed25519_host_key\"\n"),
        ("srv/dropbear_ed25519_host_key", "old"),
        ("etc/dropbear/dropbear_ed25519_host_key", "old"),
        ("etc/dropbear/dropbear_dss_host_key", "old"),
        ("etc/dropbear/initramfs/dropbear_rsa_host_key", "old"),
        ("etc/tinyssh/sshkeydir/.ed25519.sk", "old"),
        ("etc/tinyssh/sshkeydir/.nistp256ecdsa.sk", "old"),
    ]);
    guest.finds(Grade::Open, "etc/dropbear/initramfs/dropbear_rsa_host_key is a host key for the initrd");
    guest.finds(Grade::Note, "dropbear_dss_host_key is removed");
    let mut seen = Vec::new();
    for _ in 0..2 {
        let keys = guest.fork().unwrap();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(keys.iter().all(|key| !seen.contains(key)));
        seen.extend(keys);
        assert_eq!(guest.root.len("etc/tinyssh/sshkeydir/.ed25519.sk").unwrap(), Some(64));
    }
    assert!(!guest.root.exists("etc/dropbear/dropbear_dss_host_key").unwrap());
    assert!(!guest.root.exists("etc/tinyssh/sshkeydir/.nistp256ecdsa.sk").unwrap());
    guest.file("etc/dropbear/dropbear_rsa_host_key", b"old");
    guest.finds(Grade::Fatal, "takes dropbearkey");
    assert!(guest.fork().unwrap_err().to_string().contains("install dropbear-bin"));
    assert!(!guest.root.exists("etc/dropbear/dropbear_rsa_host_key").unwrap());
}

#[test]
fn keys_that_are_put_into_an_initrd_are_named() {
    for (path, text) in [
        ("usr/lib/dracut/modules.d/46sshd/module-setup.sh", ""),
        ("etc/mkinitcpio.conf", "#HOOKS=(tinyssh)\nHOOKS=(base udev netconf dropbear encryptssh)\n"),
        ("root/.ssh/dracut_ssh_host_ed25519_key", "k"),
        ("etc/dropbear-initramfs/dropbear_ecdsa_host_key", "k"),
        ("etc/tinyssh-initramfs/.ed25519.sk", "k"),
    ] {
        Guest::with(&[(path, text)]).finds(Grade::Open, path.split("/module").next().unwrap());
    }
    assert_eq!(Guest::with(&[("etc/mkinitcpio.conf", "#HOOKS=(tinyssh)\nHOOKS=(base)\n")]).findings(), []);
    let starts = ("usr/lib/systemd/system/dropbear.service", "");
    Guest::with(&[("usr/sbin/dropbear", ""), starts]).finds(Grade::Note, "no host key yet");
}

/// What chattr(1) has made immutable is said beforehand.
#[test]
fn an_immutable_key_is_named() {
    let guest = Guest::with(&[("etc/ssh/ssh_host_rsa_key", "old")]);
    let file = guest.dir.path().join("etc/ssh/ssh_host_rsa_key");
    let set =
        |flag| Command::new("chattr").arg(flag).arg(&file).output().is_ok_and(|said| said.status.success());
    if !set("+i") {
        eprintln!("SKIPPED: no file can be made immutable here");
        return;
    }
    let (found, forked) = (guest.findings(), guest.fork());
    assert!(set("-i"));
    assert!(
        matches!(&found[..], [(Grade::Fatal, what)] if what.contains("rsa_key is immutable")),
        "{found:?}"
    );
    assert!(forked.is_err());
}

/// tinysshd's own opinion of a key that was made here.
#[test]
fn tinysshd_reads_the_same() {
    let guest = Guest::with(&[("etc/tinyssh/sshkeydir/.ed25519.sk", "old"), ("usr/sbin/tinysshd", "")]);
    assert_eq!(guest.findings(), []);
    let ours = guest.fork().unwrap().pop().unwrap();
    let directory = guest.dir.path().join("etc/tinyssh/sshkeydir");
    match Command::new("tinysshd-printkey").arg(&directory).output() {
        Ok(said) => assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), ours),
        Err(_) => eprintln!("SKIPPED: there is no tinysshd-printkey here"),
    }
    fs::remove_dir_all(directory).unwrap();
    guest.finds(Grade::Note, "tinysshd has no host key yet");
}

/// Dropbear's own opinion of a key that was made here, and of what is read of its own.
#[test]
fn dropbear_reads_the_same() {
    let guest = Guest::with(&[("usr/sbin/dropbear", ""), ("etc/dropbear/dropbear_ed25519_host_key", "")]);
    let ours = guest.fork().unwrap().pop().unwrap();
    let key = |kind: &str| guest.dir.path().join(format!("etc/dropbear/dropbear_{kind}_host_key"));
    let say = |kind: &str| {
        let said = Command::new("dropbearkey").arg("-y").arg("-f").arg(key(kind)).output().ok()?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("ssh-") || line.starts_with("ecdsa-"))?;
        Some(line.split(' ').take(2).collect::<Vec<_>>().join(" "))
    };
    let Some(theirs) = say("ed25519") else {
        assert!(Command::new("dropbearkey").arg("-h").output().is_err(), "dropbearkey cannot read it");
        eprintln!("SKIPPED: there is no dropbearkey here");
        return;
    };
    assert!(guest.root.exists("etc/dropbear/dropbear_ed25519_host_key").unwrap());
    assert!(ours.starts_with("ssh-ed25519 ") && public_keys(&guest.root).unwrap()[1].to_string() == theirs);
    for kind in ["rsa", "ecdsa"] {
        fs::remove_file(key("ed25519")).ok();
        let made = Command::new("dropbearkey").args(["-t", kind, "-f"]).arg(key(kind)).output().unwrap();
        assert!(made.status.success());
        let found: Vec<_> = public_keys(&guest.root).unwrap().iter().map(ToString::to_string).collect();
        assert!(found.contains(&say(kind).unwrap()), "{kind}: {found:?}");
    }
}

/// OpenSSH's keys of each kind and form: the kind is told, and the public half is the one that sshd offers.
#[test]
fn keys_of_openssh_are_read() {
    let guest = Guest::with(&[]);
    for (n, (arguments, kind, bits)) in [
        (&["-t", "rsa", "-b", "4096"][..], KeyKind::Rsa, Some(4096)),
        (&["-t", "rsa", "-b", "2048"], KeyKind::Rsa, None),
        (&["-t", "rsa", "-b", "2048", "-m", "PEM"], KeyKind::Rsa, None),
        (&["-t", "ecdsa", "-b", "384"], KeyKind::Ecdsa, Some(384)),
        (&["-t", "ecdsa", "-m", "PEM"], KeyKind::Ecdsa, None),
        (&["-t", "ed25519"], KeyKind::Ed25519, None),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("etc/ssh/k{n}");
        let file = guest.dir.path().join(&path);
        let made =
            Command::new("ssh-keygen").args(arguments).args(["-q", "-N", "", "-f"]).arg(&file).output();
        let Ok(made) = made else {
            eprintln!("SKIPPED: there is no ssh-keygen here");
            return;
        };
        assert!(made.status.success());
        assert_eq!(keys::told(&guest.root, &path), Told::Kind(Kind { kind, bits }), "{arguments:?}");
        let public = fs::read_to_string(file.with_extension("pub")).unwrap();
        let offered = keys::offered(&guest.root, &path).unwrap().unwrap().to_string();
        assert!(public.starts_with(&offered), "{arguments:?}");
        if !arguments.contains(&"PEM") {
            fs::write(file.with_extension("pub"), "ssh-rsa AAAAlie\n").unwrap();
            assert_eq!(keys::offered(&guest.root, &path).unwrap().unwrap().to_string(), offered);
        }
    }
}
