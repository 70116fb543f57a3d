//! The kernel's command lines: of this boot, and of the next ones, wherever a boot loader has them.

use super::{Findings, finding, parameters, uki};
use crate::root::{FileError, Root};
use ramet_proto::message::Finding;

/// File systems of firmware and boot loaders.
const BOOT: [&str; 4] = ["boot", "boot/efi", "efi", "boot/firmware"];

/// Files that are a command line as a whole.
const WHOLE: &[&str] = &[
    "proc/cmdline",
    "etc/kernel/cmdline",
    "usr/lib/kernel/cmdline",
    "boot/cmdline.txt",
    "boot/firmware/cmdline.txt",
];

/// Directories of such files.
const PARTS: &[&str] = &["etc/cmdline.d", "etc/kernel/cmdline.d", "usr/lib/kernel/cmdline.d"];

/// What is found on all command lines.
pub(super) fn check(root: &Root) -> Findings {
    let mut found: Vec<Finding> = Vec::new();
    for (path, line) in lines(root)? {
        for word in &words(&line) {
            let Some((grade, why)) = parameters::effect(word) else { continue };
            // What is in a credential may be a secret.
            let secret = word.starts_with("systemd.set").then(|| word.split_once(':')).flatten();
            let word = secret.map_or(word.as_str(), |(name, _)| name);
            let what = format!("/{path} has {word}: {why}");
            if !found.iter().any(|other| other.what.as_str() == what) {
                found.push(finding(grade, what, "take it off the kernel's command line"));
            }
        }
    }
    Ok(found)
}

/// Each file and a command line in it, or something like one.
fn lines(root: &Root) -> Result<Vec<(String, String)>, FileError> {
    let mut lines = Vec::new();
    let mut wholes: Vec<String> = WHOLE.iter().map(|path| (*path).to_owned()).collect();
    for directory in PARTS {
        wholes.extend(files(root, directory)?);
    }
    for path in wholes {
        lines.extend(text(root, &path).map(|line| (path.clone(), line)));
    }
    for (path, takes) in menus(root)? {
        for line in text(root, &path).unwrap_or_default().lines() {
            lines.extend(takes(line.trim_start()).map(|line| (path.clone(), line.to_owned())));
        }
    }
    for path in images(root)? {
        lines.extend(uki::command_lines(root, &path)?.into_iter().map(|line| (path.clone(), line)));
    }
    Ok(lines)
}

/// What a line of a file of one kind says of the command line.
type Takes = fn(&str) -> Option<&str>;

/// Files of which some lines are command lines, and which.
fn menus(root: &Root) -> Result<Vec<(String, Takes)>, FileError> {
    let mut menus: Vec<(String, Takes)> = Vec::new();
    for directory in ["boot/grub", "boot/grub2", "boot/efi/grub", "efi/grub"] {
        menus.push((format!("{directory}/grub.cfg"), of_grub));
        menus.push((format!("{directory}/custom.cfg"), of_grub));
        menus.push((format!("{directory}/user.cfg"), of_grub));
        menus.push((format!("{directory}/grubenv"), of_environment));
    }
    menus.push(("etc/default/grub".into(), of_defaults));
    menus.extend(files(root, "etc/default/grub.d")?.into_iter().map(|path| (path, of_defaults as Takes)));
    for boot in BOOT {
        for vendor in root.names(&format!("{boot}/EFI"))? {
            menus.push((format!("{boot}/EFI/{vendor}/grub.cfg"), of_grub));
            menus.push((format!("{boot}/EFI/{vendor}/grubenv"), of_environment));
        }
        for entry in files(root, &format!("{boot}/loader/entries"))? {
            menus.push((entry, of_entry));
        }
        for name in ["extlinux", "syslinux", "isolinux"] {
            for file in [format!("{boot}/{name}/{name}.conf"), format!("{boot}/{name}/{name}.cfg")] {
                menus.push((file, of_syslinux));
            }
            menus.push((format!("{boot}/{name}.cfg"), of_syslinux));
            menus.push((format!("{boot}/{name}.conf"), of_syslinux));
        }
    }
    Ok(menus)
}

/// Kernels with their command line in them, and additions to it (systemd-stub(7)).
fn images(root: &Root) -> Result<Vec<String>, FileError> {
    let mut images = Vec::new();
    // The file system knows no case.
    let has_kind =
        |path: &str, kind| path.rsplit_once('.').is_some_and(|(_, k)| k.eq_ignore_ascii_case(kind));
    let is_image = |path: &String| has_kind(path, "efi");
    for boot in BOOT {
        let directory = format!("{boot}/EFI/Linux");
        for path in files(root, &directory)? {
            if has_kind(&path, "d") {
                images.extend(files(root, &path)?.into_iter().filter(is_image));
            } else if is_image(&path) {
                images.push(path);
            }
        }
        images.extend(files(root, &format!("{boot}/loader/addons"))?.into_iter().filter(is_image));
    }
    Ok(images)
}

fn files(root: &Root, directory: &str) -> Result<Vec<String>, FileError> {
    Ok(root.names(directory)?.into_iter().map(|name| format!("{directory}/{name}")).collect())
}

/// A boot loader's file that cannot be read has no menu for this system.
fn text(root: &Root, path: &str) -> Option<String> {
    root.read_lossy(path).ok().flatten()
}

/// `linux /vmlinuz root=…`, and variables that such lines have in them.
fn of_grub(line: &str) -> Option<&str> {
    let first = line.split_ascii_whitespace().next()?;
    if first.starts_with("linux") {
        return Some(line);
    }
    line.strip_prefix("set ")?.split_once('=').filter(|(name, _)| is_variable(name)).map(|(_, value)| value)
}

