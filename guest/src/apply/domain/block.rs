//! The agent's own lines in a file that is the image's otherwise. Files are bytes: what is not the agent's is carried through
//! as it is.

const BEGIN: &str = "# ramet-agent begin: written anew for each individual";

/// What a line that begins the block ends with if the agent had to end the line before it.
const JOINED: [&str; 3] = ["", " (after an end of line)", " (after two ends of lines)"];

const END: &str = "# ramet-agent end";

/// Some programs pass over it at the beginning of a file, and only there (MIT krb5, `prof_parse.c`).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a setting has to stand to count if it is given twice.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counts {
    /// MIT krb5 takes the first.
    First,
    /// Samba takes the last.
    Last,
}

/// `bytes` with `lines` as the agent's own, in place of those it has; without any if there are none.
pub(super) fn with(bytes: &[u8], lines: &str, counts: Counts) -> Vec<u8> {
    let rest = without(bytes);
    if lines.is_empty() {
        return rest;
    }
    let ends = match counts {
        Counts::First => 0,
        Counts::Last => ends_missing(&rest),
    };
    let own = format!("{BEGIN}{}\n{lines}{END}\n", JOINED[ends]);
    match counts {
        Counts::First => {
            let (mark, rest) = rest.split_at(mark(&rest));
            [mark, own.as_bytes(), rest].concat()
        }
        Counts::Last => [&rest, "\n".repeat(ends).as_bytes(), own.as_bytes()].concat(),
    }
}

/// How many ends of lines there have to be before another line can follow. A last line may have none, and one that ends in a
/// backslash goes on in the next (smb.conf(5), "FILE FORMAT").
fn ends_missing(bytes: &[u8]) -> usize {
    let (last, ended) = match bytes.strip_suffix(b"\n") {
        None if bytes.is_empty() => return 0,
        None => (bytes, 0),
        Some(last) => (last, 1),
    };
    let goes_on = last.trim_ascii_end().ends_with(b"\\");
    1 + usize::from(goes_on) - ended
}

/// The length of the mark that `bytes` begin with.
fn mark(bytes: &[u8]) -> usize {
    if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
}

/// `bytes` without any lines of the agent's. A beginning without an end is left: whose lines follow it is not known.
fn without(bytes: &[u8]) -> Vec<u8> {
    let (mark, text) = bytes.split_at(mark(bytes));
    let mut kept = mark.to_vec();
    // Where `kept` ended when the last beginning was found, and how many ends of lines before that are the agent's.
    let mut begun = None;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let plain = line.trim_ascii_end();
        if let Some(ends) = joined(plain) {
            begun = Some((kept.len(), ends));
        } else if plain == END.as_bytes()
            && let Some((at, ends)) = begun.take()
        {
            let before = &kept[..at];
            let own = before.iter().rev().take(ends).take_while(|byte| **byte == b'\n').count();
            kept.truncate(at - own);
            continue;
        }
        kept.extend_from_slice(line);
    }
    kept
}

/// How many ends of lines belong to the block that `line` begins, if it begins one.
fn joined(line: &[u8]) -> Option<usize> {
    let rest = line.strip_prefix(BEGIN.as_bytes())?;
    JOINED.iter().position(|joined| joined.as_bytes() == rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Counts; 2] = [Counts::First, Counts::Last];

    #[test]
    fn own_lines_are_added_replaced_and_removed() {
        for text in ["", "a\n", "[global]\n\tx = 1\n\n[share]\n\tpath = /\n"] {
            for counts in BOTH {
                let one = with(text.as_bytes(), "b\n", counts);
                assert_eq!(one.len(), text.len() + BEGIN.len() + END.len() + 4);
                assert_eq!(with(&one, "b\n", counts), one, "twice");
                let other = String::from_utf8(with(&one, "c\nd\n", counts)).unwrap();
                assert!(other.contains("\nc\nd\n") && !other.contains("b\n"), "{other}");
                assert_eq!(with(&one, "", counts), text.as_bytes());
            }
        }
        assert!(with(b"a\n", "b\n", Counts::First).ends_with(b"\na\n"));
        assert!(with(b"a\n", "b\n", Counts::Last).starts_with(b"a\n#"));
        let half = format!("{BEGIN}\na\n");
        assert_eq!(
            with(half.as_bytes(), "", Counts::First),
            half.as_bytes(),
            "whose lines these are is not known"
        );
        let later = with(half.as_bytes(), "b\n", Counts::Last);
        assert_eq!(
            with(&later, "", Counts::Last),
            half.as_bytes(),
            "a half block takes no line of others with it"
        );
        let windows = with(b"a\r\n", "b\n", Counts::Last);
        let edited = String::from_utf8(windows).unwrap().replace('\n', "\r\n").replace("\r\r", "\r");
        assert_eq!(with(edited.as_bytes(), "", Counts::Last), b"a\r\n");
    }

    #[test]
    fn lines_that_do_not_end_or_go_on_stay_apart_from_the_agents() {
        for (text, expected) in [
            (&b"a"[..], &b"a\n#"[..]),
            (b"a = b \\", b"a = b \\\n\n#"),
            (b"a = b \\\n", b"a = b \\\n\n#"),
            (b"a = b \\ \r\n", b"a = b \\ \r\n\n#"),
            (b"a\n\n", b"a\n\n#"),
        ] {
            let after = with(text, "b\n", Counts::Last);
            assert!(after.starts_with(expected), "{}", after.escape_ascii());
            assert_eq!(with(&after, "b\n", Counts::Last), after);
            assert_eq!(with(&after, "", Counts::Last), text);
        }
    }

    #[test]
    fn a_byte_order_mark_stays_where_it_is() {
        let text = b"\xef\xbb\xbf[libdefaults]\n";
        let after = with(text, "b\n", Counts::First);
        assert!(after.starts_with(b"\xef\xbb\xbf# ramet-agent begin"));
        assert_eq!(with(&after, "c\n", Counts::First), with(text, "c\n", Counts::First));
        assert_eq!(with(&after, "", Counts::First), text);
    }

    fn file() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            Just(b"\n".to_vec()),
            Just(b"\\".to_vec()),
            Just(b"\xef\xbb\xbf".to_vec()),
            Just(b"[global]\n\tworkgroup = B\xfcro\n".to_vec()),
            Just(format!("{END}\n").into_bytes()),
        ];
        proptest::collection::vec(line, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn twice_is_once_and_removing_gives_back_every_byte(
            bytes in file(),
            first in any::<bool>(),
            lines in "([a-z =]{1,9}\n){1,3}",
        ) {
            let counts = BOTH[usize::from(first)];
            let once = with(&bytes, &lines, counts);
            prop_assert_eq!(with(&once, &lines, counts), once.clone());
            prop_assert_eq!(with(&with(&once, "x\n", counts), &lines, counts), once.clone());
            prop_assert_eq!(with(&once, "", counts), bytes);
        }
    }
}
