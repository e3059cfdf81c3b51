//! One commit: a header line, a signature line, and a body of JSON lines. The head (both lines) is small and commits
//! to the body by hash and length; the hash of the head is the hash of the commit.

use std::fmt;

use agentsecrets_vault::Base64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crypto::{context, sha256};
use crate::error::Error;
use crate::id::{Id, parse_hex};
use crate::identity::{Identity, PublicIdentity};

const FORMAT: &str = "agentsecrets-sync";
const VERSION: u32 = 1;
/// The largest head, in bytes.
const MAX_HEAD: usize = 4096;
/// The largest commit, in bytes.
pub(crate) const MAX_COMMIT: usize = 64 * 1024 * 1024;

/// The SHA-256 of a head or a body, in lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub(crate) [u8; 32]);

/// The hash before the first commit.
pub(crate) const NO_HASH: Hash = Hash([0; 32]);

/// What an author signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    format: String,
    version: u32,
    pub(crate) workspace: Id,
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) author: Id,
    /// For people only; nothing depends on it.
    pub(crate) time: String,
    body_hash: Hash,
    body_len: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureLine {
    signature: Base64,
}

/// The first line of a body: keys, grants and sealed operations.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyLine {
    pub(crate) keys: Vec<KeyRecord>,
    pub(crate) grants: Vec<Grant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<Control>,
}

/// A new data key, or a new generation of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord {
    pub(crate) key: Id,
    pub(crate) generation: u32,
    /// A commitment to the key.
    pub(crate) check: Base64,
    /// The name of the workspace or environment, sealed under the key.
    pub(crate) name: Base64,
    /// The generation before, sealed under the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prior: Option<Base64>,
}

/// A data key, sealed to one member.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    pub(crate) key: Id,
    pub(crate) generation: u32,
    pub(crate) member: Id,
    pub(crate) encapsulated: Base64,
    pub(crate) sealed: Base64,
}

/// Operations on members and environments, sealed under the workspace key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Control {
    pub(crate) generation: u32,
    pub(crate) sealed: Base64,
}

/// One new version of a secret: each further line of a body.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) environment: Id,
    pub(crate) generation: u32,
    pub(crate) name: Base64,
    pub(crate) value: Base64,
}

/// A commit whose head and body belong together. Its signature is checked against an author later.
#[derive(Debug, Clone)]
pub struct Commit {
    pub(crate) header: Header,
    hash: Hash,
    head_len: usize,
    signature: Vec<u8>,
    bytes: Vec<u8>,
}

impl Commit {
    /// Signs a commit.
    pub(crate) fn sign(
        identity: &Identity,
        seq: u64,
        prev: Hash,
        keys: &KeyLine,
        entries: &[Entry],
    ) -> Result<Self, Error> {
        let unwritable = |_| Error::Crypto("the commit cannot be written");
        let mut body = serde_json::to_vec(keys).map_err(unwritable)?;
        body.push(b'\n');
        for entry in entries {
            serde_json::to_writer(&mut body, entry).map_err(unwritable)?;
            body.push(b'\n');
        }
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            workspace: identity.workspace,
            seq,
            prev,
            author: identity.member,
            time: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            body_hash: Hash(sha256(&body)),
            body_len: body.len() as u64,
        };
        let line = serde_json::to_vec(&header).map_err(unwritable)?;
        let signature = identity.sign(&context("commit", &[&line]))?;
        let signature = serde_json::to_vec(&SignatureLine { signature: Base64(signature) });
        let bytes = [&line[..], b"\n", &signature.map_err(unwritable)?, b"\n", &body].concat();
        if bytes.len() > MAX_COMMIT {
            return Err(Error::Refused(
                "the change is larger than 64 MiB: push fewer secrets at once".into(),
            ));
        }
        Self::parse(seq, bytes)
    }

    /// Reads a commit that the store gave for `seq`.
    ///
    /// # Errors
    /// If its head and body do not belong together.
    pub fn parse(seq: u64, bytes: Vec<u8>) -> Result<Self, Error> {
        let altered = |what| Error::Altered { seq, what };
        let (header, signature, head_len) = split_head(&bytes).ok_or_else(|| altered("its head"))?;
        let hash = Hash(sha256(bytes.get(..head_len).unwrap_or_default()));
        let body = bytes.get(head_len..).unwrap_or_default();
        if header.format != FORMAT || header.version != VERSION {
            return Err(altered("its format"));
        }
        if header.seq != seq {
            return Err(Error::Unlinked(seq));
        }
        if body.len() as u64 != header.body_len || Hash(sha256(body)) != header.body_hash {
            return Err(altered("its content"));
        }
        Ok(Self { header, hash, head_len, signature, bytes })
    }

    /// The hash of the head.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Number of the commit.
    pub fn seq(&self) -> u64 {
        self.header.seq
    }

    /// The length of the head, in bytes.
    pub fn head_len(&self) -> usize {
        self.head_len
    }

    /// The object.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `author` signed it.
    pub(crate) fn is_signed_by(&self, author: &PublicIdentity) -> bool {
        let line = self.bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        author.verifies(&context("commit", &[line]), &self.signature)
    }

    /// The keys, grants and operations.
    pub(crate) fn keys(&self) -> Result<KeyLine, Error> {
        let line = self.lines().next().unwrap_or_default();
        serde_json::from_slice(line).map_err(|_| self.malformed())
    }

    /// The new versions of secrets.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> + '_ {
        let parse = |line: &[u8]| serde_json::from_slice(line).map_err(|_| self.malformed());
        self.lines().skip(1).filter(|line| !line.is_empty()).map(parse)
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.get(self.head_len..).unwrap_or_default().split(|byte| *byte == b'\n')
    }

    fn malformed(&self) -> Error {
        Error::Altered { seq: self.seq(), what: "its structure" }
    }
}

/// Header, signature and length of the head.
fn split_head(bytes: &[u8]) -> Option<(Header, Vec<u8>, usize)> {
    let start = bytes.get(..bytes.len().min(MAX_HEAD))?;
    let mut lines = start.splitn(3, |byte| *byte == b'\n');
    let (header, signature, _) = (lines.next()?, lines.next()?, lines.next()?);
    let line: SignatureLine = serde_json::from_slice(signature).ok()?;
    let head_len = header.len() + signature.len() + 2;
    Some((serde_json::from_slice(header).ok()?, line.signature.0, head_len))
}

/// The hash of a head that the store gave.
pub(crate) fn head_hash(head: &[u8]) -> Hash {
    Hash(sha256(head))
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_hex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("a hash has 64 hexadecimal digits"))
    }
}