/// The environment block of GRUB, `kernelopts=root=…`.
fn of_environment(line: &str) -> Option<&str> {
    line.split_once('=').filter(|(name, _)| is_variable(name)).map(|(_, value)| value)
}

fn is_variable(name: &str) -> bool {
    ["kernelopts", "tuned_params", "cmdline", "bootargs", "extra_args"].iter().any(|part| name.contains(part))
}

/// `GRUB_CMDLINE_LINUX="…"`, of which update-grub makes menus.
fn of_defaults(line: &str) -> Option<&str> {
    line.strip_prefix("GRUB_CMDLINE_LINUX")?.split_once('=').map(|(_, value)| value)
}

/// The Boot Loader Specification, `options …`.
fn of_entry(line: &str) -> Option<&str> {
    line.split_once(char::is_whitespace).filter(|(key, _)| *key == "options").map(|(_, value)| value)
}

/// syslinux(1), `append …`, in either case.
fn of_syslinux(line: &str) -> Option<&str> {
    let (key, value) = line.split_once(char::is_whitespace)?;
    key.eq_ignore_ascii_case("append").then_some(value)
}

/// The words of a command line: quotes keep one together, and go (kernel-command-line(7)).
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    // One quote around the whole, as shells have it, keeps nothing together.
    let line = line.trim();
    let whole = |quote| line.len() > 1 && line.starts_with(quote) && line.ends_with(quote);
    let line = if whole('"') || whole('\'') { &line[1..line.len() - 1] } else { line };
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            '\\' => {}
            c if c.is_ascii_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn words_of_a_command_line() {
        assert_eq!(words("a  b=\"c d\" e\n"), ["a", "b=c d", "e"]);
        assert_eq!(words("\"quiet systemd.hostname=x\""), ["quiet", "systemd.hostname=x"]);
        assert_eq!(words("'quiet x'"), ["quiet", "x"]);
        assert!(words("").is_empty() && words("\"").is_empty());
    }

    /// One parameter, in every place where boot loaders have it.
    #[test]
    fn wherever_a_boot_loader_has_it() {
        let places: &[(&str, &[u8])] = &[
            ("proc/cmdline", b"quiet systemd.hostname=golden\n"),
            ("etc/kernel/cmdline", b"systemd.hostname=golden"),
            ("etc/cmdline.d/x.conf", b"systemd.hostname=\"golden\""),
            ("boot/cmdline.txt", b"root=/dev/vda systemd.hostname=golden"),
            ("boot/grub/grub.cfg", b"\tlinux /vmlinuz \xff root=x systemd.hostname=golden\n"),
            ("boot/grub2/grub.cfg", b"set kernelopts=\"ro systemd.hostname=golden\"\n"),
            ("boot/efi/EFI/debian/grub.cfg", b"linuxefi /vmlinuz systemd.hostname=golden\n"),
            ("efi/EFI/fedora/grubenv", b"# GRUB\nkernelopts=root=x systemd.hostname=golden\n######"),
            ("boot/grub2/grubenv", b"saved_entry=x\nkernelopts=ro systemd.hostname=golden \n"),
            ("etc/default/grub", b"GRUB_CMDLINE_LINUX_DEFAULT=\"quiet systemd.hostname=golden\"\n"),
            (
                "etc/default/grub.d/50.cfg",
                b"GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX systemd.hostname=golden\"\n",
            ),
            ("boot/extlinux/extlinux.conf", b"LABEL l\n  APPEND root=x systemd.hostname=golden\n"),
            ("boot/syslinux/syslinux.cfg", b"  append systemd.hostname=golden\n"),
            ("boot/loader/entries/a.conf", b"title x\noptions root=x systemd.hostname=golden\n"),
            ("efi/loader/entries/a.conf", b"options\tsystemd.hostname=golden\n"),
        ];
        for (path, text) in places {
            let image = Image::new();
            image.bytes(path, text);
            let found = check(&image.root).unwrap();
            let what = format!("/{path} has systemd.hostname=golden: ");
            assert!(matches!(&found[..], [f] if f.what.as_str().starts_with(&what)), "{path}: {found:?}");
        }
        for (path, text) in [
            ("boot/grub/grub.cfg", "# linux x systemd.hostname=golden\nset x=systemd.hostname=golden\n"),
            ("etc/default/grub", "#GRUB_CMDLINE_LINUX=\"systemd.hostname=golden\"\n"),
            ("boot/loader/entries/a.conf", "title systemd.hostname=golden\n"),
        ] {
            let image = Image::new();
            image.file(path, text);
            assert!(check(&image.root).unwrap().is_empty(), "{path}");
        }
    }

    #[test]
    fn what_is_in_a_credential_is_not_told() {
        let image = Image::new();
        image.file("proc/cmdline", "systemd.set_credential=passwd.plaintext-password.root:hunter2");
        let found = check(&image.root).unwrap();
        assert!(matches!(&found[..], [f] if !format!("{f:?}").contains("hunter2")), "{found:?}");
    }

    #[test]
    fn odd_files_are_no_obstacle() {
        let image = Image::new();
        image.file("boot/grub/grub.cfg/x", "a directory");
        image.bytes("boot/loader/entries/big.conf", &vec![b'x'; 10 << 20]);
        image.link("etc/default/grub", "/nowhere");
        image.file("boot/EFI/Linux/not.efi", "MZ");
        image.file("boot/EFI/Linux/dir.efi/x", "");
        assert!(check(&image.root).unwrap().is_empty());
    }
}
