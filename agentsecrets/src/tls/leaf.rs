//! One TLS server configuration per name: its certificate is minted once, however many connections
//! ask for it at the same time, and tickets it issues resume sessions of that exact name alone.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;

use crate::types::host::Host;

use super::authority::{Authority, LeafKey, MintError};

/// How many names are kept; an agent that asks for more makes us mint again, not grow.
const MOST_NAMES: u64 = 1024;
/// How long a configuration serves: half of what its certificate is valid.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// Mints and keeps the configurations.
pub struct Leaves {
    authority: Authority,
    key: LeafKey,
    provider: Arc<CryptoProvider>,
    cache: Cache<Host, Arc<ServerConfig>>,
}

/// Why a name cannot be served.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeafError {
    /// The certificate could not be made.
    #[error(transparent)]
    Mint(#[from] Arc<MintError>),
    /// The TLS library refused the key or the certificate.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Leaves {
    /// Leaves under `authority`.
    pub fn new(authority: Authority, provider: Arc<CryptoProvider>) -> Result<Self, MintError> {
        let cache = Cache::builder().max_capacity(MOST_NAMES).time_to_live(LIFE).build();
        Ok(Self { authority, key: LeafKey::generate()?, provider, cache })
    }

    /// The authority above them.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The configuration that speaks for `host`.
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
        // Early data can be replayed, so a secret must never ride on it.
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves() -> Leaves {
        Leaves::new(Authority::generate().unwrap(), super::super::provider()).unwrap()
    }

    #[test]
    fn a_name_is_minted_once() {
        let leaves = leaves();
        let host = "api.example.com".parse().unwrap();
        let first = leaves.config(&host).unwrap();
        assert!(Arc::ptr_eq(&first, &leaves.config(&host).unwrap()));
        assert!(!Arc::ptr_eq(&first, &leaves.config(&"other.example.com".parse().unwrap()).unwrap()));
    }

    #[test]
    fn an_address_gets_an_address_in_its_certificate() {
        leaves().config(&"127.0.0.1".parse().unwrap()).unwrap();
        leaves().config(&"[::1]".parse().unwrap()).unwrap();
    }
}
