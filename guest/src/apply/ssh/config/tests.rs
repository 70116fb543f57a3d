use super::*;
use proptest::prelude::*;
use std::{fs, path::Path, process::Command};

/// A root with `files`, read from its `etc/ssh/sshd_config`.
fn settings(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Settings) {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let root = Root::open(dir.path()).unwrap();
    let settings = Settings::read(&root, "etc/ssh/sshd_config", "etc/ssh", Vec::new()).unwrap();
    (dir, settings)
}

fn values<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<String> {
    lines
        .map(|line| {
            let words: Vec<_> =
                line.arguments.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            words.join(" ")
        })
        .collect()
}

const MAIN: &str = "etc/ssh/sshd_config";

#[test]
fn each_form_of_a_line_is_read() {
    for (text, expected) in [
        (&b"HostKey /a"[..], "/a"),
        (b"hostkey=/a", "/a"),
        (b"HOSTKEY = /a", "/a"),
        (b"\t HostKey\t/a \r", "/a"),
        (b"HostKey /a # b", "/a"),
        (b"HostKey \"/a b\"", "/a b"),
        (b"HostKey '/a b'", "/a b"),
        (b"HostKey /a\\ b", "/a b"),
        (b"\"HostKey\" /a", "/a"),
        (b"HostKey=\"/a\"", "/a"),
        (b"HostKey /a\x0c", "/a"),
        (b"HostKey /a#b", "/a#b"),
        (b"# HostKey /b\n\n   \nHostKey /a", "/a"),
        (b"# B\xfcro\nHostKey /a", "/a"),
    ] {
        let (_dir, settings) = settings(&[(MAIN, text)]);
        assert_eq!(values(settings.global("hostkey")), [expected], "{}", String::from_utf8_lossy(text));
        assert!(settings.faults.is_empty());
    }
    for (text, fault) in
        [(&b"HostKey"[..], "without a value"), (b"HostKey \"/a", "quote"), (b"HostKey /a\0b", "zero")]
    {
        let (_dir, settings) = settings(&[(MAIN, text)]);
        assert!(settings.faults[0].contains(fault) && settings.global("hostkey").next().is_none());
    }
}

#[test]
fn includes_are_followed_in_order_and_below_the_root() {
    let (dir, settings) = settings(&[
        (MAIN, b"Include sshd_config.d/*.conf /nowhere/*\nHostKey /main\nInclude /etc/ssh/[x-y]/a?b\n"),
        ("etc/ssh/sshd_config.d/20.conf", b"HostKey /20\nMatch User jane\nHostKey /never\n"),
        ("etc/ssh/sshd_config.d/10.conf", b"HostKey /10\n"),
        ("etc/ssh/sshd_config.d/.hidden.conf", b"HostKey /hidden\n"),
        ("etc/ssh/sshd_config.d/10.conf.bak", b"HostKey /bak\n"),
        ("etc/ssh/x/a-b", b"Match all\nHostKey /deep\n"),
    ]);
    assert_eq!(values(settings.global("hostkey")), ["/10", "/20", "/main", "/deep"]);
    let root = Root::open(dir.path()).unwrap();
    fs::write(dir.path().join(MAIN), "Include sshd_config\nHostKey /a\n").unwrap();
    let settings = Settings::read(&root, MAIN, "etc/ssh", Vec::new()).unwrap();
    assert!(settings.faults[0].contains("levels deep"), "{:?}", settings.faults);
    fs::write(dir.path().join(MAIN), "Include sshd_config sshd_config\n").unwrap();
    assert!(Settings::read(&root, MAIN, "etc/ssh", Vec::new()).is_err(), "2^16 files are not read");
}

#[test]
fn match_blocks_hold_for_whom_they_name() {
    let text = b"AuthorizedKeysFile global\n\
                 Match User jane,!root Group wheel\nAuthorizedKeysFile both\n\
                 Match user=j*e\nAuthorizedKeysFile star\n\
                 Match Address 10.0.0.0/8 User bob\nAuthorizedKeysFile inside\n\
                 Match Group !bad,staff\nAuthorizedKeysFile staff\n\
                 Match invalid-user\nAuthorizedKeysFile nobody\n\
                 Match LocalPort 2222\nAuthorizedKeysFile port\n";
    let (_dir, settings) = settings(&[(MAIN, text)]);
    let of = |name, groups: &[&str]| {
        let groups: Vec<_> = groups.iter().map(|group| group.as_bytes().to_vec()).collect();
        let lines = settings.alternatives("authorizedkeysfile", &Who { name, groups: &groups });
        values(lines.into_iter().flatten())
    };
    assert_eq!(of("jane", &["wheel"]), ["both"]);
    assert_eq!(of("jane", &["users"]), ["star"]);
    assert_eq!(of("bob", &["staff"]), ["inside", "staff"]);
    assert_eq!(of("bob", &["staff", "bad"]), ["inside", "port", "global"]);
    assert_eq!(of("root", &["wheel"]), ["port", "global"]);
    let (_dir, settings) =
        self::settings(&[(MAIN, b"Match all\nPermitRootLogin no\nAuthorizedKeysFile x\n")]);
    assert_eq!(values(settings.global("authorizedkeysfile")), ["x"], "Match all is for all");
}

