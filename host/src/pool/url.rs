//! Where a store is.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The URL of a store. Its password is in no `Debug` or `Display`.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server; the form is libpq's ("Connection URIs").
    Postgres(url::Url),
}

/// A text that is no [`StoreUrl`]. It does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a store: use sqlite:///FILE or postgres://USER@HOST/DATABASE")]
pub struct InvalidStoreUrl;

impl StoreUrl {
    /// As sqlx wants it, password included.
    pub(super) fn to_sqlx(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite://{}", escaped(path)),
            Self::Postgres(url) => url.to_string(),
        }
    }
}

impl StoreUrl {
    /// As it is written, password included: for another `ramet`'s environment, never for its arguments.
    pub(super) fn to_env(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite://{}", path.display()),
            Self::Postgres(url) => url.to_string(),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")) {
            let special = path.is_empty() || path.contains(['?', '#']) || path == ":memory:";
            return if special { Err(InvalidStoreUrl) } else { Ok(Self::Sqlite(path.into())) };
        }
        let url: url::Url = text.parse().map_err(|_| InvalidStoreUrl)?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Self::Postgres(url)),
            _ => Err(InvalidStoreUrl),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            // Neither user information nor parameters: a password may be in both.
            Self::Postgres(url) => {
                let host = url.host_str().unwrap_or_default();
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "postgres://{host}{port}{}", url.path())
            }
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// `path` with everything but letters, digits and slashes percent-encoded (RFC 3986, section 2.1).
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let escape = |byte: &u8| match byte {
        b'/' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_file_or_a_server() {
        let file = |path: &str| StoreUrl::Sqlite(path.into());
        assert_eq!("sqlite:///var/x y.db".parse(), Ok(file("/var/x y.db")));
        assert_eq!("sqlite:x.db".parse(), Ok(file("x.db")));
        assert_eq!(file("/var/x y%.db").to_sqlx(), "sqlite:///var/x%20y%25%2Edb");
        assert!("postgresql://h/d?host=/run/postgresql".parse::<StoreUrl>().is_ok());
        for bad in ["", "x.db", "mysql://h/d", "sqlite:", "sqlite::memory:", "sqlite://x?mode=ro"] {
            assert!(bad.parse::<StoreUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let url: StoreUrl =
            "postgres://ramet:hunter2@db:5433/ids?password=hunter2&sslmode=require".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://db:5433/ids");
        assert!(!format!("{url:?}").contains("hunter2"));
        assert!(url.to_sqlx().contains("hunter2"));
        assert_eq!(
            "mysql://u:hunter2@h/d".parse::<StoreUrl>().unwrap_err().to_string().find("hunter2"),
            None
        );
    }
}
