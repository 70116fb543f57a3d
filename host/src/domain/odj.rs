//! Offline domain join: all that a machine must know of its domain and of its account, in the form that Windows' `djoin
//! /requestodj` and Samba's `net offlinejoin requestodj` read.
//!
//! ```text
//! ODJ_PROVISION_DATA        version 1, two blobs
//!  ├ ODJ_WIN7BLOB           what Windows 7 reads: domain, name, password, SID, a domain controller
//!  └ OP_PACKAGE             what later ones read: parts, not encrypted
//!     ├ ODJ_WIN7BLOB        the same again
//!     └ OP_JOINPROV3_PART   the account's SID
//! ```
//!
//! Source: Microsoft, "Offline Domain Join IDL Definitions" (Win32, Network Management). Samba reads what it wants from
//! the first blob, and the account's relative id from the last part.

use super::{
    directory::{Domain, DomainController},
    ndr::{self, Ndr},
};
use base64ct::{Base64, Encoding as _};
use ramet_proto::{
    Secret, Sid,
    domain::{DomainAccount, NetbiosName, Realm},
};
use uuid::{Uuid, uuid};
use zeroize::Zeroizing;

/// The part of a package that is an `ODJ_WIN7BLOB`.
const JOIN_PROVIDER: Uuid = uuid!("631c7621-5289-4321-bc9e-80f843f868c3");

/// The part of a package that is an `OP_JOINPROV3_PART`.
const JOIN_PROVIDER_3: Uuid = uuid!("fc0ccf25-7ffa-474a-8611-69ffe269645f");

/// There is no offline join.
#[derive(Debug, thiserror::Error)]
pub enum OfflineJoinError {
    /// The account is somewhere else.
    #[error(
        "the account {name} ({sid}) is not of the domain {realm} ({domain}): what is kept of the two does not go together"
    )]
    OtherDomain {
        /// The account's name.
        name: NetbiosName,
        /// Its SID.
        sid: Sid,
        /// The domain.
        realm: Realm,
        /// Its SID.
        domain: Sid,
    },
    /// The password holds what a domain cannot have.
    #[error("the password of {0} is not UTF-8")]
    Password(NetbiosName),
}

/// The text file that joins a machine as `account` with `password`: base64 in UTF-16 with a byte order mark and a NUL, as
/// `djoin` writes it.
pub fn offline_join(
    domain: &Domain,
    account: &DomainAccount,
    password: &Secret,
) -> Result<Secret, OfflineJoinError> {
    let data = provision_data(domain, account, password)?;
    let text = Zeroizing::new(Base64::encode_string(&data));
    let mut file = Vec::with_capacity(2 * text.len() + 4);
    file.extend([0xff, 0xfe]);
    file.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    Ok(Secret::new(file))
}

fn provision_data(
    domain: &Domain,
    account: &DomainAccount,
    password: &Secret,
) -> Result<Zeroizing<Vec<u8>>, OfflineJoinError> {
    let name = || account.name.clone();
    let password = std::str::from_utf8(password.expose()).map_err(|_| OfflineJoinError::Password(name()))?;
    let in_domain = account.sid.in_domain().filter(|(sid, _)| *sid == domain.sid);
    let (_, rid) = in_domain.ok_or_else(|| OfflineJoinError::OtherDomain {
        name: name(),
        sid: account.sid.clone(),
        realm: domain.realm.clone(),
        domain: domain.sid.clone(),
    })?;
    let machine = win7_blob(domain, account, password);
    let package = package(&machine, &account_part(account, rid));
    let blobs = [(1, &machine), (2, &package)];
    let mut ndr = Ndr::new();
    ndr.pointer();
    ndr.u32(1); // ulVersion
    ndr.u32(2); // ulcBlobs
    ndr.pointer();
    ndr.u32(2);
    for (format, blob) in blobs {
        ndr.u32(format);
        ndr.u32(ndr::length(blob));
        ndr.pointer();
    }
    for (_, blob) in blobs {
        ndr.byte_array(blob);
    }
    Ok(ndr.serialize())
}

/// `ODJ_WIN7BLOB`.
fn win7_blob(domain: &Domain, account: &DomainAccount, password: &str) -> Zeroizing<Vec<u8>> {
    /// What Windows sets, though it is documented as reserved.
    const OPTIONS: u32 = 6;
    let dns_domain = domain.realm.dns_domain();
    let (workgroup, forest) = (domain.workgroup.as_str(), domain.forest.to_string());
    let mut ndr = Ndr::new();
    // To the structure itself, the domain, the machine's name, its password.
    (0..4).for_each(|_| ndr.pointer());
    let names = [workgroup, &dns_domain, &forest];
    for name in names {
        ndr.unicode_string(name);
    }
    ndr.guid(&domain.guid);
    ndr.pointer(); // the domain's SID
    let controller = Controller::new(&domain.controller, &dns_domain, &forest);
    controller.fixed_part(&mut ndr, &domain.guid);
    ndr.u32(OPTIONS);
    for text in [&dns_domain, account.name.as_str(), password] {
        ndr.string(text);
    }
    for name in names {
        ndr.unicode_string_buffer(name);
    }
    ndr.sid(&domain.sid);
    controller.strings(&mut ndr);
    ndr.serialize()
}

/// `DOMAIN_CONTROLLER_INFO` (dsgetdc.h).
struct Controller<'a> {
    unc: String,
    address: String,
    domain: &'a str,
    forest: &'a str,
    flags: u32,
    site: Option<&'a str>,
}

