//! Selects the TLS configuration of a connection: the default one, or a custom one for a rule with its own roots
//! or client certificate. Configurations share no session tickets or other state about a server.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use rustls::ClientConfig;

use crate::inject::TlsRequirements;
use crate::tls::client_certificate::ClientCertificate;
use crate::tls::verify;
use crate::types::rejection::{ErrorCode, Rejection};

const MAX_CUSTOM_CONFIGS: u64 = 256;
const CUSTOM_CONFIG_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The default configuration, and the cached custom ones.
pub(super) struct TlsConfigs {
    default: TlsConfig,
    custom: Cache<Fingerprint, TlsConfig>,
}

/// One configuration, with HTTP/2 and without.
#[derive(Clone)]
pub(super) struct TlsConfig {
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// Identifies the roots and the client certificate of a configuration by their content, not by name, so that a
/// replaced certificate is no longer used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Fingerprint {
    roots: Option<[u8; 32]>,
    certificate: Option<[u8; 32]>,
}

impl Fingerprint {
    pub(super) fn of(requirements: &TlsRequirements) -> Self {
        let certificate = requirements.certificate.as_ref().map(|(_, secret)| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(digest(&SHA256, secret.expose()).as_ref());
            bytes
        });
        Self { roots: requirements.roots.as_ref().map(|roots| roots.digest()), certificate }
    }
}

impl TlsConfigs {
    pub(super) fn new(default: Arc<ClientConfig>) -> Self {
        let custom = Cache::builder()
            .max_capacity(MAX_CUSTOM_CONFIGS)
            .time_to_idle(CUSTOM_CONFIG_IDLE_TIMEOUT)
            .build();
        Self { default: TlsConfig::new(default), custom }
    }

    /// The configuration that meets `requirements`.
    pub(super) fn get(&self, requirements: &TlsRequirements) -> Result<TlsConfig, Rejection> {
        let fingerprint = Fingerprint::of(requirements);
        if fingerprint == Fingerprint::default() {
            return Ok(self.default.clone());
        }
        if let Some(config) = self.custom.get(&fingerprint) {
            return Ok(config);
        }
        let certificate = requirements.certificate.as_ref().map(|(name, secret)| {
            ClientCertificate::from_pem(secret.expose()).map_err(|error| {
                let message = format!("secret '{name}' is no client certificate: {error}");
                Rejection::new(ErrorCode::BadRequest, message)
            })
        });
        let config = verify::client_config_with(
            &self.default.http2,
            requirements.roots.as_deref(),
            certificate.transpose()?,
        );
        let config =
            config.map_err(|error| Rejection::new(ErrorCode::UpstreamUnavailable, error.to_string()))?;
        let config = TlsConfig::new(Arc::new(config));
        self.custom.insert(fingerprint, config.clone());
        Ok(config)
    }
}

impl TlsConfig {
    fn new(http2: Arc<ClientConfig>) -> Self {
        let mut http1 = ClientConfig::clone(&http2);
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { http2, http1: Arc::new(http1) }
    }

    pub(super) fn client_config(&self, http1_only: bool) -> Arc<ClientConfig> {
        if http1_only { self.http1.clone() } else { self.http2.clone() }
    }
}
