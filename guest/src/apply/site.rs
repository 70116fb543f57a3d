//! A site's own appliers: programs that do what the agent does not know of. They run in the order of their names, each with
//! the identity as JSON on its standard input, without what is secret in it, and print what they have made as lines
//! `key=value`. What is printed is evidence: no two siblings may show the same.

use super::ApplyError;
use crate::{config::Config, process, root::Root};
use ramet_proto::{
    Hostname, InstanceId, MachineId, Sid,
    domain::DomainAccount,
    login::UserKeys,
    message::{Finding, Identity, NicIdentity, UniqueValue},
    text::Text,
};
use serde::Serialize;
use std::process::Command;

const DIRECTORY: &str = "etc/ramet/appliers.d";

/// The most lines of evidence of one applier.
const MAX_LINES: usize = 32;

/// What an applier is told.
#[derive(Serialize)]
struct Public<'a> {
    instance_id: InstanceId,
    hostname: &'a Hostname,
    machine_id: MachineId,
    nics: &'a [NicIdentity],
    #[serde(skip_serializing_if = "Option::is_none")]
    machine_sid: &'a Option<Sid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a DomainAccount>,
    authorized_keys: &'a [UserKeys],
    unix_time_ns: i64,
}

pub(super) fn apply(
    identity: &Identity,
    root: &Root,
    config: &Config,
) -> Result<Vec<UniqueValue>, ApplyError> {
    let names = root.names(DIRECTORY)?;
    let mut values = Vec::new();
    if names.is_empty() {
        return Ok(values);
    }
    let Identity { instance_id, machine_id, unix_time_ns, .. } = *identity;
    let Identity { hostname, nics, machine_sid, authorized_keys, .. } = identity;
    let domain = identity.domain.as_ref().map(|domain| &domain.account);
    let public = Public {
        instance_id,
        hostname,
        machine_id,
        nics,
        machine_sid,
        domain,
        authorized_keys,
        unix_time_ns,
    };
    let input = serde_json::to_vec(&public)
        .map_err(|error| ApplyError::System("form what appliers are told", error.into()))?;
    trusted(root, DIRECTORY)?;
    for name in names {
        let path = format!("{DIRECTORY}/{name}");
        trusted(root, &path)?;
        if !root.is_regular(&path)? || !root.is_executable(&path)? {
            return Err(ApplyError::Mismatch(format!("/{path} is not an executable file")));
        }
        let mut command = Command::new(root.outside(&path));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/");
        let said = process::filter(&mut command, &input, config.site_applier_timeout())
            .map_err(|error| ApplyError::System("run an applier of the site", error))?;
        values.extend(evidence(&name, &said).map_err(|why| ApplyError::Mismatch(format!("/{path} {why}")))?);
    }
    Ok(values)
}

/// What others can write, others can have run as root.
fn trusted(root: &Root, path: &str) -> Result<(), ApplyError> {
    if root.is_private(path)? {
        return Ok(());
    }
    Err(ApplyError::Mismatch(format!(
        "/{path} does not belong to root, is a link, or can be written by others"
    )))
}

/// The evidence that the applier `name` has printed.
fn evidence(name: &str, said: &str) -> Result<Vec<UniqueValue>, String> {
    let mut values = Vec::<UniqueValue>::new();
    for line in said.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("printed {line:?}, not key=value"))?;
        let is_key = (1..=64).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let safe = Text::new(value);
        if !is_key || value.is_empty() || safe.as_str() != value {
            return Err(format!("printed {line:?}: a key or value that is none"));
        }
        let name = Text::new(&format!("site/{name}/{key}"));
        if values.iter().any(|other| other.name == name) || values.len() == MAX_LINES {
            return Err(format!("printed {key} twice, or more than {MAX_LINES} lines"));
        }
        values.push(UniqueValue { name, value: safe });
    }
    Ok(values)
}

/// What an identity would meet.
pub(super) fn check(_root: &Root) -> Result<Vec<Finding>, ApplyError> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::evidence;

    #[test]
    fn lines_of_evidence() {
        let values = evidence("10-salt", "minion_id=a=b\n\nfoo.bar-1=ä c\n").unwrap();
        let values: Vec<_> = values.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
        assert_eq!(values, [("site/10-salt/minion_id", "a=b"), ("site/10-salt/foo.bar-1", "ä c")]);
        assert!(evidence("x", "").unwrap().is_empty());
        let many = (0..33).fold(String::new(), |text, n| format!("{text}k{n}=v\n"));
        let long = format!("k={}", "v".repeat(513));
        for bad in ["hello", "=v", "k=", "a b=v", "k=\x1b[2J", "k=1\nk=2", &many, &long] {
            assert!(evidence("x", bad).is_err(), "{bad:?}");
        }
    }
}
