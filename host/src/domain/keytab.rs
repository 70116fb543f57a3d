//! Keytab files.
//!
//! Format: MIT krb5, "The keytab file format", version 0x0502, all numbers big-endian. Keys: RFC 3962, from the
//! account's password and the salt that Active Directory gives a computer (MS-KILE, section 3.1.1.2).

use aes::{
    Aes128, Aes256,
    cipher::{Array, BlockCipherEncrypt, KeyInit},
};
use ramet_proto::{Secret, domain::DomainAccount};
use sha1::Sha1;
use zeroize::Zeroizing;

/// The rounds of PBKDF2 when nothing else is said (RFC 3962, section 6), as domain controllers do.
const ROUNDS: u32 = 4096;

/// The encryption types of the keys (RFC 3962, section 7): AES-256 first, as the better one.
const ENCRYPTION_TYPES: [EncryptionType; 2] = [EncryptionType::Aes256, EncryptionType::Aes128];

#[derive(Clone, Copy)]
enum EncryptionType {
    Aes128,
    Aes256,
}

impl EncryptionType {
    /// Its number: `aes128-cts-hmac-sha1-96`, `aes256-cts-hmac-sha1-96`.
    fn number(self) -> u16 {
        match self {
            Self::Aes128 => 17,
            Self::Aes256 => 18,
        }
    }

    /// The key for a password (RFC 3962, section 4).
    fn key(self, password: &[u8], salt: &[u8], rounds: u32) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Aes128 => derive::<Aes128, 16>(password, salt, rounds),
            Self::Aes256 => derive::<Aes256, 32>(password, salt, rounds),
        }
    }
}

/// `DK(PBKDF2(password, salt), "kerberos")`: what PBKDF2 makes is the key under which the folded constant is encrypted,
/// its cipher text again for the next block (RFC 3961, section 5.1). CBC with a zero vector is that, block by block.
fn derive<Cipher: KeyInit + BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>, const LEN: usize>(
    password: &[u8],
    salt: &[u8],
    rounds: u32,
) -> Zeroizing<Vec<u8>> {
    /// `128-fold("kerberos")` (RFC 3961, appendix A.1).
    const FOLDED: [u8; 16] = *b"kerberos\x7b\x9b\x5b\x2b\x93\x13\x2b\x93";
    let intermediate = Zeroizing::new(pbkdf2::pbkdf2_hmac_array::<Sha1, LEN>(password, salt, rounds));
    let cipher = Cipher::new_from_slice(&*intermediate).expect("PBKDF2 makes as much as the cipher takes");
    let mut key = Zeroizing::new(Vec::with_capacity(LEN));
    let mut block = Array(FOLDED);
    while key.len() < LEN {
        cipher.encrypt_block(&mut block);
        key.extend_from_slice(&block);
    }
    key
}

/// The keytab of `account`, which has `password`: its own principal first, then those it is a service under.
///
/// `unix_time` is noted as the time of the keys' making, in seconds since 1970-01-01T00:00:00Z. This takes some
/// milliseconds: PBKDF2 is slow by design.
///
/// # Panics
///
/// Never: what has to be short is, by its type.
#[must_use]
pub fn keytab(account: &DomainAccount, password: &Secret, unix_time: u32) -> Secret {
    let salt = salt(account);
    let keys = ENCRYPTION_TYPES.map(|kind| (kind, kind.key(password.expose(), salt.as_bytes(), ROUNDS)));
    // Sized at once: a vector that grows leaves copies of keys behind.
    let mut file = Vec::with_capacity(4096);
    file.extend(0x0502_u16.to_be_bytes());
    for principal in principals(account) {
        for (kind, key) in &keys {
            let head = entry_head(account, &principal, unix_time, *kind);
            // The key's length, the key, the version.
            let size = head.len() + 2 + key.len() + 4;
            file.extend(u32::try_from(size).expect("names are short").to_be_bytes());
            file.extend(head);
            counted(&mut file, key);
            file.extend(account.kvno.to_be_bytes());
        }
    }
    debug_assert!(file.len() <= 4096, "names are short");
    Secret::new(file)
}

/// An entry up to its key.
fn entry_head(
    account: &DomainAccount,
    principal: &[String],
    unix_time: u32,
    kind: EncryptionType,
) -> Vec<u8> {
    /// `KRB5_NT_PRINCIPAL` (RFC 4120, section 6.2).
    const NT_PRINCIPAL: u32 = 1;
    let mut head = Vec::new();
    head.extend(u16::try_from(principal.len()).expect("one or two").to_be_bytes());
    counted(&mut head, account.realm.to_string().as_bytes());
    for component in principal {
        counted(&mut head, component.as_bytes());
    }
    head.extend(NT_PRINCIPAL.to_be_bytes());
    head.extend(unix_time.to_be_bytes());
    // The version was a byte once; what counts are the 32 bits at the entry's end.
    head.push(account.kvno.to_be_bytes()[3]);
    head.extend(kind.number().to_be_bytes());
    head
}

