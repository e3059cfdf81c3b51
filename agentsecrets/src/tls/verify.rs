//! TLS toward upstreams: certificates are checked by the system's rules against the system's roots,
//! and those that a person added. There is no way to turn verification off, no early data and no key
//! log: who answers in an upstream's name without its key gets no byte of a request.

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

/// How many upstreams' sessions are kept for resumption.
const SESSIONS: usize = 256;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of additional roots cannot be read, or is no PEM.
    #[error("cannot read certificates from {}: {why}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system has no roots and none were added, or an added one is damaged.
    #[error("no usable root certificates: {0}")]
    NoRoots(rustls::Error),
    /// A certificate in the file of roots cannot be one.
    #[error("a certificate in {} is no usable root: {why}", path.display())]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: rustls::Error,
    },
    /// The cryptography does not support what we ask of it.
    #[error("TLS is not available: {0}")]
    Unsupported(rustls::Error),
}

/// A configuration for connections to upstreams that trusts the system's roots and `extra_roots`,
/// and offers HTTP/2 and HTTP/1.1.
pub fn client_config(extra_roots: &[CertificateDer<'_>]) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = super::provider();
    let roots = extra_roots.iter().cloned().map(CertificateDer::into_owned);
    let verifier = match extra_roots {
        // Windows keeps added roots in a place of their own, which must not be an empty one.
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
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.enable_early_data = false;
    config.enable_sni = true;
    config.key_log = Arc::new(rustls::NoKeyLog {});
    Ok(Arc::new(config))
}

/// Roots that a rule names for its host: a server there must stand under one of them, and the system's do
/// not count. Two of them are equal if their certificates are.
#[derive(Debug)]
pub struct Roots {
    store: Arc<RootCertStore>,
    digest: [u8; 32],
}

impl Roots {
    /// Reads the PEM file at `path`. Every certificate in it must be usable, and there must be one.
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

    /// Tells them from other roots.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// `usual`, but for a server that must stand under `roots`, or that may ask for `certificate`. What it
/// learns of servers, sessions above all, it shares with no other configuration.
pub fn particular(
    usual: &ClientConfig,
    roots: Option<&Roots>,
    certificate: Option<ClientCertificate>,
) -> Result<ClientConfig, TlsError> {
    let mut config = usual.clone();
    if let Some(roots) = roots {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.store.clone(), super::provider());
        let verifier = verifier
            .build()
            .map_err(|error| TlsError::Unsupported(rustls::Error::General(error.to_string())))?;
        config.dangerous().set_certificate_verifier(verifier);
    }
    if let Some(certificate) = certificate {
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certificate.into_key()));
    }
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

/// The certificates in the PEM file at `path`; a file without any is an error.
pub fn roots_from_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |why: String| TlsError::Roots { path: path.to_owned(), why };
    let roots = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed(error.to_string()))?;
    if roots.is_empty() {
        return Err(failed("there is none in it".to_owned()));
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
    fn aes_128_is_asked_for_first() {
        let suites: Vec<_> = super::super::provider().cipher_suites.iter().map(|s| s.suite()).collect();
        assert_eq!(suites.first(), Some(&rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert_eq!(suites.len(), rustls::crypto::aws_lc_rs::default_provider().cipher_suites.len());
    }

    #[test]
    fn offers_both_protocols_and_nothing_dangerous() {
        let config = client_config(&[root().der().clone()]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(config.enable_sni && !config.enable_early_data);
    }

    #[test]
    fn a_damaged_extra_root_is_an_error_rather_than_ignored() {
        let junk = CertificateDer::from(vec![1, 2, 3]);
        assert!(matches!(client_config(&[junk]), Err(TlsError::NoRoots(_))));
    }

    #[test]
    fn a_pem_file_gives_its_certificates_and_an_empty_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        std::fs::write(&path, format!("{}\n{}", root().pem(), root().pem())).unwrap();
        assert_eq!(roots_from_pem(&path).unwrap().len(), 2);
        std::fs::write(&path, "nothing here").unwrap();
        assert!(roots_from_pem(&path).unwrap_err().to_string().contains("roots.pem"));
        assert!(roots_from_pem(&folder.path().join("absent.pem")).is_err());
    }
}
