//! Active Directory: computer accounts, and what a guest needs to be one of them.
//!
//! ```text
//!   domain.toml ──► Config ──► Directory::connect ──► Domain            what all members must know
//!                                   │
//!                                   ├─ create, reset ──► DomainAccount  who one of them is
//!                                   │      ▲
//!                    password::random ┴────┘
//!
//!                                      ┌─► keytab()                     for Kerberos
//!   Domain + DomainAccount + password  ┴─► offline_join()               for Samba and Windows; both: identity()
//! ```
//!
//! Accounts are made over LDAP with TLS by a user who may do so in one organizational unit. No guest ever has that user's
//! password, and none talks to a domain controller to join: a child is given what it would have if it had joined.

mod account;
mod config;
mod connect;
mod directory;
mod entry;
mod keytab;
mod ndr;
mod odj;
pub mod password;
mod tls;

pub use account::{AccountError, Found};
pub use config::{Config, ConfigError, InvalidServer, PasswordSource, Server};
pub use connect::{BindRefusal, ConnectError, ServerError};
pub use directory::{Directory, Domain, DomainController, RequestError};
pub use keytab::keytab;
pub use odj::{OfflineJoinError, offline_join};
pub use tls::{AuthorityError, Distrust};

use ramet_proto::{
    Secret,
    domain::{DomainAccount, DomainIdentity},
};

/// All that a guest needs to be `account`, which has `password`. `unix_time` is when, in seconds since
/// 1970-01-01T00:00:00Z.
pub fn identity(
    domain: &Domain,
    account: DomainAccount,
    password: &Secret,
    unix_time: u32,
) -> Result<DomainIdentity, OfflineJoinError> {
    let join = offline_join(domain, &account, password)?;
    Ok(DomainIdentity { keytab: keytab(&account, password, unix_time), join, account })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn account() -> DomainAccount {
        DomainAccount {
            realm: "AD.EXAMPLE.ORG".parse().unwrap(),
            workgroup: "EXAMPLE".parse().unwrap(),
            name: "vdi-1".parse().unwrap(),
            sid: "S-1-5-21-1-2-3-1104".parse().unwrap(),
            kvno: 1,
            dc: "dc1.ad.example.org".parse().unwrap(),
            persistent: false,
        }
    }

    pub(super) fn domain() -> Domain {
        Domain {
            realm: "AD.EXAMPLE.ORG".parse().unwrap(),
            workgroup: "EXAMPLE".parse().unwrap(),
            sid: "S-1-5-21-1-2-3".parse().unwrap(),
            guid: "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap(),
            forest: "example.org".parse().unwrap(),
            controller: DomainController {
                name: "dc1.ad.example.org".parse().unwrap(),
                address: [192, 0, 2, 1].into(),
                site: Some("Default-First-Site-Name".to_owned()),
                global_catalog: true,
            },
        }
    }
}
