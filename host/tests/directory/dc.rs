//! The domain controller that the tests are given.

use ramet::domain::{Config, ConnectError, Directory};
use ramet_proto::domain::{DomainAccount, NetbiosName};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// Where the domain controller is, and who may do what there.
#[derive(Deserialize)]
pub(crate) struct Dc {
    pub(crate) url: String,
    pub(crate) ca_file: PathBuf,
    /// Certificates with their keys: the domain controller's, and some that must not be trusted.
    pub(crate) tls: PathBuf,
    pub(crate) realm: String,
    pub(crate) workgroup: String,
    pub(crate) address: String,
    pub(crate) ou: String,
    pub(crate) user: String,
    pub(crate) password_file: PathBuf,
    /// A user without any right.
    pub(crate) reader: String,
    pub(crate) reader_password_file: PathBuf,
    pub(crate) administrator: String,
    pub(crate) administrator_password_file: PathBuf,
    /// Runs a program of the domain controller's root.
    exec: Vec<String>,
    /// Where that program finds this machine's files.
    host: PathBuf,
}

impl Dc {
    pub(crate) fn here() -> Self {
        let path = std::env::var("RAMET_TEST_DC").expect("RAMET_TEST_DC is set: cargo xtask test does it");
        toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Settings for `servers` as the user who may make accounts, with some lines replaced.
    pub(crate) fn config(&self, servers: &[&str], replaced: &[(&str, &str)]) -> Config {
        let dir = tempfile::tempdir().unwrap();
        Config::read(&self.write_config(dir.path(), servers, replaced)).unwrap()
    }

    /// The same as a file in `dir`.
    pub(crate) fn write_config(&self, dir: &Path, servers: &[&str], replaced: &[(&str, &str)]) -> PathBuf {
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

    pub(crate) fn host(&self) -> &str {
        self.url.strip_prefix("ldaps://").unwrap()
    }

    pub(crate) async fn directory(&self) -> Directory {
        connect(&self.config(&[&self.url], &[])).await.unwrap()
    }

    /// A program of the domain controller's root, which ends in time.
    pub(crate) fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg("120").args(&self.exec).args(program).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// The path of this machine's `path` for such a program.
    pub(crate) fn there(&self, path: &Path) -> String {
        self.host.join(path.strip_prefix("/").unwrap()).to_str().unwrap().to_owned()
    }
}

pub(crate) async fn connect(config: &Config) -> Result<Directory, ConnectError> {
    Directory::connect(config, &config.read_password().unwrap()).await
}

pub(crate) fn name(text: &str) -> NetbiosName {
    text.parse().unwrap()
}

/// What a command printed, when it did what it should.
pub(crate) fn printed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let printed = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{printed}");
    printed
}

/// Accounts that are removed again.
pub(crate) async fn remove(directory: &Directory, accounts: &[DomainAccount]) {
    for account in accounts {
        directory.delete(account).await.unwrap();
        assert_eq!(directory.read(&account.name).await.unwrap(), None);
    }
}
