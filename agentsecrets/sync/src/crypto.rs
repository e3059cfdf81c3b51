//! Cryptography, all of it from libraries: HPKE (RFC 9180, base mode, X25519, HKDF-SHA256, AES-256-GCM) seals keys to
//! members, AES-256-GCM seals content, Ed25519 signs, SHA-256 hashes, HKDF-SHA256 derives.

use agentsecrets_types::secret::Secret;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as HPKE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::error::Error;
use crate::padding::{pad, unpad};

/// The length of keys, in bytes.
pub(crate) const KEY: usize = 32;

/// A symmetric key.
pub(crate) struct DataKey(Secret);

impl DataKey {
    /// A random key.
    pub(crate) fn random() -> Result<Self, Error> {
        Ok(Self(Secret::new(agentsecrets_vault::random::<KEY>()?.to_vec())))
    }

    /// These bytes, if they are a key.
    pub(crate) fn new(bytes: Secret) -> Option<Self> {
        (bytes.len() == KEY).then_some(Self(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// Pads and encrypts `content`, bound to `context`: nonce, ciphertext, tag.
    pub(crate) fn seal(&self, context: &[u8], content: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(agentsecrets_vault::seal(&self.0, context, &pad(content))?)
    }

    /// Decrypts what [`DataKey::seal`] made in the same context.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Secret> {
        unpad(&agentsecrets_vault::unseal(&self.0, context, sealed)?)
    }

    /// A value that commits to the key and reveals nothing of it.
    pub(crate) fn check(&self) -> Result<Secret, Error> {
        Ok(agentsecrets_vault::derive(&[], self.expose(), b"agentsecrets-sync/1 key check")?)
    }

    /// Whether `check` commits to this key.
    pub(crate) fn matches(&self, check: &[u8]) -> bool {
        self.check().is_ok_and(|own| own.expose().ct_eq(check).into())
    }
}

/// Bytes that an operation is bound to: `label`, then each part with its length (8 bytes, big-endian) in front.
pub(crate) fn context(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("agentsecrets-sync/1 {label}\n").into_bytes();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Encrypts `content` to a public key; the encapsulated key and the ciphertext.
pub(crate) fn seal_to(public: &[u8], info: &[u8], content: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let public = HpkePublicKey(public.to_vec());
    let (encapsulated, sealed) = HPKE
        .seal(info, &[], content, &public)
        .map_err(|_| Error::Crypto("a key could not be sealed: the member's public key is invalid"))?;
    Ok((encapsulated.0, sealed))
}

/// Decrypts what [`seal_to`] made.
pub(crate) fn open_with(private: &Secret, info: &[u8], encapsulated: &[u8], sealed: &[u8]) -> Option<Secret> {
    let private = HpkePrivateKey::from(private.expose().to_vec());
    let mut opened =
        HPKE.open(&EncapsulatedSecret(encapsulated.to_vec()), info, &[], sealed, &private).ok()?;
    let secret = Secret::new(opened.clone());
    opened.zeroize();
    Some(secret)
}

/// A new X25519 key pair: public, private.
pub(crate) fn generate_encryption_keys() -> Result<(Vec<u8>, Secret), Error> {
    let (public, private) =
        HPKE.generate_key_pair().map_err(|_| Error::Crypto("a key pair could not be generated"))?;
    Ok((public.0, Secret::new(private.secret_bytes().to_vec())))
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

/// HMAC-SHA256 of `content` under `key`.
pub(crate) fn mac(key: &Secret, content: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), content);
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    bytes
}
