//! A key's value in a file of settings, found and replaced as bytes. All else stays as it was.

use crate::apply::hostname::own_name::Renaming;
use std::ops::Range;

/// Where a key is looked for.
#[derive(Clone, Copy)]
pub(super) enum Key {
    /// At the start of a line: `key=value`, `key: value`, `key "value"`.
    Line(&'static str),
    /// Anywhere in a line that is no comment: an option of modprobe.d(5), a member of JSON.
    Inline(&'static str),
}

/// The lines of `bytes`, each with its place.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    bytes.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let start = at;
        at += line.len();
        (start, line)
    })
}

fn is_comment(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start().first(), None | Some(b'#' | b';' | b'%'))
        || line.trim_ascii_start().starts_with(b"//")
}

/// Whether a line that is no comment has `text`.
pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    lines(bytes).any(|(_, line)| {
        !is_comment(line) && line.windows(text.len()).any(|w| w.eq_ignore_ascii_case(text.as_bytes()))
    })
}

/// Where in `line` the value begins of the `key` at `at`, or `None` if this is another word.
fn after(line: &[u8], at: usize, key: &str) -> Option<usize> {
    let end = at + key.len();
    if !line.get(at..end)?.eq_ignore_ascii_case(key.as_bytes()) {
        return None;
    }
    let space =
        |from: usize| from + line[from..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut value = space(end);
    let separated = matches!(line.get(value), Some(b'=' | b':'));
    if separated {
        value = space(value + 1);
    }
    (separated || value > end).then_some(value)
}

/// Where in `line` the rest of the line begins that is the key's.
fn place(line: &[u8], key: Key) -> Option<usize> {
    if is_comment(line) {
        return None;
    }
    match key {
        Key::Line(key) => after(line, line.len() - line.trim_ascii_start().len(), key),
        Key::Inline(key) => {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            (0..line.len())
                .filter(|at| *at == 0 || !is_word(&line[at - 1]))
                .find_map(|at| after(line, at, key))
        }
    }
}

/// Where the values of `key` are.
pub(super) fn values(bytes: &[u8], key: &Key) -> Vec<Range<usize>> {
    let value = |(start, line): (usize, &[u8])| {
        let from = place(line, *key)?;
        let rest = &line[from..];
        let (from, rest, quote) = match rest.first() {
            Some(quote @ (b'"' | b'\'')) => (from + 1, &rest[1..], Some(*quote)),
            _ => (from, rest, None),
        };
        let is_end = |byte: &u8| match quote {
            Some(quote) => *byte == quote || *byte == b'\n',
            None => byte.is_ascii_whitespace() || matches!(byte, b',' | b';' | b'}'),
        };
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        Some(start + from..start + from + length)
    };
    lines(bytes).filter_map(value).collect()
}

/// `bytes` with `value` for `key`, wherever it has one.
pub(super) fn set(bytes: &[u8], key: &Key, value: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len() + value.len()), 0);
    for range in values(bytes, key) {
        out.extend(&bytes[at..range.start]);
        out.extend(value);
        at = range.end;
    }
    out.extend(&bytes[at..]);
    out
}

