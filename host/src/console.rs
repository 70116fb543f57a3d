//! What a guest wrote to its console.

use ramet_proto::text::Text;
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

/// How much of the end of a log is looked at.
const WINDOW: u64 = 16 * 1024;

/// What the agent's lines on a console begin with.
const AGENT: &str = "ramet-agent: ";

/// The last `lines` lines of a log that are not blank, safe to show whatever the guest wrote. Empty if there is none.
/// The agent's last word is among them, however much the rest of a shutdown had to say after it.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> Vec<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut tail: Vec<String> = text
        .lines()
        .rev()
        .map(|line| Text::new(&without_escapes(line)).as_str().trim_end().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    let word = tail.iter().position(|line| line.starts_with(AGENT));
    if let Some(place) = word.filter(|place| (1..=*place).contains(&lines)) {
        tail.swap(lines - 1, place);
    }
    tail.truncate(lines);
    tail.reverse();
    tail
}

/// `line` without terminal control sequences (ECMA-48, CSI and OSC).
fn without_escapes(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\x1b' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('[') => {
                chars.by_ref().find(|c| ('\x40'..='\x7e').contains(c));
            }
            Some(']') => {
                chars.by_ref().find(|&c| c == '\x07' || c == '\\');
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_safe_to_show() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("console.log");
        std::fs::write(&log, "one\r\n\x1b[0;1;39mtwo\x1b[0m\n\n\x1b]0;title\x07three\x08\n\u{fffd}\n")
            .unwrap();
        assert_eq!(tail(&log, 2), ["three", "\u{fffd}"]);
        assert_eq!(tail(&log, 9), ["one", "two", "three", "\u{fffd}"]);
        assert!(tail(&dir.path().join("none"), 9).is_empty());

        std::fs::write(&log, "ramet-agent: old\nramet-agent: why\n1\n2\n3\n").unwrap();
        assert_eq!(tail(&log, 2), ["ramet-agent: why", "3"]);
        assert_eq!(tail(&log, 4), ["ramet-agent: why", "1", "2", "3"]);
        assert!(tail(&log, 0).is_empty());
    }
}
