//! The CA bundle of the agent's clients: the system's roots and this run's authority. Most clients can
//! only replace their roots, so the authority alone would break passthrough hosts.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Paths of the system's CA bundle in common distributions.
pub const SYSTEM_BUNDLE_PATHS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Environment variables that replace a client's roots.
pub const CA_BUNDLE_VARIABLES: &[&str] = &[
    "AWS_CA_BUNDLE",
    "BUNDLE_SSL_CA_CERT",
    "CARGO_HTTP_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "COMPOSER_CAFILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "JULIA_SSL_CA_ROOTS_PATH",
    "NIX_SSL_CERT_FILE",
    "PERL_LWP_SSL_CA_FILE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SYSTEM_CERTIFICATE_PATH",
    "WEBSOCKET_CLIENT_CA_BUNDLE",
    "npm_config_cafile",
];

/// Environment variables that add to a client's roots.
pub const EXTRA_CA_VARIABLES: &[&str] = &["DENO_CERT", "NODE_EXTRA_CA_CERTS"];

/// Maximum size of a CA bundle, in bytes.
const MAX_BUNDLE_SIZE: u64 = 16 << 20;

/// Returns the system's roots and `authority` in PEM, or `authority` alone if the system has none.
pub fn bundle(authority: &str) -> String {
    let mut bundle = from_file().or_else(from_native_store).unwrap_or_default();
    if !bundle.is_empty() && !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle + authority
}

fn from_file() -> Option<String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(SYSTEM_BUNDLE_PATHS.iter().map(PathBuf::from)).find_map(|path| {
        // Reading a named pipe or an endless device would block.
        let file = path.metadata().ok().filter(|file| file.is_file() && file.len() <= MAX_BUNDLE_SIZE)?;
        let text = std::fs::read_to_string(&path).ok()?;
        (file.len() > 0 && text.contains("-----BEGIN CERTIFICATE-----")).then_some(text)
    })
}

fn from_native_store() -> Option<String> {
    let found = rustls_native_certs::load_native_certs().certs;
    (!found.is_empty()).then(|| found.iter().map(|certificate| pem(certificate)).collect())
}

fn pem(certificate: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_is_appended_on_its_own_lines() {
        let bundle = bundle("-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n");
        assert!(bundle.ends_with("-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"));
        assert!(!bundle.contains("----------"), "two certificates never share a line");
    }

    #[test]
    fn pem_lines_are_wrapped() {
        let pem = pem(&[0xa5; 100]);
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert!(pem.ends_with("-----END CERTIFICATE-----\n"));
    }
}
