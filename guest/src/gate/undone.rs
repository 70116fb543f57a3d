//! What in the files of an image gives its name or id to every child again, at each boot.

use super::{Findings, finding};
use crate::root::{FileError, Root};
use ramet_proto::message::Grade;

/// The settings of sysctl.d(5): where, which, what. Keys are spelled with dots.
pub(super) fn sysctls(root: &Root) -> Result<Vec<(String, String, String)>, FileError> {
    let mut files = vec!["etc/sysctl.conf".to_owned()];
    for directory in ["etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d"] {
        files.extend(root.names(directory)?.into_iter().map(|file| format!("{directory}/{file}")));
    }
    let mut found = Vec::new();
    for path in files {
        for line in root.read_lossy(&path).ok().flatten().unwrap_or_default().lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let key = key.trim().trim_start_matches('-').replace('/', ".");
            if !key.starts_with(['#', ';']) {
                found.push((path.clone(), key, value.trim().to_owned()));
            }
        }
    }
    Ok(found)
}

/// sysctl.d(5) may set the name, and does so after systemd has read /etc/hostname.
pub(super) fn by_sysctl(root: &Root) -> Findings {
    let names = sysctls(root)?.into_iter().filter(|(_, key, _)| key == "kernel.hostname");
    Ok(names
        .map(|(path, _, value)| {
            let what =
                format!("/{path} sets kernel.hostname: every child would be {value} again after a reboot");
            finding(Grade::Fatal, what, "take the line out; /etc/hostname is each child's own")
        })
        .collect())
}

/// tmpfiles.d(5) may write files at each boot, before the gate.
pub(super) fn by_tmpfiles(root: &Root) -> Findings {
    const FILES: [&str; 4] =
        ["/etc/hostname", "/etc/machine-id", "/proc/sys/kernel/hostname", "/etc/machine-info"];
    let mut found = Vec::new();
    for directory in ["etc/tmpfiles.d", "run/tmpfiles.d", "usr/local/lib/tmpfiles.d", "usr/lib/tmpfiles.d"] {
        for file in root.names(directory)?.iter().filter(|file| file.rsplit('.').next() == Some("conf")) {
            let path = format!("{directory}/{file}");
            for line in root.read_lossy(&path).ok().flatten().unwrap_or_default().lines() {
                let mut words = line.split_ascii_whitespace();
                let (Some(kind), Some(to)) = (words.next(), words.next()) else { continue };
                // Others only make what is not there.
                let overwrites = kind.starts_with(['w', 'F', 'r', 'R', 'D']) || kind.contains('+');
                if overwrites && FILES.contains(&to.trim_matches('"')) {
                    let what = format!(
                        "/{path} writes {to} at each boot: every child would be the template again after a reboot"
                    );
                    found.push(finding(Grade::Fatal, what, "take the line out"));
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Image;
    use super::*;

    #[test]
    fn a_name_that_is_written_at_each_boot_is_fatal() {
        let image = Image::new();
        image.file(
            "etc/sysctl.d/9.conf",
            "# kernel.hostname = no\nvm.swappiness=1\n-kernel/hostname = golden\n",
        );
        let found = by_sysctl(&image.root).unwrap();
        let what =
            "/etc/sysctl.d/9.conf sets kernel.hostname: every child would be golden again after a reboot";
        assert!(matches!(&found[..], [f] if f.grade == Grade::Fatal && f.what.as_str() == what), "{found:?}");
    }

    #[test]
    fn tmpfiles_that_overwrite_are_told_from_those_that_fill_gaps() {
        let image = Image::new();
        image.file(
            "usr/lib/tmpfiles.d/a.conf",
            "f /etc/hostname 0644 - - - golden\nL /etc/machine-id\nd /run/x\n",
        );
        assert!(by_tmpfiles(&image.root).unwrap().is_empty());
        image.file(
            "etc/tmpfiles.d/b.conf",
            "f+ /etc/hostname 0644 - - - golden\nw /etc/machine-id - - - - 0123\n",
        );
        let found = by_tmpfiles(&image.root).unwrap();
        assert_eq!(found.len(), 2);
        assert!(
            found.iter().all(|f| f.grade == Grade::Fatal && f.what.as_str().contains("b.conf writes /etc/"))
        );
    }
}
