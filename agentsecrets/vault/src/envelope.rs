//! The vault as bytes: what stands on which line, and the proof that nobody changed it. Nothing past
//! the wrapped key is even parsed before the whole file is authenticated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use agentsecrets_types::name::{Environment, Project, SecretName};
use agentsecrets_types::secret::Secret;
use agentsecrets_types::store::{Key, StoreError};

use super::keys::{Keys, Method, Unlock, random};
use crate::encoding::Base64;

const FORMAT: &str = "agentsecrets-vault";
const VERSION: u32 = 1;
/// The last line is `{"mac":"`, 44 characters of base64, `"}` and a newline.
const MAC_START: &str = "{\"mac\":\"";
const MAC_END: &str = "\"}\n";
const MAC_LINE: usize = MAC_START.len() + 44 + MAC_END.len();

/// An authenticated vault.
pub(super) struct Envelope {
    opening: Opening,
    /// Rises by one with every change.
    pub(super) generation: u64,
    /// The secrets, each sealed.
    pub(super) items: BTreeMap<Key, Item>,
}

/// The part of a vault that is read before the keys are known: the first line and the wrapped key. A vault
/// keeps both until its passphrase or key file is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    header: String,
    wrapped_key: String,
}

/// A sealed secret.
#[derive(Clone)]
pub(super) struct Item {
    /// The generation in which it was set.
    version: u64,
    /// When that was, in RFC 3339.
    pub(super) updated: String,
    /// The placeholder that the person fixed.
    pub(super) placeholder: Option<String>,
    sealed: Base64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    format: String,
    version: u32,
    id: Base64,
    unlock: Method,
}

/// The first line in every version.
#[derive(Deserialize)]
struct AnyHeader {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine {
    generation: u64,
    wrapped_key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemLine {
    project: Project,
    environment: Environment,
    name: SecretName,
    version: u64,
    updated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    placeholder: Option<String>,
    sealed: Base64,
}

impl Opening {
    /// Reads it from a file that is not yet authenticated.
    pub(super) fn read(file: &str) -> Result<Self, StoreError> {
        let (header, key, _) = lines(file)?;
        Ok(Self { header: header.into(), wrapped_key: key.wrapped_key })
    }

    /// The keys, if `unlock` opens it.
    pub(super) fn keys(&self, unlock: &Unlock) -> Result<Keys, StoreError> {
        unlock.keys(&parse_header(&self.header)?.unlock, self.header.as_bytes(), &self.wrapped_key)
    }
}

impl Envelope {
    /// An empty vault under a new data key.
    pub(super) fn new(unlock: &Unlock) -> Result<(Self, Keys), StoreError> {
        let method = unlock.method()?;
        let id = Base64(random::<16>()?.to_vec());
        let header =
            line(&HeaderLine { format: FORMAT.into(), version: VERSION, id, unlock: method.clone() })?;
        let (wrapped_key, keys) = unlock.new_keys(&method, header.as_bytes())?;
        let opening = Opening { header, wrapped_key };
        Ok((Self { opening, generation: 0, items: BTreeMap::new() }, keys))
    }

    /// Reads a file, once it is proven to be what the holder of the keys wrote.
    pub(super) fn read(file: &str, keys: &Keys) -> Result<Self, StoreError> {
        let content = authenticated(file, keys)?;
        let (header, key, rest) = lines(content)?;
        let mut items = BTreeMap::new();
        for text in rest.lines() {
            let item: ItemLine = serde_json::from_str(text).map_err(|_| damaged("an item cannot be read"))?;
            let ItemLine { project, environment, name, version, updated, placeholder, sealed } = item;
            let key = Key { project, environment, name };
            items.insert(key, Item { version, updated, placeholder, sealed });
        }
        let opening = Opening { header: header.into(), wrapped_key: key.wrapped_key };
        Ok(Self { opening, generation: key.generation, items })
    }

    /// The whole file, authenticated.
    pub(super) fn write(&self, keys: &Keys) -> Result<String, StoreError> {
        let mut file = format!("{}\n", self.opening.header);
        let wrapped_key = self.opening.wrapped_key.clone();
        file += &line(&KeyLine { generation: self.generation, wrapped_key })?;
        file.push('\n');
        for (key, item) in &self.items {
            file += &line(&ItemLine {
                project: key.project.clone(),
                environment: key.environment.clone(),
                name: key.name.clone(),
                version: item.version,
                updated: item.updated.clone(),
                placeholder: item.placeholder.clone(),
                sealed: item.sealed.clone(),
            })?;
            file.push('\n');
        }
        Ok(proven(&file, keys))
    }

