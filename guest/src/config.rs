//! `/etc/ramet/agent.toml`, the image owner's settings.

use crate::{
    gate::UnitName,
    root::{FileError, Root},
};
use serde::Deserialize;
use std::{fmt, time::Duration};

/// Where the settings are, below the root. They may be absent.
pub(crate) const PATH: &str = "etc/ramet/agent.toml";

/// What starts before the gate by default. These keep nothing of who they are on: dbus-daemon reads the machine-id when
/// it is first asked for it, and nobody asks in a template; logind has no session yet; console-setup loads a font;
/// systemd-networkd leaves every link alone until the gate is open, or is held where it cannot be made to.
/// Not among them: dbus-broker, which is given the machine-id when it starts, and polkit, whose cookies come from a
/// secret in its memory.
const BEFORE_GATE: &[&str] =
    &["dbus.service", "systemd-logind.service", "console-setup.service", crate::gate::links::UNIT];

/// The longest timeout, in seconds: what takes a day is not waited for.
const MAX_TIMEOUT: u64 = 24 * 60 * 60;

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("/{PATH} is not right: {0}")]
    Form(String),
}

/// The settings, each with its default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Services, and sockets that listen on a network, that start before the gate, in the template.
    pub(crate) before_gate: Vec<UnitName>,
    /// Which kinds of SSH host keys a child gets where `sshd_config(5)` has no `HostKey` line. Where it has some, these say
    /// where keys are made, and of which kinds.
    pub(crate) ssh_host_keys: Vec<KeyKind>,
    /// What makes a child a member of a domain.
    pub(crate) domain: DomainClient,
    /// How long a forked child waits for its identity before it powers off.
    identify_timeout_seconds: u64,
    /// How long each of the site's appliers may take.
    site_applier_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            before_gate: BEFORE_GATE
                .iter()
                .filter_map(|name| UnitName::try_from((*name).to_owned()).ok())
                .collect(),
            ssh_host_keys: vec![KeyKind::Ed25519],
            domain: DomainClient::Auto,
            identify_timeout_seconds: 120,
            site_applier_timeout_seconds: 30,
        }
    }
}

impl Config {
    /// The settings in `root`.
    pub(crate) fn load(root: &Root) -> Result<Self, ConfigError> {
        root.read_text(PATH)?.map_or_else(|| Ok(Self::default()), |text| Self::parse(&text))
    }

    /// How long a forked child waits for its identity before it powers off.
    pub(crate) fn identify_timeout(&self) -> Duration {
        Duration::from_secs(self.identify_timeout_seconds)
    }

    /// How long each of the site's appliers may take.
    pub(crate) fn site_applier_timeout(&self) -> Duration {
        Duration::from_secs(self.site_applier_timeout_seconds)
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Form(error.to_string()))?;
        for (name, seconds, never) in [
            ("identify_timeout_seconds", config.identify_timeout_seconds, "no child could ever open"),
            (
                "site_applier_timeout_seconds",
                config.site_applier_timeout_seconds,
                "no applier could ever end",
            ),
        ] {
            if seconds == 0 {
                return Err(ConfigError::Form(format!("{name} is 0: {never}")));
            }
            if seconds > MAX_TIMEOUT {
                return Err(ConfigError::Form(format!(
                    "{name} is {seconds}, and {MAX_TIMEOUT}, a day, is the most"
                )));
            }
        }
        if (1..config.ssh_host_keys.len())
            .any(|n| config.ssh_host_keys[..n].contains(&config.ssh_host_keys[n]))
        {
            return Err(ConfigError::Form("ssh_host_keys names a kind twice".into()));
        }
        if config.before_gate.iter().any(|name| name.as_str() == crate::boot::UNIT) {
            return Err(ConfigError::Form(format!(
                "before_gate names {}, the gate itself",
                crate::boot::UNIT
            )));
        }
        Ok(config)
    }
}

/// A kind of SSH key, as in ssh-keygen(1), `-t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyKind {
    Ed25519,
    Ecdsa,
    Rsa,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        })
    }
}

/// What makes a child a member of a domain, if its identity says that it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DomainClient {
    /// What is installed; of both SSSD if it is set up.
    Auto,
    /// Samba's winbind.
    Samba,
    /// SSSD.
    Sssd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_the_default() {
        let shipped = include_str!("../rootfs/etc/ramet/agent.toml");
        assert_eq!(Config::parse(shipped).unwrap(), Config::default());
        let uncommented: String = shipped
            .lines()
            .filter_map(|l| l.strip_prefix('#'))
            .filter(|l| !l.starts_with(' '))
            .fold(String::new(), |all, line| all + line + "\n");
        assert!(
            uncommented.contains("before_gate")
                && uncommented.contains("ssh_host_keys")
                && uncommented.contains("domain")
                && uncommented.contains("identify_timeout_seconds")
                && uncommented.contains("site_applier_timeout_seconds")
        );
        assert_eq!(Config::parse(&uncommented).unwrap(), Config::default());
    }

    #[test]
    fn settings_are_read_and_mistakes_refused() {
        let config =
            Config::parse("ssh_host_keys = [\"rsa\", \"ed25519\"]\nidentify_timeout_seconds = 5\n").unwrap();
        assert_eq!(config.ssh_host_keys, [KeyKind::Rsa, KeyKind::Ed25519]);
        assert_eq!(config.identify_timeout(), Duration::from_secs(5));
        let day = Config::parse("site_applier_timeout_seconds = 86400").unwrap().site_applier_timeout();
        assert_eq!(day, Duration::from_secs(86400));
        assert_eq!(Config::parse("domain = \"sssd\"").unwrap().domain, DomainClient::Sssd);
        for bad in [
            "ssh_host_key = []",
            "ssh_host_keys = [\"dsa\"]",
            "identify_timeout_seconds = 0",
            "site_applier_timeout_seconds = 0",
            "site_applier_timeout_seconds = 86401",
            "site_applier_timeout_seconds = 9223372036854775807",
            "identify_timeout_seconds = 86401",
            "identify_timeout_seconds = -1",
            "x",
            "before_gate = [\"dbus\"]",
            "before_gate = [\"../dbus.service\"]",
            "before_gate = [\"ramet-agent.service\"]",
            "before_gate = \"dbus.service\"",
            "ssh_host_keys = [\"rsa\", \"rsa\"]",
            "domain = \"winbind\"",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_file_means_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(Config::load(&root).unwrap(), Config::default());
    }
}
