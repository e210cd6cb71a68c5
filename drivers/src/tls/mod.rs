//! TLS: how the program, as a client, proves who it speaks to and who it is. The only module that names `rustls`.
//!
//! The server's certificate and name are always verified; there is no way to switch that off; `verifier` says
//! at which time. The cryptography is ring's, chosen
//! here and never taken from a process-wide default.

mod verifier;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, RootCertStore};

use crate::outlet::Clock;
use verifier::Verifier;

pub use rustls::ClientConfig;

/// Whom to trust and what to show; as the tables `tls` of inputs and of the uplink say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates (PEM) that sign servers; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain and private key (PEM), where the server asks for one.
    pub identity: Option<Identity>,
}

/// Our own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The chain, our own certificate first (PEM).
    pub cert: PathBuf,
    /// The private key that belongs to it (PEM: PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read, or is not PEM.
    #[error("read the {what} in {path}: {source}")]
    File {
        /// What was expected in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// A file holds nothing of what was expected.
    #[error("expected {what} in {path}, found none")]
    Empty {
        /// What was expected.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The system has no certificates.
    #[error("the system has no CA certificates (install ca-certificates, or name a file with `ca`)")]
    NoSystemRoots,
    /// The library refused what the files hold.
    #[error("use the {what} of {path}: {source}")]
    Refused {
        /// What was refused.
        what: &'static str,
        /// Where it came from.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The library refused its own defaults.
    #[error("set up TLS: {0}")]
    Setup(rustls::Error),
}

/// A client's configuration. Reads the files anew, so that a renewed certificate is taken at the next connection. Servers are verified at the
/// time of `clock`.
///
/// # Errors
/// Names the file and what was expected in it.
pub fn client_config(files: &TlsFiles, clock: Arc<dyn Clock>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &files.ca {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let inner = inner.build().map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner, clock }));
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { cert, key: key_path }) => {
            let chain = certificates(cert, "certificate")?;
            let key = PrivateKeyDer::from_pem_file(key_path).map_err(|source| match source {
                rustls::pki_types::pem::Error::NoItemsFound => {
                    TlsError::Empty { what: "a private key", path: key_path.clone() }
                }
                source => TlsError::File { what: "private key", path: key_path.clone(), source },
            })?;
            let refused = |source| TlsError::Refused { what: "certificate and key", path: cert.clone(), source };
            builder.with_client_auth_cert(chain, key).map_err(refused)?
        }
    };
    Ok(Arc::new(config))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "CA certificates")? {
        let refused = |source| TlsError::Refused { what: "CA certificate", path: path.to_owned(), source };
        roots.add(certificate).map_err(refused)?;
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // The system's store may hold certificates that the library cannot read; the others serve.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what, path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(TlsError::Empty { what, path: path.to_owned() }) } else { Ok(found) }
}

/// What the user can do about a failed connection, where its cause is a refused certificate; looks through the causes.
pub fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match refusal(error)? {
        rustls::Error::InvalidCertificate(refused) => Some(match refused {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the server's certificate is for another name: write the name that stands in the certificate into `broker`"
            }
            CertificateError::UnknownIssuer => {
                "the server's certificate is signed by nobody that is trusted here: name its CA with `ca`"
            }
            CertificateError::BadSignature => {
                "the server's certificate is signed by another key than that of the CA here, which has the same name: was the CA renewed?"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired, or the clock of this machine is ahead"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet, or the clock of this machine is behind"
            }
            _ => "the server's certificate was refused",
        }),
        rustls::Error::AlertReceived(_) => {
            Some("the server refused: it may want a client certificate, set `cert` and `key`")
        }
        rustls::Error::InvalidMessage(_) => Some("the server does not speak TLS on this port"),
        _ => None,
    }
}

fn refusal<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An io::Error shows the cause of what it wraps as its own, so what it wraps is looked at as well.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| refusal(wrapped)) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
