//! cloud-init, which runs past the gate and, for it, for the first time. Name, hosts and host keys are kept from it by
//! `cloud.cfg` in the package, which a drop-in of its services names in `CLOUD_CFG`: that goes before user data and the
//! image's settings (`ConfigMerger` in cloud-init's `helpers.py`). Here the seed in the image becomes the child's, and a
//! network that the identity configures is left alone.
//!
//! The seed stays where the image has it (the datasource `NoCloud`, "Source 1: Local filesystem"), and not below /run: it has
//! to be the same when the child boots again, and cloud-init looks there before it follows anything else.

use super::ApplyError;
use crate::root::Root;
use ramet_proto::{
    Hostname, InstanceId,
    message::{Finding, Grade, Identity},
};

const PROGRAM: &str = "usr/bin/cloud-init";

/// Where seeds are: a directory is one if it has both files.
const SEEDS: &[&str] = &["var/lib/cloud/seed/nocloud", "var/lib/cloud/seed/nocloud-net"];
const META_DATA: &str = "meta-data";
const USER_DATA: &str = "user-data";

/// Settings of the image and, last of all, the agent's.
const SETTINGS: &str = "etc/cloud/cloud.cfg.d";
const NETWORK: &str = "etc/cloud/cloud.cfg.d/99-ramet-network.cfg";
const NETWORK_IS_LEFT: &str = "# Written by ramet-agent: this machine's addresses are in its identity.\n\
                               network: {config: disabled}\n";

/// What of a seed says who the machine is.
const KEYS: [&str; 2] = ["instance-id", "local-hostname"];

pub(super) fn apply(identity: &Identity, root: &Root) -> Result<(), ApplyError> {
    for path in seeds(root)? {
        let before = root.read(&path)?.unwrap_or_default();
        let after = meta_data(&before, identity.instance_id, &identity.hostname)
            .ok_or_else(|| ApplyError::Mismatch(not_understood(&path)))?;
        if after != before {
            root.edit(&path, &after, 0o644)?;
        }
    }
    if !root.exists(SETTINGS)? {
        return Ok(());
    }
    if identity.nics.iter().any(|nic| nic.ip.is_some()) {
        Ok(root.replace(NETWORK, NETWORK_IS_LEFT.as_bytes(), 0o644)?)
    } else {
        root.remove(NETWORK)?;
        Ok(())
    }
}

pub(super) fn verify(identity: &Identity, root: &Root) -> Result<(), ApplyError> {
    for path in seeds(root)? {
        let shown = root.read(&path)?.unwrap_or_default();
        if meta_data(&shown, identity.instance_id, &identity.hostname).as_ref() != Some(&shown) {
            return Err(ApplyError::Mismatch(format!("/{path} is not as it was written")));
        }
    }
    Ok(())
}

/// What an identity would meet.
pub(super) fn check(root: &Root) -> Result<Vec<Finding>, ApplyError> {
    let mut found = Vec::new();
    if !root.exists(PROGRAM)? {
        return Ok(found);
    }
    let seeds = seeds(root)?;
    for path in &seeds {
        let text = root.read(path)?.unwrap_or_default();
        if !is_understood(&text) {
            let fix = "write it as lines KEY: VALUE, or as one JSON object";
            found.push(Finding::new(Grade::Fatal, &not_understood(path), fix));
        }
        let user_data = path.replace(META_DATA, USER_DATA);
        let text = root.read_lossy(&user_data)?.unwrap_or_default();
        if text.lines().any(|line| line.starts_with("ssh_keys:")) {
            let what = format!("/{user_data} has ssh_keys: cloud-init gives each child these host keys");
            found.push(Finding::new(Grade::Broken, &what, "remove it: a fork fails when the keys change"));
        }
        let what =
            format!("cloud-init runs in each child, with the instance id of its identity and /{user_data}");
        found.push(Finding::new(Grade::Note, &what, "name, hosts and host keys stay the identity's"));
    }
    if seeds.is_empty() && root.exists("run/cloud-init/enabled")? {
        let what = "cloud-init is on, and no seed for it is in the image: it runs in each child with what its datasource says";
        found.push(Finding::new(Grade::Note, what, "name, hosts and host keys stay the identity's"));
    }
    Ok(found)
}

fn not_understood(path: &str) -> String {
    format!("/{path} is neither lines KEY: VALUE nor a JSON object, so it cannot be told whose it is")
}

