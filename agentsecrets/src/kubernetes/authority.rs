//! The webhook's certificate authority. It signs for the webhook's own name and nothing else; the API server
//! trusts it because its certificate is in the webhook's configuration.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

const AUTHORITY_LIFETIME: Duration = Duration::days(365);
/// Time before its expiry at which the authority is replaced. Until then both are trusted.
const AUTHORITY_RENEWAL: Duration = Duration::days(120);
/// Lifetime of the webhook's certificate; it is renewed after half of that.
const LEAF_LIFETIME: Duration = Duration::days(7);
/// Backdating of both, for an API server whose clock is behind.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// A certificate authority that is stored in a Secret.
pub struct WebhookAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub certificate_pem: String,
    /// Its private key, in PEM.
    pub key_pem: String,
    not_after: OffsetDateTime,
}

/// Reasons that there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be generated or parsed.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The TLS library rejects it.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The certificate has no readable expiry.
    #[error("the authority's certificate does not say when it ends")]
    NoExpiry,
}

impl WebhookAuthority {
    /// Generates an authority that is valid from `now`.
    ///
    /// # Errors ¶| If the system has no randomness.
    pub fn generate(now: OffsetDateTime) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Each has its own name: while two are trusted, a verifier must tell them apart.
        let name = format!("AgentSecrets webhook authority {}", now.unix_timestamp());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - CLOCK_SKEW, now + AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?.pem();
        Self::from_pem(&certificate, &key.serialize_pem())
    }

    /// Parses a stored authority.
    ///
    /// # Errors ¶| If the certificate or the key is invalid.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        let ends = expiry(certificate).ok_or(CertificateError::NoExpiry)?;
        Ok(Self { issuer, certificate_pem: certificate.to_owned(), key_pem: key.to_owned(), not_after: ends })
    }

    /// Whether it is time to replace it.
    pub fn is_due_for_renewal(&self, now: OffsetDateTime) -> bool {
        now >= self.not_after - AUTHORITY_RENEWAL
    }

    /// Signs a certificate for `names` with a new key, valid from `now`; also returns the time to renew it.
    ///
    /// # Errors ¶| If a name is invalid, or the system has no randomness.
    pub fn sign(
        &self,
        names: &[String],
        now: OffsetDateTime,
        provider: &CryptoProvider,
    ) -> Result<(CertifiedKey, OffsetDateTime), CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets webhook");
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (now - CLOCK_SKEW, (now + LEAF_LIFETIME).min(self.not_after));
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let certified = CertifiedKey::from_der(vec![certificate], private, provider)?;
        Ok((certified, now + LEAF_LIFETIME / 2))
    }
}

fn expiry(certificate: &str) -> Option<OffsetDateTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let ends = pem.parse_x509().ok()?.validity().not_after.timestamp();
    OffsetDateTime::from_unix_timestamp(ends).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_authority_is_renewed_in_time() {
        let now = OffsetDateTime::now_utc();
        let made = WebhookAuthority::generate(now).unwrap();
        let stored = WebhookAuthority::from_pem(&made.certificate_pem, &made.key_pem).unwrap();
        assert!(
            !stored.is_due_for_renewal(now)
                && !stored
                    .is_due_for_renewal(now + AUTHORITY_LIFETIME - AUTHORITY_RENEWAL - Duration::minutes(1))
        );
        assert!(
            stored.is_due_for_renewal(now + AUTHORITY_LIFETIME - AUTHORITY_RENEWAL + Duration::minutes(1))
        );
        let (_, next) = stored.sign(&["webhook.ns.svc".to_owned()], now, &crate::tls::provider()).unwrap();
        assert!(next > now && next < now + LEAF_LIFETIME);
        assert!(WebhookAuthority::from_pem(&made.key_pem, &made.key_pem).is_err());
    }
}
