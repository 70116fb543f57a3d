//! What a template has of an account of its own, and which of it a child finds.

use super::{super::tests::member, *};
use crate::{
    apply::{
        domain,
        domain::keytab::tests as keytabs,
        tests::{Fake, identity, template},
    },
    config::{Config, DomainClient},
};
use ramet_proto::message::{Finding, Grade, Identity};
use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};
use tempfile::TempDir;

fn add(dir: &TempDir, path: &str, bytes: &[u8]) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A guest with SSSD and these files.
fn guest(files: &[(&str, &[u8])]) -> (TempDir, Root) {
    let (dir, root) = template();
    for (path, bytes) in [("usr/sbin/sssd", &b""[..]), ("etc/sssd/README", b"")].iter().chain(files) {
        add(&dir, path, bytes);
    }
    (dir, root)
}

fn apply(root: &Root, identity: &Identity) {
    domain::apply(identity, root, &Fake::new(), DomainClient::Auto).unwrap();
}

fn check(root: &Root) -> Vec<Finding> {
    domain::check(root, &Config::default()).unwrap()
}

fn words(found: &[Finding]) -> String {
    let lines: Vec<_> = found.iter().map(|one| format!("{}: {}", one.grade, one.what)).collect();
    lines.join("\n")
}

const REALM: &str = "AD.EXAMPLE.ORG";

const SETTINGS: &[(&str, &[u8])] = &[
    ("etc/krb5.conf", b"[libdefaults]\n default_keytab_name = FILE:/etc/krb5/host.keytab\nincludedir /etc/krb5.conf.d\n"),
    ("etc/krb5.conf.d/site", b"[libdefaults]\n default_keytab_name = WRFILE:/srv/site\n default_ccache_name = DIR:/srv/cc%{uid}\n"),
    ("etc/sssd/sssd.conf", b"# B\xfcro\n[domain/ad.example.org]\nkrb5_keytab = /etc/sssd/golden\n"),
    ("etc/sssd/conf.d/10.conf", b"[domain/ad.example.org]\nldap_krb5_keytab = FILE:/etc/sssd/ldap\n"),
    (
        "etc/samba/smb.conf",
        b"[global]\n kerberos method = dedicated keytab\n dedicated keytab file = /etc/samba/samba\n\
          include = /etc/samba/more.conf\n",
    ),
    (
        "etc/samba/more.conf",
        b"private dir = /srv/private\ncache directory = /srv/cache\n\
          sync machine password to keytab = /srv/one:sync_spns:machine_password, \"/srv/two:spns=a/b,c/d:machine_password\"\n",
    ),
];

const NAMED: &[&str] = &[
    "etc/krb5.keytab",
    "etc/krb5/host.keytab",
    "srv/site",
    "etc/sssd/golden",
    "etc/sssd/ldap",
    "etc/samba/samba",
    "srv/one",
    "srv/two",
    "srv/private/netlogon_creds_cli.tdb",
    "srv/cache/netsamlogon_cache.tdb",
    "srv/cc0/tkt",
];

#[test]
fn keytabs_and_secrets_go_from_wherever_the_configuration_says() {
    let (dir, root) = guest(SETTINGS);
    for identity in [identity(), member()] {
        for _ in 0..2 {
            for path in NAMED {
                add(&dir, path, b"the template's");
            }
            add(&dir, "srv/private/secrets.tdb", b"SECRETS/MACHINE_PASSWORD/EXAMPLE");
            add(&dir, "srv/private/secrets.tdb.bak", b"SECRETS/MACHINE_PASSWORD/EXAMPLE");
            apply(&root, &identity);
            for path in NAMED.iter().chain(&["srv/private/secrets.tdb", "srv/private/secrets.tdb.bak"]) {
                let left = root.read(path).unwrap();
                match &identity.domain {
                    Some(domain) if ["etc/krb5.keytab", "etc/samba/samba"].contains(path) => {
                        assert_eq!(left.as_deref(), Some(domain.keytab.expose()), "{path}");
                        let mode = fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
                        assert_eq!(mode & 0o777, 0o600);
                    }
                    _ => assert_eq!(left, None, "{path}"),
                }
            }
        }
    }
    // Clients of a member look where its keytab is.
    let conf = Conf::kerberos(&root);
    assert_eq!(conf.all("default_keytab_name").next(), Some(&b"FILE:/etc/krb5.keytab"[..]));
    assert_eq!(Conf::sssd(&root).last("krb5_keytab"), Some(&b"/etc/krb5.keytab"[..]));
    assert_eq!(words(&check(&root)), "");
}

