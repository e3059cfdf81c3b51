//! TLS on both sides: the local authority toward agents, verified certificates toward upstreams.

pub(crate) mod authority;
pub mod bundle;
pub(crate) mod client_certificate;
mod client_hello;
pub(crate) mod leaf;
mod recording_stream;
pub(crate) mod terminate;
pub(crate) mod verify;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{NamedGroup, SupportedCipherSuite};

/// The cryptography of both sides: aws-lc-rs, with AES-128-GCM before AES-256-GCM (as unbroken, and
/// cheaper per byte and handshake) and the post-quantum key exchange first: traffic recorded today must
/// stay unreadable.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let preferred = |suite: &SupportedCipherSuite| {
        suite.suite().as_str().is_some_and(|name| name.contains("AES_128_GCM"))
    };
    // The sort is stable: TLS 1.3 stays before 1.2, and the library's order holds within each group.
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !preferred(suite)));
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    Arc::new(provider)
}
