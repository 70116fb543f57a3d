//! Domain identities applied to a temporary root, with made-up programs of Samba's.

use super::*;
use crate::{
    apply::{
        Order, apply as apply_all,
        tests::{Fake, identity, template},
    },
    config::Config,
};
use ramet_proto::{
    Evidence, Secret,
    domain::DomainIdentity,
    message::{Failure, Reason, Step},
    text::Text,
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Instant};
use tempfile::TempDir;

const KVNO: u32 = 300;
const JOIN: &[u8] = b"\xff\xfeA\0A\0";

pub(crate) fn account() -> DomainAccount {
    DomainAccount {
        realm: "AD.EXAMPLE.ORG".parse().unwrap(),
        workgroup: "EXAMPLE".parse().unwrap(),
        name: "WEB-1".parse().unwrap(),
        sid: "S-1-5-21-1-2-3-1104".parse().unwrap(),
        kvno: KVNO,
        dc: "dc1.ad.example.org".parse().unwrap(),
        persistent: false,
    }
}

/// An identity with a domain.
pub(crate) fn member() -> Identity {
    let keytab = Secret::new(keytab::tests::keytab("WEB-1", "AD.EXAMPLE.ORG", KVNO));
    let domain = DomainIdentity { account: account(), keytab, join: Secret::new(JOIN.to_vec()) };
    Identity { domain: Some(domain), ..identity() }
}

fn persistent() -> Identity {
    let mut identity = member();
    identity.domain.as_mut().unwrap().account.persistent = true;
    identity
}

