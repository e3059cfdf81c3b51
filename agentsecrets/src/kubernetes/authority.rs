//! The webhook's certificate authority. It signs for the webhook's own name and nothing else; the API server
//! trusts it because we write it into the webhook's configuration.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

/// How long an authority is valid.
const LIFE: Duration = Duration::days(365);
/// How long before its end another takes its place. Until then both are trusted.
const RENEWAL: Duration = Duration::days(120);
/// How long a certificate of the webhook is valid; a new one is made when half of it is over.
const LEAF: Duration = Duration::days(7);
/// How far both are backdated, for an API server whose clock is behind.
const BACKDATED: Duration = Duration::hours(1);

/// An authority, as it is kept in a Secret.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: String,
    ends: OffsetDateTime,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum NoCertificate {
    /// It could not be made or read.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library does not take it.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// When it ends cannot be told.
    #[error("the authority's certificate does not say when it ends")]
    Endless,
}

impl Authority {
    /// Makes a new one that is valid from `now`.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate(now: OffsetDateTime) -> Result<Self, NoCertificate> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Each has a name of its own: while two are trusted, a verifier must be able to tell them apart.
        let name = format!("AgentSecrets webhook authority {}", now.unix_timestamp());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - BACKDATED, now + LIFE);
        let certificate = params.self_signed(&key)?.pem();
        Self::read(&certificate, &key.serialize_pem())
    }

    /// Reads one that was kept.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(certificate: &str, key: &str) -> Result<Self, NoCertificate> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        let ends = end(certificate).ok_or(NoCertificate::Endless)?;
        Ok(Self { issuer, certificate: certificate.to_owned(), key: key.to_owned(), ends })
    }

    /// Whether another should take its place.
    pub fn is_due(&self, now: OffsetDateTime) -> bool {
        now >= self.ends - RENEWAL
    }

    /// A certificate for `names`, with its own key, valid from `now`; and when the next one should be made.
    ///
    /// # Errors
    /// When a name is none, or the system gives no randomness.
    pub fn sign(
        &self,
        names: &[String],
        now: OffsetDateTime,
        provider: &CryptoProvider,
    ) -> Result<(CertifiedKey, OffsetDateTime), NoCertificate> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets webhook");
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (now - BACKDATED, (now + LEAF).min(self.ends));
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let certified = CertifiedKey::from_der(vec![certificate], private, provider)?;
        Ok((certified, now + LEAF / 2))
    }
}

/// When the certificate ends.
fn end(certificate: &str) -> Option<OffsetDateTime> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let ends = pem.parse_x509().ok()?.validity().not_after.timestamp();
    OffsetDateTime::from_unix_timestamp(ends).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_was_kept_is_the_same_and_is_renewed_in_time() {
        let now = OffsetDateTime::now_utc();
        let made = Authority::generate(now).unwrap();
        let kept = Authority::read(&made.certificate, &made.key).unwrap();
        assert!(!kept.is_due(now) && !kept.is_due(now + LIFE - RENEWAL - Duration::minutes(1)));
        assert!(kept.is_due(now + LIFE - RENEWAL + Duration::minutes(1)));
        let (_, next) = kept.sign(&["webhook.ns.svc".to_owned()], now, &crate::tls::provider()).unwrap();
        assert!(next > now && next < now + LEAF);
        assert!(Authority::read(&made.key, &made.key).is_err());
    }
}
