//! TLS to a domain controller. Its certificate is checked, always: it must come from an authority that is trusted here
//! and be for the name that the controller is called by.

use crate::fs::{AtPath as _, FsError};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The authorities whose certificates are trusted cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FsError),
    /// It holds something else.
    #[error("{} holds no certificate of an authority in PEM", .0.display())]
    NotPem(PathBuf),
    /// The system trusts nobody.
    #[error(
        "this system trusts no authority (is the package ca-certificates installed?): name the domain's with ca_file"
    )]
    NoneKnown,
}

/// Why a domain controller is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It has expired.
    #[error("its certificate has expired: renew it on the domain controller (or this host's clock is wrong)")]
    Expired,
    /// It is not yet valid.
    #[error("its certificate is not valid yet: is this host's clock right?")]
    NotYetValid,
    /// It is another host's.
    #[error(
        "its certificate is of another host: call it in servers as its certificate does (subjectAltName), or give it another"
    )]
    OtherHost(#[source] rustls::Error),
    /// Nobody knows who made it.
    #[error(
        "its certificate comes from an authority that is not trusted here: name that authority's certificate with ca_file"
    )]
    UnknownAuthority,
    /// Everything else that can be wrong.
    #[error("there is no TLS with it")]
    Other(#[source] rustls::Error),
}

impl From<rustls::Error> for Distrust {
    fn from(error: rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(why) = &error else { return Self::Other(error) };
        // The list is open (`non_exhaustive`).
        match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::OtherHost(error)
            }
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            _ => Self::Other(error),
        }
    }
}

/// What rustls says, when that is what `error` holds.
pub(super) fn rustls_error(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

/// The client's side of TLS, with the authorities in `ca_file`, or those of the system.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, AuthorityError> {
    let roots = ca_file.map_or_else(roots_of_the_system, roots_in)?;
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring does TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(client))
}

fn roots_in(path: &Path) -> Result<RootCertStore, AuthorityError> {
    let bytes = std::fs::read(path).at("read", path)?;
    let not_pem = || AuthorityError::NotPem(path.to_owned());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        roots.add(certificate.map_err(|_| not_pem())?).map_err(|_| not_pem())?;
    }
    if roots.is_empty() { Err(not_pem()) } else { Ok(roots) }
}

fn roots_of_the_system() -> Result<RootCertStore, AuthorityError> {
    let mut roots = RootCertStore::empty();
    // Systems carry old certificates that cannot be parsed; those are of no use to anybody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(AuthorityError::NoneKnown) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        assert!(matches!(client(Some(&path)), Err(AuthorityError::File(_))));
        for bad in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(client(Some(&path)), Err(AuthorityError::NotPem(_))), "{bad}");
        }
    }
}