#[test]
fn tickets_and_what_was_learned_go_from_every_child() {
    let learned = [
        "var/lib/sss/db/ccache_AD.EXAMPLE.ORG",
        "var/lib/sss/db/cache_ad.example.org.ldb",
        "var/lib/sss/db/timestamps_ad.example.org.ldb",
        "var/lib/sss/secrets/secrets.ldb",
        "var/lib/sss/secrets/.secrets.mkey",
        "var/lib/sss/keytabs/trusted.example.org.keytab",
        "var/lib/sss/mc/passwd",
        "var/lib/sss/pubconf/kdcinfo.AD.EXAMPLE.ORG",
        "var/lib/samba/private/netlogon_creds_cli.tdb",
        "var/lib/samba/winbindd_cache.tdb",
        "var/lib/samba/lock/gencache.tdb",
        "var/cache/samba/netsamlogon_cache.tdb",
        "run/samba/gencache.tdb",
        "run/samba/smb_krb5/krb5.conf.EXAMPLE",
        "tmp/krb5cc_0",
        "tmp/krb5ccmachine_AD.EXAMPLE.ORG",
        "var/lib/gssproxy/clients/krb5cc_48",
    ];
    let kept = [
        "var/lib/samba/winbindd_idmap.tdb",
        "var/lib/samba/private/passdb.tdb",
        "tmp/x",
        "var/lib/sss/pubconf/x",
    ];
    let (dir, root) = guest(&[]);
    for path in learned.iter().chain(&kept) {
        add(&dir, path, b"x");
    }
    apply(&root, &identity());
    assert_eq!(learned.iter().find(|path| root.exists(path).unwrap()), None);
    assert_eq!(kept.iter().find(|path| !root.exists(path).unwrap()), None);
}

#[test]
fn a_secret_at_the_end_of_a_large_file_is_found() {
    let (dir, root) = guest(&[]);
    let mut bytes = vec![0; 3 << 20];
    bytes.extend_from_slice(b"SECRETS/MACHINE_PASSWORD/EXAMPLE\0");
    add(&dir, "var/lib/samba/private/secrets.tdb", &bytes);
    apply(&root, &identity());
    assert!(!root.exists("var/lib/samba/private/secrets.tdb").unwrap());
}

#[test]
fn a_keytab_that_is_a_link_goes_with_what_it_leads_to() {
    let (dir, root) = guest(&[("srv/keys/machine", b"the template's"), ("srv/other", b"x")]);
    symlink("../srv/link", dir.path().join("etc/krb5.keytab")).unwrap();
    symlink("/srv/keys/machine", dir.path().join("srv/link")).unwrap();
    apply(&root, &identity());
    for path in ["etc/krb5.keytab", "srv/link", "srv/keys/machine"] {
        assert!(!root.exists(path).unwrap(), "{path}");
    }
    assert!(root.exists("srv/other").unwrap());
}

#[test]
fn copies_of_the_machines_keys_go_and_a_services_own_are_named() {
    let host = keytabs::keytab_of(&["host", "golden.ad.example.org"], REALM);
    // The same account's key under a service's name, and a service's own.
    let copy = keytabs::keytab_of(&["HTTP", "golden.ad.example.org"], REALM);
    let own = keytabs::keytab_of(&["HTTP", "other"], REALM);
    let machine = keytabs::keytab("GOLDEN", REALM, 3);
    let gone: [(&str, &[u8]); 5] = [
        ("etc/krb5.keytab", &machine),
        ("etc/krb5.keytab.bak", &machine),
        ("etc/httpd/http.keytab", &copy),
        ("etc/keytabs/nfs", &host),
        ("var/kerberos/krb5/user/48/client.keytab", &host),
    ];
    let stays: [(&str, &[u8]); 4] = [
        ("etc/nginx/conf/web.keytab", &own),
        ("etc/odd.keytab", b"no keytab"),
        ("etc/large.keytab", &vec![5; 2 << 20]),
        ("etc/keytab.conf", b"a setting"),
    ];
    let (dir, root) = guest(&[]);
    for (path, bytes) in gone.iter().chain(&stays) {
        add(&dir, path, bytes);
    }
    let found = check(&root);
    assert!(found.iter().all(|one| one.grade == Grade::Open), "{found:?}");
    let said = words(&found);
    assert_eq!(found.len(), 3, "{said}");
    assert!(said.contains("/etc/nginx/conf/web.keytab has keys of HTTP/other@AD.EXAMPLE.ORG"), "{said}");
    assert!(
        said.contains("/etc/odd.keytab is no keytab") && said.contains("/etc/large.keytab is no"),
        "{said}"
    );
    for _ in 0..2 {
        apply(&root, &identity());
        assert_eq!(gone.iter().find(|(path, _)| root.exists(path).unwrap()), None);
        for (path, bytes) in stays {
            assert_eq!(root.read(path).unwrap().as_deref(), Some(bytes), "{path}");
        }
    }
}