/// OpenSSH's own opinion.
#[test]
fn sshd_reads_the_same() {
    let sshd = Path::new("/usr/sbin/sshd");
    let keygen = Command::new("ssh-keygen").arg("-?").output();
    if !sshd.exists() || keygen.is_err() || !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: sshd and ssh-keygen are not both here, or this is not root");
        return;
    }
    let _ = fs::create_dir_all("/run/sshd");
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap().to_owned();
    for name in ["a", "b c", "d"] {
        let key = dir.path().join(name);
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).status();
        assert!(made.unwrap().success());
    }
    fs::create_dir(dir.path().join("conf.d")).unwrap();
    let put = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text.replace('@', &at)).unwrap();
    };
    put("conf.d/1.conf", "HostKey @/d\nMatch User x\nAuthorizedKeysFile never\n");
    put("conf.d/2.conf", "AuthorizedKeysFile included second\n");
    for text in [
        "HostKey @/a\n",
        "hostkey = \"@/b c\" # c\nHostKey '@/a'\n",
        "HostKey=@/b\\ c\r\n\r\n",
        "\"HostKey\" @/a\nauthorizedkeysfile none\n",
        "Include @/conf.d/*.conf\nHostKey @/a\nAuthorizedKeysFile late\n",
        "Include @/conf.d/[2-9].conf\nHostKey @/a\n",
        "Match all\nHostKey @/a\nAuthorizedKeysFile x %h/y /z/%u\n",
        "HostKey @/a\nMatch User y\nAuthorizedKeysFile x\nMatch all\nAuthorizedKeysFile z\n",
        "HostKey @/a\nAuthorizedKeysFile a\"b c\"d e\nAuthorizedKeysFile f\n",
        "HostKey @/a\nMatch User y\nInclude @/conf.d/2.conf\n",
        "# c\n  #HostKey @/d\nHostKey @/a\nHostKey @/d\x0c\n",
        "HostKey @/a\nInclude @/conf.d\nInclude @/nothing/*\n",
    ] {
        put("config", text);
        let file = dir.path().join("config");
        let said = Command::new(sshd).arg("-T").arg("-f").arg(&file).output().unwrap();
        let said_text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{text}: {}", String::from_utf8_lossy(&said.stderr));
        let theirs = |key: &str| {
            said_text.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect::<Vec<_>>()
        };
        let root = Root::open(Path::new("/")).unwrap();
        let ours = Settings::read(&root, &file.to_str().unwrap()[1..], "etc/ssh", Vec::new()).unwrap();
        assert_eq!(values(ours.global("hostkey")), theirs("hostkey "), "{text}");
        let keys = values(ours.global("authorizedkeysfile").take(1));
        let default = vec![".ssh/authorized_keys .ssh/authorized_keys2".to_owned()];
        assert_eq!(if keys.is_empty() { default } else { keys }, theirs("authorizedkeysfile "), "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = words(&bytes);
        let _ = arguments(&bytes);
        let _ = list(&bytes, &bytes);
    }

    #[test]
    fn nor_does_any_configuration(
        lines in prop::collection::vec("(Match|Include|HostKey|[a-zA-Z]{1,4}|\"|=)?[ =]?[a-z*?\\[\\]!^,\"' \\\\/-]{0,12}", 0..12)
    ) {
        let (_dir, settings) = settings(&[(MAIN, lines.join("\n").as_bytes()), ("etc/ssh/a/b", b"X y\n")]);
        let who = Who { name: "jane", groups: &[b"g".to_vec()] };
        let _ = settings.alternatives("hostkey", &who);
    }

    /// A pattern without anything special is itself, and stars take anything.
    #[test]
    fn patterns(text in "[a-c.]{0,8}", with in "[a-c.]{0,4}") {
        prop_assert!(glob::wild(text.as_bytes(), text.as_bytes(), true));
        let starred = format!("*{text}*");
        let within = format!("{with}{text}{with}");
        prop_assert!(glob::wild(starred.as_bytes(), within.as_bytes(), false));
        let longer = format!("{text}?");
        prop_assert!(!glob::wild(longer.as_bytes(), text.as_bytes(), false));
    }
}
