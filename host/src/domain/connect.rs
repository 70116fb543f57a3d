//! Connecting: the first server that can be used, TLS, the bind, and what the directory says of itself.

use super::{
    config::{Config, Server},
    directory::{Directory, Domain, DomainController, Link, RequestError, code},
    entry::{self, Entry},
    tls::{self, AuthorityError, Distrust},
};
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, StdStream, ldap_escape};
use ramet_proto::{Secret, Sid, domain::NetbiosName, text::Text};
use rustls::ClientConfig;
use std::{
    fmt, io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

/// The most that two clocks may differ for Kerberos to work (MS-KILE, section 3.1.5.2).
const SKEW: Duration = Duration::from_mins(5);

/// No connection to the directory.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It is not known whom to trust.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// None of the servers can be used.
    #[error("no domain controller can be used: {}", list(.0))]
    NoServer(Vec<(Server, ServerError)>),
    /// The user may not in.
    #[error("{server} does not let {user} in: {why}")]
    BindRefused {
        /// Which domain controller.
        server: Server,
        /// The user.
        user: String,
        /// Why.
        why: BindRefusal,
    },
    /// It is another domain's.
    #[error(
        "{server} is of the domain {found}, not of {expected}: put the right realm or the right servers into the settings"
    )]
    OtherDomain {
        /// Which domain controller.
        server: Server,
        /// The distinguished name of the settings' domain.
        expected: String,
        /// That of the directory.
        found: Text,
    },
    /// The domain has another short name.
    #[error(
        "the NetBIOS name of the domain is {found}, not {expected}: correct or leave out workgroup in the settings"
    )]
    OtherWorkgroup {
        /// That of the settings.
        expected: NetbiosName,
        /// That of the directory.
        found: NetbiosName,
    },
    /// The organizational unit cannot be in this domain.
    #[error("the organizational unit {ou} is not in the domain {base}: correct ou in the settings")]
    OtherOu {
        /// The unit.
        ou: String,
        /// The domain.
        base: String,
    },
    /// The password holds what cannot be sent.
    #[error("the password of {0} is not UTF-8")]
    Password(String),
}

/// Why one server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// It does not answer.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// It is not trusted.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// It does not begin TLS.
    #[error("it refuses StartTLS ({0}): give it a certificate, or use ldaps://")]
    NoStartTls(Text),
    /// It does something else than was expected.
    #[error("it does not speak LDAP as it should")]
    Ldap(#[source] LdapError),
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Kerberos will not work.
    #[error("its clock is {} s {}: set the clocks right (Kerberos allows {} s)",
            .by.as_secs(), if *.ahead { "ahead of this host's" } else { "behind this host's" }, SKEW.as_secs())]
    ClockSkew {
        /// By how much.
        by: Duration,
        /// Whether it is ahead of this host's.
        ahead: bool,
    },
}

fn list(tried: &[(Server, ServerError)]) -> String {
    let line = |(server, error): &(Server, ServerError)| format!("{server}: {}", crate::chain(error));
    tried.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Why a user is not let in, as far as Active Directory says (the code after `data` in its answer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindRefusal {
    /// 525.
    NoSuchUser,
    /// 52e.
    WrongPassword,
    /// 530, 531.
    NotNowOrHere,
    /// 532.
    PasswordExpired,
    /// 533.
    Disabled,
    /// 701.
    AccountExpired,
    /// 773.
    MustChangePassword,
    /// 775.
    LockedOut,
    /// Something else, in the directory's words.
    Other(Text),
}

impl BindRefusal {
    fn new(text: &str) -> Self {
        let code =
            text.split_once("data ").map(|(_, rest)| rest.split([',', ' ', '\0']).next().unwrap_or(rest));
        match code {
            Some("525") => Self::NoSuchUser,
            Some("52e") => Self::WrongPassword,
            Some("530" | "531") => Self::NotNowOrHere,
            Some("532") => Self::PasswordExpired,
            Some("533") => Self::Disabled,
            Some("701") => Self::AccountExpired,
            Some("773") => Self::MustChangePassword,
            Some("775") => Self::LockedOut,
            Some(_) | None => Self::Other(Text::new(text)),
        }
    }
}

impl fmt::Display for BindRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchUser => "there is no such user (use user@domain or a distinguished name)",
            Self::WrongPassword => "the password is wrong, or there is no such user",
            Self::NotNowOrHere => "not at this time of day, or not from this host",
            Self::PasswordExpired => "the password has expired",
            Self::Disabled => "the account is disabled",
            Self::AccountExpired => "the account has expired",
            Self::MustChangePassword => "the password must be changed first",
            Self::LockedOut => "the account is locked after too many wrong passwords",
            Self::Other(text) => text.as_str(),
        })
    }
}

