//! A connection to a domain controller, and what is asked over it.

use super::{
    config::{Config, Server},
    connect::{self, ConnectError},
    entry::Entry,
};
use ldap3::{
    Ldap, LdapError, LdapResult, Scope,
    adapters::{Adapter, EntriesOnly, PagedResults},
};
use ramet_proto::{
    Secret, Sid,
    domain::{NetbiosName, Realm},
    network::DomainName,
    text::Text,
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};
use uuid::Uuid;

/// What a member must know of its domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Its Kerberos realm.
    pub realm: Realm,
    /// Its `NetBIOS` name.
    pub workgroup: NetbiosName,
    /// Its `objectSid`.
    pub sid: Sid,
    /// Its `objectGUID`.
    pub guid: Uuid,
    /// The root domain of its forest; often itself.
    pub forest: DomainName,
    /// The domain controller that said so.
    pub controller: DomainController,
}

/// A domain controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainController {
    /// Its name (`dNSHostName`).
    pub name: DomainName,
    /// Where it answered.
    pub address: IpAddr,
    /// The site it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Whether it has a global catalog.
    pub global_catalog: bool,
}

/// A request to a domain controller failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The connection broke. What was asked for may have happened or not.
    #[error(
        "the connection to {server} broke while it was asked to {action}: connect again, and see what is there"
    )]
    Lost {
        /// Which domain controller.
        server: Server,
        /// What was asked for, as a verb.
        action: &'static str,
        /// What is known of it.
        #[source]
        source: Box<LdapError>,
    },
    /// No answer. What was asked for may have happened or not.
    #[error("{server} did not {action} within {} s: see what is there before asking again", .waited.as_secs())]
    Timeout {
        /// Which domain controller.
        server: Server,
        /// What was asked for, as a verb.
        action: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// It said no.
    #[error("{server} would not {action}: {text} (LDAP result {code})")]
    Refused {
        /// Which domain controller.
        server: Server,
        /// What was asked for, as a verb.
        action: &'static str,
        /// RFC 4511, appendix A.
        code: u32,
        /// In its words.
        text: Text,
    },
    /// It sent something that is not to be understood.
    #[error("{server} was asked to {action} and left out {missing}: may the user read it?")]
    Incomplete {
        /// Which domain controller.
        server: Server,
        /// What was asked for, as a verb.
        action: &'static str,
        /// The attribute.
        missing: &'static str,
    },
}

impl RequestError {
    /// Whether it is not known what became of the request.
    #[must_use]
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Timeout { .. } => true,
            Self::Refused { .. } | Self::Incomplete { .. } => false,
        }
    }
}

/// A connection to a domain controller, as a user who may make computer accounts. Any number of requests may be on their
/// way at once.
#[derive(Clone, Debug)]
pub struct Directory {
    pub(super) link: Link,
    pub(super) domain: Domain,
    /// The domain's distinguished name.
    pub(super) base: String,
    /// The organizational unit of the accounts.
    pub(super) ou: String,
    pub(super) user: String,
    pub(super) encryption_types: u32,
    /// Service classes that stand for `HOST` and for which it stands.
    pub(super) host_aliases: Vec<String>,
}

impl Directory {
    /// Connects to the first of the servers that can be used.
    ///
    /// A server that does not answer, is not trusted, or whose clock is wrong is passed over; a password that one refuses
    /// is not tried on the next, which would count as another wrong attempt.
    pub async fn connect(config: &Config, password: &Secret) -> Result<Self, ConnectError> {
        connect::connect(config, password).await
    }

    /// The distinguished name (RFC 4514) that an account is made with.
    #[must_use]
    pub fn dn(&self, name: &NetbiosName) -> String {
        format!("CN={name},{}", self.ou)
    }

    /// What was found out about the domain.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }
}

/// The connection itself, and how long it may take to answer.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) server: Server,
    pub(super) ldap: Ldap,
    pub(super) timeout: Duration,
}

impl Link {
    /// A handle for one request.
    pub(super) fn ldap(&self) -> Ldap {
        let mut ldap = self.ldap.clone();
        ldap.with_timeout(self.timeout);
        ldap
    }

    /// The entries at or below `base` that `filter` (RFC 4515) matches, page by page: a domain controller does not give
    /// more than 1000 at once (MS-ADTS, section 3.1.1.3.4.6, `MaxPageSize`).
    pub(super) async fn search(
        &self,
        action: &'static str,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&str],
    ) -> Result<Vec<Entry>, RequestError> {
        const PAGE: i32 = 500;
        let attributes: Vec<String> = attributes.iter().map(|name| (*name).to_owned()).collect();
        let adapters: Vec<Box<dyn Adapter<_, _>>> =
            vec![Box::new(EntriesOnly::new()), Box::new(PagedResults::new(PAGE))];
        let failed = |error| self.failed(action, error);
        let mut search = self
            .ldap()
            .streaming_search_with(adapters, base, scope, filter, attributes)
            .await
            .map_err(failed)?;
        let mut entries = Vec::new();
        while let Some(entry) = search.next().await.map_err(failed)? {
            entries.push(Entry::new(entry));
        }
        self.accept(action, Ok(search.finish().await))?;
        Ok(entries)
    }

    /// The entry `dn`, if it is there.
    pub(super) async fn entry(
        &self,
        action: &'static str,
        dn: &str,
        attributes: &[&str],
    ) -> Result<Option<Entry>, RequestError> {
        match self.search(action, dn, Scope::Base, "(objectClass=*)", attributes).await {
            Ok(entries) => Ok(entries.into_iter().next()),
            Err(RequestError::Refused { code: code::NO_SUCH_OBJECT, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails unless the server did what it was asked to.
    pub(super) fn accept(
        &self,
        action: &'static str,
        answer: Result<LdapResult, LdapError>,
    ) -> Result<(), RequestError> {
        let result = answer.map_err(|error| self.failed(action, error))?;
        if result.rc == code::SUCCESS {
            return Ok(());
        }
        let (server, text) = (self.server.clone(), Text::new(&result.text));
        Err(RequestError::Refused { server, action, code: result.rc, text })
    }

    fn failed(&self, action: &'static str, error: LdapError) -> RequestError {
        let server = self.server.clone();
        if let LdapError::Timeout { .. } = error {
            return RequestError::Timeout { server, action, waited: self.timeout };
        }
        RequestError::Lost { server, action, source: error.into() }
    }

    /// The error for an attribute that should be there.
    pub(super) fn incomplete(&self, action: &'static str, missing: &'static str) -> RequestError {
        RequestError::Incomplete { server: self.server.clone(), action, missing }
    }
}

/// Results (RFC 4511, appendix A).
pub(super) mod code {
    pub(in super::super) const SUCCESS: u32 = 0;
    pub(in super::super) const CONSTRAINT_VIOLATION: u32 = 19;
    pub(in super::super) const NO_SUCH_OBJECT: u32 = 32;
    pub(in super::super) const INVALID_CREDENTIALS: u32 = 49;
    pub(in super::super) const INSUFFICIENT_ACCESS_RIGHTS: u32 = 50;
    pub(in super::super) const UNWILLING_TO_PERFORM: u32 = 53;
    pub(in super::super) const ENTRY_ALREADY_EXISTS: u32 = 68;
}
