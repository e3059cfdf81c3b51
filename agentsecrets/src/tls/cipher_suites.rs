//! Cryptography of both sides of TLS: the order of cipher suites and of key exchanges.

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

#[cfg(test)]
mod tests {
    #[test]
    fn aes_128_is_preferred() {
        let suites: Vec<_> = super::provider().cipher_suites.iter().map(|s| s.suite()).collect();
        assert_eq!(suites.first(), Some(&rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
        assert_eq!(suites.len(), rustls::crypto::aws_lc_rs::default_provider().cipher_suites.len());
    }
}