/// How an attempt ended without a connection.
enum Failure {
    /// Another server may do.
    Server(ServerError),
    /// No other server will.
    Final(ConnectError),
}

impl<E: Into<ServerError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Server(error.into())
    }
}

pub(super) async fn connect(config: &Config, password: &Secret) -> Result<Directory, ConnectError> {
    let tls = tls::client(config.ca_file.as_deref())?;
    let text = std::str::from_utf8(password.expose());
    let password = text.map_err(|_| ConnectError::Password(config.user.clone()))?;
    let mut tried = Vec::new();
    for server in &config.servers {
        match attempt(config, server, &tls, password).await {
            Ok(directory) => return Ok(directory),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Server(error)) => {
                tracing::warn!(%server, error = crate::chain(&error), "not used");
                tried.push((server.clone(), error));
            }
        }
    }
    Err(ConnectError::NoServer(tried))
}

async fn attempt(
    config: &Config,
    server: &Server,
    tls: &Arc<ClientConfig>,
    password: &str,
) -> Result<Directory, Failure> {
    let (ldap, address) = open(server, tls, config.connect_timeout).await?;
    let link = Link { server: server.clone(), ldap, timeout: config.request_timeout };
    bind(&link, &config.user, password).await?;
    introduce(config, link, address).await
}

/// Connects and begins TLS.
async fn open(
    server: &Server,
    tls: &Arc<ClientConfig>,
    wait: Duration,
) -> Result<(Ldap, IpAddr), ServerError> {
    let deadline = Instant::now() + wait;
    let late = |_| ServerError::Timeout(wait);
    let connecting = TcpStream::connect((server.host(), server.port()));
    let stream = timeout_at(deadline, connecting).await.map_err(late)?.map_err(ServerError::Connect)?;
    let address = stream.peer_addr().map_err(ServerError::Connect)?.ip();
    let stream = stream.into_std().map_err(ServerError::Connect)?;
    let settings = LdapConnSettings::new()
        .set_config(Arc::clone(tls))
        .set_starttls(server.starts_tls())
        .set_std_stream(StdStream::Tcp(stream));
    let opening = LdapConnAsync::from_url_with_settings(settings, server.url());
    let (connection, ldap) = timeout_at(deadline, opening).await.map_err(late)?.map_err(told)?;
    let server = server.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.drive().await {
            tracing::debug!(%server, error = crate::chain(&error), "connection ended");
        }
    });
    Ok((ldap, address))
}

/// What went wrong while TLS began.
fn told(error: LdapError) -> ServerError {
    match error {
        LdapError::Io { source } => match tls::rustls_error(&source) {
            Some(distrust) => Distrust::from(distrust).into(),
            None => ServerError::Connect(source),
        },
        LdapError::Rustls { source } => Distrust::from(source).into(),
        // Nothing but StartTLS has been asked for yet.
        LdapError::LdapResult { result } => ServerError::NoStartTls(Text::new(&result.text)),
        // The list depends on features of the library.
        other => ServerError::Ldap(other),
    }
}

async fn bind(link: &Link, user: &str, password: &str) -> Result<(), Failure> {
    let answer = link.ldap().simple_bind(user, password).await;
    link.accept("log in", answer).map_err(|error| match error {
        RequestError::Refused { code: code::INVALID_CREDENTIALS, server, text, .. } => {
            let why = BindRefusal::new(text.as_str());
            Failure::Final(ConnectError::BindRefused { server, user: user.to_owned(), why })
        }
        error => error.into(),
    })
}

