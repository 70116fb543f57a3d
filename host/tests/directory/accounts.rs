//! Making accounts, and what refuses to be made.

use crate::dc::{Dc, connect, name, remove};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ldap3::{LdapConnAsync, LdapConnSettings};
use ramet::domain::{AccountError, password};
use ramet_proto::domain::DomainAccount;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn no_right_and_no_unit() {
    let dc = Dc::here();
    let reader_password = dc.reader_password_file.to_str().unwrap();
    let reader = dc.config(&[&dc.url], &[("user", &dc.reader), ("password_file", reader_password)]);
    let reader = connect(&reader).await.unwrap();
    let error = reader.create(&name("right-1"), &password::random(), "right-1").await.unwrap_err();
    assert!(matches!(error, AccountError::NoRight { .. }), "{error}");
    assert!(error.to_string().contains(&dc.reader) && error.to_string().contains(&dc.ou), "{error}");
    let directory = dc.directory().await;
    let account = directory.create(&name("right-2"), &password::random(), "right-2").await.unwrap();
    for error in [
        reader.reset(&account, &password::random()).await.unwrap_err(),
        reader.delete(&account).await.unwrap_err(),
    ] {
        assert!(matches!(error, AccountError::NoRight { .. }), "{error}");
    }
    remove(&directory, &[account]).await;

    let base = dc.ou.split_once(',').unwrap().1;
    let nowhere = dc.config(&[&dc.url], &[("ou", &format!("OU=Nowhere,{base}"))]);
    let nowhere = connect(&nowhere).await.unwrap();
    let error = nowhere.create(&name("right-3"), &password::random(), "right-3").await.unwrap_err();
    assert!(matches!(error, AccountError::NoOu { .. }), "{error}");
    assert!(matches!(nowhere.list().await.unwrap_err(), AccountError::NoOu { .. }));
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn what_exists_is_not_taken_over() {
    let dc = Dc::here();
    let directory = dc.directory().await;
    let (first, second) = (password::random(), password::random());
    let account = directory.create(&name("taken-1"), &first, "ramet:taken:1").await.unwrap();
    let error = directory.create(&name("taken-1"), &second, "ramet:taken:2").await.unwrap_err();
    assert!(matches!(error, AccountError::Taken { .. }), "{error}");
    assert!(error.to_string().contains("CN=TAKEN-1,"), "{error}");
    let found = directory.read(&account.name).await.unwrap().unwrap();
    assert_eq!((found.account.kvno, found.description.as_deref()), (account.kvno, Some("ramet:taken:1")));

    // Somebody else's service on a host of that name. HOST stands for cifs.
    let base = dc.ou.split_once(',').unwrap().1;
    let mut admin = administrator(&dc).await;
    for (n, principal) in ["cifs/TAKEN-2", "HOST/taken-2.ad.ramet.test"].into_iter().enumerate() {
        let dn = format!("CN=taken-owner-{n},CN=Users,{base}");
        let one = |value: String| HashSet::from([value]);
        let owner = vec![
            ("objectClass".to_owned(), one("user".to_owned())),
            ("sAMAccountName".to_owned(), one(format!("taken-owner-{n}"))),
            ("servicePrincipalName".to_owned(), one(principal.to_owned())),
        ];
        admin.add(&dn, owner).await.unwrap().success().unwrap();
        let error = directory.create(&name("taken-2"), &first, "ramet:taken:3").await.unwrap_err();
        assert!(matches!(error, AccountError::Taken { .. }), "{error}");
        assert!(error.to_string().contains(&dn), "{error}");
        admin.delete(&dn).await.unwrap().success().unwrap();
    }

    // Two at once: one of them gets it, whoever looks first.
    let stamps = ["ramet:taken:4", "ramet:taken:5"];
    let taken_3 = name("taken-3");
    let both = stamps.map(|stamp| directory.create(&taken_3, &second, stamp));
    let mut made: Vec<_> = futures::future::join_all(both).await.into_iter().filter_map(Result::ok).collect();
    assert_eq!(made.len(), 1);
    made.push(account);
    remove(&directory, &made).await;
}

/// The directory was restored from a backup, say, and has given the SID again.
#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn an_account_of_another_name_with_the_sid_is_left_alone() {
    let directory = Dc::here().directory().await;
    let account = directory.create(&name("restored-1"), &password::random(), "restored").await.unwrap();
    let lost = DomainAccount { name: name("restored-2"), ..account.clone() };
    for error in [
        directory.reset(&lost, &password::random()).await.unwrap_err(),
        directory.delete(&lost).await.unwrap_err(),
    ] {
        assert!(matches!(error, AccountError::Gone { .. }), "{error}");
    }
    let found = directory.read(&account.name).await.unwrap().unwrap();
    assert_eq!(found.account.kvno, account.kvno);
    remove(&directory, &[account]).await;
}

async fn administrator(dc: &Dc) -> ldap3::Ldap {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&dc.ca_file).unwrap()).unwrap();
    let provider = rustls::crypto::ring::default_provider().into();
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let settings = LdapConnSettings::new().set_config(tls.into());
    let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &dc.url).await.unwrap();
    tokio::spawn(connection.drive());
    let password = fs::read_to_string(&dc.administrator_password_file).unwrap();
    ldap.simple_bind(&dc.administrator, password.trim_end()).await.unwrap().success().unwrap();
    ldap
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn two_hundred_accounts_eight_at_a_time() {
    const COUNT: usize = 200;
    let dc = Dc::here();
    let directory = dc.directory().await;
    let start = Instant::now();
    let numbers: Vec<usize> = (1..=COUNT).collect();
    let make = |number: usize| {
        let directory = &directory;
        async move {
            let password = password::random();
            directory
                .create(&name(&format!("many-{number:04}")), &password, &format!("ramet:many:{number}"))
                .await
        }
    };
    let accounts: Vec<DomainAccount> =
        stream::iter(numbers).map(make).buffered(8).try_collect().await.unwrap();
    println!("{COUNT} accounts in {:.1} s, 8 in flight", start.elapsed().as_secs_f64());
    let sids: HashSet<String> = accounts.iter().map(|account| account.sid.to_string()).collect();
    assert_eq!(sids.len(), COUNT);

    let listed = directory.list().await.unwrap();
    let listed: Vec<_> =
        listed.iter().filter(|found| found.account.name.as_str().starts_with("MANY-")).collect();
    assert_eq!(listed.len(), COUNT);
    for (found, account) in listed.iter().zip(&accounts) {
        assert_eq!(&found.account, account);
        assert!(found.enabled && found.account.kvno > 0);
        assert_eq!(found.dn, format!("CN={},{}", account.name, dc.ou));
        assert!(found.description.as_deref().is_some_and(|stamp| stamp.starts_with("ramet:many:")));
        let age = found.created.unwrap().elapsed().unwrap_or_default();
        assert!(age < start.elapsed() + Duration::from_secs(2), "{age:?}");
        assert!(found.password_set.is_some());
    }
    let deleted = stream::iter(&accounts).map(|account| directory.delete(account)).buffered(8);
    deleted.try_collect::<Vec<()>>().await.unwrap();
}
