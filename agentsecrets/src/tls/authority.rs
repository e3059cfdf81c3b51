//! Our certificate authority. Its key is made when a run starts, lives in the interceptor's memory
//! only, and signs nothing but the leaves of that run.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::types::host::Host;

/// How long the authority is valid; a run that lives longer starts a new one.
const AUTHORITY_DAYS: i64 = 365;
/// How long a leaf is valid. Leaves are minted anew well before.
const LEAF_HOURS: i64 = 24;
/// How far both are backdated, for clients whose clock is behind.
const BACKDATED_HOURS: i64 = 1;

/// A certificate authority that exists in memory only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct MintError(#[from] rcgen::Error);

impl Authority {
    /// Makes a new authority with a new key.
    pub fn generate() -> Result<Self, MintError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "AgentSecrets local authority");
        params.distinguished_name.push(DnType::OrganizationName, "AgentSecrets");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(AUTHORITY_DAYS * 24);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The authority's certificate, in PEM: what agents trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `host` and nothing else, for the public half of `key`.
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
        (params.not_before, params.not_after) = validity(LEAF_HOURS);
        Ok(params.signed_by(&key.0, &self.issuer)?.der().clone())
    }
}

/// The key under which every leaf of a run stands. It is not the authority's.
pub struct LeafKey(KeyPair);

impl LeafKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, MintError> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The private half, for the TLS server.
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

fn validity(hours: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = time::OffsetDateTime::now_utc();
    (now - time::Duration::hours(BACKDATED_HOURS), now + time::Duration::hours(hours))
}
