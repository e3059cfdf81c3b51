//! A cache with one TLS server configuration per host name. A certificate is generated once, however many
//! connections need it at the same time. Session tickets resume sessions of the same name only.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

use crate::types::host::Host;

use super::authority::{CertificateAuthority, LeafKey, MintError};

/// Maximum number of cached names. Beyond it, certificates are generated again and memory does not grow.
const MAX_CACHED_NAMES: u64 = 1024;
/// Time that a configuration is used: half of its certificate's validity.
const CONFIG_TTL: Duration = Duration::from_secs(12 * 3600);

/// Generates and caches TLS server configurations.
pub struct LeafCertCache {
    authority: CertificateAuthority,
    key: LeafKey,
    provider: Arc<CryptoProvider>,
    cache: Cache<Host, Arc<ServerConfig>>,
}

/// No TLS configuration is available for a name.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeafError {
    /// The certificate could not be generated.
    #[error(transparent)]
    Mint(#[from] Arc<MintError>),
    /// The TLS library rejected the key or the certificate.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl LeafCertCache {
    /// Creates a cache of leaves signed by `authority`.
    pub fn new(authority: CertificateAuthority, provider: Arc<CryptoProvider>) -> Result<Self, MintError> {
        let cache = Cache::builder().max_capacity(MAX_CACHED_NAMES).time_to_live(CONFIG_TTL).build();
        Ok(Self { authority, key: LeafKey::generate()?, provider, cache })
    }

    /// Returns the signing authority.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Returns the configuration for `host`.
    pub fn config(&self, host: &Host) -> Result<Arc<ServerConfig>, LeafError> {
        self.cache.try_get_with_by_ref(host, || self.mint(host)).map_err(|error| LeafError::clone(&error))
    }

    fn mint(&self, host: &Host) -> Result<Arc<ServerConfig>, LeafError> {
        let certificate = self.authority.sign(host, &self.key).map_err(Arc::new)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], self.key.private())?;
        config.alpn_protocols = ["h2", "http/1.1", "http/1.0"].map(|name| name.as_bytes().to_vec()).into();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        config.ignore_client_order = true;
        // Early data can be replayed, so it must not carry a secret.
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf_certs() -> LeafCertCache {
        LeafCertCache::new(CertificateAuthority::generate().unwrap(), super::super::provider()).unwrap()
    }

    #[test]
    fn certificate_is_generated_once_per_name() {
        let leaf_certs = leaf_certs();
        let host = "api.example.com".parse().unwrap();
        let first = leaf_certs.config(&host).unwrap();
        assert!(Arc::ptr_eq(&first, &leaf_certs.config(&host).unwrap()));
        assert!(!Arc::ptr_eq(&first, &leaf_certs.config(&"other.example.com".parse().unwrap()).unwrap()));
    }

    #[test]
    fn ip_address_gets_a_certificate() {
        leaf_certs().config(&"127.0.0.1".parse().unwrap()).unwrap();
        leaf_certs().config(&"[::1]".parse().unwrap()).unwrap();
    }
}
