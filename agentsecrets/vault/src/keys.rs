//! The keys of a vault: how a passphrase or a key file becomes the key that wraps the data key, and
//! how the data key becomes the two keys in use. It refuses key files that others can read, and costs
//! that would only serve to exhaust us.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, rand};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use agentsecrets_sys::files;
use agentsecrets_types::secret::Secret;
use agentsecrets_types::store::StoreError;

use crate::encoding::{Base64, decode, encode};

/// A key is this long, in bytes.
const KEY: usize = 32;
/// A tag of AES-256-GCM is this long, in bytes.
const TAG: usize = 16;
/// The largest key file, in bytes.
const MAX_KEY_FILE_SIZE: u64 = 64 * 1024;

/// The secret that opens a vault.
pub enum Unlock {
    /// A file of at least 32 bytes that its owner alone may read; one final newline is not part of it.
    KeyFile(PathBuf),
    /// A passphrase.
    Passphrase(Secret),
}

/// The method that opens a vault, as in its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Method {
    /// HKDF-SHA256 of a key file.
    KeyFile {
        /// 32 random bytes.
        salt: Base64,
    },
    /// Argon2id of a passphrase.
    Passphrase {
        /// 32 random bytes.
        salt: Base64,
        /// Memory, in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

/// The two keys that come of a data key.
pub(super) struct Keys {
    item: Secret,
    mac: Secret,
}

impl Unlock {
    /// The method for a new vault.
    pub(super) fn method(&self) -> Result<Method, StoreError> {
        let salt = Base64(random::<KEY>()?.to_vec());
        Ok(match self {
            Unlock::KeyFile(_) => Method::KeyFile { salt },
            Unlock::Passphrase(_) => Method::Passphrase { salt, memory_kib: 64 * 1024, passes: 3, lanes: 1 },
        })
    }

    /// The key that wraps the data key.
    fn wrapping_key(&self, method: &Method) -> Result<Secret, StoreError> {
        match (self, method) {
            (Unlock::KeyFile(path), Method::KeyFile { salt }) => {
                derive(&salt.0, read_key_file(path)?.expose(), b"agentsecrets-vault/1 key-file")
            }
            (Unlock::Passphrase(passphrase), Method::Passphrase { salt, memory_kib, passes, lanes }) => {
                stretch(passphrase, &salt.0, *memory_kib, *passes, *lanes)
            }
            (Unlock::KeyFile(_), Method::Passphrase { .. }) => Err(StoreError::Locked(
                "the vault is opened by a passphrase, but a key file was given: \
                 unset AGENTSECRETS_VAULT_KEY_FILE and type the passphrase"
                    .into(),
            )),
            (Unlock::Passphrase(_), Method::KeyFile { .. }) => Err(StoreError::Locked(
                "the vault is opened by a key file: set AGENTSECRETS_VAULT_KEY_FILE to its path".into(),
            )),
        }
    }

    /// Makes a data key; yields it wrapped (bound to `header`) and the keys that come of it.
    pub(super) fn new_keys(&self, method: &Method, header: &[u8]) -> Result<(String, Keys), StoreError> {
        let wrapping = self.wrapping_key(method)?;
        let data = Zeroizing::new(random::<KEY>()?);
        Ok((encode(&seal(&wrapping, header, &*data)?), Keys::of(&*data)?))
    }

    /// The keys of the data key in `wrapped`.
    pub(super) fn keys(&self, method: &Method, header: &[u8], wrapped: &str) -> Result<Keys, StoreError> {
        let wrapping = self.wrapping_key(method)?;
        let sealed = decode(wrapped).ok_or_else(|| damaged_key("it is not base64"))?;
        let data = open(&wrapping, header, &sealed).ok_or_else(|| {
            let (what, fix) = match self {
                Unlock::KeyFile(path) => (
                    format!("the key file {} does not open the vault", path.display()),
                    "point AGENTSECRETS_VAULT_KEY_FILE to the key the vault was made with",
                ),
                Unlock::Passphrase(_) => ("the passphrase does not open the vault".into(), "type it again"),
            };
            StoreError::Locked(format!(
                "{what}: {fix}; if it is the right one, the vault's header is damaged"
            ))
        })?;
        if data.len() != KEY {
            return Err(damaged_key("it has the wrong length"));
        }
        Keys::of(data.expose())
    }
}

impl Keys {
    /// Derives both keys.
    fn of(data: &[u8]) -> Result<Self, StoreError> {
        Ok(Self {
            item: derive(&[], data, b"agentsecrets-vault/1 items")?,
            mac: derive(&[], data, b"agentsecrets-vault/1 file")?,
        })
    }

    /// Encrypts a value, bound to `context`: nonce, ciphertext, tag.
    pub(super) fn seal(&self, context: &[u8], value: &Secret) -> Result<Vec<u8>, StoreError> {
        seal(&self.item, context, value.expose())
    }

    /// Decrypts a value, if it is what was sealed in this `context`.
    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Secret> {
        open(&self.item, context, sealed)
    }

    /// The authenticator of a whole file, as it is written.
    pub(super) fn authenticate(&self, content: &[u8]) -> String {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, self.mac.expose());
        encode(aws_lc_rs::hmac::sign(&key, content).as_ref())
    }
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| StoreError::Io("the system yields no random bytes".into()))?;
    Ok(bytes)
}