#[test]
fn what_cannot_be_followed_is_named() {
    for (path, text, named) in [
        ("etc/samba/smb.conf", "[global]\ninclude = /etc/samba/%m.conf\n", "include = /etc/samba/%m.conf"),
        ("etc/samba/smb.conf", "[global]\nconfig backend = registry\n", "config backend = registry"),
        ("etc/samba/smb.conf", "[global]\nprivate dir = /srv/%h\n", "privatedir = /srv/%h"),
        (
            "etc/samba/smb.conf",
            "[global]\ndedicated keytab file = samba.keytab\n",
            "dedicated keytab file = samba.keytab",
        ),
        ("etc/krb5.conf", "module /usr/lib/a.so:x\n", "module /usr/lib/a.so:x"),
        ("etc/krb5.conf", "[libdefaults]\ndefault_keytab_name = /etc/%{hostname}.keytab\n", "%{hostname}"),
        ("etc/krb5.conf", "[libdefaults]\ndefault_keytab_name = ANY:x\n", "ANY:x"),
        ("etc/sssd/sssd.conf", "[domain/a]\nkrb5_keytab = keytab\n", "krb5_keytab = keytab"),
    ] {
        let (_dir, root) = guest(&[(path, text.as_bytes())]);
        let found = check(&root);
        assert_eq!(found.len(), 1, "{}", words(&found));
        assert!(found[0].grade == Grade::Open && found[0].what.as_str().contains(named), "{}", words(&found));
        apply(&root, &identity());
    }
    for no_file in [
        "default_keytab_name = MEMORY:x",
        "default_ccache_name = KEYRING:persistent:%{uid}",
        "default_ccache_name = KCM:",
    ] {
        let (_dir, root) = guest(&[("etc/krb5.conf", format!("[libdefaults]\n{no_file}\n").as_bytes())]);
        assert_eq!(words(&check(&root)), "", "{no_file}");
    }
}

#[test]
fn what_else_an_image_has_of_a_domain_is_named() {
    for (path, grade) in [
        ("etc/ipa/default.conf", Grade::Broken),
        ("var/lib/certmonger/requests/20260101", Grade::Open),
        ("var/lib/samba/private/sam.ldb", Grade::Open),
    ] {
        let (_dir, root) = guest(&[(path, b"x")]);
        let found = check(&root);
        assert_eq!(found.len(), 1, "{}", words(&found));
        assert_eq!(found[0].grade, grade);
    }
    let (_dir, root) = guest(&[]);
    assert_eq!(words(&check(&root)), "");
}

