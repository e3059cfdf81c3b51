//! Which TLS configuration a connection gets: the usual one, or one that its rule asks for, made once. What
//! one of them learned of a server, no other uses.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use rustls::ClientConfig;

use crate::inject::Proof;
use crate::tls::client_certificate::ClientCertificate;
use crate::tls::verify;
use crate::types::host::Host;
use crate::types::rejection::{ErrorCode, Rejection};

/// How many of rules' own are kept, and for how long without use.
const MOST: u64 = 256;
const UNUSED: Duration = Duration::from_secs(600);

/// The configurations.
pub(super) struct Configs {
    usual: Config,
    particular: Cache<Fingerprint, Config>,
}

/// One configuration, with HTTP/2 and without.
#[derive(Clone)]
pub(super) struct Config {
    both: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
}

/// Tells what two handshakes prove apart: by the roots, and by the certificate, not just by its name, so that
/// nothing of an old one lives on once it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Fingerprint {
    roots: Option<[u8; 32]>,
    certificate: Option<[u8; 32]>,
}

impl Fingerprint {
    pub(super) fn of(proof: &Proof) -> Self {
        let certificate = proof.certificate.as_ref().map(|(_, secret)| {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(digest(&SHA256, secret.expose()).as_ref());
            bytes
        });
        Self { roots: proof.roots.as_ref().map(|roots| roots.digest()), certificate }
    }
}

impl Configs {
    pub(super) fn new(usual: Arc<ClientConfig>) -> Self {
        let particular = Cache::builder().max_capacity(MOST).time_to_idle(UNUSED).build();
        Self { usual: Config::new(usual), particular }
    }

    /// The configuration that proves what `proof` asks for, to and of `host`.
    pub(super) fn of(&self, proof: &Proof, host: &Host) -> Result<Config, Rejection> {
        let fingerprint = Fingerprint::of(proof);
        if fingerprint == Fingerprint::default() {
            return Ok(self.usual.clone());
        }
        if let Some(config) = self.particular.get(&fingerprint) {
            return Ok(config);
        }
        let certificate = proof.certificate.as_ref().map(|(name, secret)| {
            ClientCertificate::read(secret.expose()).map_err(|error| {
                let message = format!("secret '{name}' is no client certificate: {error}");
                Rejection::new(ErrorCode::BadRequest, host, message)
            })
        });
        let config = verify::particular(&self.usual.both, proof.roots.as_deref(), certificate.transpose()?);
        let config = config
            .map_err(|error| Rejection::new(ErrorCode::UpstreamUnavailable, host, error.to_string()))?;
        let config = Config::new(Arc::new(config));
        self.particular.insert(fingerprint, config.clone());
        Ok(config)
    }
}

impl Config {
    fn new(both: Arc<ClientConfig>) -> Self {
        let mut http1 = ClientConfig::clone(&both);
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { both, http1: Arc::new(http1) }
    }

    pub(super) fn offering(&self, http1_only: bool) -> Arc<ClientConfig> {
        if http1_only { self.http1.clone() } else { self.both.clone() }
    }
}