/// Asks the directory who it is, and whether that is who was meant.
async fn introduce(config: &Config, link: Link, address: IpAddr) -> Result<Directory, Failure> {
    const ACTION: &str = "tell of itself";
    let need = |entry: &Entry, attribute| {
        entry.text(attribute).map(str::to_owned).ok_or_else(|| link.incomplete(ACTION, attribute))
    };
    let root = link.entry(ACTION, "", ROOT).await?.ok_or_else(|| link.incomplete(ACTION, "its root"))?;
    let base = need(&root, "defaultNamingContext")?;
    let expected = entry::domain_dn(&config.realm.dns_domain());
    if !base.eq_ignore_ascii_case(&expected) {
        let (server, found) = (link.server.clone(), Text::new(&base));
        return Err(Failure::Final(ConnectError::OtherDomain { server, expected, found }));
    }
    if !entry::is_below(&config.ou, &base) {
        return Err(Failure::Final(ConnectError::OtherOu { ou: config.ou.clone(), base }));
    }
    check_clock(&need(&root, "currentTime")?, SystemTime::now())
        .ok_or_else(|| link.incomplete(ACTION, "currentTime"))??;

    let about = link.entry(ACTION, &base, &["objectSid", "objectGUID"]).await?;
    let about = about.ok_or_else(|| link.incomplete(ACTION, "its domain"))?;
    let sid = about.bytes("objectSid").and_then(|sid| Sid::from_bytes(sid).ok());
    let guid = about.bytes("objectGUID").and_then(|guid| guid.try_into().ok()).map(Uuid::from_bytes_le);
    let configuration = need(&root, "configurationNamingContext")?;
    let controller = DomainController {
        name: root.parse("dnsHostName").ok_or_else(|| link.incomplete(ACTION, "dnsHostName"))?,
        address,
        site: root.text("serverName").and_then(site_of),
        global_catalog: root.text("isGlobalCatalogReady") == Some("TRUE"),
    };
    let forest = need(&root, "rootDomainNamingContext")?;
    let domain = Domain {
        realm: config.realm.clone(),
        workgroup: workgroup(config, &link, &configuration, &base).await?,
        sid: sid.ok_or_else(|| link.incomplete(ACTION, "objectSid"))?,
        guid: guid.ok_or_else(|| link.incomplete(ACTION, "objectGUID"))?,
        forest: dns_domain(&forest)
            .parse()
            .map_err(|_| link.incomplete(ACTION, "rootDomainNamingContext"))?,
        controller,
    };
    let host_aliases = host_aliases(&link, &configuration).await?;
    let (ou, user, encryption_types) = (config.ou.clone(), config.user.clone(), config.encryption_types);
    Ok(Directory { link, domain, base, ou, user, encryption_types, host_aliases })
}

/// What is read of the directory's root (RFC 4512, section 5.1; MS-ADTS, section 3.1.1.3.2).
const ROOT: &[&str] = &[
    "defaultNamingContext",
    "configurationNamingContext",
    "rootDomainNamingContext",
    "dnsHostName",
    "serverName",
    "currentTime",
    "isGlobalCatalogReady",
];

/// `None` if `there` is no time.
fn check_clock(there: &str, here: SystemTime) -> Option<Result<(), ServerError>> {
    let there = entry::generalized_time(there)?;
    let (by, ahead) = match there.duration_since(here) {
        Ok(by) => (by, true),
        Err(behind) => (behind.duration(), false),
    };
    Some(if by > SKEW { Err(ServerError::ClockSkew { by, ahead }) } else { Ok(()) })
}

/// The domain's `NetBIOS` name, which the settings may name, too.
async fn workgroup(
    config: &Config,
    link: &Link,
    configuration: &str,
    base: &str,
) -> Result<NetbiosName, Failure> {
    let partitions = format!("CN=Partitions,{configuration}");
    let filter = format!("(&(objectClass=crossRef)(nCName={}))", ldap_escape(base));
    let action = "tell its domain's NetBIOS name";
    let found = link.search(action, &partitions, Scope::OneLevel, &filter, &["nETBIOSName"]).await?;
    let found = found.first().and_then(|entry| entry.parse("nETBIOSName"));
    match (found, &config.workgroup) {
        (Some(found), Some(expected)) if found != *expected => {
            Err(Failure::Final(ConnectError::OtherWorkgroup { expected: expected.clone(), found }))
        }
        (Some(found), _) => Ok(found),
        (None, Some(expected)) => Ok(expected.clone()),
        (None, None) => Err(link.incomplete(action, "nETBIOSName").into()),
    }
}

