//! Detects the extensions of a ClientHello that rustls does not report. Before a connection is passed
//! through, we must know that its hello names no other server.

/// Extension `server_name`.
const EXT_SERVER_NAME: u16 = 0;
/// Extension `encrypted_client_hello`: the real name is inside, readable by the server alone.
const EXT_ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// The extensions that matter for passthrough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientHelloSummary {
    /// It names a server.
    pub(super) has_server_name: bool,
    /// It carries an encrypted ClientHello (real or GREASE: the two look the same).
    pub(super) has_encrypted_hello: bool,
}

/// Summarises the hello whose records start `bytes`. Returns `None` if it cannot be parsed.
pub(super) fn summarize(bytes: &[u8]) -> Option<ClientHelloSummary> {
    let message = first_handshake_message(bytes)?;
    // Version and random.
    let (_, rest) = message.split_at_checked(2 + 32)?;
    let (_session, rest) = length_prefixed(rest, 1)?;
    let (_ciphers, rest) = length_prefixed(rest, 2)?;
    let (_compression, rest) = length_prefixed(rest, 1)?;
    let mut found = ClientHelloSummary { has_server_name: false, has_encrypted_hello: false };
    if rest.is_empty() {
        return Some(found);
    }
    let (mut extensions, []) = length_prefixed(rest, 2)? else { return None };
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at_checked(2)?;
        match big_endian(kind) {
            kind if kind == usize::from(EXT_SERVER_NAME) => found.has_server_name = true,
            kind if kind == usize::from(EXT_ENCRYPTED_CLIENT_HELLO) => found.has_encrypted_hello = true,
            _ => {}
        }
        (_, extensions) = length_prefixed(rest, 2)?;
    }
    Some(found)
}

/// Reassembles the body of the first handshake message from its records.
fn first_handshake_message(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        let (head, rest) = bytes.split_at_checked(3)?;
        if head.first() != Some(&22) {
            return None;
        }
        let (fragment, rest) = length_prefixed(rest, 2)?;
        joined.extend_from_slice(fragment);
        bytes = rest;
        if let Some((&[1], sizes)) = joined.split_at_checked(1)
            && let Some((body, _)) = length_prefixed(sizes, 3)
        {
            return Some(body.to_vec());
        }
    }
}

/// Splits off a value with a length prefix of `width` bytes.
fn length_prefixed(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(big_endian(length))
}

fn big_endian(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::client::{EchGreaseConfig, EchMode};
    use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
    use rustls::crypto::hpke::Hpke as _;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(server: &'static str, ech: bool) -> Vec<u8> {
        let builder = ClientConfig::builder_with_provider(super::super::provider());
        let builder = if ech {
            let suite = DH_KEM_X25519_HKDF_SHA256_AES_128;
            let (public, _) = suite.generate_key_pair().unwrap();
            builder.with_ech(EchMode::Grease(EchGreaseConfig::new(suite, public))).unwrap()
        } else {
            builder.with_safe_default_protocol_versions().unwrap()
        };
        let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(server).unwrap();
        let mut bytes = Vec::new();
        ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same hello with `size` bytes in each record.
    fn cut(hello: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()], part].concat();
        hello[5..].chunks(size).flat_map(record).collect()
    }

    #[test]
    fn extensions_are_found_in_any_segmentation() {
        for (server, ech, names) in
            [("a.test", false, true), ("a.test", true, true), ("127.0.0.1", false, false)]
        {
            let hello = hello(server, ech);
            let expected = Some(ClientHelloSummary { has_server_name: names, has_encrypted_hello: ech });
            assert_eq!(summarize(&hello), expected);
            for size in [1, 3, 200] {
                assert_eq!(summarize(&cut(&hello, size)), expected);
            }
            for end in 0..hello.len() {
                assert_eq!(summarize(&hello[..end]), None, "cut off at {end}");
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = summarize(&bytes);
            let _ = summarize(&[&[22, 3, 1, 0, 200, 1, 0, 0][..], &bytes].concat());
        }
    }
}
