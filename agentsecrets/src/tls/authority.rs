//! The local certificate authority. Its key is generated when a run starts, stays in the interceptor's
//! memory and signs leaf certificates of that run only.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::types::host::Host;

/// Validity of the authority, in days. A longer run generates a new one.
const AUTHORITY_VALIDITY_DAYS: i64 = 365;
/// Validity of a leaf, in hours. Leaves are renewed well before.
const LEAF_VALIDITY_HOURS: i64 = 24;
/// Both are backdated by this, for clients whose clock is slow.
const CLOCK_SKEW_HOURS: i64 = 1;

/// An in-memory certificate authority.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate could not be generated.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct MintError(#[from] rcgen::Error);

impl CertificateAuthority {
    /// Generates an authority with a new key.
    pub fn generate() -> Result<Self, MintError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets local authority");
        params.distinguished_name.push(DnType::OrganizationName, "AgentSecrets");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(AUTHORITY_VALIDITY_DAYS * 24);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Returns the authority's certificate in PEM, which agents trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a certificate for `host` and the public half of `key`.
    pub fn sign(&self, host: &Host, key: &LeafKey) -> Result<CertificateDer<'static>, MintError> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match host {
            Host::Ip(ip) => SanType::IpAddress(*ip),
            Host::Name(name) => SanType::DnsName(name.to_string().try_into()?),
        }];
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets");
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = validity(LEAF_VALIDITY_HOURS);
        Ok(params.signed_by(&key.0, &self.issuer)?.der().clone())
    }
}

/// The key of all leaf certificates of a run. It differs from the authority's key.
pub struct LeafKey(KeyPair);

impl LeafKey {
    /// Generates a key.
    pub fn generate() -> Result<Self, MintError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// Returns the private key in DER.
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

fn validity(hours: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (now - time::Duration::hours(CLOCK_SKEW_HOURS), now + time::Duration::hours(hours))
}