fn is_understood(text: &[u8]) -> bool {
    let any = "localhost".parse().map(|name| meta_data(text, InstanceId::random(), &name));
    any.is_ok_and(|edited| edited.is_some())
}

/// The seeds' files of meta data.
fn seeds(root: &Root) -> Result<Vec<String>, ApplyError> {
    let mut found = Vec::new();
    for seed in SEEDS {
        let path = format!("{seed}/{META_DATA}");
        if root.exists(&path)? && root.exists(&format!("{seed}/{USER_DATA}"))? {
            found.push(path);
        }
    }
    Ok(found)
}

/// `before` with the instance id and the name of the child; the rest as it is. None if it cannot be read.
fn meta_data(before: &[u8], instance_id: InstanceId, hostname: &Hostname) -> Option<Vec<u8>> {
    let values = [instance_id.to_string(), hostname.to_string()];
    let start = before.trim_ascii_start();
    if start.starts_with(b"{") {
        let mut object: serde_json::Map<_, _> = serde_json::from_slice(start).ok()?;
        for (key, value) in KEYS.iter().zip(values) {
            object.insert((*key).to_owned(), value.into());
        }
        let mut text = serde_json::to_vec(&object).ok()?;
        text.push(b'\n');
        return Some(text);
    }
    let mut after = Vec::new();
    let mut closed = None;
    for line in before.split_inclusive(|byte| *byte == b'\n') {
        let is_key = line.first().is_some_and(|first| !first.is_ascii_whitespace());
        if is_key && KEYS.iter().any(|key| is_setting(line, key)) {
            continue;
        }
        let text = line.trim_ascii_end();
        let marks = [&b"---"[..], b"..."];
        if is_key && !text.starts_with(b"#") && !marks.contains(&text) && !text.contains(&b':') {
            return None;
        }
        if text == b"..." {
            closed.get_or_insert(after.len());
        }
        after.extend_from_slice(line);
    }
    if !after.is_empty() && !after.ends_with(b"\n") {
        after.push(b'\n');
    }
    let own =
        KEYS.iter().zip(values).map(|(key, value)| format!("{key}: {value}\n")).collect::<Vec<_>>().concat();
    let end = closed.unwrap_or(after.len());
    after.splice(end..end, own.into_bytes());
    Some(after)
}

/// Whether a line of YAML sets `key`, in quotes or without.
fn is_setting(line: &[u8], key: &str) -> bool {
    let rest = [key.to_owned(), format!("\"{key}\""), format!("'{key}'")];
    rest.iter()
        .find_map(|key| line.strip_prefix(key.as_bytes()))
        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edited(text: &str) -> Option<String> {
        let id = "6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f".parse().unwrap();
        let name = "web-1".parse().unwrap();
        meta_data(text.as_bytes(), id, &name).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    const OWN: &str = "instance-id: 6f1b1a4e-2f0c-4c8e-9d57-0a1b2c3d4e5f\nlocal-hostname: web-1\n";

    #[test]
    fn a_seed_becomes_the_childs_and_keeps_the_rest() {
        for (before, after) in [
            ("instance-id: iid-golden-7\nlocal-hostname: golden\n", OWN.to_owned()),
            ("", OWN.to_owned()),
            ("'instance-id' : x\npublic-keys:\n  - a\n", format!("public-keys:\n  - a\n{OWN}")),
            ("# c\n---\nk: v\n...", format!("# c\n---\nk: v\n{OWN}...\n")),
        ] {
            assert_eq!(edited(before).as_deref(), Some(&*after));
            assert_eq!(edited(&after).as_deref(), Some(&*after), "twice");
        }
        let json = edited("{\"instance-id\": \"x\", \"public-keys\": [\"k\"]}").unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["local-hostname"], &value["public-keys"][0]), (&"web-1".into(), &"k".into()));
        for bad in ["{\"a\": ", "just words\n"] {
            assert_eq!(edited(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn foreign_lines_stay_and_twice_is_once(lines in proptest::collection::vec("[ a-z]{0,9}: [^\n\r]{0,9}", 0..9)) {
            let text = lines.iter().map(|line| line.to_owned() + "\n").collect::<Vec<_>>().concat();
            let after = edited(&text).unwrap();
            prop_assert_eq!(after.strip_suffix(OWN), Some(&*text));
            prop_assert_eq!(edited(&after), Some(after.clone()));
        }

        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _ = meta_data(&bytes, InstanceId::random(), &"web-1".parse().unwrap());
        }
    }
}