impl<'a> Controller<'a> {
    fn new(controller: &'a DomainController, domain: &'a str, forest: &'a str) -> Self {
        /// It is a directory server with LDAP and Kerberos, and can be written; its names are DNS names.
        const FLAGS: u32 = 0x8 | 0x10 | 0x20 | 0x100 | 0x2000_0000 | 0x4000_0000 | 0x8000_0000;
        const GLOBAL_CATALOG: u32 = 0x4;
        Self {
            unc: format!("\\\\{}", controller.name),
            address: format!("\\\\{}", controller.address),
            domain,
            forest,
            flags: FLAGS | if controller.global_catalog { GLOBAL_CATALOG } else { 0 },
            site: controller.site.as_deref(),
        }
    }

    fn fixed_part(&self, ndr: &mut Ndr, domain_guid: &Uuid) {
        /// `DS_INET_ADDRESS`.
        const IP: u32 = 1;
        ndr.pointer();
        ndr.pointer();
        ndr.u32(IP);
        ndr.guid(domain_guid);
        ndr.pointer();
        ndr.pointer();
        ndr.u32(self.flags);
        ndr.pointer_to(self.site);
        // The client's site: only its address tells, and that is not known yet.
        ndr.null();
    }

    fn strings(&self, ndr: &mut Ndr) {
        let names = [&self.unc, &self.address, self.domain, self.forest];
        names.into_iter().chain(self.site).for_each(|text| ndr.string(text));
    }
}

/// `OP_JOINPROV3_PART`.
fn account_part(account: &DomainAccount, rid: u32) -> Zeroizing<Vec<u8>> {
    let mut ndr = Ndr::new();
    ndr.pointer();
    ndr.u32(rid);
    ndr.pointer();
    ndr.string(&account.sid.to_string());
    ndr.serialize()
}

/// `OP_PACKAGE`, with the two parts.
fn package(machine: &[u8], account: &[u8]) -> Zeroizing<Vec<u8>> {
    let collection = part_collection(&[(JOIN_PROVIDER, ESSENTIAL, machine), (JOIN_PROVIDER_3, 0, account)]);
    let mut ndr = Ndr::new();
    ndr.pointer();
    ndr.guid(&Uuid::nil()); // EncryptionType: none
    empty_blob(&mut ndr); // EncryptionContext
    ndr.u32(ndr::length(&collection)); // WrappedPartCollection
    ndr.pointer();
    ndr.u32(0); // cbDecryptedPartCollection
    empty_blob(&mut ndr); // Extension
    ndr.byte_array(&collection);
    ndr.serialize()
}

/// `OPSPI_PACKAGE_PART_ESSENTIAL`: who cannot read this part must not join.
const ESSENTIAL: u32 = 1;

/// `OP_PACKAGE_PART_COLLECTION`.
fn part_collection(parts: &[(Uuid, u32, &[u8])]) -> Zeroizing<Vec<u8>> {
    let count = u32::try_from(parts.len()).expect("two");
    let mut ndr = Ndr::new();
    ndr.pointer();
    ndr.u32(count);
    ndr.pointer();
    empty_blob(&mut ndr); // Extension
    ndr.u32(count);
    for (kind, flags, part) in parts {
        ndr.guid(kind);
        ndr.u32(*flags);
        ndr.u32(ndr::length(part));
        ndr.pointer();
        empty_blob(&mut ndr); // Extension
    }
    for (_, _, part) in parts {
        ndr.byte_array(part);
    }
    ndr.serialize()
}

/// An `OP_BLOB` of nothing.
fn empty_blob(ndr: &mut Ndr) {
    ndr.u32(0);
    ndr.null();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::{account, domain};

    fn password() -> Secret {
        Secret::new("pässword".as_bytes().to_vec())
    }

    #[test]
    fn the_text_is_base64_in_utf16_with_a_mark_and_a_nul() {
        let file = offline_join(&domain(), &account(), &password()).unwrap();
        let (mark, text) = file.expose().split_at(2);
        assert_eq!(mark, [0xff, 0xfe]);
        let units = text.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let text: String = char::decode_utf16(units).map(Result::unwrap).collect();
        let text = text.strip_suffix('\0').unwrap();
        let data = provision_data(&domain(), &account(), &password()).unwrap();
        assert_eq!(Base64::decode_vec(text).unwrap(), *data);
    }

    /// Compared with what Samba 4.22's `net offlinejoin composeodj` makes of the same; host/tests/directory.rs has Samba
    /// take another.
    #[test]
    fn the_bytes_are_those_that_samba_takes() {
        let data = provision_data(&domain(), &account(), &password()).unwrap();
        let golden = include_bytes!("odj.golden");
        assert_eq!(*data, golden, "{}", ramet_proto::text::to_hex(&data));
    }

    #[test]
    fn an_account_of_another_domain_is_refused() {
        let other = DomainAccount { sid: "S-1-5-21-1-2-4-1104".parse().unwrap(), ..account() };
        let error = offline_join(&domain(), &other, &password()).unwrap_err();
        assert!(matches!(error, OfflineJoinError::OtherDomain { .. }), "{error}");
        let error = offline_join(&domain(), &account(), &Secret::new(vec![0xff])).unwrap_err();
        assert!(matches!(error, OfflineJoinError::Password(_)), "{error}");
    }

    #[test]
    fn all_of_it_fits_without_growing() {
        let mut domain = domain();
        domain.forest = vec!["x".repeat(63); 3].join(".").parse().unwrap();
        let password = Secret::new(vec![b'x'; 120]);
        let data = provision_data(&domain, &account(), &password).unwrap();
        assert!(data.len() <= 4096, "{}", data.len());
    }
}
