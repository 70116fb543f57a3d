//! Passwords of computer accounts.

use ramet_proto::Secret;
use zeroize::Zeroizing;

/// How many characters: as many as Windows gives its own computers. They hold 784 random bits.
const LENGTH: usize = 120;

/// A new password: printable ASCII without `"`, in which Active Directory wraps a password that is set over LDAP, drawn
/// evenly from the system's random numbers (getrandom(2)).
///
/// # Panics
///
/// If the kernel has no random numbers, which it has, once booted.
#[must_use]
pub fn random() -> Secret {
    let mut password = Vec::with_capacity(LENGTH);
    let mut bytes = Zeroizing::new([0; 256]);
    while password.len() < LENGTH {
        getrandom::fill(&mut *bytes).expect("the kernel has random numbers (getrandom(2))");
        // Bytes that are no allowed character are thrown away, so that the others stay equally likely.
        let allowed = bytes.iter().copied().filter(|byte| is_allowed(*byte));
        password.extend(allowed.take(LENGTH - password.len()));
    }
    Secret::new(password)
}

fn is_allowed(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'~')
}

/// The value of `unicodePwd` that sets `password`: in quotation marks and UTF-16, little-endian (MS-ADTS, section
/// 3.1.1.3.1.5). `None` if the password is not UTF-8.
pub(super) fn to_unicode_pwd(password: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(password.expose()).ok()?;
    let quoted = Zeroizing::new(["\"", text, "\""].concat());
    // Sized at once: a vector that grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(2 * quoted.len()));
    value.extend(quoted.encode_utf16().flat_map(u16::to_le_bytes));
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn passwords_are_long_printable_and_different() {
        let passwords: Vec<Secret> = (0..50).map(|_| random()).collect();
        for password in &passwords {
            assert_eq!(password.expose().len(), LENGTH);
            assert!(password.expose().iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"'));
        }
        let different: HashSet<&[u8]> = passwords.iter().map(Secret::expose).collect();
        assert_eq!(different.len(), passwords.len());
        // 6000 characters of 93: one that is never drawn would be missing from the alphabet.
        let drawn: HashSet<u8> = passwords.iter().flat_map(Secret::expose).copied().collect();
        assert_eq!(drawn.len(), 93);
    }

    #[test]
    fn what_is_sent_is_quoted_and_in_utf16() {
        let value = to_unicode_pwd(&Secret::new("aé".as_bytes().to_vec())).unwrap();
        assert_eq!(*value, b"\"\0a\0\xe9\0\"\0");
        assert!(to_unicode_pwd(&Secret::new(vec![0xff])).is_none());
    }
}
