//! The agent's own lines in a file that is the image's otherwise.

const BEGIN: &str = "# ramet-agent begin: written anew for each individual";
const END: &str = "# ramet-agent end";

/// Where a setting has to stand to count if it is given twice.
#[derive(Clone, Copy)]
pub(super) enum Counts {
    /// MIT krb5 takes the first.
    First,
    /// Samba takes the last.
    Last,
}

/// `text` with `lines` as the agent's own, in place of those it has; without any if there are none.
pub(super) fn with(text: &str, lines: &str, counts: Counts) -> String {
    let rest = without(text);
    if lines.is_empty() {
        return rest;
    }
    let own = format!("{BEGIN}\n{lines}{END}\n");
    match counts {
        Counts::First => own + &rest,
        Counts::Last if rest.is_empty() || rest.ends_with('\n') => rest + &own,
        Counts::Last => rest + "\n" + &own,
    }
}

fn without(text: &str) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let begin = lines.iter().position(|line| line.trim_end() == BEGIN);
    if let Some(begin) = begin
        && let Some(length) = lines[begin..].iter().position(|line| line.trim_end() == END)
    {
        lines.drain(begin..=begin + length);
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_are_added_replaced_and_removed() {
        for text in ["", "a\n", "[global]\n\tx = 1\n\n[share]\n\tpath = /\n"] {
            for counts in [Counts::First, Counts::Last] {
                let one = with(text, "b\n", counts);
                assert_eq!(one.len(), text.len() + BEGIN.len() + END.len() + 4);
                assert_eq!(with(&one, "b\n", counts), one, "twice");
                assert!(with(&one, "c\nd\n", counts).contains("\nc\nd\n"));
                assert_eq!(with(&one, "", counts), text);
            }
        }
        assert!(with("a\n", "b\n", Counts::First).ends_with("\na\n"));
        assert!(with("a\n", "b\n", Counts::Last).starts_with("a\n#"));
        assert!(with("a", "b\n", Counts::Last).starts_with("a\n#"), "a last line that does not end");
        let half = format!("{BEGIN}\na\n");
        assert_eq!(with(&half, "", Counts::First), half, "whose lines these are is not known");
    }
}
