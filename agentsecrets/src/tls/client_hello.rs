//! Which extensions a ClientHello has, by number. The TLS library reads a hello for us, but says nothing of
//! what it does not use; before a hello is passed on unopened we must know that it hides no other name.

/// The server's name.
const SERVER_NAME: u16 = 0;
/// Encrypted ClientHello: the name that is meant is inside, for the server alone.
const ENCRYPTED_HELLO: u16 = 0xfe0d;

/// What matters of a ClientHello that nobody opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outline {
    /// It names a server.
    pub(super) names: bool,
    /// It carries another hello that only the server can read (or pretends to: the two look the same).
    pub(super) hides: bool,
}

/// The outline of the hello whose records are at the start of `bytes`, or nothing if it cannot be read.
pub(super) fn outline(bytes: &[u8]) -> Option<Outline> {
    let message = message(bytes)?;
    // Version and random.
    let (_, rest) = message.split_at_checked(2 + 32)?;
    let (_session, rest) = sized(rest, 1)?;
    let (_ciphers, rest) = sized(rest, 2)?;
    let (_compression, rest) = sized(rest, 1)?;
    let mut found = Outline { names: false, hides: false };
    if rest.is_empty() {
        return Some(found);
    }
    let (mut extensions, []) = sized(rest, 2)? else { return None };
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at_checked(2)?;
        match number(kind) {
            kind if kind == usize::from(SERVER_NAME) => found.names = true,
            kind if kind == usize::from(ENCRYPTED_HELLO) => found.hides = true,
            _ => {}
        }
        (_, extensions) = sized(rest, 2)?;
    }
    Some(found)
}

/// The body of the first handshake message, put together from the records that it is cut into.
fn message(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        let (head, rest) = bytes.split_at_checked(3)?;
        if head.first() != Some(&22) {
            return None;
        }
        let (fragment, rest) = sized(rest, 2)?;
        joined.extend_from_slice(fragment);
        bytes = rest;
        if let Some((&[1], sizes)) = joined.split_at_checked(1)
            && let Some((body, _)) = sized(sizes, 3)
        {
            return Some(body.to_vec());
        }
    }
}

/// What stands behind a length of `width` bytes, and the rest.
fn sized(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(number(length))
}

fn number(bytes: &[u8]) -> usize {
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

    /// The same hello with `size` bytes of it in each record.
    fn cut(hello: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1, 0, u8::try_from(part.len()).unwrap()], part].concat();
        hello[5..].chunks(size).flat_map(record).collect()
    }

    #[test]
    fn a_name_and_a_hidden_hello_are_seen_however_the_hello_is_cut() {
        for (server, ech, names) in
            [("a.test", false, true), ("a.test", true, true), ("127.0.0.1", false, false)]
        {
            let hello = hello(server, ech);
            let expected = Some(Outline { names, hides: ech });
            assert_eq!(outline(&hello), expected);
            for size in [1, 3, 200] {
                assert_eq!(outline(&cut(&hello, size)), expected);
            }
            for end in 0..hello.len() {
                assert_eq!(outline(&hello[..end]), None, "cut off at {end}");
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_hello_and_no_crash(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = outline(&bytes);
            let _ = outline(&[&[22, 3, 1, 0, 200, 1, 0, 0][..], &bytes].concat());
        }
    }
}
