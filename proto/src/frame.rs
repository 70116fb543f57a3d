//! Frames: a big-endian `u32` length, then that many bytes of JSON, one message.
//!
//! The length is checked against [`MAX_BODY`] before a byte of the body is read or allocated, since either peer
//! may be hostile. "Not all here yet" is not an error: [`decode`] answers `None` for it.

use crate::text::Text;
use serde::{
    Serialize,
    de::{DeserializeOwned, Error as _},
};

/// Bytes of a frame's length field.
pub const HEADER: usize = 4;

/// The largest body accepted or sent, in bytes. An identity with a hundred NICs is under 16 KiB.
pub const MAX_BODY: usize = 64 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is over [`MAX_BODY`] or zero; the stream cannot be trusted any further.
    #[error("a frame of {0} bytes (allowed: 1 to {MAX_BODY})")]
    Length(usize),
    /// The body is not the message that was expected.
    #[error("a frame that is not a known message")]
    Body(#[source] serde_json::Error),
}

/// The length of the body that follows `header`, once it is found acceptable.
pub fn body_len(header: [u8; HEADER]) -> Result<usize, FrameError> {
    check_len(u32::from_be_bytes(header) as usize)
}

/// The message in one frame's body.
pub fn decode_body<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    // serde quotes an unknown word as the peer wrote it, escape sequences and all.
    let safe = |error: serde_json::Error| serde_json::Error::custom(Text::new(&error.to_string()));
    serde_json::from_slice(body).map_err(|error| FrameError::Body(safe(error)))
}

/// The first message in `bytes` and the number of bytes it took, or `None` while it is incomplete.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<Option<(M, usize)>, FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let len = body_len(*header)?;
    let Some(body) = rest.get(..len) else { return Ok(None) };
    Ok(Some((decode_body(body)?, HEADER + len)))
}

/// `message` as one frame. What is secret in the message is in the clear in the frame.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message).map_err(FrameError::Body)?;
    let len = check_len(bytes.len() - HEADER)?;
    let header = u32::try_from(len).map_err(|_| FrameError::Length(len))?.to_be_bytes();
    bytes[..HEADER].copy_from_slice(&header);
    Ok(bytes)
}

fn check_len(len: usize) -> Result<usize, FrameError> {
    if (1..=MAX_BODY).contains(&len) { Ok(len) } else { Err(FrameError::Length(len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_over_the_cap_is_refused_before_the_body_arrives() {
        for header in [[0xff; 4], [0, 1, 0, 1], [0; 4]] {
            assert!(matches!(decode::<String>(&header), Err(FrameError::Length(_))), "{header:?}");
        }
        assert_eq!(body_len([0, 1, 0, 0]).unwrap(), MAX_BODY);
    }

    #[test]
    fn incomplete_is_not_an_error() {
        let bytes = encode(&"hello").unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<String>(&bytes[..end]).unwrap().is_none(), "{end} bytes");
        }
        assert_eq!(decode::<String>(&bytes).unwrap(), Some(("hello".into(), bytes.len())));
    }

    #[test]
    fn an_error_shows_nothing_that_reaches_the_terminal() {
        let long = "x".repeat(10_000);
        for word in [r"\u001b[2J\u202e", long.as_str()] {
            let body = format!(r#"{{"type":"{word}"}}"#);
            let FrameError::Body(error) = decode_body::<crate::HostMessage>(body.as_bytes()).unwrap_err()
            else {
                panic!("not an error of the body")
            };
            let shown = error.to_string();
            assert!(shown.starts_with("unknown variant"), "{shown:?}");
            assert!(!shown.contains(['\u{1b}', '\u{202e}']) && shown.len() < 600, "{shown:?}");
        }
    }

    #[test]
    fn a_message_over_the_cap_is_not_sent() {
        assert!(matches!(encode(&"x".repeat(MAX_BODY)), Err(FrameError::Length(_))));
    }
}
