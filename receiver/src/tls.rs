//! TLS: how the receiver, as a client, proves who it speaks to and who it is. The only file here that names `rustls`.
//!
//! The server's certificate and name are always verified; there is no way to switch that off. The cryptography is ring's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rtlive_config::uplink::{TlsConfig, TlsIdentity};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file could not be read, or holds nothing of what was expected.
    #[error("read {what} in {}", path.display())]
    File {
        /// What was expected in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The system has no certificates.
    #[error("the system has no CA certificates (install ca-certificates, or name a file with `ca`)")]
    NoSystemRoots,
    /// The library refused what the files hold.
    #[error("set up TLS")]
    Refused(#[from] rustls::Error),
}

/// A client's configuration. Reads the files anew, so that a renewed certificate is taken at the next connection.
///
/// # Errors
/// Names the file and what was expected in it.
pub(crate) fn client_config(files: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => certificates(path, "CA certificates")?.into_iter().try_for_each(|one| roots.add(one))?,
        None => {
            // The system's store may hold certificates that the library cannot read; the others serve.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoSystemRoots);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some(TlsIdentity { cert, key }) => {
            let failed = |source| TlsError::File { what: "a private key", path: key.clone(), source };
            let private = PrivateKeyDer::from_pem_file(key).map_err(failed)?;
            builder.with_client_auth_cert(certificates(cert, "a certificate")?, private)?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::File { what, path: path.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() { Err(failed(pem::Error::NoItemsFound)) } else { Ok(found) }
}
