//! The roots that an agent's clients trust: the system's, then this run's authority. Most clients can
//! only replace their roots, so ours alone would cut them off from passthrough hosts.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Where distributions keep the bundle of their roots.
pub const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Variables that replace a client's roots, so that they name the system's roots and ours.
pub const ROOTS: &[&str] = &[
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

/// Variables that add to a client's roots.
pub const ADDED_ROOTS: &[&str] = &["DENO_CERT", "NODE_EXTRA_CA_CERTS"];

/// The largest bundle that is taken, in bytes.
const LARGEST: u64 = 16 << 20;

/// The system's roots and `authority`, in PEM. Without any system root, the authority alone.
pub fn bundle(authority: &str) -> String {
    let mut bundle = from_a_file().or_else(from_the_system).unwrap_or_default();
    if !bundle.is_empty() && !bundle.ends_with('\n') {
        bundle.push('\n');
    }
    bundle + authority
}

fn from_a_file() -> Option<String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(SYSTEM.iter().map(PathBuf::from)).find_map(|path| {
        // A named pipe or an endless device would never let us go.
        let file = path.metadata().ok().filter(|file| file.is_file() && file.len() <= LARGEST)?;
        let text = std::fs::read_to_string(&path).ok()?;
        (file.len() > 0 && text.contains("-----BEGIN CERTIFICATE-----")).then_some(text)
    })
}

fn from_the_system() -> Option<String> {
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
    fn the_authority_comes_last_on_lines_of_its_own() {
        let bundle = bundle("-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n");
        assert!(bundle.ends_with("-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"));
        assert!(!bundle.contains("----------"), "two certificates never share a line");
    }

    #[test]
    fn a_certificate_is_wrapped_as_pem_wants_it() {
        let pem = pem(&[0xa5; 100]);
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert!(pem.ends_with("-----END CERTIFICATE-----\n"));
    }
}
