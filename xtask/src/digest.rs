//! Digests and random text, in hexadecimal digits.

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Random bytes, two digits each.
pub(crate) fn random_hex<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_has_two_digits_per_byte() {
        assert!(sha256(b"abc").starts_with("ba7816bf8f01cfea4141"));
        assert_eq!(sha256(b"").len(), 64);
    }
}
