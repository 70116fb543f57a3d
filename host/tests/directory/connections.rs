//! Finding a domain controller that is the right one, and losing it.

use crate::dc::{Dc, connect, name, remove};
use ramet::domain::{BindRefusal, ConnectError, Directory, password};
use ramet_proto::Secret;
use std::{
    fs,
    net::TcpListener,
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use tokio::{io::copy_bidirectional, net::TcpStream, task::JoinHandle};

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
async fn a_connection_does_not_show_its_password() {
    let dc = Dc::here();
    let config = dc.config(&[&dc.url], &[]);
    let directory = connect(&config).await.unwrap();
    let password = fs::read_to_string(&dc.password_file).unwrap();
    for shown in [format!("{config:?}"), format!("{directory:?}")] {
        assert!(shown.contains(dc.host()) && !shown.contains(password.trim_end()));
    }
}
