//! Accounts in a real directory: Samba as a domain controller, whose own tools and MIT Kerberos take what is made here.
//!
//! `RAMET_TEST_DC` names a file that says where the domain controller is; `cargo xtask test` starts one. The tests run side
//! by side, each with names of its own, and leave no account behind.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use ldap3::{LdapConnAsync, LdapConnSettings};
use ramet::{
    domain::{AccountError, BindRefusal, Config, ConnectError, Directory, keytab, offline_join, password},
    pool::{self, Holder, PoolError, Settings, life::State},
    provision::retire::{Retired, retire_all},
    state::StateDir,
};
use ramet_proto::{
    InstanceId, Secret,
    domain::{DomainAccount, NetbiosName},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde::Deserialize;
use std::{
    collections::HashSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{io::copy_bidirectional, net::TcpStream, task::JoinHandle};

/// Where the domain controller is, and who may do what there.
#[derive(Deserialize)]
struct Dc {
    url: String,
    ca_file: PathBuf,
    /// Certificates with their keys: the domain controller's, and some that must not be trusted.
    tls: PathBuf,
    realm: String,
    workgroup: String,
    address: String,
    ou: String,
    user: String,
    password_file: PathBuf,
    /// A user without any right.
    reader: String,
    reader_password_file: PathBuf,
    administrator: String,
    administrator_password_file: PathBuf,
    /// Runs a program of the domain controller's root.
    exec: Vec<String>,
    /// Where that program finds this machine's files.
    host: PathBuf,
}

impl Dc {
    fn here() -> Self {
        let path = std::env::var("RAMET_TEST_DC").expect("RAMET_TEST_DC is set: cargo xtask test does it");
        toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Settings for `servers` as the user who may make accounts, with some lines replaced.
    fn config(&self, servers: &[&str], replaced: &[(&str, &str)]) -> Config {
        let dir = tempfile::tempdir().unwrap();
        Config::read(&self.write_config(dir.path(), servers, replaced)).unwrap()
    }

    /// The same as a file in `dir`.
    fn write_config(&self, dir: &Path, servers: &[&str], replaced: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("domain.toml");
        let mut table = toml::Table::new();
        for (key, value) in [
            ("realm", self.realm.as_str()),
            ("ca_file", self.ca_file.to_str().unwrap()),
            ("ou", &self.ou),
            ("user", &self.user),
            ("password_file", self.password_file.to_str().unwrap()),
        ]
        .iter()
        .chain(replaced)
        {
            table.insert((*key).to_owned(), (*value).into());
        }
        table.insert("servers".to_owned(), servers.to_vec().into());
        table.insert("connect_timeout_seconds".to_owned(), 5.into());
        fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
        path
    }

    fn host(&self) -> &str {
        self.url.strip_prefix("ldaps://").unwrap()
    }

    async fn directory(&self) -> Directory {
        connect(&self.config(&[&self.url], &[])).await.unwrap()
    }

    /// A program of the domain controller's root, which ends in time.
    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("120").args(&self.exec).args(program).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// The path of this machine's `path` for such a program.
    fn there(&self, path: &Path) -> String {
        self.host.join(path.strip_prefix("/").unwrap()).to_str().unwrap().to_owned()
    }
}

async fn connect(config: &Config) -> Result<Directory, ConnectError> {
    Directory::connect(config, &config.read_password().unwrap()).await
}

fn name(text: &str) -> NetbiosName {
    text.parse().unwrap()
}

/// What a command printed, when it did what it should.
fn printed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{printed}");
    printed
}

/// Accounts that are removed again.
async fn remove(directory: &Directory, accounts: &[DomainAccount]) {
    for account in accounts {
        directory.delete(account).await.unwrap();
        assert_eq!(directory.read(&account.name).await.unwrap(), None);
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn the_directory_says_who_it_is() {
    let dc = Dc::here();
    for url in [dc.url.clone(), format!("ldap://{}", dc.host())] {
        let directory = connect(&dc.config(&[&url], &[("workgroup", &dc.workgroup)])).await.unwrap();
        let domain = directory.domain();
        assert_eq!(domain.workgroup.as_str(), dc.workgroup);
        assert_eq!(domain.forest.to_string(), domain.realm.dns_domain());
        assert!(domain.sid.is_machine());
        assert!(!domain.guid.is_nil());
        assert_eq!(domain.controller.name.to_string(), dc.host());
        assert_eq!(domain.controller.address.to_string(), dc.address);
        assert_eq!(domain.controller.site.as_deref(), Some("Default-First-Site-Name"));
        assert!(domain.controller.global_catalog);
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn another_domain_than_was_meant() {
    let dc = Dc::here();
    for (replaced, why) in [
        (&[("realm", "EXAMPLE.ORG"), ("ou", "OU=Clones,DC=example,DC=org")][..], "is of the domain DC="),
        (&[("workgroup", "OTHER")], "not OTHER"),
        (&[("ou", "OU=Clones,DC=example,DC=org")], "is not in the domain DC="),
    ] {
        let error = connect(&dc.config(&[&dc.url], replaced)).await.unwrap_err().to_string();
        assert!(error.contains(why), "{replaced:?}: {error}");
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn a_wrong_password_is_tried_once() {
    let dc = Dc::here();
    let config = dc.config(&[&dc.url, &format!("ldap://{}", dc.host())], &[]);
    let wrong = Secret::new(b"hunter2".to_vec());
    match Directory::connect(&config, &wrong).await.unwrap_err() {
        ConnectError::BindRefused { server, user, why: BindRefusal::WrongPassword } => {
            assert_eq!((server, user), (config.servers[0].clone(), dc.user));
        }
        error => panic!("{error}"),
    }
}

/// A server with a certificate that is not to be trusted.
struct Impostor(Child);

impl Impostor {
    async fn start(dc: &Dc, certificate: &str, port: u16) -> Self {
        let of = |ending| dc.there(&dc.tls.join(certificate).with_extension(ending));
        let (cert, key, port_text) = (of("pem"), of("key"), port.to_string());
        // With -www it does not look at its stdin.
        let server = ["openssl", "s_server", "-www", "-accept", &port_text, "-cert", &cert, "-key", &key];
        let impostor = Self(dc.command(&server).stdout(Stdio::null()).spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < end, "openssl s_server does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        impostor
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        // timeout(1) passes this on.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn certificates_are_checked() {
    let dc = Dc::here();
    for (certificate, why) in [
        ("unknown", "comes from an authority that is not trusted here"),
        ("other", "is of another host"),
        ("expired", "has expired"),
    ] {
        let port = free_port();
        let _impostor = Impostor::start(&dc, certificate, port).await;
        let bad = format!("ldaps://{}:{port}", dc.host());
        let error = connect(&dc.config(&[&bad], &[])).await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&bad), "{certificate}: {error}");
        let directory = connect(&dc.config(&[&bad, &dc.url], &[])).await.unwrap();
        assert_eq!(directory.domain().controller.name.to_string(), dc.host());
    }
    // The real one, when only another authority is trusted.
    let stranger = dc.tls.join("stranger.pem");
    for server in [dc.url.clone(), format!("ldap://{}", dc.host())] {
        let config = dc.config(&[&server], &[("ca_file", stranger.to_str().unwrap())]);
        let error = connect(&config).await.unwrap_err().to_string();
        assert!(error.contains("comes from an authority that is not trusted here"), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn servers_that_are_not_there() {
    let dc = Dc::here();
    let silent = TcpListener::bind("0.0.0.0:0").unwrap();
    let silent = format!("ldaps://{}:{}", dc.host(), silent.local_addr().unwrap().port());
    let servers =
        [format!("ldaps://{}:{}", dc.host(), free_port()), "ldaps://nobody.invalid".to_owned(), silent];
    let mut servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let error = connect(&dc.config(&servers, &[])).await.unwrap_err();
    let ConnectError::NoServer(tried) = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 3);
    let text = error.to_string();
    for part in ["onnection refused", "ldaps://nobody.invalid: cannot connect: ", "no answer within 5 s"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let good = dc.url.clone();
    servers.push(&good);
    connect(&dc.config(&servers, &[])).await.unwrap();
}

/// Passes connections on to the domain controller, until it is dropped.
struct Relay {
    port: u16,
    task: JoinHandle<()>,
}

impl Relay {
    async fn start(dc: &Dc) -> Self {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = format!("{}:636", dc.address);
        let task = tokio::spawn(async move {
            let mut relayed = tokio::task::JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                let mut there = TcpStream::connect(&target).await.unwrap();
                relayed.spawn(async move { copy_bidirectional(&mut here, &mut there).await });
            }
        });
        Self { port, task }
    }

    async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn a_domain_controller_that_goes_away_in_the_middle() {
    let dc = Dc::here();
    let relay = Relay::start(&dc).await;
    let servers = [format!("ldaps://{}:{}", dc.host(), relay.port), dc.url.clone()];
    let config = dc.config(&servers.each_ref().map(String::as_str), &[]);
    let directory = connect(&config).await.unwrap();
    let first = directory.create(&name("mid-1"), &password::random(), "ramet:mid:1").await.unwrap();
    relay.stop().await;
    let error = directory.create(&name("mid-2"), &password::random(), "ramet:mid:2").await.unwrap_err();
    assert!(error.is_unclear(), "{error}");
    assert!(error.to_string().contains(&servers[0]), "{error}");
    // Everything that is asked from now on fails at once.
    assert!(directory.list().await.unwrap_err().is_unclear());

    let directory = connect(&config).await.unwrap();
    let found = directory.find_stamped("ramet:mid:1").await.unwrap().unwrap();
    assert_eq!(found.account, first);
    assert_eq!(directory.find_stamped("ramet:mid:2").await.unwrap(), None);
    remove(&directory, &[first]).await;
}

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

/// A run of `ramet domain provision` that is killed at any moment loses no account and leaves none without an identity:
/// what it had begun is finished or forgotten.
#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn provisioning_killed_at_any_moment() {
    let (dc, dir) = (Dc::here(), tempfile::tempdir().unwrap());
    let config = dc.write_config(dir.path(), &[&dc.url], &[]);
    let state = dir.path().join("state");
    let ramet = |args: &[&str]| {
        let mut ramet = Command::new(env!("CARGO_BIN_EXE_ramet"));
        ramet.arg("--state-dir").arg(&state).args(args).stdin(Stdio::null());
        ramet
    };
    let config = config.to_str().unwrap();
    printed(&mut ramet(&["pool", "create", "killed", "--hostnames", "killed-{:03}"]));
    let provision =
        ["domain", "provision", "--config", config, "--pool", "killed", "--count", "3", "--parallel", "2"];
    let begin = Instant::now();
    printed(&mut ramet(&provision));
    let whole = begin.elapsed();
    let directory = dc.directory().await;
    let mut cut_short = 0;
    for moment in 0..12 {
        let mut run = ramet(&provision).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        tokio::time::sleep(whole * moment / 12).await;
        run.kill().unwrap();
        cut_short += u32::from(!run.wait().unwrap().success());
        let shown = || -> Vec<serde_json::Value> {
            let shown = printed(&mut ramet(&["pool", "show", "killed", "--json"]));
            serde_json::from_str(&shown).unwrap()
        };
        printed(&mut ramet(&["domain", "reconcile", "--config", config, "--stale", "0s"]));
        let mut identities: Vec<String> = shown()
            .iter()
            .filter(|identity| identity["state"] != "retired")
            .inspect(|identity| assert_eq!(identity["state"], "available", "{identity}"))
            .map(|identity| identity["hostname"].as_str().unwrap().to_uppercase())
            .collect();
        let accounts =
            directory.list().await.unwrap().into_iter().map(|found| found.account.name.to_string());
        let mut accounts: Vec<String> = accounts.filter(|name| name.starts_with("KILLED-")).collect();
        identities.sort();
        accounts.sort();
        assert_eq!(identities, accounts, "killed after {:?} of {whole:?}", whole * moment / 12);
    }
    assert!(cut_short > 6, "only {cut_short} runs were killed before their end");
    let accounts = directory.list().await.unwrap().into_iter().map(|found| found.account);
    let accounts: Vec<_> = accounts.filter(|one| one.name.as_str().starts_with("KILLED-")).collect();
    assert!(accounts.len() >= 3, "{accounts:?}");
    remove(&directory, &accounts).await;
}

/// What `ramet rm --config` does with accounts of children that are gone: one that cannot be retired stays in quarantine, for
/// whoever can, and nobody gets it before.
#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn an_account_that_cannot_be_retired_waits() {
    let (dc, dir) = (Dc::here(), tempfile::tempdir().unwrap());
    let config = dc.write_config(dir.path(), &[&dc.url], &[]);
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    let ramet = |args: &[&str]| {
        let mut ramet = Command::new(env!("CARGO_BIN_EXE_ramet"));
        printed(ramet.arg("--state-dir").arg(state.root()).args(args).stdin(Stdio::null()))
    };
    ramet(&["pool", "create", "waits", "--hostnames", "waits-{}"]);
    let config = config.to_str().unwrap();
    ramet(&["domain", "provision", "--config", config, "--pool", "waits", "--count", "2"]);
    let store = pool::open(&state, &Settings { url: None, key_file: None }).await.unwrap();
    let pool = "waits".parse().unwrap();
    let holders = ["one", "two"]
        .map(|child| Holder { child: child.parse().unwrap(), instance_id: InstanceId::random() });
    let leases = store.lease(&pool, &holders, false).await.unwrap();
    for holder in &holders {
        store.hand_over(holder.instance_id, 7).await.unwrap();
        store.in_use(holder.instance_id).await.unwrap();
        store.give_back(holder.instance_id, "its child is gone").await.unwrap();
    }
    let accounts: Vec<_> = leases.into_iter().map(|lease| lease.account.unwrap()).collect();
    let sids: Vec<_> = accounts.iter().map(|account| account.sid.clone()).collect();
    let states = async || -> Vec<State> {
        store.entries(&pool).await.unwrap().into_iter().map(|entry| entry.state).collect()
    };
    assert_eq!(states().await, [State::Quarantine; 2]);

    let reader_password = dc.reader_password_file.to_str().unwrap();
    let reader = dc.config(&[&dc.url], &[("user", &dc.reader), ("password_file", reader_password)]);
    let reader = connect(&reader).await.unwrap();
    let refused = retire_all(&store, &reader, &sids).await.unwrap();
    assert_eq!(refused.len(), 2);
    for (hostname, retired) in refused {
        let error = retired.unwrap_err();
        assert!(ramet::chain(&error).contains(&dc.reader), "{hostname}: {error}");
    }
    assert_eq!(states().await, [State::Quarantine; 2]);
    let other = Holder { child: "three".parse().unwrap(), instance_id: InstanceId::random() };
    let error = store.lease(&pool, &[other], false).await.unwrap_err();
    assert!(matches!(error, PoolError::Empty { .. }), "{error}");

    // Only those that were asked for, and only once.
    let directory = dc.directory().await;
    let retired = retire_all(&store, &directory, &sids[..1]).await.unwrap();
    assert!(matches!(retired[..], [(_, Ok(Retired::Reset))]), "{retired:?}");
    assert_eq!(retire_all(&store, &directory, &sids[..1]).await.unwrap().len(), 0);
    let mut left = states().await;
    left.sort_by_key(|state| state.word());
    assert_eq!(left, [State::Available, State::Quarantine]);
    remove(&directory, &accounts).await;
}

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

#[tokio::test]
#[ignore = "needs a domain controller: cargo xtask test has one"]
async fn a_connection_does_not_show_its_password() {
    let dc = Dc::here();
    let config = dc.config(&[&dc.url], &[]);
    let directory = connect(&config).await.unwrap();
    let password = fs::read_to_string(&dc.password_file).unwrap();
    for shown in [format!("{config:?}"), format!("{directory:?}")] {
        assert!(shown.contains(dc.host()) && !shown.contains(password.trim_end()));
    }
}
