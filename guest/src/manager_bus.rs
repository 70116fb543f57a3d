//! One question to the service manager, over the socket it has for root alone (`/run/systemd/private`), which speaks D-Bus
//! (D-Bus Specification, "Authentication Protocol", "Message Protocol"). systemctl(1) would ask the same; starting it takes
//! a tenth of all that an identity takes, and a D-Bus library is larger than the agent.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

const SOCKET: &str = "/run/systemd/private";

/// The most bytes of an answer.
const MAX_ANSWER: u32 = 64 << 10;

/// Types of messages.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// The description of `unit`, which is loaded for that.
pub(crate) fn description(unit: &str, limit: Duration) -> io::Result<String> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // As user 0, whose number is written as hexadecimal digits of its letters.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n")?;
    stream.write_all(&call(unit))?;
    let mut answers = BufReader::new(stream);
    let mut line = Vec::new();
    answers.by_ref().take(512).read_until(b'\n', &mut line)?;
    if !line.starts_with(b"OK ") {
        return Err(io::Error::other("the service manager does not let this program ask"));
    }
    // What it says besides is about nothing that was asked.
    for _ in 0..16 {
        let (kind, body) = message(&mut answers)?;
        match kind {
            RETURN => return text(&body).ok_or_else(malformed),
            ERROR => return Err(io::Error::other("the service manager answers with an error")),
            _ => {}
        }
    }
    Err(malformed())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the service manager's answer cannot be read")
}

/// `Get` of the property `Description`, in this machine's order of bytes, which is little-endian on all that the agent runs
/// on.
fn call(unit: &str) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, "org.freedesktop.systemd1.Unit");
    string(&mut body, "Description");
    let mut fields = Vec::new();
    let path = format!("/org/freedesktop/systemd1/unit/{}", label(unit));
    for (code, signature, value) in [
        (1, b'o', path.as_str()),
        (2, b's', "org.freedesktop.DBus.Properties"),
        (3, b's', "Get"),
        (6, b's', "org.freedesktop.systemd1"),
    ] {
        pad(&mut fields, 8);
        fields.extend([code, 1, signature, 0]);
        string(&mut fields, value);
    }
    pad(&mut fields, 8);
    fields.extend([8, 1, b'g', 0, 2, b's', b's', 0]);

    let mut message = vec![b'l', CALL, 0, 1];
    for number in [body.len(), 1, fields.len()] {
        message.extend(u32::try_from(number).unwrap_or_default().to_le_bytes());
    }
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

/// A string: its length, its bytes, a zero.
fn string(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend(u32::try_from(text.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// A unit's name as a part of an object's path: all but letters and digits by their number (`bus_label_escape` of systemd).
fn label(unit: &str) -> String {
    unit.bytes().enumerate().fold(String::new(), |text, (n, byte)| match byte {
        b'0'..=b'9' if n == 0 => text + &format!("_{byte:02x}"),
        byte if byte.is_ascii_alphanumeric() => text + &char::from(byte).to_string(),
        byte => text + &format!("_{byte:02x}"),
    })
}

/// The next message: its type and its body.
fn message(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let number =
        |at: usize| head[at..at + 4].iter().rev().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let (body, fields) = (number(4), number(12));
    if head[0] != b'l' || body > MAX_ANSWER || fields > MAX_ANSWER {
        return Err(malformed());
    }
    let mut rest = vec![0; (fields.next_multiple_of(8) + body) as usize];
    stream.read_exact(&mut rest)?;
    Ok((head[1], rest.split_off(fields.next_multiple_of(8) as usize)))
}

/// The string in a variant.
fn text(body: &[u8]) -> Option<String> {
    let rest = body.strip_prefix(b"\x01s\0\0")?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let text = rest.get(..u32::from_le_bytes(*length) as usize)?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_call_has_the_form_of_the_specification() {
        let call = call("ramet-probe.service");
        assert_eq!(&call[..4], [b'l', CALL, 0, 1]);
        let (kind, body) = message(&mut &call[..]).unwrap();
        assert_eq!((kind, body.len()), (CALL, 4 + 30 + 2 + 4 + 12));
        let shown = String::from_utf8_lossy(&call);
        assert!(shown.contains("/org/freedesktop/systemd1/unit/ramet_2dprobe_2eservice\0"), "{shown}");
    }

    #[test]
    fn a_string_is_found_in_a_variant() {
        assert_eq!(text(b"\x01s\0\0\x02\0\0\0ab\0").as_deref(), Some("ab"));
        for bad in [&b""[..], b"\x01u\0\0\x02\0\0\0ab\0", b"\x01s\0\0\xff\0\0\0ab\0", b"\x01s\0\0\x02\0"] {
            assert_eq!(text(bad), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _ = message(&mut &bytes[..]);
            let _ = text(&bytes);
        }
    }
}
