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

/// Writes the keytab that the host sent, if it is one, also to where `more` says that it is looked for.
pub(super) fn write<'a>(
    keytab: &Secret,
    root: &Root,
    more: impl Iterator<Item = &'a String>,
) -> Result<(), ApplyError> {
    let bytes = keytab.expose();
    entries(bytes).map_err(|why| ApplyError::Malformed(format!("the keytab in the identity: {why}")))?;
    for path in std::iter::once(PATH).chain(more.map(String::as_str)) {
        // Nobody's mode or link is to be kept: a new file is made.
        root.remove(path)?;
        root.replace(path, bytes, 0o600)?;
    }
    Ok(())
}

/// The principals in the keytab that the host sent, each once.
pub(super) fn principals(keytab: &Secret) -> Result<Vec<String>, ApplyError> {
    let entries = entries(keytab.expose())
        .map_err(|why| ApplyError::Malformed(format!("the keytab in the identity: {why}")))?;
    let mut principals = Vec::new();
    for one in entries {
        if !principals.contains(&one.principal) {
            principals.push(one.principal);
        }
    }
    Ok(principals)
}

/// The account's principal and the highest version of its keys. Programs that change its password add entries, at the
/// end or at the beginning, and leave old ones for a while.
pub(super) fn read(root: &Root) -> Result<Option<DomainEvidence>, ApplyError> {
    let Some(bytes) = root.read(PATH)?.map(Zeroizing::new) else { return Ok(None) };
    account(&bytes).map_err(|why| ApplyError::Mismatch(format!("/{PATH}: {why}")))
}

/// The account that a keytab is of: the first principal that is an account's own, or the first there is.
fn account(bytes: &[u8]) -> Result<Option<DomainEvidence>, &'static str> {
    let entries = entries(bytes)?;
    let Some(first) = entries.iter().find(|one| one.is_account()).or(entries.first()) else {
        return Ok(None);
    };
    let versions = entries.iter().filter(|one| one.principal == first.principal).map(|one| one.kvno);
    let kvno = versions.max().unwrap_or(first.kvno);
    Ok(Some(DomainEvidence { principal: Text::new(&first.principal), kvno }))
}

/// One key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) principal: String,
    kvno: u32,
    pub(super) key: &'a [u8],
}

impl Entry<'_> {
    /// Whether its principal is the account's own (`NAME$@REALM`), not a service's.
    fn is_account(&self) -> bool {
        self.principal.split_once('@').is_some_and(|(name, _)| name.ends_with('$') && !name.contains('/'))
    }

    /// Whether who holds it is a machine: its account, or what its own services go by.
    pub(super) fn is_machine(&self) -> bool {
        let service = self.principal.split_once('/').map(|(service, _)| service.to_ascii_lowercase());
        self.is_account() || service.is_some_and(|service| matches!(&*service, "host" | "restrictedkrbhost"))
    }
}

/// The entries of a keytab.
pub(super) fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, &'static str> {
    let mut rest = Rest(bytes.strip_prefix(&VERSION).ok_or(FORM)?);
    let mut entries = Vec::new();
    while !rest.0.is_empty() {
        let size = i32::from_be_bytes(rest.array().ok_or(FORM)?);
        let length = usize::try_from(size.unsigned_abs()).map_err(|_| FORM)?;
        let entry = rest.bytes(length).ok_or(FORM)?;
        match size {
            1.. => entries.push(entry_of(Rest(entry)).ok_or(FORM)?),
            0 => return Err(FORM),
            _ => {}
        }
    }
    Ok(entries)
}

fn entry_of(mut entry: Rest<'_>) -> Option<Entry<'_>> {
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
    let key = entry.counted()?;
    // A longer version follows if there is room and it is not zero.
    let kvno = match entry.array().map(u32::from_be_bytes) {
        None | Some(0) => u32::from(short),
        Some(long) => long,
    };
    Some(Entry { principal: String::from_utf8_lossy(&principal).into_owned(), kvno, key })
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

    /// A keytab with one key, of the principal with these components.
    pub(in crate::apply::domain) fn keytab_of(components: &[&str], realm: &str) -> Vec<u8> {
        [&VERSION[..], &entry(components, realm, 1, None)].concat()
    }

    /// An entry as MIT's ktutil(1) writes it; all have the same key but those of other services.
    fn entry(components: &[&str], realm: &str, short: u8, long: Option<u32>) -> Vec<u8> {
        let counted = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let mut body = u16::try_from(components.len()).unwrap().to_be_bytes().to_vec();
        body.extend(counted(realm.as_bytes()));
        body.extend(components.iter().flat_map(|component| counted(component.as_bytes())));
        body.extend([0, 0, 0, 1, 0x65, 0, 0, 0, short, 0, 18]);
        let other = components.len() > 1 && components[1] == "other";
        body.extend(counted(&[if other { 8 } else { 7 }; 32]));
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
    fn the_accounts_highest_version_counts_wherever_it_stands() {
        let realm = "AD.EXAMPLE.ORG";
        let (host, old) = (entry(&["host", "web-1"], realm, 9, None), entry(&["WEB-1$"], realm, 3, None));
        let new = entry(&["WEB-1$"], realm, 5, Some(5));
        for order in [[&host, &old, &new], [&new, &host, &old], [&old, &new, &host]] {
            let bytes = [&VERSION[..], order[0], order[1], order[2]].concat();
            let shown = account(&bytes).unwrap().unwrap();
            assert_eq!((shown.principal.as_str(), shown.kvno), ("WEB-1$@AD.EXAMPLE.ORG", 5));
        }
    }

    #[test]
    fn a_key_of_the_machine_is_known_by_its_principal() {
        for (components, is) in [
            (&["WEB-1$"][..], true),
            (&["host", "web-1.example.org"], true),
            (&["HOST", "web-1"], true),
            (&["RestrictedKrbHost", "web-1"], true),
            (&["HTTP", "web-1$"], false),
            (&["jane"], false),
        ] {
            let bytes = [&VERSION[..], &entry(components, "R", 1, None)].concat();
            assert_eq!(entries(&bytes).unwrap()[0].is_machine(), is, "{components:?}");
        }
    }

    #[test]
    fn an_entry_is_read_as_mit_krb5_reads_it() {
        let shown = |bytes: &[u8]| account(bytes).unwrap().map(|one| (one.principal.to_string(), one.kvno));
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
            assert_eq!(account(&whole[..end]), Err(FORM), "{end} bytes");
        }
        let long = [&VERSION[..], &[0, 0, 0, 6, 0, 1, 0xff, 0xff, 0, 0]].concat();
        for bad in
            [&b"\x05\x01"[..], b"\x05\x02\0\0\0\0", b"\x05\x02\x80\0\0\0", b"\x05\x02\x7f\xff\xff\xff", &long]
        {
            assert_eq!(account(bad), Err(FORM), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = account(&[&VERSION[..], &bytes].concat());
        }
    }
}
