//! A stored client certificate: the chain and its key in one PEM text, the key's certificate first among
//! the certificates. Errors contain nothing of the text.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// A certificate chain and its key.
pub(crate) struct ClientCertificate(CertifiedKey);

/// A PEM text that is not a usable client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CertificateError {
    /// It has no certificate.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// It has no key, or several.
    #[error("it holds no private key in PEM, or more than one; an encrypted key cannot be used")]
    NoKey,
    /// The key is damaged or of an unsupported type.
    #[error("its private key cannot be used")]
    BadKey,
    /// The key does not match the first certificate.
    #[error("its private key is not that of its first certificate")]
    KeyMismatch,
}

impl ClientCertificate {
    /// Parses the chain and the key from PEM.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(CertificateError::NoCertificate)?;
        let mut keys = PrivateKeyDer::pem_slice_iter(pem);
        let (Some(Ok(key)), None) = (keys.next(), keys.next()) else { return Err(CertificateError::NoKey) };
        let key =
            super::provider().key_provider.load_private_key(key).map_err(|_| CertificateError::BadKey)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::KeyMismatch)?;
        Ok(Self(certified))
    }

    pub(super) fn into_certified_key(self) -> CertifiedKey {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["me".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn chain_and_key_are_read_in_either_order() {
        let ((leaf, key), (above, _)) = (pair(), pair());
        for text in [format!("{leaf}{above}{key}"), format!("{key}\n{leaf}{above}")] {
            let read = ClientCertificate::from_pem(text.as_bytes()).map(|read| read.0.cert.len());
            assert_eq!(read, Ok(2));
        }
    }

    #[test]
    fn invalid_pair_is_rejected_without_its_text() {
        let ((leaf, key), (other, _)) = (pair(), pair());
        for (text, error) in [
            (String::new(), CertificateError::NoCertificate),
            (key.clone(), CertificateError::NoCertificate),
            (leaf.clone(), CertificateError::NoKey),
            (format!("{leaf}{key}{key}"), CertificateError::NoKey),
            (format!("{other}{leaf}{key}"), CertificateError::KeyMismatch),
            (
                format!("{leaf}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                CertificateError::BadKey,
            ),
        ] {
            assert_eq!(ClientCertificate::from_pem(text.as_bytes()).err(), Some(error), "{text}");
        }
    }
}
