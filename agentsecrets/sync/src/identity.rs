//! The keys of a member: an X25519 key that data keys are sealed to, and an Ed25519 key that signs commits.

use agentsecrets_types::secret::Secret;
use agentsecrets_vault::Base64;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use bip39::Language;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::{KEY, context, generate_encryption_keys, mac, open_with, sha256};
use crate::error::Error;
use crate::id::Id;

/// Words of a fingerprint: 8 of 2048, 88 bits.
const FINGERPRINT_WORDS: usize = 8;
const BITS_PER_WORD: usize = 11;

/// The secret keys of a member in one workspace.
pub struct Identity {
    /// The workspace.
    pub workspace: Id,
    /// The member.
    pub member: Id,
    signing_seed: Secret,
    encryption_private: Secret,
    public: PublicIdentity,
}

/// The public keys of a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicIdentity {
    /// The Ed25519 public key.
    pub signing: Base64,
    /// The X25519 public key.
    pub encryption: Base64,
}

/// The identity as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    workspace: Id,
    member: Id,
    signing_seed: String,
    encryption_private: String,
    encryption_public: Base64,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.signing_seed.zeroize();
        self.encryption_private.zeroize();
    }
}

impl Identity {
    /// New keys for the member `member` of `workspace`.
    ///
    /// # Errors
    /// If a library fails.
    pub fn generate(workspace: Id, member: Id) -> Result<Self, Error> {
        let seed = Secret::new(agentsecrets_vault::random::<KEY>()?.to_vec());
        let (encryption, encryption_private) = generate_encryption_keys()?;
        Self::assemble(workspace, member, seed, encryption_private, encryption)
    }

    fn assemble(
        workspace: Id,
        member: Id,
        signing_seed: Secret,
        encryption_private: Secret,
        encryption_public: Vec<u8>,
    ) -> Result<Self, Error> {
        let signing = key_pair(&signing_seed)?.public_key().as_ref().to_vec();
        let public = PublicIdentity { signing: Base64(signing), encryption: Base64(encryption_public) };
        Ok(Self { workspace, member, signing_seed, encryption_private, public })
    }

    /// The public keys.
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// The identity as a secret value for a store.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn to_secret(&self) -> Result<Secret, Error> {
        let stored = Stored {
            version: 1,
            workspace: self.workspace,
            member: self.member,
            signing_seed: encode(&self.signing_seed),
            encryption_private: encode(&self.encryption_private),
            encryption_public: self.public.encryption.clone(),
        };
        let bytes =
            serde_json::to_vec(&stored).map_err(|_| Error::Crypto("the identity cannot be written"))?;
        Ok(Secret::new(bytes))
    }

    /// The identity that [`Identity::to_secret`] wrote.
    ///
    /// # Errors
    /// If the value is no identity.
    pub fn from_secret(secret: &Secret) -> Result<Self, Error> {
        let damaged = || Error::Local("the stored identity of the workspace is damaged: join again".into());
        let stored: Stored = serde_json::from_slice(secret.expose()).map_err(|_| damaged())?;
        let (seed, private) = (decode(&stored.signing_seed), decode(&stored.encryption_private));
        let (Some(seed), Some(private), 1) = (seed, private, stored.version) else { return Err(damaged()) };
        Self::assemble(stored.workspace, stored.member, seed, private, stored.encryption_public.0.clone())
    }

    /// Signs `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(key_pair(&self.signing_seed)?.sign(message).as_ref().to_vec())
    }

    /// Opens a key that was sealed to this member.
    pub(crate) fn open(&self, info: &[u8], encapsulated: &[u8], sealed: &[u8]) -> Option<Secret> {
        open_with(&self.encryption_private, info, encapsulated, sealed)
    }

    /// A digest of a value that only this member can compute, for comparing without keeping values.
    ///
    /// # Errors
    /// If a library fails.
    pub fn digest(&self, value: &[u8], placeholder: Option<&str>) -> Result<[u8; 32], Error> {
        let key =
            agentsecrets_vault::derive(&[], self.signing_seed.expose(), b"agentsecrets-sync/1 local digest")?;
        let content = Zeroizing::new(context("digest", &[value, placeholder.unwrap_or_default().as_bytes()]));
        Ok(mac(&key, &content))
    }
}

impl PublicIdentity {
    /// Words that two people compare: 88 bits of the SHA-256 of both keys.
    pub fn fingerprint(&self) -> String {
        words(&context("fingerprint", &[&self.signing.0, &self.encryption.0]))
    }

    /// Whether `signature` over `message` is of this member.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.signing.0).verify(message, signature).is_ok()
    }

    /// Whether both keys have the right lengths.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.signing.0.len() == KEY && self.encryption.0.len() == KEY
    }
}

/// Words for the SHA-256 of `bytes`.
pub(crate) fn words(bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    let bit = |at: usize| hash.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    let index =
        |word: usize| (0..BITS_PER_WORD).fold(0, |index, at| index << 1 | bit(word * BITS_PER_WORD + at));
    let list = Language::English.word_list();
    let words = (0..FINGERPRINT_WORDS).map(|word| list.get(index(word)).copied().unwrap_or_default());
    words.collect::<Vec<_>>().join("-")
}

/// An Ed25519 key pair of a seed of 32 bytes.
pub(crate) fn key_pair(seed: &Secret) -> Result<Ed25519KeyPair, Error> {
    Ed25519KeyPair::from_seed_unchecked(seed.expose())
        .map_err(|_| Error::Crypto("the signing key is invalid"))
}

fn encode(secret: &Secret) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(secret.expose())
}

fn decode(text: &str) -> Option<Secret> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    (bytes.len() == KEY).then(|| Secret::new(bytes))
}
