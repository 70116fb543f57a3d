//! Text from a peer that is not trusted, and hexadecimal.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// One line of text, at most [`Text::MAX`] bytes and without control characters, so that a hostile guest cannot
/// reach the terminal or the log that shows it. Whatever is too much is cut or replaced, never refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// The most bytes kept.
    pub const MAX: usize = 512;

    /// `text` made safe to show.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut safe = String::new();
        for c in text.chars() {
            let c = if is_control(c) { ' ' } else { c };
            if safe.len() + c.len_utf8() > Self::MAX {
                break;
            }
            safe.push(c);
        }
        Self(safe)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters, and those that reorder or hide what a terminal shows.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

/// `bytes` as lower-case hexadecimal.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hex
}

/// The bytes that `hex` stands for; `None` if it is not an even number of hexadecimal digits.
#[must_use]
pub fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    // Sized at once: the bytes may be secret, and a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    for &[high, low] in pairs {
        bytes.push(digit(high)? << 4 | digit(low)?);
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_survive() {
        assert_eq!(Text::new("a\x1b[2Jb\nc\u{202e}d").as_str(), "a [2Jb c d");
        let parsed: Text = serde_json::from_str(r#""x\u0007y""#).unwrap();
        assert_eq!(parsed.as_str(), "x y");
        assert_eq!(Text::new("\u{61c}\u{2060}\u{feff}\u{e0041}").as_str(), "    ");
        assert_eq!(Text::new("\u{115f}\u{3164}\u{ffa0}\u{fff9}\u{fffb}").as_str(), "     ");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let text = Text::new(&"é".repeat(Text::MAX));
        assert_eq!(text.as_str().len(), Text::MAX);
    }

    #[test]
    fn hexadecimal_both_ways() {
        assert_eq!(to_hex(&[0, 0xab]), "00ab");
        assert_eq!(from_hex("00AB"), Some(vec![0, 0xab]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("+1"), None);
        assert_eq!(from_hex("éé"), None);
    }
}
