//! TLS toward upstreams. Certificates are verified by the system's rules against the system's roots and
//! added ones. Verification cannot be turned off, and there is no early data and no key log: a server
//! without the upstream's key gets no byte of a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use super::client_certificate::ClientCertificate;

/// Number of upstreams whose sessions are kept for resumption.
const MAX_RESUMPTION_SESSIONS: usize = 256;

/// A TLS client configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of additional roots cannot be read, or is not PEM.
    #[error("cannot read certificates from {}: {why}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The system has no roots and none were added, or an added one is damaged.
    #[error("no usable root certificates: {0}")]
    NoRoots(rustls::Error),
    /// A certificate in the file of roots cannot be one.
    #[error("a certificate in {} is not a usable root: {why}", path.display())]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: rustls::Error,
    },
    /// The cryptography provider lacks a required feature.
    #[error("TLS is not available: {0}")]
    Unsupported(rustls::Error),
}

/// Builds the configuration for upstream connections. It trusts the system's roots and `extra_roots`, and
/// offers HTTP/2 and HTTP/1.1.
pub(crate) fn client_config(extra_roots: &[CertificateDer<'_>]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = super::provider();
    let roots = extra_roots.iter().cloned().map(CertificateDer::into_owned);
    let verifier = match extra_roots {
        // Windows keeps added roots in a separate store, which must not be empty.
        [] => Verifier::new(provider.clone()),
        _ => Verifier::new_with_extra_roots(roots, provider.clone()),
    };
    let verifier = verifier.map_err(TlsError::NoRoots)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Unsupported)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(MAX_RESUMPTION_SESSIONS);
    config.enable_early_data = false;
    config.enable_sni = true;
    config.key_log = Arc::new(rustls::NoKeyLog {});
    Ok(Arc::new(config))
}

/// The roots that a rule names for its host. The server's chain must end at one of them; the system's
/// roots are not trusted there. Equal certificates have equal digests.
#[derive(Debug)]
pub struct CustomRoots {
    store: Arc<RootCertStore>,
    digest: [u8; 32],
}

impl CustomRoots {
    /// Reads the PEM file at `path`, in which every certificate must be usable.
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        let mut digest = Context::new(&SHA256);
        for root in roots_from_pem(path)? {
            digest.update(&root);
            store.add(root).map_err(|why| TlsError::BadRoot { path: path.to_owned(), why })?;
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(Self { store: Arc::new(store), digest: bytes })
    }

    /// Returns a digest of the certificates.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// Derives a configuration from `base` that trusts only `roots`, or presents `certificate`. It shares no
/// sessions with any other configuration.
pub(crate) fn client_config_with(
    base: &ClientConfig,
    roots: Option<&CustomRoots>,
    certificate: Option<ClientCertificate>,
) -> Result<ClientConfig, TlsError> {
    let mut config = base.clone();
    if let Some(roots) = roots {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), super::provider());
        let verifier = verifier
            .build()
            .map_err(|error| TlsError::Unsupported(rustls::Error::General(error.to_string())))?;
        config.dangerous().set_certificate_verifier(verifier);
    }
    if let Some(certificate) = certificate {
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certificate.into_certified_key()));
    }
    config.resumption = Resumption::in_memory_sessions(MAX_RESUMPTION_SESSIONS);
    Ok(config)
}

/// Reads the certificates of the PEM file at `path`. A file without any is an error.
pub(crate) fn roots_from_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why: String| TlsError::Roots { path: path.to_owned(), why };
    let roots = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed(error.to_string()))?;
    if roots.is_empty() {
        return Err(failed("the file contains none".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap()
    }

    #[test]
    fn client_offers_both_protocols_and_no_early_data() {
        let config = client_config(&[root().der().clone()]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(config.enable_sni && !config.enable_early_data);
    }

    #[test]
    fn damaged_extra_root_is_an_error() {
        let junk = CertificateDer::from(vec![1, 2, 3]);
        assert!(matches!(client_config(&[junk]), Err(TlsError::NoRoots(_))));
    }

    #[test]
    fn pem_file_without_certificates_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        std::fs::write(&path, format!("{}\n{}", root().pem(), root().pem())).unwrap();
        assert_eq!(roots_from_pem(&path).unwrap().len(), 2);
        std::fs::write(&path, "nothing here").unwrap();
        assert!(roots_from_pem(&path).unwrap_err().to_string().contains("roots.pem"));
        assert!(roots_from_pem(&folder.path().join("absent.pem")).is_err());
    }
}
