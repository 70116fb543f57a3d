//! The mounts and swaps of fstab(5), of which systemd-fstab-generator(8) makes units while other generators run.

use super::{
    unit::{Unit, mounts_of},
    unit_file::of_path,
};
use crate::root::{FileError, Root};

const PATH: &str = "etc/fstab";

/// File systems of a network, which systemd orders apart (systemd.mount(5), `_netdev`).
const OF_A_NETWORK: &[&str] = &[
    "9p",
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncp",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb3",
    "smbfs",
    "sshfs",
    "virtiofs",
];

/// The units of the file. What is mounted by hand only (`noauto`) is none: nobody waits for it.
pub(super) fn read(root: &Root) -> Result<Vec<Unit>, FileError> {
    let text = root.read_lossy(PATH)?.unwrap_or_default();
    Ok(text.lines().filter_map(entry).flatten().collect())
}

fn entry(line: &str) -> Option<Vec<Unit>> {
    let fields: Vec<String> = line.split_ascii_whitespace().map(unescape).collect();
    let [what, to, kind, rest @ ..] = &fields[..] else { return None };
    if what.starts_with('#') {
        return None;
    }
    let options: Vec<&str> = rest.first().map_or("", String::as_str).split(',').collect();
    let has = |option: &str| options.contains(&option);
    let automount = has("x-systemd.automount");
    if has("noauto") && !automount {
        return None;
    }
    let of_network = has("_netdev") || OF_A_NETWORK.contains(&kind.trim_start_matches("fuse."));
    let (name, target, pre) = match kind.as_str() {
        "swap" => (of_path(&device(what), "swap"), "swap.target", None),
        _ if of_network => (of_path(to, "mount"), "remote-fs.target", Some("remote-fs-pre.target")),
        _ => (of_path(to, "mount"), "local-fs.target", Some("local-fs-pre.target")),
    };
    let mut unit = Unit::new(&name, PATH);
    // What systemd adds by itself is here already, since it depends on the options.
    unit.early = true;
    unit.after.extend(pre.map(str::to_owned));
    if of_network {
        unit.after.extend(["network.target", "network-online.target"].map(str::to_owned));
    }
    if device(what).starts_with("/dev/") {
        unit.after.push(of_path(&device(what), "device"));
    }
    if let Some((parent, _)) = to.trim_end_matches('/').rsplit_once('/') {
        unit.after.extend(mounts_of(parent));
    }
    for option in &options {
        let Some((key, value)) = option.split_once('=') else { continue };
        match key {
            "x-systemd.requires" => {
                unit.after.push(named(value));
                unit.pulls.push(named(value));
            }
            "x-systemd.wants" => unit.pulls.push(named(value)),
            "x-systemd.after" => unit.after.push(named(value)),
            "x-systemd.before" => unit.before.push(named(value)),
            "x-systemd.requires-mounts-for" | "x-systemd.wants-mounts-for" => {
                unit.after.extend(mounts_of(value));
            }
            _ => {}
        }
    }
    if automount {
        // Boot waits for the trap only, and whoever steps into it for the rest.
        let mut trap = Unit::new(&of_path(to, "automount"), PATH);
        trap.early = true;
        trap.before.push(target.to_owned());
        trap.after.push("local-fs-pre.target".into());
        trap.triggers.push(name);
        return Some(vec![unit, trap]);
    }
    if !has("nofail") {
        unit.before.push(target.to_owned());
    }
    Some(vec![unit])
}

/// The device of `UUID=…` and its like, under which udev has it.
fn device(what: &str) -> String {
    match what.split_once('=') {
        Some(("UUID" | "LABEL" | "PARTUUID" | "PARTLABEL" | "ID", value)) => {
            let key = what.split('=').next().unwrap_or_default().to_ascii_lowercase();
            format!("/dev/disk/by-{key}/{}", value.trim_matches('"'))
        }
        Some(_) | None => what.to_owned(),
    }
}

/// A unit that an option names: by its name, or by the path of a mount or a device.
fn named(value: &str) -> String {
    if value.starts_with("/dev/") {
        of_path(value, "device")
    } else if value.starts_with('/') {
        of_path(value, "mount")
    } else {
        value.to_owned()
    }
}

/// `\040` is a space (fstab(5)).
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |field, (code, character)| field.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn its_lines_are_units() {
        let image = Image::new();
        image.file(
            "etc/fstab",
            "# a comment\nUUID=1-2 / ext4 errors=remount-ro 0 1\n\
             /dev/sdb1 /srv/my\\040data xfs x-systemd.requires=unlock.service,x-systemd.after=/var 0 0\n\
             /dev/sdc1 /media auto noauto\nserver:/x /net nfs defaults\n/dev/sdd1 /late ext4 nofail\n\
             /dev/sde1 /trap ext4 noauto,x-systemd.automount\n/swap.img none swap sw 0 0\nbroken\n",
        );
        let units = read(&image.root).unwrap();
        let names: Vec<_> = units.iter().map(|unit| unit.name.as_str()).collect();
        let data = "srv-my\\x20data.mount";
        let expected =
            ["-.mount", data, "net.mount", "late.mount", "trap.mount", "trap.automount", "swap.img.swap"];
        assert_eq!(names, expected);
        let one = |name: &str| units.iter().find(|unit| unit.name == name).unwrap();
        for after in ["unlock.service", "var.mount", "dev-sdb1.device", "srv.mount", "local-fs-pre.target"] {
            assert!(one(data).after.iter().any(|unit| unit == after), "{after}");
        }
        assert!(one(data).before.contains(&"local-fs.target".to_owned()));
        assert!(one("net.mount").before.contains(&"remote-fs.target".to_owned()));
        assert!(one("-.mount").after.contains(&"dev-disk-by\\x2duuid-1\\x2d2.device".to_owned()));
        assert!(one("late.mount").before.is_empty() && one("trap.mount").before.is_empty());
        assert!(one("trap.automount").before.contains(&"local-fs.target".to_owned()));
        assert!(one("swap.img.swap").before.contains(&"swap.target".to_owned()));
    }
}