#[test]
fn an_image_in_which_no_child_could_be_a_member_says_so() {
    let samba: &[(&str, &[u8])] = &[("usr/bin/net", b""), ("usr/sbin/winbindd", b"")];
    for (text, named) in [
        ("[global]\nsecurity = ads\n", "no realm"),
        ("[global]\nsecurity = ADS\nrealm = A.B\nnetbios name = GOLDEN\n", "netbios name"),
        ("[global]\nsecurity = ADS\nrealm = A.B\nconfig file = /etc/samba/x\n", "config file"),
        ("[global]\nkerberos method = dedicated keytab\ndedicated keytab file = /srv/none/x\n", "/srv/none"),
    ] {
        let (dir, root) = template();
        for (path, bytes) in samba {
            add(&dir, path, bytes);
        }
        add(&dir, "etc/samba/smb.conf", text.as_bytes());
        let found = check(&root);
        assert_eq!(found.len(), 1, "{}", words(&found));
        assert!(
            found[0].grade == Grade::Broken && found[0].what.as_str().contains(named),
            "{}",
            words(&found)
        );
    }
    let (dir, root) = template();
    for (path, bytes) in samba {
        add(&dir, path, bytes);
    }
    assert!(words(&check(&root)).contains("there is no /etc/samba/smb.conf"));
    let (dir, root) = template();
    assert_eq!(words(&check(&root)), "", "nobody means it to be one");
    add(&dir, "etc/ramet/agent.toml", b"domain = \"samba\"\n");
    let found = domain::check(&root, &Config::load(&root).unwrap()).unwrap();
    assert!(words(&found).contains("agent.toml names, is not"), "{}", words(&found));
    let (dir, root) = guest(&[]);
    for path in ["etc/krb5.keytab", "etc/krb5.conf"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let said = words(&check(&root));
    assert!(
        said.contains("/etc/krb5.keytab is a directory") && said.contains("krb5.conf: Is a directory"),
        "{said}"
    );
}

/// Missing, empty, a directory, a dangling link, one out of the root, large, binary, of no mode: what is the template's goes
/// all the same, and directories are none of it.
#[test]
fn a_secret_that_is_not_as_expected_goes_all_the_same() {
    type Spoil = fn(&TempDir, &str);
    let cases: [(&str, Spoil); 8] = [
        ("missing", |_, _| {}),
        ("empty", |dir, path| add(dir, path, b"")),
        ("a directory", |dir, path| fs::create_dir(dir.path().join(path)).unwrap()),
        ("a dangling link", |dir, path| symlink("/nowhere", dir.path().join(path)).unwrap()),
        ("a link out of the root", |dir, path| {
            symlink("../../../../../../../../nowhere/x", dir.path().join(path)).unwrap();
        }),
        ("a link to itself", |dir, path| {
            symlink(path.rsplit('/').next().unwrap(), dir.path().join(path)).unwrap();
        }),
        ("large and binary", |dir, path| add(dir, path, &vec![0xff; 10 << 20])),
        ("of no mode", |dir, path| {
            add(dir, path, b"x");
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(0o0)).unwrap();
        }),
    ];
    for path in
        ["etc/krb5.keytab", "tmp/krb5cc_0", "var/lib/sss/db/ccache_X", "var/lib/samba/winbindd_cache.tdb"]
    {
        for (name, spoil) in cases {
            let (dir, root) = guest(&[]);
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            spoil(&dir, path);
            check(&root);
            // A directory in place of one of Samba's files is told.
            let applied = domain::apply(&identity(), &root, &Fake::new(), DomainClient::Auto);
            let left = root.exists(path).unwrap();
            assert_eq!(left, name == "a directory", "{path} is {name}: {applied:?}");
            assert!(applied.is_ok(), "{path} is {name}: {applied:?}");
        }
    }
}

#[test]
fn secrets_that_cannot_be_read_are_told_when_the_template_is_made() {
    let (dir, root) = guest(&[("var/lib/samba/private/x", b"")]);
    fs::create_dir(dir.path().join("srv")).unwrap();
    symlink("/srv", dir.path().join("var/lib/samba/private/secrets.tdb")).unwrap();
    for error in [
        domain::check(&root, &Config::default()).unwrap_err(),
        domain::apply(&identity(), &root, &Fake::new(), DomainClient::Auto).unwrap_err(),
    ] {
        assert!(crate::error::chain(&error).contains("secrets.tdb"), "{error}");
    }
}

/// Where the tests' file system has the flag and who runs them may set it.
#[test]
fn an_immutable_secret_is_told_when_the_template_is_made() {
    let (dir, root) = guest(&[("etc/krb5.keytab", b"x")]);
    let path = dir.path().join("etc/krb5.keytab");
    let chattr = |flag| {
        std::process::Command::new("chattr")
            .arg(flag)
            .arg(&path)
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if !chattr("+i") {
        eprintln!("skipped: no file can be made immutable here");
        return;
    }
    let found = check(&root);
    let applied = domain::apply(&identity(), &root, &Fake::new(), DomainClient::Auto);
    chattr("-i");
    assert!(
        found[0].grade == Grade::Fatal && found[0].what.as_str().contains("/etc/krb5.keytab"),
        "{}",
        words(&found)
    );
    assert!(crate::error::chain(&applied.unwrap_err()).contains("etc/krb5.keytab"));
}

#[test]
fn a_list_of_keytabs_is_taken_apart() {
    let list = b"/a:account_name:machine_password \"/b:spns=x/y,z/w@R:machine_password\",/c:sync_spns";
    let paths: Vec<_> = synced(list).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    assert_eq!(synced(b"disabled").count(), 0);
}
