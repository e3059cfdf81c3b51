//! Recovery of an identity by a code of twelve words, for a member whose passphrase or machine is lost.

use agentsecrets_types::secret::Secret;
use agentsecrets_vault::Base64;
use bip39::{Language, Mnemonic};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::cache::Pin;
use crate::crypto::{DataKey, context};
use crate::error::Error;
use crate::id::Id;
use crate::identity::Identity;
use crate::remote::Remote;

/// The entropy of a code, in bytes.
const ENTROPY: usize = 16;

/// A recovery code.
pub struct Recovery {
    entropy: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Escrow {
    identity: Base64,
    pin: Pin,
}

impl Drop for Escrow {
    fn drop(&mut self) {
        self.identity.0.zeroize();
    }
}

impl Recovery {
    /// A new code.
    ///
    /// # Errors
    /// If the system yields no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { entropy: Secret::new(agentsecrets_vault::random::<ENTROPY>()?.to_vec()) })
    }

    /// Twelve words, the last of which holds a check sum.
    ///
    /// # Errors
    /// If a library fails.
    pub fn words(&self) -> Result<Zeroizing<String>, Error> {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, self.entropy.expose());
        let mnemonic = mnemonic.map_err(|_| Error::Crypto("a recovery code could not be made"))?;
        Ok(Zeroizing::new(mnemonic.to_string()))
    }

    /// Reads twelve words.
    ///
    /// # Errors
    /// If a word is unknown or the check sum does not match.
    pub fn from_words(text: &str) -> Result<Self, Error> {
        let plain = Zeroizing::new(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &plain);
        let wrong = || {
            Error::Refused("this is no recovery code: it has twelve words, and one of these is wrong".into())
        };
        let mut entropy = mnemonic.map_err(|_| wrong())?.to_entropy();
        if entropy.len() != ENTROPY {
            entropy.zeroize();
            return Err(wrong());
        }
        Ok(Self { entropy: Secret::new(entropy) })
    }

    /// Leaves `identity` in the store, sealed under the code.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn save(&self, remote: &Remote, identity: &Identity, pin: Pin) -> Result<(), Error> {
        let (name, key) = (self.name()?, self.key()?);
        let escrow = Escrow { identity: Base64(identity.to_secret()?.expose().to_vec()), pin };
        let bytes =
            serde_json::to_vec(&escrow).map_err(|_| Error::Crypto("the identity cannot be written"))?;
        let sealed =
            key.seal(&context("recovery", &[name.to_string().as_bytes()]), &Zeroizing::new(bytes))?;
        remote.create(&format!("recovery/{name}"), &sealed).await.map(drop)
    }

    /// The identity that was left, and the last commit at that time.
    ///
    /// # Errors
    /// If there is none for this code.
    pub async fn restore(&self, remote: &Remote) -> Result<(Identity, Pin), Error> {
        let (name, key) = (self.name()?, self.key()?);
        let sealed = remote.object(&format!("recovery/{name}")).await?;
        let sealed =
            sealed.ok_or_else(|| Error::NotFound("the storage has nothing for this recovery code".into()))?;
        let opened = key.open(&context("recovery", &[name.to_string().as_bytes()]), &sealed);
        let opened = opened.and_then(|bytes| serde_json::from_slice::<Escrow>(bytes.expose()).ok());
        let escrow =
            opened.ok_or_else(|| Error::Refused("what the storage has for this code was altered".into()))?;
        Ok((Identity::from_secret(&Secret::new(escrow.identity.0.clone()))?, escrow.pin))
    }

    fn name(&self) -> Result<Id, Error> {
        let name =
            agentsecrets_vault::derive(&[], self.entropy.expose(), b"agentsecrets-sync/1 recovery name")?;
        let bytes = name.expose().first_chunk::<16>().copied().unwrap_or_default();
        Ok(Id::from_bytes(bytes))
    }

    fn key(&self) -> Result<DataKey, Error> {
        let key =
            agentsecrets_vault::derive(&[], self.entropy.expose(), b"agentsecrets-sync/1 recovery key")?;
        DataKey::new(key).ok_or(Error::Crypto("a key has the wrong length"))
    }
}