fn add(dir: &TempDir, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

const SAMBA: &[(&str, &str)] = &[
    ("usr/bin/net", ""),
    ("usr/sbin/winbindd", ""),
    ("etc/samba/smb.conf", "[global]\n\tworkgroup = EXAMPLE\n"),
];

const SSSD: &[(&str, &str)] = &[("usr/sbin/sssd", ""), ("etc/sssd/README", "")];

const SETTINGS: &str = "Loaded services file OK.\n[global]\n\tcache directory = /var/cache/samba\n\
    \tlock directory = /run/samba\n\tmachine password timeout = 0\n\tnetbios name = WEB-1\n\
    \tprivate dir = /var/lib/samba/private\n\trealm = AD.EXAMPLE.ORG\n\tsecurity = ADS\n\
    \tstate directory = /var/lib/samba\n\tworkgroup = EXAMPLE\n";

fn guest(files: &[(&str, &str)]) -> (TempDir, Root, Fake) {
    let (dir, root) = template();
    add(&dir, files);
    let system = Fake::new();
    system.answer("testparm", Ok(SETTINGS));
    *system.sid.borrow_mut() = "S-1-5-21-9-9-9".into();
    (dir, root, system)
}

fn apply_to(root: &Root, system: &Fake, identity: &Identity) -> Result<Evidence, Failure> {
    *system.root.borrow_mut() = root.outside("");
    let order = Order { identity, received: Instant::now(), stale: crate::apply::Stale::default() };
    apply_all(&order, root, system, &Config::load(root).unwrap())
}

fn fails(root: &Root, system: &Fake, identity: &Identity, step: Step) -> (Reason, String) {
    let failure = apply_to(root, system, identity).unwrap_err();
    assert_eq!(failure.step, step, "{failure}");
    (failure.reason, failure.detail.to_string())
}

fn shown() -> DomainEvidence {
    DomainEvidence { principal: Text::new("WEB-1$@AD.EXAMPLE.ORG"), kvno: KVNO }
}

#[test]
fn samba_takes_on_the_account_and_keeps_its_password() {
    let (dir, root, system) = guest(SAMBA);
    let old = [
        "var/lib/samba/private/secrets.tdb",
        "var/lib/samba/private/netlogon_creds_cli.tdb",
        "var/cache/samba/netsamlogon_cache.tdb",
        "var/cache/samba/gencache.tdb",
        "var/lib/samba/winbindd_cache.tdb",
        "run/samba/gencache.tdb",
        "run/samba/smb_krb5/krb5.conf.EXAMPLE",
    ];
    let kept = ["var/lib/samba/winbindd_idmap.tdb", "var/lib/samba/private/passdb.tdb"];
    let keytab = dir.path().join("etc/krb5.keytab");
    for _ in 0..2 {
        add(&dir, &old.map(|path| (path, "x")));
        add(&dir, &kept.map(|path| (path, "x")));
        add(&dir, &[("etc/krb5.keytab", "the template's")]);
        fs::set_permissions(&keytab, fs::Permissions::from_mode(0o644)).unwrap();
        system.ran.borrow_mut().clear();
        system.fed.borrow_mut().clear();

        let evidence = apply_to(&root, &system, &member()).unwrap();

        assert_eq!(evidence.domain, Some(shown()));
        assert_eq!(fs::metadata(&keytab).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(old.iter().find(|path| dir.path().join(path).exists()), None);
        assert_eq!(kept.iter().find(|path| !dir.path().join(path).exists()), None);
        assert_eq!(
            *system.ran.borrow(),
            [
                "testparm --suppress-prompt --skip-logic-checks --verbose --section-name=global",
                "net --debuglevel=0 --option=kerberos method=secrets only offlinejoin requestodj loadfile=/dev/stdin",
            ]
        );
        assert_eq!(*system.fed.borrow(), JOIN);
        let read = |path: &str| root.read_text(path).unwrap().unwrap();
        let smb = read("etc/samba/smb.conf");
        assert!(smb.starts_with("[global]\n\tworkgroup = EXAMPLE\n#"), "{smb}");
        assert_eq!(smb.matches("[global]\n\tmachine password timeout = 0\n").count(), 1, "{smb}");
        let krb5 = read("etc/krb5.conf");
        assert_eq!(krb5.matches("[libdefaults]\n\tdefault_realm = AD.EXAMPLE.ORG\n").count(), 1, "{krb5}");
        assert!(read("etc/hosts").contains("127.0.1.1\tweb-1.ad.example.org web-1\n"));
    }
}

#[test]
fn a_member_that_keeps_its_account_has_a_keytab_that_follows_its_password() {
    let lasting = SETTINGS.replace("machine password timeout = 0", "machine password timeout = 604800");
    let own = |lines: &str| {
        format!("\n[global]\n\tkerberos method = secrets and keytab\n\t{lines}\n# ramet-agent end\n")
    };
    let sync = "sync machine password to keytab";
    let follows = own(&format!(
        "{sync} = \"/etc/krb5.keytab:spns=WEB-1$@AD.EXAMPLE.ORG,host/web-1@AD.EXAMPLE.ORG:sync_kvno:machine_password\""
    ));
    // Before 4.21 winbindd would leave the keytab behind.
    let stays = own("machine password timeout = 0");
    for (known, text) in [
        (String::new(), &stays),
        (format!("\t{sync} = \n"), &follows),
        (format!("\t{sync} = /etc/other:sync_spns:machine_password\n"), &follows),
    ] {
        let (_dir, root, system) = guest(SAMBA);
        let settings = format!("{lasting}{known}");
        system.answer("testparm", Ok(&settings));
        for _ in 0..2 {
            apply_to(&root, &system, &persistent()).unwrap();
            let smb = root.read_text("etc/samba/smb.conf").unwrap().unwrap();
            assert!(smb.starts_with("[global]\n\tworkgroup = EXAMPLE\n#") && smb.ends_with(text), "{smb}");
            assert_eq!(smb.matches("ramet-agent begin").count(), 1, "{smb}");
        }
        // One that gives it back later has its own settings again.
        system.answer("testparm", Ok(SETTINGS));
        apply_to(&root, &system, &member()).unwrap();
        let smb = root.read_text("etc/samba/smb.conf").unwrap().unwrap();
        assert!(smb.ends_with("\n[global]\n\tmachine password timeout = 0\n# ramet-agent end\n"), "{smb}");
    }
}

/// With an option of the image's Samba would ask a domain controller as it joins, and there is no network yet.
#[test]
fn a_join_asks_nobody_for_the_keytab() {
    let offline = "\tsync machine password to keytab = /etc/krb5.keytab:account_name:machine_password\n# ramet-agent end\n";
    let settings = format!(
        "{SETTINGS}\tsync machine password to keytab = /etc/x:sync_spns:sync_kvno:machine_password\n"
    );
    for identity in [member(), persistent()] {
        let (_dir, root, system) = guest(SAMBA);
        system.answer("testparm", Ok(&settings));
        // As the join finds it.
        system.answer("net", Err("broken"));
        fails(&root, &system, &identity, Step::Domain);
        let smb = root.read_text("etc/samba/smb.conf").unwrap().unwrap();
        assert!(smb.contains("[global]\n") && smb.ends_with(offline), "{smb}");
        system.answer("net", Ok(""));
        apply_to(&root, &system, &identity).unwrap();
        let smb = root.read_text("etc/samba/smb.conf").unwrap().unwrap();
        assert!(!smb.contains("account_name"), "it is for the join alone: {smb}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_carried_through() {
    let (dir, root, system) = guest(SAMBA);
    let files = [
        ("etc/samba/smb.conf", &b"# B\xfcro\n[global]\n\tworkgroup = EXAMPLE\n"[..]),
        ("etc/krb5.conf", b"# B\xfcro\n"),
    ];
    for (path, bytes) in files {
        fs::write(dir.path().join(path), bytes).unwrap();
    }
    fs::write(dir.path().join("etc/nsswitch.conf"), b"# B\xfcro\npasswd: files\n").unwrap();
    apply_to(&root, &system, &member()).unwrap();
    let smb = root.read("etc/samba/smb.conf").unwrap().unwrap();
    assert!(smb.starts_with(files[0].1) && smb.len() > files[0].1.len());
    let krb5 = root.read("etc/krb5.conf").unwrap().unwrap();
    assert!(krb5.ends_with(files[1].1) && krb5.starts_with(b"# ramet-agent begin"));
}

#[test]
fn samba_that_is_set_up_for_something_else_is_not_joined() {
    for (right, wrong) in [
        ("realm = AD.EXAMPLE.ORG", "realm = OTHER.EXAMPLE.ORG"),
        ("workgroup = EXAMPLE", "workgroup = WORKGROUP"),
        ("security = ADS", "security = USER"),
        ("netbios name = WEB-1", "netbios name = PARENT"),
        ("machine password timeout = 0", "machine password timeout = 604800"),
        ("\trealm = AD.EXAMPLE.ORG\n", ""),
    ] {
        let (_dir, root, system) = guest(SAMBA);
        system.answer("testparm", Ok(&SETTINGS.replace(right, wrong)));
        let (reason, detail) = fails(&root, &system, &member(), Step::Domain);
        assert_eq!(reason, Reason::Mismatch, "{detail}");
        for value in [right, wrong].iter().filter_map(|setting| setting.trim().split_once(" = ")) {
            assert!(detail.to_lowercase().contains(&value.1.to_lowercase()), "{detail}");
        }
        assert_eq!(system.ran.borrow().len(), 1, "{:?}", system.ran.borrow());
    }
    let (dir, root, system) = guest(SAMBA);
    fs::remove_file(dir.path().join("etc/samba/smb.conf")).unwrap();
    assert_eq!(fails(&root, &system, &member(), Step::Domain).0, Reason::Missing);
}

#[test]
fn a_join_that_samba_refuses_fails() {
    let (_dir, root, system) = guest(SAMBA);
    system.answer("net", Err("net ended with exit status: 255: Failed to call NetRequestOfflineDomainJoin"));
    let (reason, detail) = fails(&root, &system, &member(), Step::Domain);
    assert_eq!(reason, Reason::System);
    assert!(detail.ends_with("NetRequestOfflineDomainJoin"), "{detail}");
    assert_eq!(root.read_text("etc/krb5.keytab").unwrap(), None);
}

#[test]
fn sssd_gets_settings_and_forgets_what_it_knew() {
    let (dir, root, system) = guest(SSSD);
    let old = [
        "var/lib/sss/db/cache_ad.example.org.ldb",
        "var/lib/sss/db/ccache_AD.EXAMPLE.ORG",
        "var/lib/sss/mc/passwd",
        "var/lib/sss/pubconf/kdcinfo.AD.EXAMPLE.ORG",
    ];
    let snippet = dir.path().join("etc/sssd/conf.d/99-ramet.conf");
    for identity in [member(), member(), persistent()] {
        add(&dir, &old.map(|path| (path, "x")));
        add(&dir, &[("var/lib/sss/pubconf/krb5.include.d/x", "x")]);
        assert_eq!(apply_to(&root, &system, &identity).unwrap().domain, Some(shown()));
        assert_eq!(old.iter().find(|path| dir.path().join(path).exists()), None);
        assert!(dir.path().join("var/lib/sss/pubconf/krb5.include.d/x").exists());
        assert_eq!(fs::metadata(&snippet).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&snippet).unwrap();
        for line in [
            "[domain/ad.example.org]",
            "id_provider = ad",
            "ad_server = dc1.ad.example.org, _srv_",
            "ad_hostname = web-1.ad.example.org",
            "krb5_realm = AD.EXAMPLE.ORG",
            "ldap_sasl_authid = WEB-1$",
            "krb5_keytab = /etc/krb5.keytab",
            "ldap_krb5_keytab = /etc/krb5.keytab",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}: {text}");
        }
        let lasting = identity.domain.unwrap().account.persistent;
        assert_eq!(text.contains("ad_maximum_machine_account_password_age = 0\n"), !lasting);
        // A mode that somebody else gave it.
        fs::set_permissions(&snippet, fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert!(system.ran.borrow().is_empty());
}

#[test]
fn the_client_is_what_is_installed_or_what_the_image_says() {
    let both = [SAMBA, SSSD].concat();
    let with = |more: &[(&'static str, &'static str)]| [&both, more].concat();
    let uses = |sources: &'static str| with(&[("etc/nsswitch.conf", sources)]);
    let (auto, samba, sssd) = (DomainClient::Auto, DomainClient::Samba, DomainClient::Sssd);
    for (files, wanted, found) in [
        (SAMBA.to_vec(), auto, Some(Client::Samba)),
        (SSSD.to_vec(), auto, Some(Client::Sssd)),
        (both.clone(), auto, Some(Client::Samba)),
        (with(&[("etc/sssd/sssd.conf", "")]), auto, Some(Client::Sssd)),
        (uses("# passwd: sss\npasswd: files winbind\ngroup: sss\n"), auto, Some(Client::Samba)),
        (uses("passwd:\tfiles sss\n"), auto, Some(Client::Sssd)),
        (uses("passwd:\tfiles sss\n"), samba, Some(Client::Samba)),
        (both.clone(), sssd, Some(Client::Sssd)),
        (SAMBA.to_vec(), sssd, None),
        (SSSD.to_vec(), samba, None),
        (vec![], auto, None),
        // Tools of Samba's alone.
        (vec![("usr/bin/net", "")], auto, None),
    ] {
        let (_dir, root, _) = guest(&files);
        match installed(&root, wanted) {
            Ok(client) => assert_eq!(Some(client), found, "{files:?} {wanted:?}"),
            Err(error) => assert!(found.is_none() && matches!(error, ApplyError::Missing(_)), "{error}"),
        }
    }
}

#[test]
fn a_guest_that_cannot_be_a_member_fails() {
    let (dir, root, system) = guest(&[("etc/krb5.keytab", "the template's")]);
    let (reason, detail) = fails(&root, &system, &member(), Step::Domain);
    assert_eq!(reason, Reason::Missing);
    assert!(detail.contains("neither Samba's winbind nor SSSD is installed"), "{detail}");
    assert!(!dir.path().join("etc/krb5.keytab").exists(), "the template's account is gone anyway");
}

#[test]
fn an_account_of_another_name_or_keys_is_refused() {
    let (_dir, root, system) = guest(SSSD);
    let other = Identity { hostname: "web-2".parse().unwrap(), ..member() };
    assert_eq!(fails(&root, &system, &other, Step::Domain).0, Reason::Malformed);
    let full = Identity { hostname: "Web-1.dmz.example.org".parse().unwrap(), ..member() };
    apply_to(&root, &system, &full).unwrap();

    let with_keytab = |bytes: Vec<u8>| {
        let mut identity = member();
        identity.domain.as_mut().unwrap().keytab = Secret::new(bytes);
        identity
    };
    assert_eq!(fails(&root, &system, &with_keytab(b"no keytab".to_vec()), Step::Domain).0, Reason::Malformed);
    for bytes in [
        keytab::tests::keytab("WEB-2", "AD.EXAMPLE.ORG", KVNO),
        keytab::tests::keytab("WEB-1", "AD.EXAMPLE.ORG", KVNO + 1),
        vec![5, 2],
    ] {
        assert_eq!(fails(&root, &system, &with_keytab(bytes), Step::Verify).0, Reason::Mismatch);
    }
}

#[test]
fn no_child_has_the_account_of_its_template() {
    let secrets = "var/lib/samba/private/secrets.tdb";
    for (held, stays) in [
        ("TDB file\0SECRETS/SID/PARENT", true),
        ("TDB file\0SECRETS/MACHINE_PASSWORD/EXAMPLE\0", false),
        ("TDB file\0SECRETS/MACHINE_DOMAIN_INFO/EXAMPLE\0", false),
    ] {
        let (dir, root, system) = guest(SAMBA);
        for _ in 0..2 {
            add(&dir, &[(secrets, held), ("etc/krb5.keytab", "\x05\x02")]);
            let evidence = apply_to(&root, &system, &identity()).unwrap();
            assert_eq!(evidence.domain, None);
            assert_eq!(root.exists(secrets).unwrap(), stays, "{held}");
            assert!(!root.exists("etc/krb5.keytab").unwrap());
        }
        assert!(system.ran.borrow().is_empty());
    }
}

#[test]
fn how_programs_are_run() {
    let (account, blob) = (account(), Secret::new(JOIN.to_vec()));
    let limit = std::time::Duration::from_secs(1);
    let config = Some(PathBuf::from("/run/ramet-agent/krb5.conf"));
    let kinit = Tool::Kinit { account: &account, config, limit };
    let run = kinit.run();
    assert_eq!(run.to_string(), "kinit -k -t /etc/krb5.keytab -c MEMORY: WEB-1$@AD.EXAMPLE.ORG");
    let files = "/run/ramet-agent/krb5.conf:/etc/krb5.conf";
    assert_eq!(run.variable, Some(("KRB5_CONFIG", files.into())));
    assert_eq!(run.input, None);
    assert_eq!(Tool::Kinit { account: &account, config: None, limit }.run().variable, None);

    let join = Tool::RequestJoin(&blob);
    let run = join.run();
    assert_eq!(run.arguments[1], "--option=kerberos method=secrets only", "one argument");
    assert_eq!(run.input, Some(JOIN));
    for shown in [format!("{join:?}"), run.to_string()] {
        assert!(!shown.contains("255"), "no byte of a secret: {shown}");
    }
}
