//! `domain.toml`: where the directory is, and what accounts in it are to be like.

use crate::fs::{AtPath, FsError};
use ramet_proto::{
    Secret,
    domain::{NetbiosName, Realm},
};
use serde::Deserialize;
use std::{
    env, fmt, fs,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use url::Url;

/// AES with 128 and with 256 bits (MS-KILE, section 2.2.7).
const AES: u32 = 0x18;

/// DES and RC4: what no key is made for.
const WEAK: u32 = 0x7;

/// No password is longer. A file that is was named by mistake.
const PASSWORD_MAX: u64 = 4096;

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FsError),
    /// It is not TOML, or not these settings.
    #[error("{} is not right", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where, and what was expected.
        #[source]
        source: toml::de::Error,
    },
    /// Settings that do not go together or cannot be meant.
    #[error("{} is not right: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        why: &'static str,
    },
    /// A password that others can read.
    #[error("{} can be read by others than its owner (mode {mode:03o}): chmod 600 it, and think of changing the password",
            path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits (chmod(2)).
        mode: u32,
    },
    /// A file that holds no password.
    #[error("{} holds no password: it is empty, longer than {PASSWORD_MAX} bytes, or not UTF-8", path.display())]
    NoPassword {
        /// The file.
        path: PathBuf,
    },
    /// There are no credentials.
    #[error(
        "no credential {0} was passed on: run this in a service with LoadCredential= (systemd.exec(5)), or use password_file"
    )]
    NoCredential(String),
    /// There is nobody to ask.
    #[error("cannot ask for the password on the terminal: use password_file or credential")]
    Prompt(#[source] io::Error),
}

/// The settings.
///
/// ```toml
/// realm = "AD.EXAMPLE.ORG"
/// servers = ["ldaps://dc1.ad.example.org", "ldap://dc2.ad.example.org"]   # ldap: with StartTLS, always
/// ca_file = "ca.pem"                      # default: the authorities that the system trusts
/// ou = "OU=Clones,DC=ad,DC=example,DC=org"
/// user = "ramet@ad.example.org"           # or a DN
/// password_file = "password"              # or credential = "NAME" (systemd.exec(5)); neither: asked for
/// ```
///
/// Paths are relative to the file's directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// The realm. Its directory's names follow from it.
    pub realm: Realm,
    /// The domain's `NetBIOS` name; left out, it is as the directory has it.
    pub workgroup: Option<NetbiosName>,
    /// Domain controllers, the preferred one first.
    pub servers: Vec<Server>,
    /// The authorities that the servers' certificates must come from, in PEM; left out, those of the system.
    pub ca_file: Option<PathBuf>,
    /// The organizational unit of the accounts, as a distinguished name.
    pub ou: String,
    /// Who may make accounts there: a user principal name or a distinguished name.
    pub user: String,
    /// Where that user's password is.
    pub password: PasswordSource,
    /// What the accounts' keys are for (`msDS-SupportedEncryptionTypes`, MS-KILE, section 2.2.7).
    pub encryption_types: u32,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// How long the answer to one request may take.
    pub request_timeout: Duration,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// In a file that only its owner can read; a newline at its end does not count.
    File(PathBuf),
    /// In a credential of the service that runs this (systemd.exec(5), `LoadCredential=`).
    Credential(String),
    /// In somebody's head.
    Prompt,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names)] // The keys are for those who write them.
struct File {
    realm: Realm,
    workgroup: Option<NetbiosName>,
    servers: Vec<Server>,
    ca_file: Option<PathBuf>,
    ou: String,
    user: String,
    password_file: Option<PathBuf>,
    credential: Option<String>,
    #[serde(default = "aes")]
    encryption_types: u32,
    #[serde(default = "ten_seconds")]
    connect_timeout_seconds: u64,
    #[serde(default = "thirty_seconds")]
    request_timeout_seconds: u64,
}

fn aes() -> u32 {
    AES
}

fn ten_seconds() -> u64 {
    10
}

fn thirty_seconds() -> u64 {
    30
}

