//! A Java trust store with the root certificates. It uses Java's first format (JKS), which every Java version
//! reads without a password, as it reads its own store. A PKCS #12 store read so shows only its unencrypted
//! entries, and nothing to old versions. All of it is public; its digest detects damage only.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Java's conventional password of a public store.
const STORE_PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// The tag of a trusted certificate's entry.
const TRUSTED_CERTIFICATE_TAG: u32 = 2;

/// Builds a trust store of the certificates in `bundle` (PEM); unreadable ones are left out.
pub(crate) fn trust_store(bundle: &str) -> Vec<u8> {
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect();
    let mut store = Vec::with_capacity(bundle.len());
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    store.extend(encode_length(certificates.len()));
    for (number, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED_CERTIFICATE_TAG.to_be_bytes());
        write_utf(&mut store, &format!("root-{number}"));
        // Creation time: constant, so that the output is reproducible.
        store.extend(0u64.to_be_bytes());
        write_utf(&mut store, "X.509");
        store.extend(encode_length(certificate.len()));
        store.extend_from_slice(certificate);
    }
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in STORE_PASSWORD.encode_utf16() {
        digest.update(&unit.to_be_bytes());
    }
    digest.update(b"Mighty Aphrodite");
    digest.update(&store);
    store.extend_from_slice(digest.finish().as_ref());
    store
}

/// A bundle is at most 16 MiB, so that lengths fit.
fn encode_length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// Writes short ASCII text as Java's `writeUTF` does.
fn write_utf(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_is_an_entry() {
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
