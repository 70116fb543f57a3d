//! `/etc/krb5.keytab`, the keys of the machine's account, in the format of MIT krb5 ("The keytab file format", version
//! 0x0502): of each entry its size, the principal's components and realm, name type, time, version and key; all numbers
//! big-endian. A negative size is a hole.

use super::ApplyError;
use crate::root::Root;
use ramet_proto::{Secret, domain::DomainEvidence, text::Text};
use zeroize::Zeroizing;

/// What krb5.conf(5), `default_keytab_name`, is if nobody sets it.
pub(super) const PATH: &str = "etc/krb5.keytab";

const VERSION: [u8; 2] = [5, 2];

const FORM: &str = "it is no keytab of version 0x0502, or it is cut off";

pub(super) fn remove(root: &Root) -> Result<(), ApplyError> {
    root.remove(PATH)?;
    Ok(())
}

/// Writes the keytab that the host sent, if it is one.
pub(super) fn write(keytab: &Secret, root: &Root) -> Result<(), ApplyError> {
    let bytes = keytab.expose();
    first(bytes).map_err(|why| ApplyError::Malformed(format!("the keytab in the identity: {why}")))?;
    // Nobody's mode or link is to be kept: a new file is made.
    root.remove(PATH)?;
    Ok(root.replace(PATH, bytes, 0o600)?)
}

/// The principal and the version of the first key there is.
pub(super) fn read(root: &Root) -> Result<Option<DomainEvidence>, ApplyError> {
    let Some(bytes) = root.read(PATH)?.map(Zeroizing::new) else { return Ok(None) };
    first(&bytes).map_err(|why| ApplyError::Mismatch(format!("/{PATH}: {why}")))
}

/// The first entry of a keytab.
fn first(bytes: &[u8]) -> Result<Option<DomainEvidence>, &'static str> {
    let mut rest = Rest(bytes.strip_prefix(&VERSION).ok_or(FORM)?);
    while !rest.0.is_empty() {
        let size = i32::from_be_bytes(rest.array().ok_or(FORM)?);
        let length = usize::try_from(size.unsigned_abs()).map_err(|_| FORM)?;
        let entry = rest.bytes(length).ok_or(FORM)?;
        if size > 0 {
            return entry_of(Rest(entry)).map(Some).ok_or(FORM);
        }
        if size == 0 {
            return Err(FORM);
        }
    }
    Ok(None)
}

fn entry_of(mut entry: Rest<'_>) -> Option<DomainEvidence> {
    let count = u16::from_be_bytes(entry.array()?);
    let realm = entry.counted()?;
    let mut principal = Vec::new();
    for n in 0..count {
        if n > 0 {
            principal.push(b'/');
        }
        principal.extend_from_slice(entry.counted()?);
    }
    principal.push(b'@');
    principal.extend_from_slice(realm);
    let _name_type = entry.bytes(4)?;
    let _time = entry.bytes(4)?;
    let [short] = entry.array()?;
    let _key_type = entry.bytes(2)?;
    let _key = entry.counted()?;
    // A longer version follows if there is room and it is not zero.
    let kvno = match entry.array().map(u32::from_be_bytes) {
        None | Some(0) => u32::from(short),
        Some(long) => long,
    };
    Some(DomainEvidence { principal: Text::new(&String::from_utf8_lossy(&principal)), kvno })
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// Bytes after their number.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = u16::from_be_bytes(self.array()?);
        self.bytes(usize::from(count))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An entry as MIT's ktutil(1) writes it.
    fn entry(components: &[&str], realm: &str, short: u8, long: Option<u32>) -> Vec<u8> {
        let counted = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let mut body = u16::try_from(components.len()).unwrap().to_be_bytes().to_vec();
        body.extend(counted(realm.as_bytes()));
        body.extend(components.iter().flat_map(|component| counted(component.as_bytes())));
        body.extend([0, 0, 0, 1, 0x65, 0, 0, 0, short, 0, 18]);
        body.extend(counted(&[7; 32]));
        body.extend(long.iter().flat_map(|long| long.to_be_bytes()));
        [&i32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    /// A keytab of `name`$@`realm`.
    pub(in crate::apply::domain) fn keytab(name: &str, realm: &str, kvno: u32) -> Vec<u8> {
        let short = u8::try_from(kvno % 256).unwrap();
        [
            &VERSION[..],
            &entry(&[&format!("{name}$")], realm, short, Some(kvno)),
            &entry(&["host", &name.to_lowercase()], realm, short, Some(kvno)),
        ]
        .concat()
    }

    #[test]
    fn the_first_entry_counts() {
        let shown = |bytes: &[u8]| first(bytes).unwrap().map(|one| (one.principal.to_string(), one.kvno));
        let account = Some(("WEB-1$@AD.EXAMPLE.ORG".to_owned(), 300));
        assert_eq!(shown(&keytab("WEB-1", "AD.EXAMPLE.ORG", 300)), account);
        let hole = [&VERSION[..], &(-3_i32).to_be_bytes(), b"xyz", &keytab("A", "R", 2)[2..]].concat();
        assert_eq!(shown(&hole), Some(("A$@R".into(), 2)));
        assert_eq!(shown(&VERSION), None, "no entry");
        for (long, kvno) in [(None, 7), (Some(0), 7), (Some(9), 9)] {
            let bytes = [&VERSION[..], &entry(&["host", "a.b"], "R", 7, long)].concat();
            assert_eq!(shown(&bytes), Some(("host/a.b@R".into(), kvno)));
        }
    }

    #[test]
    fn what_is_cut_off_is_none() {
        let whole = [&VERSION[..], &entry(&["A$"], "R", 1, None)].concat();
        for end in (0..VERSION.len()).chain(VERSION.len() + 1..whole.len()) {
            assert_eq!(first(&whole[..end]), Err(FORM), "{end} bytes");
        }
        let long = [&VERSION[..], &[0, 0, 0, 6, 0, 1, 0xff, 0xff, 0, 0]].concat();
        for bad in
            [&b"\x05\x01"[..], b"\x05\x02\0\0\0\0", b"\x05\x02\x80\0\0\0", b"\x05\x02\x7f\xff\xff\xff", &long]
        {
            assert_eq!(first(bad), Err(FORM), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = first(&[&VERSION[..], &bytes].concat());
        }
    }
}
