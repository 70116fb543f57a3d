//! Bringing into the page cache what the rest of boot will read.
//!
//! A child shares its template's RAM, page cache included: what the parent has read once, no child reads from its disk.
//! The pages are shared, not copied, so a child's own memory does not grow. What will be read is what the waiting jobs
//! start: their programs, and the libraries the dynamic loader names for them.

use crate::{limits::programs, process};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

/// Programs that units start by way of others, or that the agent starts itself. What is not installed is left out.
const MORE: &[&str] = &[
    "/usr/bin/net",
    "/usr/bin/testparm",
    "/usr/bin/kinit",
    "/usr/bin/wbinfo",
    "/usr/sbin/sssctl",
    "/usr/libexec/sssd/sssd_be",
    "/usr/libexec/sssd/sssd_nss",
    "/usr/libexec/sssd/sssd_pam",
    "/usr/libexec/sssd/sssd_ifp",
    // A plugin of sssd_be's, and the libraries that come with it.
    SSSD_AD,
    "/usr/bin/ssh-keygen",
    "/usr/bin/systemctl",
    "/usr/bin/login",
    "/usr/bin/bash",
    "/usr/bin/dash",
    "/usr/lib/openssh/sshd-session",
    "/usr/lib/openssh/sshd-auth",
    "/usr/libexec/openssh/sshd-session",
    "/usr/libexec/openssh/sshd-auth",
];

#[cfg(target_arch = "x86_64")]
const SSSD_AD: &str = "/usr/lib/x86_64-linux-gnu/sssd/libsss_ad.so";
#[cfg(not(target_arch = "x86_64"))]
const SSSD_AD: &str = "/usr/lib/aarch64-linux-gnu/sssd/libsss_ad.so";

/// Directories whose files a login reads: PAM's configuration, and accounts. Files directly in them only.
const DIRECTORIES: &[&str] = &["/etc/pam.d", "/etc/ssh", "/etc/systemd/network", "/usr/lib/systemd/network"];

/// The dynamic loader, which lists the libraries of a program without running it (ld.so(8), `--list`).
const LOADERS: &[&str] = &["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

/// A larger file is left out, and so is everything past the budget.
const MAX_FILE: u64 = 32 << 20;
const BUDGET: u64 = 128 << 20;

/// Reads what starting `units` will read.
pub(crate) fn warm(units: &[&str]) {
    let mut files: BTreeSet<PathBuf> = MORE.iter().map(PathBuf::from).collect();
    let services: Vec<_> = units.iter().filter(|unit| unit.ends_with(".service")).collect();
    if !services.is_empty() {
        let mut show = Command::new("systemctl");
        show.args(["show", "--property=ExecStart", "--property=ExecStartPre", "--value", "--"])
            .args(services);
        files.extend(programs(&process::output(&mut show, programs::WARM).unwrap_or_default()));
    }
    files.retain(|file| file.is_file());
    if let Some(loader) = LOADERS.iter().find(|loader| Path::new(loader).exists()) {
        for program in files.clone() {
            // A script, or a static program: the loader says so and lists nothing.
            let listed = process::output(Command::new(loader).arg("--list").arg(program), programs::WARM);
            files.extend(libraries(&listed.unwrap_or_default()));
        }
    }
    for directory in DIRECTORIES {
        files.extend(fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    let mut budget = BUDGET;
    for file in files {
        budget = budget.saturating_sub(read(&file, budget));
    }
}

/// Reads `file` to its end and lets go of it; the kernel keeps it. Says how much there was.
fn read(file: &Path, budget: u64) -> u64 {
    let Ok(metadata) = fs::metadata(file) else { return 0 };
    if !metadata.is_file() || metadata.len() > MAX_FILE.min(budget) {
        return 0;
    }
    let Ok(mut file) = File::open(file) else { return 0 };
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        total += count as u64;
    }
    total
}

/// The programs in what `systemctl show --property=ExecStart` prints: `{ path=/usr/sbin/sshd ; argv[]=… }`.
fn programs(shown: &str) -> impl Iterator<Item = PathBuf> {
    shown.split("{ path=").skip(1).filter_map(|rest| rest.split(" ;").next()).map(PathBuf::from)
}

/// The libraries in what `ld.so --list` prints: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)`.
fn libraries(listed: &str) -> impl Iterator<Item = PathBuf> {
    let paths = listed.lines().filter_map(|line| line.split(" => ").nth(1)?.split(" (").next());
    paths.filter(|path| path.starts_with('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_as_systemctl_shows_them() {
        let shown = "{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -D $SSHD_OPTS ; ignore_errors=no ; pid=0 }\n\n\
                     { path=/sbin/agetty ; argv[]=/sbin/agetty -o \"-- \\\\u\" - ; status=0/0 }\n";
        let found: Vec<_> = programs(shown).collect();
        assert_eq!(found, [Path::new("/usr/sbin/sshd"), Path::new("/sbin/agetty")]);
    }

    #[test]
    fn libraries_as_the_loader_lists_them() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \tlibx.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), [Path::new("/lib/x86_64-linux-gnu/libc.so.6")]);
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn reading_keeps_to_its_budget() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, vec![1; 100_000]).unwrap();
        assert_eq!(read(&file, u64::MAX), 100_000);
        assert_eq!(read(&file, 99_999), 0);
        assert_eq!(read(dir.path(), u64::MAX), 0);
        assert_eq!(read(Path::new("/nowhere"), u64::MAX), 0);
    }
}