impl Config {
    /// Reads `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).at("read", path)?;
        let file: File =
            toml::from_str(&text).map_err(|source| ConfigError::Form { path: path.to_owned(), source })?;
        let dir = path.parent().unwrap_or(Path::new(""));
        file.check(dir).map_err(|why| ConfigError::Value { path: path.to_owned(), why })
    }

    /// The user's password, from where it is. It may be asked for on the terminal, without an echo.
    pub fn read_password(&self) -> Result<Secret, ConfigError> {
        match &self.password {
            PasswordSource::File(path) => read_password_file(path),
            PasswordSource::Credential(name) => {
                let dir = env::var_os("CREDENTIALS_DIRECTORY");
                let dir = dir.ok_or_else(|| ConfigError::NoCredential(name.clone()))?;
                read_password_file(&Path::new(&dir).join(name))
            }
            PasswordSource::Prompt => {
                let password =
                    rpassword::prompt_password(format!("Password of {}: ", self.user)).and_then(|password| {
                        match password.as_str() {
                            "" => Err(io::Error::other("it is empty")),
                            _ => Ok(password),
                        }
                    });
                Ok(Secret::new(password.map_err(ConfigError::Prompt)?.into_bytes()))
            }
        }
    }
}

impl File {
    fn check(self, dir: &Path) -> Result<Config, &'static str> {
        if self.servers.is_empty() {
            return Err("servers is empty: name a domain controller");
        }
        if self.user.is_empty() || self.ou.is_empty() {
            return Err("user or ou is empty");
        }
        if self.encryption_types & AES == 0 || self.encryption_types & WEAK != 0 {
            return Err(
                "encryption_types must have 8 (AES-128) or 16 (AES-256) in it, and none of 1, 2 and 4 (DES and RC4): \
                        keys are made for AES only",
            );
        }
        if self.connect_timeout_seconds == 0 || self.request_timeout_seconds == 0 {
            return Err("a timeout is 0: nothing could ever be done in time");
        }
        let password = match (self.password_file, self.credential) {
            (Some(_), Some(_)) => return Err("both password_file and credential are there: keep one"),
            (Some(file), None) => PasswordSource::File(dir.join(file)),
            (None, Some(name)) if name.is_empty() || name.starts_with('.') || name.contains('/') => {
                return Err("credential is not the name of a credential (systemd.exec(5))");
            }
            (None, Some(name)) => PasswordSource::Credential(name),
            (None, None) => PasswordSource::Prompt,
        };
        Ok(Config {
            realm: self.realm,
            workgroup: self.workgroup,
            servers: self.servers,
            ca_file: self.ca_file.map(|file| dir.join(file)),
            ou: self.ou,
            user: self.user,
            password,
            encryption_types: self.encryption_types,
            connect_timeout: Duration::from_secs(self.connect_timeout_seconds),
            request_timeout: Duration::from_secs(self.request_timeout_seconds),
        })
    }
}

/// The password in `path`, which nobody but its owner may be able to read.
fn read_password_file(path: &Path) -> Result<Secret, ConfigError> {
    let file = fs::File::open(path).at("open", path)?;
    let mode = file.metadata().at("look at", path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned(), mode });
    }
    // Room for all of it: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(8192);
    file.take(PASSWORD_MAX + 1).read_to_end(&mut bytes).at("read", path)?;
    let too_long = bytes.len() as u64 > PASSWORD_MAX;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    // A bind without a password succeeds, as nobody (RFC 4513, section 5.1.2).
    if too_long || bytes.is_empty() || std::str::from_utf8(&bytes).is_err() {
        drop(Secret::new(bytes));
        return Err(ConfigError::NoPassword { path: path.to_owned() });
    }
    Ok(Secret::new(bytes))
}

/// Where a domain controller is asked: `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]` with `StartTLS`. Never without TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Server(Arc<Url>);

/// A text that is no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a domain controller: use ldaps://HOST, or ldap://HOST with StartTLS, and a name that is in its certificate"
)]
pub struct InvalidServer(String);

