//! The roots as a Java trust store. It is written in Java's first format, which every Java reads and
//! reads without a password: that is how a Java opens its own store. PKCS #12 opened so shows only what is
//! not encrypted in it, and to old ones nothing. All in it is public; its digest proves no more than that
//! it is whole.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// What Java calls by habit the password of a store that anybody may read.
const PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// An entry that is a trusted certificate.
const TRUSTED: u32 = 2;

/// A trust store with the certificates of `bundle`, which is PEM; those that cannot be read are left out.
pub fn trust_store(bundle: &str) -> Vec<u8> {
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect();
    let mut store = Vec::with_capacity(bundle.len());
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    store.extend(length(certificates.len()));
    for (number, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        text(&mut store, &format!("root-{number}"));
        // When it was added: the same every time.
        store.extend(0u64.to_be_bytes());
        text(&mut store, "X.509");
        store.extend(length(certificate.len()));
        store.extend_from_slice(certificate);
    }
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(b"Mighty Aphrodite");
    digest.update(&store);
    store.extend_from_slice(digest.finish().as_ref());
    store
}

/// A bundle is 16 MiB at most, so that its parts' lengths fit.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Short ASCII, as Java's `writeUTF` writes it.
fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_an_entry_and_text_between_them_is_none() {
        let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert;
        let (a, b) = (certificate("a.test"), certificate("b.test"));
        let store = trust_store(&format!("# a comment\n{}\n# another\n{}", a.pem(), b.pem()));
        assert_eq!(store[..12], [0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 2]);
        for certificate in [a, b] {
            assert!(store.windows(certificate.der().len()).any(|window| window == &**certificate.der()));
        }
        assert_eq!(trust_store("").len(), 12 + 20);
    }
}
