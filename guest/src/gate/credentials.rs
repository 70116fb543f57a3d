//! Credentials that this machine is given as it boots (systemd.system-credentials(7)), of those that make it somebody.

use super::{Findings, finding};
use crate::root::Root;
use ramet_proto::message::Grade;

/// Where they are, or have been put by systemd, as files of that name.
const PLACES: &[&str] = &[
    "run/credentials/@system",
    "run/credentials/@encrypted",
    "run/credentials/@initrd",
    "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials",
    "etc/credstore",
    "etc/credstore.encrypted",
    "run/credstore",
    "run/credstore.encrypted",
    "usr/local/lib/credstore",
    "usr/lib/credstore",
    "usr/lib/credstore.encrypted",
];

/// Where systemd-stub(7) finds some, as `NAME.cred`.
const OF_THE_LOADER: &[&str] =
    &["boot/loader/credentials", "boot/efi/loader/credentials", "efi/loader/credentials"];

/// Strings of the firmware's table 11, each in a file of its own.
const SMBIOS: &str = "sys/firmware/dmi/entries";

/// What a credential does to a child: how bad it is, why, and whether its text may be told.
pub(super) fn effect(name: &str, value: Option<&str>) -> Option<(Grade, String)> {
    let again = |what: &str| {
        let who = value.map_or_else(|| format!("have this {what}"), |value| format!("be {value}"));
        (Grade::Fatal, format!("every child would {who} again after a reboot"))
    };
    match name {
        "system.hostname" => Some(again("name")),
        "system.machine_id" => Some(again("machine-id")),
        "login.noauth" => Some((Grade::Open, "past the gate, a console asks for no password".into())),
        "agetty.autologin" | "login.autologin" => {
            Some((Grade::Note, "it logs somebody in without a password, once the gate is open".into()))
        }
        _ if name.starts_with("systemd.extra-unit.") || name.starts_with("systemd.unit-dropin.") => {
            Some((Grade::Open, "it adds to the units of each boot, and nobody has seen what".into()))
        }
        _ if name.starts_with("network.") => Some((
            Grade::Broken,
            "every child would have these settings of links, and addresses if they have any".into(),
        )),
        "passwd.plaintext-password.root" | "passwd.hashed-password.root" => {
            Some((Grade::Note, "every child has this password of root's".into()))
        }
        _ => None,
    }
}

pub(super) fn check(root: &Root) -> Findings {
    let mut found = Vec::new();
    let mut add = |place: &str, name: &str, value: Option<&str>| {
        if let Some((grade, why)) = effect(name, value) {
            let what = format!("{place} has the credential {name}: {why}");
            found.push(finding(grade, what, "take it away; what is each child's own is in its identity"));
        }
    };
    for place in PLACES {
        let encrypted = place.contains("encrypted");
        for name in root.names(place)? {
            let path = if place.starts_with("sys/") {
                format!("{place}/{name}/raw")
            } else {
                format!("{place}/{name}")
            };
            let text = root.read_lossy(&path).ok().flatten().filter(|_| !encrypted);
            add(&format!("/{path}"), &name, told(&name, text.as_deref()));
        }
    }
    for place in OF_THE_LOADER {
        for file in root.names(place)? {
            add(&format!("/{place}/{file}"), file.strip_suffix(".cred").unwrap_or(&file), None);
        }
    }
    for entry in root.names(SMBIOS)?.iter().filter(|name| name.starts_with("11-")) {
        let path = format!("{SMBIOS}/{entry}/raw");
        let bytes = root.read(&path).ok().flatten().unwrap_or_default();
        for string in bytes.split(|byte| *byte == 0) {
            // The table's header stands right before the first string.
            let text = String::from_utf8_lossy(string);
            for (prefix, plain) in
                [("io.systemd.credential:", true), ("io.systemd.credential.binary:", false)]
            {
                if let Some((_, rest)) = text.split_once(prefix) {
                    let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
                    add(&format!("/{path}"), name, told(name, plain.then_some(value)));
                }
            }
        }
    }
    Ok(found)
}

/// Only what is no secret: a name, or an id.
fn told<'v>(name: &str, value: Option<&'v str>) -> Option<&'v str> {
    value
        .map(str::trim)
        .filter(|value| matches!(name, "system.hostname" | "system.machine_id") && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn a_credential_that_names_the_machine_is_fatal_wherever_it_is() {
        let id = "0123456789abcdef0123456789abcdef";
        for (path, bytes, what) in [
            ("run/credentials/@system/system.hostname", "golden\n", "be golden again"),
            ("etc/credstore/system.machine_id", id, "be 0123456789abcdef0123456789abcdef again"),
            ("usr/lib/credstore/system.hostname", "golden", "be golden again"),
            ("etc/credstore.encrypted/system.hostname", "AAAA", "have this name again"),
            (
                "sys/firmware/qemu_fw_cfg/by_name/opt/io.systemd.credentials/system.hostname/raw",
                "golden",
                "be golden again",
            ),
            ("boot/efi/loader/credentials/system.machine_id.cred", "x", "have this machine-id again"),
            (
                "sys/firmware/dmi/entries/11-0/raw",
                "\x0b\x05\x00\x11\x02io.systemd.credential:a=b\x00io.systemd.credential:system.hostname=golden\x00\x00",
                "be golden again",
            ),
            (
                "sys/firmware/dmi/entries/11-0/raw",
                "\x0b\x05\x01io.systemd.credential.binary:system.hostname=Z29sZGVu\x00",
                "have this name again",
            ),
        ] {
            let image = Image::new();
            image.file(path, bytes);
            let found = check(&image.root).unwrap();
            assert!(
                matches!(&found[..], [f] if f.grade == Grade::Fatal && f.what.as_str().contains(what)),
                "{path}: {found:?}"
            );
        }
    }

    #[test]
    fn others_are_graded_and_their_text_is_not_told() {
        let image = Image::new();
        image.file("etc/credstore/passwd.hashed-password.root", "$y$secret");
        image.file("etc/credstore/network.network.lan", "[Network]\nAddress=192.0.2.1/24\n");
        image.file("run/credentials/@system/systemd.unit-dropin.ramet-agent.service", "[Unit]\n");
        image.file("etc/credstore/tok", "s3");
        let found = check(&image.root).unwrap();
        let grades: Vec<_> = found.iter().map(|f| f.grade).collect();
        assert_eq!(grades, [Grade::Open, Grade::Broken, Grade::Note]);
        assert!(found.iter().all(|f| !f.what.as_str().contains("secret")));
    }
}
