//! A client certificate as it is stored: the chain and its key in one PEM text, in any order but that the
//! certificate of the key comes before those above it. Nothing of the text is in an error.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// A chain and its key, ready to sign.
pub struct ClientCertificate(CertifiedKey);

/// Why a text is no client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It has no certificate.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// It has no key, or more than one.
    #[error("it holds no private key in PEM, or more than one; an encrypted key cannot be used")]
    NoKey,
    /// The key is of a kind that is not supported, or damaged.
    #[error("its private key cannot be used")]
    BadKey,
    /// The key is another certificate's.
    #[error("its private key is not that of its first certificate")]
    NotItsKey,
}

impl ClientCertificate {
    /// Reads the chain and the key from PEM.
    pub fn read(pem: &[u8]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(CertificateError::NoCertificate)?;
        let mut keys = PrivateKeyDer::pem_slice_iter(pem);
        let (Some(Ok(key)), None) = (keys.next(), keys.next()) else { return Err(CertificateError::NoKey) };
        let key =
            super::provider().key_provider.load_private_key(key).map_err(|_| CertificateError::BadKey)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| CertificateError::NotItsKey)?;
        Ok(Self(certified))
    }

    pub(super) fn into_key(self) -> CertifiedKey {
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
    fn a_chain_and_its_key_may_stand_in_either_order() {
        let ((leaf, key), (above, _)) = (pair(), pair());
        for text in [format!("{leaf}{above}{key}"), format!("{key}\n{leaf}{above}")] {
            let read = ClientCertificate::read(text.as_bytes()).map(|read| read.0.cert.len());
            assert_eq!(read, Ok(2));
        }
    }

    #[test]
    fn what_is_no_pair_is_refused_and_not_repeated() {
        let ((leaf, key), (other, _)) = (pair(), pair());
        for (text, error) in [
            (String::new(), CertificateError::NoCertificate),
            (key.clone(), CertificateError::NoCertificate),
            (leaf.clone(), CertificateError::NoKey),
            (format!("{leaf}{key}{key}"), CertificateError::NoKey),
            (format!("{other}{leaf}{key}"), CertificateError::NotItsKey),
            (
                format!("{leaf}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                CertificateError::BadKey,
            ),
        ] {
            assert_eq!(ClientCertificate::read(text.as_bytes()).err(), Some(error), "{text}");
        }
    }
}