/// `bytes` with the child's name for each of the template's that is a word in a line of one of `keys`, or in any line if
/// there are none. A line that begins with white space goes on with the one before it if they are `folded` (postconf(5)).
pub(super) fn rename(bytes: &[u8], keys: &[&'static str], folded: bool, to: &Renaming) -> Vec<u8> {
    let (mut out, mut within) = (Vec::with_capacity(bytes.len()), false);
    for (_, line) in lines(bytes) {
        if is_comment(line) {
            out.extend(line);
            continue;
        }
        let goes_on = folded && within && matches!(line.first(), Some(b' ' | b'\t'));
        let from = if keys.is_empty() || goes_on {
            Some(0)
        } else {
            keys.iter().find_map(|key| place(line, Key::Line(key)))
        };
        within = from.is_some();
        match from {
            None => out.extend(line),
            Some(from) => {
                out.extend(&line[..from]);
                words(&line[from..], to, &mut out);
            }
        }
    }
    out
}

/// Adds `bytes` to `out`, with other names.
fn words(bytes: &[u8], to: &Renaming, out: &mut Vec<u8>) {
    let is_word =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || byte >= 0x80;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'#' {
            break;
        }
        let length = bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
        if length == 0 {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let word = &bytes[at..at + length];
        // A part of a path or a variable is no name of a machine.
        let of_path =
            at > 0 && matches!(bytes[at - 1], b'/' | b'$' | b'{') || bytes.get(at + length) == Some(&b'/');
        let renamed = std::str::from_utf8(word).ok().filter(|_| !of_path).and_then(|word| to.renamed(word));
        out.extend(renamed.as_deref().map_or(word, str::as_bytes));
        at += length;
    }
    out.extend(&bytes[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_is_found_in_every_form() {
        for (text, key, after) in [
            ("#ID=x\nID=\"x\" # c\n", Key::Line("ID"), "#ID=x\nID=\"N\" # c\n"),
            ("  id : x\r\n", Key::Line("ID"), "  id : N\r\n"),
            ("\tsecret \"x\";\n", Key::Line("secret"), "\tsecret \"N\";\n"),
            ("oldEngineID 0x80\n", Key::Line("oldEngineID"), "oldEngineID N\n"),
            ("IDS=x\nMYID=x\nID", Key::Line("ID"), "IDS=x\nMYID=x\nID"),
            ("{\"uuid\":\"x\",\"a\":1}", Key::Inline("\"uuid\""), "{\"uuid\":\"N\",\"a\":1}"),
            ("options nfs a=1 id=x b=2", Key::Inline("id"), "options nfs a=1 id=N b=2"),
            ("ID=", Key::Line("ID"), "ID=N"),
        ] {
            let once = set(text.as_bytes(), &key, b"N");
            assert_eq!(String::from_utf8_lossy(&once), after);
            assert_eq!(set(&once, &key, b"N"), once, "twice");
        }
    }

    #[test]
    fn names_are_renamed_where_they_are_values_and_nowhere_else() {
        let to = Renaming::new(["parent".to_owned()], &"child".parse().unwrap());
        let before = b"# parent\nmyhostname = parent.example.org # parent\nmydestination = $myhostname, parent,\n    parent.example.org,\n    \
            localhost\nother = parent\n key = /etc/parent parent:25 grandparent B\xfcro\n";
        let after = b"# parent\nmyhostname = child.example.org # parent\nmydestination = $myhostname, child,\n    child.example.org,\n    \
            localhost\nother = parent\n key = /etc/parent child:25 grandparent B\xfcro\n";
        assert_eq!(
            String::from_utf8_lossy(&rename(before, &["myhostname", "mydestination", "key"], true, &to)),
            String::from_utf8_lossy(after)
        );
        assert_eq!(rename(b"parent.example.org", &[], false, &to), b"child.example.org");
    }

    proptest! {
        #[test]
        fn twice_is_once_and_the_rest_stays(text in "([ \\t]?(id|parent|#|key|B\\PC)[ =:\"',;]{0,3}(parent|x)?\n?){0,12}") {
            let to = Renaming::new(["parent".to_owned()], &"child".parse().unwrap());
            let bytes = text.as_bytes();
            for keys in [&[][..], &["id", "key"]] {
                let once = rename(bytes, keys, true, &to);
                prop_assert_eq!(&rename(&once, keys, true, &to), &once);
                let undone = String::from_utf8(once).unwrap().replace("child", "parent");
                prop_assert_eq!(undone, text.clone());
            }
            for key in [Key::Line("id"), Key::Inline("key")] {
                let once = set(bytes, &key, b"N");
                prop_assert_eq!(&set(&once, &key, b"N"), &once);
                prop_assert_eq!(lines(bytes).count(), lines(&once).count());
            }
        }
    }
}