/// The service classes for which `HOST` stands (MS-ADA3, `sPNMappings`), itself among them.
async fn host_aliases(link: &Link, configuration: &str) -> Result<Vec<String>, RequestError> {
    let dn = format!("CN=Directory Service,CN=Windows NT,CN=Services,{configuration}");
    let found = link.entry("tell what HOST stands for", &dn, &["sPNMappings"]).await?;
    let mappings = found.iter().flat_map(|entry| entry.texts("sPNMappings"));
    Ok(aliases_in(mappings))
}

fn aliases_in<'a>(mappings: impl Iterator<Item = &'a str>) -> Vec<String> {
    let of_host = mappings.filter_map(|mapping| {
        let (class, aliases) = mapping.split_once('=')?;
        class.trim().eq_ignore_ascii_case("host").then_some(aliases)
    });
    let mut aliases = vec!["HOST".to_owned()];
    aliases.extend(of_host.flat_map(|list| list.split(',')).map(|alias| alias.trim().to_owned()));
    aliases.retain(|alias| !alias.is_empty());
    aliases
}

/// The site in a server's name: `CN=DC1,CN=Servers,CN=SITE,CN=Sites,…`.
fn site_of(server: &str) -> Option<String> {
    let site = server.split(',').nth(2)?.strip_prefix("CN=")?;
    Some(site.to_owned())
}

/// The DNS domain of a distinguished name (RFC 2247).
fn dns_domain(dn: &str) -> String {
    let labels = dn.split(',').filter_map(|part| part.split_once('=')).map(|(_, label)| label);
    labels.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_directory_says_to_a_refused_user() {
        let text = "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1";
        assert_eq!(BindRefusal::new(text), BindRefusal::WrongPassword);
        assert_eq!(BindRefusal::new("error, data 775, v1db1"), BindRefusal::LockedOut);
        assert_eq!(BindRefusal::new("error, data 533"), BindRefusal::Disabled);
        assert_eq!(BindRefusal::new("no\x1b[2J").to_string(), "no [2J");
    }

    #[test]
    fn clocks_may_differ_by_five_minutes() {
        let noon = entry::generalized_time("20261124120000.0Z").unwrap();
        for (there, off) in
            [("120500", None), ("115500", None), ("120501", Some(true)), ("115459", Some(false))]
        {
            let checked = check_clock(&format!("20261124{there}.0Z"), noon).unwrap();
            match (checked, off) {
                (Ok(()), None) => {}
                (Err(ServerError::ClockSkew { by, ahead }), Some(expected)) => {
                    assert_eq!((by, ahead), (Duration::from_secs(301), expected));
                }
                (other, _) => panic!("{there}: {other:?}"),
            }
        }
        assert!(check_clock("yesterday", noon).is_none());
    }

    #[test]
    fn aliases_sites_and_forests() {
        let mappings = ["other=a,b", "host=alerter, cifs,,http"];
        assert_eq!(aliases_in(mappings.into_iter()), ["HOST", "alerter", "cifs", "http"]);
        assert_eq!(aliases_in(std::iter::empty()), ["HOST"]);
        let server =
            "CN=DC1,CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,DC=ad,DC=example";
        assert_eq!(site_of(server).as_deref(), Some("Default-First-Site-Name"));
        assert_eq!(dns_domain("DC=ad,DC=example,DC=org"), "ad.example.org");
    }

    #[test]
    fn every_server_that_was_tried_is_named() {
        let server = |url: &str| Server::try_from(url.to_owned()).unwrap();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = ConnectError::NoServer(vec![
            (server("ldaps://dc1"), ServerError::Connect(refused)),
            (server("ldap://dc2:3389"), Distrust::Expired.into()),
        ]);
        let text = error.to_string();
        assert!(
            text.contains("ldaps://dc1: cannot connect: connection refused; ldap://dc2:3389: its"),
            "{text}"
        );
    }
}