fn counted(file: &mut Vec<u8>, bytes: &[u8]) {
    file.extend(u16::try_from(bytes.len()).expect("keys and names are short").to_be_bytes());
    file.extend_from_slice(bytes);
}

/// The components of each principal.
fn principals(account: &DomainAccount) -> Vec<Vec<String>> {
    let short = account.name.as_str().to_ascii_lowercase();
    let mut principals = vec![vec![format!("{}$", account.name)]];
    for service in ["host", "RestrictedKrbHost"] {
        for host in [account.fqdn(), short.clone()] {
            principals.push(vec![service.to_owned(), host]);
        }
    }
    principals
}

/// What Active Directory salts a computer's keys with: `REALMhostname.domain`.
fn salt(account: &DomainAccount) -> String {
    format!("{}host{}", account.realm, account.fqdn())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::account;
    use ramet_proto::text::to_hex;

    /// RFC 3962, appendix B.
    #[test]
    fn keys_are_those_of_the_rfc() {
        let x64 = "X".repeat(64);
        let x65 = "X".repeat(65);
        let odd_salt = [0x12, 0x34, 0x56, 0x78, 0x78, 0x56, 0x34, 0x12];
        let pass = "pass phrase equals block size";
        let exceeds = "pass phrase exceeds block size";
        for (rounds, password, salt, aes128, aes256) in [
            (
                1,
                "password",
                &b"ATHENA.MIT.EDUraeburn"[..],
                "42263c6e89f4fc28b8df68ee09799f15",
                "fe697b52bc0d3ce14432ba036a92e65bbb52280990a2fa27883998d72af30161",
            ),
            (
                2,
                "password",
                b"ATHENA.MIT.EDUraeburn",
                "c651bf29e2300ac27fa469d693bdda13",
                "a2e16d16b36069c135d5e9d2e25f896102685618b95914b467c67622225824ff",
            ),
            (
                1200,
                "password",
                b"ATHENA.MIT.EDUraeburn",
                "4c01cd46d632d01e6dbe230a01ed642a",
                "55a6ac740ad17b4846941051e1e8b0a7548d93b0ab30a8bc3ff16280382b8c2a",
            ),
            (
                5,
                "password",
                &odd_salt,
                "e9b23d52273747dd5c35cb55be619d8e",
                "97a4e786be20d81a382d5ebc96d5909cabcdadc87ca48f574504159f16c36e31",
            ),
            (
                1200,
                &x64,
                pass.as_bytes(),
                "59d1bb789a828b1aa54ef9c2883f69ed",
                "89adee3608db8bc71f1bfbfe459486b05618b70cbae22092534e56c553ba4b34",
            ),
            (
                1200,
                &x65,
                exceeds.as_bytes(),
                "cb8005dc5f90179a7f02104c0018751d",
                "d78c5c9cb872a8c9dad4697f0bb5b2d21496c82beb2caeda2112fceea057401b",
            ),
            (
                50,
                "\u{1d11e}",
                b"EXAMPLE.COMpianist",
                "f149c1f2e154a73452d43e7fe62a56e5",
                "4b6d9839f84406df1f09cc166db4b83c571848b784a3d6bdc346589a3e393f9e",
            ),
        ] {
            for (kind, expected) in [(EncryptionType::Aes128, aes128), (EncryptionType::Aes256, aes256)] {
                let key = kind.key(password.as_bytes(), salt, rounds);
                assert_eq!(to_hex(&key), expected, "{rounds} rounds of {password}");
            }
        }
    }

    #[test]
    fn the_salt_is_the_host_principal_in_one_word() {
        assert_eq!(salt(&account()), "AD.EXAMPLE.ORGhostvdi-1.ad.example.org");
    }

    #[test]
    fn the_accounts_own_principal_comes_first() {
        let principals: Vec<String> = principals(&account()).iter().map(|parts| parts.join("/")).collect();
        assert_eq!(
            principals,
            [
                "VDI-1$",
                "host/vdi-1.ad.example.org",
                "host/vdi-1",
                "RestrictedKrbHost/vdi-1.ad.example.org",
                "RestrictedKrbHost/vdi-1",
            ]
        );
    }

    #[test]
    fn the_first_entry_byte_by_byte() {
        let account = DomainAccount { kvno: 0x0102, ..account() };
        let file = keytab(&account, &Secret::new(b"secret".to_vec()), 0x0304_0506);
        let key = EncryptionType::Aes256.key(b"secret", salt(&account).as_bytes(), ROUNDS);
        let mut expected = b"\x05\x02\x00\x00\x00\x4b\x00\x01\x00\x0eAD.EXAMPLE.ORG\x00\x06VDI-1$".to_vec();
        expected.extend(b"\x00\x00\x00\x01\x03\x04\x05\x06\x02\x00\x12\x00\x20");
        expected.extend(&*key);
        expected.extend(b"\x00\x00\x01\x02");
        assert_eq!(expected.len(), 2 + 4 + 0x4b);
        assert_eq!(file.expose()[..expected.len()], expected);
    }
}
