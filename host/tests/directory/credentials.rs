//! Keytabs and offline joins as MIT Kerberos and Samba take them.

use crate::dc::{Dc, name, printed, remove};
use ramet::domain::{AccountError, keytab, offline_join, password};
use ramet_proto::{Secret, domain::DomainAccount};
use std::{fs, path::PathBuf, process::Command};
use tempfile::TempDir;

/// Settings with which MIT Kerberos finds the domain controller without DNS.
fn krb5_conf(dc: &Dc, dir: &TempDir) -> PathBuf {
    let path = dir.path().join("krb5.conf");
    let text = format!(
        "[libdefaults]\ndefault_realm = {realm}\ndns_lookup_kdc = false\nrdns = false\n\
         [realms]\n{realm} = {{\nkdc = {dc}\n}}\n",
        realm = dc.realm,
        dc = dc.host()
    );
    fs::write(&path, text).unwrap();
    path
}

/// `kinit` with a keytab.
fn kinit(dc: &Dc, dir: &TempDir, account: &DomainAccount, keytab: &Secret) -> Command {
    let path = dir.path().join("keytab");
    fs::write(&path, keytab.expose()).unwrap();
    let principal = format!("{}$", account.name);
    let mut command = dc.command(&["kinit", "-k", "-t", &dc.there(&path), &principal]);
    command
        .env("KRB5_CONFIG", dc.there(&krb5_conf(dc, dir)))
        .env("KRB5CCNAME", dc.there(&dir.path().join("cc")));
    command
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn a_keytab_is_taken_by_mit_kerberos_until_the_password_is_reset() {
    let (dc, dir) = (Dc::here(), tempfile::tempdir().unwrap());
    let directory = dc.directory().await;
    let first = password::random();
    let account = directory.create(&name("keytab-1"), &first, "ramet:keytab:1").await.unwrap();
    let old = keytab(&account, &first, 1_700_000_000);
    printed(&mut kinit(&dc, &dir, &account, &old));

    let list = printed(&mut dc.command(&["klist", "-kte", &dc.there(&dir.path().join("keytab"))]));
    let kvno = format!("{:>4} ", account.kvno);
    let entries: Vec<&str> = list.lines().filter(|line| line.starts_with(&kvno)).collect();
    assert_eq!(entries.len(), 10, "{list}");
    assert!(entries[0].contains("KEYTAB-1$@AD.RAMET.TEST (aes256-cts-hmac-sha1-96)"), "{list}");
    assert!(list.contains("host/keytab-1.ad.ramet.test@AD.RAMET.TEST (aes128-cts-hmac-sha1-96)"), "{list}");

    let second = password::random();
    let reset = directory.reset(&account, &second).await.unwrap();
    assert_eq!(reset, DomainAccount { kvno: account.kvno + 1, ..account.clone() });
    let refused = kinit(&dc, &dir, &account, &old).output().unwrap();
    let refused_says = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && refused_says.contains("Preauthentication failed"), "{refused_says}");
    printed(&mut kinit(&dc, &dir, &reset, &keytab(&reset, &second, 0)));
    // A ticket for its own service can be read with its own keys.
    let own = ["kvno", "-k", &dc.there(&dir.path().join("keytab")), "host/keytab-1.ad.ramet.test"];
    let mut own = dc.command(&own);
    own.env("KRB5_CONFIG", dc.there(&krb5_conf(&dc, &dir)))
        .env("KRB5CCNAME", dc.there(&dir.path().join("cc")));
    assert!(printed(&mut own).contains("keytab entry valid"));

    remove(&directory, std::slice::from_ref(&account)).await;
    let gone = directory.reset(&account, &second).await.unwrap_err();
    assert!(matches!(gone, AccountError::Gone { .. }), "{gone}");
    assert!(matches!(directory.delete(&account).await.unwrap_err(), AccountError::Gone { .. }));
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn an_offline_join_is_taken_by_samba() {
    let (dc, dir) = (Dc::here(), tempfile::tempdir().unwrap());
    let directory = dc.directory().await;
    let secret = password::random();
    let account = directory.create(&name("odj-1"), &secret, "ramet:odj:1").await.unwrap();
    let blob = dir.path().join("odj");
    fs::write(&blob, offline_join(directory.domain(), &account, &secret).unwrap().expose()).unwrap();

    let conf = dir.path().join("smb.conf");
    let state = dc.there(dir.path());
    let text = format!(
        "[global]\nworkgroup = {}\nrealm = {}\nnetbios name = {}\nsecurity = ads\nkerberos method = secrets only\n\
         private dir = {state}\nstate directory = {state}\ncache directory = {state}\nlock directory = {state}\n\
         pid directory = {state}\nwinbindd socket directory = {state}\nlog file = {state}/log\n",
        dc.workgroup, dc.realm, account.name
    );
    fs::write(&conf, text).unwrap();
    let config = format!("--configfile={}", dc.there(&conf));
    let load = format!("loadfile={}", dc.there(&blob));
    printed(&mut dc.command(&["net", &config, "offlinejoin", "requestodj", &load]));

    let secrets = fs::read(dir.path().join("secrets.tdb")).unwrap();
    let key = format!("SECRETS/MACHINE_PASSWORD/{}", dc.workgroup);
    assert!(contains(&secrets, key.as_bytes()) && contains(&secrets, secret.expose()));
    let krb5 = dc.there(&krb5_conf(&dc, &dir));
    let mut join = dc.command(&["net", &config, "-P", "ads", "testjoin"]);
    assert!(printed(join.env("KRB5_CONFIG", krb5)).contains("Join is OK"));
    let sid = printed(&mut dc.command(&["net", &config, "getdomainsid"]));
    assert!(sid.contains(&directory.domain().sid.to_string()), "{sid}");
    remove(&directory, &[account]).await;
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