fn read_key_file(path: &Path) -> Result<Secret, StoreError> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| match error.kind() {
        // `check_private` has said what and how already.
        std::io::ErrorKind::PermissionDenied if error.get_ref().is_some() => {
            StoreError::Locked(format!("the key file {error}"))
        }
        std::io::ErrorKind::NotFound => StoreError::Locked(format!(
            "there is no key file {shown}: AGENTSECRETS_VAULT_KEY_FILE must name one; to make one, run: \
             (umask 077; head -c 32 /dev/urandom | base64 > {shown})"
        )),
        _ => StoreError::Locked(format!("the key file {shown} cannot be read: {error}")),
    };
    // A named pipe would hang the opening, a folder fail the reading with a riddle.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(StoreError::Locked(format!("the key file {shown} is not a regular file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    files::check_private(&file, path).map_err(unreadable)?;
    // Reserved in full, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_SIZE as usize + 1));
    file.take(MAX_KEY_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_KEY_FILE_SIZE {
        return Err(StoreError::Locked(format!("the key file {shown} is larger than 64 KiB")));
    }
    let key = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if key.len() < KEY {
        return Err(StoreError::Locked(format!(
            "the key file {shown} is too short: it must hold at least 32 bytes, and has {}",
            key.len()
        )));
    }
    Ok(Secret::new(key.to_vec()))
}

fn stretch(
    passphrase: &Secret,
    salt: &[u8],
    memory: u32,
    passes: u32,
    lanes: u32,
) -> Result<Secret, StoreError> {
    // The header is not proven yet: whoever wrote it must not make us allocate or compute without end.
    if memory > 1024 * 1024 || passes > 16 || lanes > 16 {
        return Err(damaged_key("its cost is beyond all reason"));
    }
    let parameters =
        Params::new(memory, passes, lanes, Some(KEY)).map_err(|_| damaged_key("its cost is invalid"))?;
    let mut key = Zeroizing::new([0; KEY]);
    // Our own memory for it, so that it is wiped.
    let mut blocks = Zeroizing::new(vec![Block::new(); parameters.block_count()]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into_with_memory(passphrase.expose(), salt, &mut *key, blocks.as_mut_slice())
        .map_err(|_| damaged_key("its salt is invalid"))?;
    Ok(Secret::new(key.to_vec()))
}

/// Derives a key from `material` with HKDF-SHA256; `purpose` is the info.
///
/// # Errors
/// If the library fails.
pub fn derive(salt: &[u8], material: &[u8], purpose: &[u8]) -> Result<Secret, StoreError> {
    let mut key = Zeroizing::new([0; KEY]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(material)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *key))
        .map_err(|_| StoreError::Io("a key could not be derived".into()))?;
    Ok(Secret::new(key.to_vec()))
}

/// Encrypts `plain` with AES-256-GCM: nonce, ciphertext and tag. `context` is the associated data.
///
/// # Errors
/// If the library fails.
pub fn seal(key: &Secret, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, StoreError> {
    let failed = |_| StoreError::Io("the value could not be encrypted".into());
    let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).map_err(failed)?;
    // The nonce's room first, then the value in its place: one buffer, no copy to wipe.
    let mut sealed = Zeroizing::new(Vec::with_capacity(NONCE_LEN + plain.len() + TAG));
    sealed.resize(NONCE_LEN, 0);
    sealed.extend_from_slice(plain);
    let body = sealed.get_mut(NONCE_LEN..).unwrap_or_default();
    let (nonce, tag) = key.seal_in_place_separate_tag(Aad::from(context), body).map_err(failed)?;
    for (room, byte) in sealed.iter_mut().zip(nonce.as_ref()) {
        *room = *byte;
    }
    sealed.extend_from_slice(tag.as_ref());
    Ok(std::mem::take(&mut *sealed))
}

/// Decrypts the result of [`seal`].
///
/// # Errors
/// If key, context or bytes are not those that were sealed.
pub fn open(key: &Secret, context: &[u8], sealed: &[u8]) -> Option<Secret> {
    let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose()).ok()?;
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = key.open_in_place(nonce, Aad::from(context), &mut body).ok()?;
    let secret = Secret::new(plain.to_vec());
    plain.zeroize();
    Some(secret)
}

fn damaged_key(what: &str) -> StoreError {
    StoreError::Damaged(format!(
        "the vault's wrapped key is damaged: {what}; restore the vault from a backup"
    ))
}
