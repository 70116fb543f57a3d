//! Patterns for names and paths, as the shell has them (glob(7)). Bytes, as programs compare them.

use crate::root::{FileError, Root};
use nix::errno::Errno;

/// The most paths that one pattern stands for; what is past them is left out.
const MOST: usize = 4096;

/// Whether `text` fits `pattern`: `*`, `?`, `[abc]`, `[!a-z]`, and `\` before a character that stands for itself.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    wild(pattern.as_bytes(), text.as_bytes(), true)
}

/// The paths in `root` that fit `pattern`, in their order. A name that begins with a dot only fits a pattern that does. What
/// is no directory has nothing in it.
pub(crate) fn expand(root: &Root, pattern: &str) -> Result<Vec<String>, FileError> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in found {
            let join = |name: &str| if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
            if !part.contains(['*', '?', '[', '\\']) {
                next.push(join(part));
                continue;
            }
            let names = match root.names(if base.is_empty() { "." } else { &base }) {
                Err(error) if error.is(Errno::ENOTDIR) || error.is(Errno::ELOOP) => Vec::new(),
                names => names?,
            };
            let seen = |name: &&String| !name.starts_with('.') || part.starts_with('.');
            next.extend(names.iter().filter(seen).filter(|name| fits(part, name)).map(|name| join(name)));
            next.truncate(MOST);
        }
        found = next;
    }
    let mut there = Vec::new();
    for path in found {
        if !path.is_empty() && root.exists(&path)? {
            there.push(path);
        }
    }
    Ok(there)
}

/// Whether `pattern` with `*` and `?` fits `text`; with `sets`, also `[…]` and a backslash, as in glob(7).
pub(crate) fn wild(pattern: &[u8], text: &[u8], sets: bool) -> bool {
    // Where the last star was, and how much of the text it had then: enough to go back to (no recursion).
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') if sets => set(&pattern[p..], text[t]),
            Some(b'\\') if sets && p + 1 < pattern.len() => (pattern[p + 1] == text[t]).then_some(2),
            Some(byte) => (*byte == text[t]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(step), _) => (p, t) = (p + step, t + 1),
            (None, Some((after, had))) => {
                star = Some((after, had + 1));
                (p, t) = (after, had + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

/// How long the set at the beginning of `pattern` is, if `byte` is in it. One that does not end is a bracket.
fn set(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let Some(end) = (first + 1..pattern.len()).find(|n| pattern[*n] == b']') else {
        return (byte == b'[').then_some(1);
    };
    let (mut n, mut found) = (first, false);
    while n < end {
        if n + 2 < end && pattern[n + 1] == b'-' {
            found |= (pattern[n]..=pattern[n + 2]).contains(&byte);
            n += 3;
        } else {
            found |= pattern[n] == byte;
            n += 1;
        }
    }
    (found != negated).then_some(end + 1)
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
}