    /// A copy to be changed into the next generation.
    pub(super) fn next(&self) -> Self {
        Self {
            opening: self.opening.clone(),
            generation: self.generation.saturating_add(1),
            items: self.items.clone(),
        }
    }

    /// The next generation under a new data key, which `unlock` opens.
    pub(super) fn rekeyed(&self, keys: &Keys, unlock: &Unlock) -> Result<(Self, Keys), StoreError> {
        let (mut new, new_keys) = Self::new(unlock)?;
        new.generation = self.generation.saturating_add(1);
        for (key, item) in &self.items {
            let value = self.value(keys, key)?.ok_or_else(|| damaged("an item is missing"))?;
            let sealed = Base64(new_keys.seal(&context(key, item.version), &value)?);
            new.items.insert(key.clone(), Item { sealed, ..item.clone() });
        }
        Ok((new, new_keys))
    }

    /// The header and the wrapped key.
    pub(super) fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Puts in a value; the envelope's generation is the one that is being made.
    pub(super) fn put(
        &mut self,
        keys: &Keys,
        key: &Key,
        value: &Secret,
        placeholder: Option<&str>,
    ) -> Result<(), StoreError> {
        let version = self.generation;
        let sealed = Base64(keys.seal(&context(key, version), value)?);
        let updated = format!("{:.0}", jiff::Timestamp::now());
        let item = Item { version, updated, placeholder: placeholder.map(Into::into), sealed };
        self.items.insert(key.clone(), item);
        Ok(())
    }

    /// The value at `key`.
    pub(super) fn value(&self, keys: &Keys, key: &Key) -> Result<Option<Secret>, StoreError> {
        let Some(item) = self.items.get(key) else { return Ok(None) };
        let value = keys.open(&context(key, item.version), &item.sealed.0);
        value.map(Some).ok_or_else(|| damaged("a value does not decrypt"))
    }
}

/// The whole file: this content and the line that proves it.
pub(super) fn proven(content: &str, keys: &Keys) -> String {
    format!("{content}{MAC_START}{}{MAC_END}", keys.authenticate(content.as_bytes()))
}

/// Why a vault's bytes are not believed.
pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("the vault is damaged or was altered: {what}; restore it from a backup"))
}

/// The content before the last line, which must prove it.
fn authenticated<'a>(file: &'a str, keys: &Keys) -> Result<&'a str, StoreError> {
    let start = file.len().checked_sub(MAC_LINE).filter(|at| file.is_char_boundary(*at));
    let (content, last) = start.map(|at| file.split_at(at)).ok_or_else(|| damaged("it was cut short"))?;
    let mac = last.strip_prefix(MAC_START).and_then(|rest| rest.strip_suffix(MAC_END));
    let mac = mac.ok_or_else(|| damaged("its last line is missing"))?;
    // Text is compared, not bytes: base64 must not have two spellings of one authenticator.
    if !bool::from(mac.as_bytes().ct_eq(keys.authenticate(content.as_bytes()).as_bytes())) {
        return Err(damaged("its bytes are not those that were written"));
    }
    Ok(content)
}

fn lines(file: &str) -> Result<(&str, KeyLine, &str), StoreError> {
    let cut = || damaged("it was cut short");
    let (header, rest) = file.split_once('\n').ok_or_else(cut)?;
    parse_header(header)?;
    let (key, rest) = rest.split_once('\n').ok_or_else(cut)?;
    let key = serde_json::from_str(key).map_err(|_| damaged("its second line cannot be read"))?;
    Ok((header, key, rest))
}

fn parse_header(header: &str) -> Result<HeaderLine, StoreError> {
    let any: AnyHeader = serde_json::from_str(header).map_err(|_| damaged("its first line is no header"))?;
    if any.format != FORMAT {
        return Err(damaged("its first line is no header"));
    }
    if any.version != VERSION {
        return Err(StoreError::Damaged(format!(
            "the vault has format {}, and this program knows format {VERSION}: use a newer agentsecrets",
            any.version
        )));
    }
    serde_json::from_str(header).map_err(|_| damaged("its header cannot be read"))
}

fn line(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Io("the vault could not be written as JSON".into()))
}

/// The associated data of a sealed value: its format, its address, and the generation that set it.
fn context(key: &Key, version: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in ["agentsecrets-vault/1", key.project.as_str(), key.environment.as_str(), key.name.as_str()] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes
}
