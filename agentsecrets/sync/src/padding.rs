//! Padding to size classes: what is sealed has 256 bytes times a power of two, so that a size tells only its class.

use agentsecrets_types::secret::Secret;
use zeroize::Zeroizing;

/// The smallest class, in bytes.
const MIN_CLASS: usize = 256;
/// The length in front of the content, in bytes.
const PREFIX: usize = 4;

/// The length as four bytes, big-endian, then the content, then zeros up to the class.
pub(crate) fn pad(content: &[u8]) -> Zeroizing<Vec<u8>> {
    let class = (content.len() + PREFIX).next_power_of_two().max(MIN_CLASS);
    let mut padded = Zeroizing::new(Vec::with_capacity(class));
    padded.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
    padded.extend_from_slice(content);
    padded.resize(class, 0);
    padded
}

/// The content of padded bytes, if the padding is that of [`pad`].
pub(crate) fn unpad(padded: &Secret) -> Option<Secret> {
    let (prefix, rest) = padded.expose().split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes(*prefix)).ok()?;
    let (content, zeros) = rest.split_at_checked(length)?;
    let class = (length + PREFIX).next_power_of_two().max(MIN_CLASS);
    let valid = padded.len() == class && zeros.iter().all(|byte| *byte == 0);
    valid.then(|| Secret::new(content.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn padded_content_comes_back(content in prop::collection::vec(any::<u8>(), 0..3000)) {
            let padded = pad(&content);
            prop_assert!(padded.len().is_power_of_two() && padded.len() >= MIN_CLASS);
            let unpadded = unpad(&Secret::new(padded.to_vec())).unwrap();
            prop_assert_eq!(unpadded.expose(), &content[..]);
        }

        #[test]
        fn any_bytes_are_unpadded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = unpad(&Secret::new(bytes));
        }
    }

    #[test]
    fn nonzero_padding_is_refused() {
        let mut padded = pad(b"value").to_vec();
        *padded.last_mut().unwrap() = 1;
        assert!(unpad(&Secret::new(padded)).is_none());
    }
}