impl Server {
    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The host: a name, or an IPv4 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The port: 636 for `ldaps`, 389 for `ldap`, when none is named.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port().unwrap_or(if self.starts_tls() { 389 } else { 636 })
    }

    /// Whether TLS starts on request (RFC 4511, section 4.14), and not with the connection.
    #[must_use]
    pub fn starts_tls(&self) -> bool {
        self.0.scheme() == "ldap"
    }
}

impl TryFrom<String> for Server {
    type Error = InvalidServer;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let server = Url::parse(&text).map(|url| Self(Arc::new(url)));
        server.ok().filter(Self::is_plain).ok_or_else(|| InvalidServer(text.chars().take(80).collect()))
    }
}

impl Server {
    /// A host, perhaps a port, and nothing besides. The password has a place of its own, not in here.
    fn is_plain(&self) -> bool {
        let url = &self.0;
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        matches!(url.scheme(), "ldap" | "ldaps")
            && !self.host().is_empty()
            && self.host().bytes().all(good)
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        realm = "AD.EXAMPLE.ORG"
        servers = ["ldaps://dc1.ad.example.org", "ldap://dc2.ad.example.org:3389"]
        ou = "OU=Clones,DC=ad,DC=example,DC=org"
        user = "ramet@ad.example.org"
    "#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("domain.toml");
        fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let config = read(MINIMAL).unwrap();
        assert_eq!(config.password, PasswordSource::Prompt);
        assert_eq!(config.encryption_types, 24);
        assert_eq!(config.ca_file, None);
        let ports: Vec<_> =
            config.servers.iter().map(|server| (server.starts_tls(), server.port())).collect();
        assert_eq!(ports, [(false, 636), (true, 3389)]);
        assert_eq!(config.servers[0].to_string(), "ldaps://dc1.ad.example.org");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config =
            read(&format!("{MINIMAL}ca_file = \"ca.pem\"\npassword_file = \"/etc/password\"")).unwrap();
        assert!(config.ca_file.unwrap().is_absolute());
        assert_eq!(config.password, PasswordSource::File("/etc/password".into()));
        let config = read(&format!("{MINIMAL}credential = \"ad\"")).unwrap();
        assert_eq!(config.password, PasswordSource::Credential("ad".to_owned()));
    }

    #[test]
    fn settings_that_cannot_be_meant() {
        for (more, why) in [
            ("password = \"x\"", "unknown field"),
            ("password_file = \"a\"\ncredential = \"b\"", "keep one"),
            ("credential = \"../b\"", "not the name of a credential"),
            ("encryption_types = 4", "AES only"),
            ("encryption_types = 28", "AES only"),
            ("request_timeout_seconds = 0", "a timeout is 0"),
        ] {
            let error = crate::chain(&read(&format!("{MINIMAL}{more}")).unwrap_err());
            assert!(error.contains(why), "{more}: {error}");
        }
    }

    #[test]
    fn servers_are_named_and_use_tls() {
        for bad in [
            "dc1",
            "http://dc1",
            "ldapi:///",
            "ldaps://",
            "ldaps://user:secret@dc1",
            "ldaps://dc1/DC=example",
            "ldaps://dc1?x",
            "ldaps://[::1]",
            "ldaps://dc 1",
        ] {
            let error = Server::try_from(bad.to_owned());
            assert!(error.is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let with = |text: &[u8], mode| {
            let _ = fs::remove_file(&path);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read_password_file(&path)
        };
        assert_eq!(with(b"hunter2\n", 0o600).unwrap(), Secret::new(b"hunter2".to_vec()));
        assert_eq!(with(b" hunter2", 0o400).unwrap(), Secret::new(b" hunter2".to_vec()));
        for mode in [0o640, 0o604, 0o601] {
            let error = with(b"hunter2", mode).unwrap_err().to_string();
            assert!(error.contains("can be read by others") && !error.contains("hunter2"), "{error}");
        }
        for bad in [&b""[..], b"\n", &[0xff], &[b'x'; 5000]] {
            assert!(matches!(with(bad, 0o600), Err(ConfigError::NoPassword { .. })));
        }
        assert!(matches!(read_password_file(&dir.path().join("none")), Err(ConfigError::File(_))));
    }
}
