//! Tokens: a prefix that says what it is, an id that may be shown, and 256 random bits that may not. What is
//! kept of one is its SHA-256: so much randomness needs no slower hash.

use std::fmt;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::types::hex::hex;

/// A token that was just made. Its text exists here alone.
pub struct Minted {
    /// Its id.
    pub id: String,
    /// The token itself, for its holder.
    pub text: Zeroizing<String>,
    /// The digest that is stored.
    pub digest: Digest,
}

/// A token's SHA-256.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Makes a token that begins with `prefix`.
pub fn mint(prefix: &str) -> io::Result<Minted> {
    let id = new_id()?;
    let mut bits = Zeroizing::new([0; 32]);
    fill(&mut *bits)?;
    let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bits));
    let text = Zeroizing::new(format!("{prefix}{id}_{}", secret.as_str()));
    let digest = Digest::of(&text);
    Ok(Minted { id, text, digest })
}

/// The id of the token that `text` is, if it has the form of one that begins with `prefix`.
pub fn id<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (id, _) = text.strip_prefix(prefix)?.split_once('_')?;
    is_id(id).then_some(id)
}

/// A new id: 16 digits of lower-case hex.
pub fn new_id() -> io::Result<String> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Whether `text` is an id.
pub fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn fill(bytes: &mut [u8]) -> io::Result<()> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| io::Error::other("the system yields no random bytes"))
}

impl Digest {
    fn of(text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Whether `text` is the token. Takes as long whatever it is.
    pub fn is_of(&self, text: &str) -> bool {
        self.0.ct_eq(&Self::of(text).0).into()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        hex(&digest.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "a SHA-256 has 64 digits of lower-case hex";
        let digit = |byte: u8| (byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(wrong);
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let mut digits = pair.iter().map(|byte| digit(*byte));
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(wrong);
            };
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_names_its_id_and_only_whole_text_matches() {
        let minted = mint("as_agent_").unwrap();
        assert_eq!(id(&minted.text, "as_agent_"), Some(&*minted.id));
        assert_eq!(id(&minted.text, "as_sess_"), None);
        assert!(minted.digest.is_of(&minted.text));
        assert!(minted.text.len() >= "as_agent_".len() + 16 + 1 + 43);
        let mut forged = minted.text.to_string();
        forged.pop();
        assert!(!minted.digest.is_of(&forged));
        assert_ne!(*mint("as_agent_").unwrap().text, *minted.text);
        let kept = serde_json::to_string(&minted.digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&kept).unwrap(), minted.digest);
        assert!(!kept.contains(minted.text.rsplit_once('_').unwrap().1));
    }

    proptest! {
        #[test]
        fn other_text_is_not_a_token(text in "(as_agent_)?[0-9a-f]{0,17}_?[ -~]{0,50}") {
            let minted = mint("as_agent_").unwrap();
            prop_assert!(!minted.digest.is_of(&text));
            prop_assert!(id(&text, "as_agent_").is_none_or(is_id));
        }

        #[test]
        fn digest_is_64_hex_digits(text in prop_oneof!["[0-9a-f]{64}", "[0-9a-gA-F]{62,66}"]) {
            let good = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            prop_assert_eq!(Digest::try_from(text).is_ok(), good);
        }
    }
}
