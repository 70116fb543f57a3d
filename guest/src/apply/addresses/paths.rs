//! Paths in the settings of network services.

use crate::root::{FileError, Root};

/// How many symbolic links one path may lead through (`path_resolution(7)`).
const LINKS: usize = 40;

/// `path`, which `file` names, below the root, without `.`, `..` and double slashes. One that does not begin with a slash
/// is beside `file`.
pub(super) fn beside(file: &str, path: &str) -> String {
    let mut parts = Vec::new();
    if !path.starts_with('/') {
        parts.extend(file.rsplit_once('/').map_or("", |(directory, _)| directory).split('/'));
    }
    parts.extend(path.split('/'));
    let mut clean: Vec<&str> = Vec::new();
    for part in parts {
        match part {
            "" | "." => {}
            ".." => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean.join("/")
}

/// What is at `path` once symbolic links in the place of a file are followed: the file that has to be edited.
pub(super) fn real(root: &Root, path: &str) -> Result<String, FileError> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match root.link(&path)? {
            Some(to) => path = beside(&path, &to),
            None => break,
        }
    }
    Ok(path)
}

/// Whether `name` ends in a dot and `kind`.
pub(super) fn is_kind(name: &str, kind: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_beside_a_file() {
        for (path, expected) in [
            ("interfaces.d/*", "etc/network/interfaces.d/*"),
            ("/etc//network/./x", "etc/network/x"),
            ("../site/x", "etc/site/x"),
            ("../../../../x", "x"),
        ] {
            assert_eq!(beside("etc/network/interfaces", path), expected);
        }
    }
}
