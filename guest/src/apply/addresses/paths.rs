//! Paths and shell patterns in the settings of network services (glob(7)).

use crate::root::{FileError, Root};

/// How many symbolic links one path may lead through (`path_resolution(7)`).
const LINKS: usize = 40;

/// Whether `text` fits `pattern`: `*`, `?`, `[abc]`, `[!a-z]`, and `\` before a character that stands for itself
/// (fnmatch(3)). A bracket that is not closed is one.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<_> = pattern.chars().collect();
    let text: Vec<_> = text.chars().collect();
    // Where to go on with one character more for the last `*`.
    let (mut p, mut t, mut again) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            again = Some((p, t));
            continue;
        }
        match one(&pattern[p..], text[t]) {
            Some(length) => (p, t) = (p + length, t + 1),
            None => match again {
                Some((star, from)) => {
                    (p, t) = (star, from + 1);
                    again = Some((star, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How much of `pattern` stands for the character `c`, if its beginning does.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' if pattern.len() > 1 => (pattern[1] == c).then_some(2),
        '[' => {
            let negated = matches!(pattern.get(1), Some('!' | '^'));
            let first = 1 + usize::from(negated);
            // A bracket that comes first is one of the set.
            let length = pattern.iter().skip(first + 1).position(|c| *c == ']').map(|n| first + 1 + n);
            let Some(end) = length else { return (c == '[').then_some(1) };
            let (set, mut found, mut n) = (&pattern[first..end], false, 0);
            while n < set.len() {
                if n + 2 < set.len() && set[n + 1] == '-' {
                    found |= (set[n]..=set[n + 2]).contains(&c);
                    n += 3;
                } else {
                    found |= set[n] == c;
                    n += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        other => (*other == c).then_some(1),
    }
}

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

/// The paths that fit the pattern `pattern`, sorted. A name that begins with a dot only fits a pattern that does. What
/// cannot be looked at has nothing in it, as for the shell.
pub(super) fn expand(root: &Root, pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in found {
            let join = |name: &str| if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(join(part));
                continue;
            }
            let names = root.names(if base.is_empty() { "." } else { &base }).unwrap_or_default();
            let seen = |name: &&String| !name.starts_with('.') || part.starts_with('.');
            next.extend(names.iter().filter(seen).filter(|name| fits(part, name)).map(|name| join(name)));
        }
        found = next;
    }
    found.retain(|path| root.exists(path).unwrap_or(false));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_shell() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*.cfg", "lan.cfg", true),
            ("*.cfg", "lan.cfg~", false),
            ("e*s?", "ens2", true),
            ("en*s*2*", "enp0s25", true),
            ("en[ps]2", "ens2", true),
            ("en[!ps]2", "ens2", false),
            ("en[a-t]2", "ens2", true),
            ("[]x]", "]", true),
            ("a[b", "a[b", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

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
