//! The hash chain: each line has a keyed hash over its bytes and the hash of the line before. Bytes are
//! compared, not meanings, so that no byte of the log can be changed unseen.

use std::fs::{self, File};
use std::io::Read;

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

use super::{AuditError, Files, at};
use agentsecrets_sys::files;

/// The `prev_hash` of the first line.
pub(super) const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const PREVIOUS: &str = ",\"prev_hash\":\"";
const HASH: &str = ",\"hash\":\"";
const END: &str = "\"}";
const DIGITS: usize = FIRST.len();

/// The key of an installation's log.
pub(super) struct ChainKey(hmac::Key);

impl ChainKey {
    /// Reads the key, which its owner alone may read.
    pub(super) fn read(files: &Files) -> Result<Self, AuditError> {
        let failed = || at(&files.key);
        let file = File::open(&files.key).map_err(failed())?;
        files::check_private(&file, &files.key).map_err(failed())?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(64));
        file.take(33).read_to_end(&mut bytes).map_err(failed())?;
        if bytes.len() != 32 {
            return Err(AuditError::Missing("its key file does not hold 32 bytes"));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Reads the key, or makes it for a log that is yet to begin.
    pub(super) fn read_or_make(files: &Files) -> Result<Self, AuditError> {
        if !fs::exists(&files.key).map_err(at(&files.key))? {
            if fs::exists(&files.head).map_err(at(&files.head))? || log_has_lines(files)? {
                return Err(AuditError::Missing("its key file is gone"));
            }
            let mut bytes = Zeroizing::new([0; 32]);
            rand::fill(&mut *bytes).map_err(|_| AuditError::Random)?;
            files::replace(&files.key, &*bytes).map_err(at(&files.key))?;
        }
        Self::read(files)
    }

    /// The keyed hash of `bytes`, in hex.
    pub(super) fn hash(&self, bytes: &[u8]) -> String {
        let tag = hmac::sign(&self.0, bytes);
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        tag.as_ref().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect()
    }

    /// Compares hashes in constant time.
    pub(super) fn is_hash_of(&self, hash: &str, bytes: &[u8]) -> bool {
        subtle::ConstantTimeEq::ct_eq(hash.as_bytes(), self.hash(bytes).as_bytes()).into()
    }

    /// Completes an object that still lacks its last brace, as the line after the one of hash
    /// `previous`; yields its own hash.
    pub(super) fn seal(&self, object: &mut String, previous: &str) -> String {
        object.push_str(PREVIOUS);
        object.push_str(previous);
        object.push('"');
        let hash = self.hash(object.as_bytes());
        object.push_str(HASH);
        object.push_str(&hash);
        object.push_str(END);
        object.push('\n');
        hash
    }

    /// The hash of a sound line (without its newline) that follows the line of hash `previous`.
    pub(super) fn follow<'a>(&self, line: &'a str, previous: &str) -> Result<&'a str, &'static str> {
        let (content, hash) = split(line).ok_or("it is not a record")?;
        if !self.is_hash_of(hash, content.as_bytes()) {
            return Err("its hash does not fit: it was edited");
        }
        let named = content.strip_suffix('"').and_then(|rest| rest.get(rest.len().checked_sub(DIGITS)?..));
        if named != Some(previous) {
            return Err("it does not follow the line before: a line was removed, inserted or moved");
        }
        Ok(hash)
    }

    /// The hash of a sound line, whatever it follows.
    pub(super) fn own<'a>(&self, line: &'a str) -> Option<&'a str> {
        split(line).filter(|(content, hash)| self.is_hash_of(hash, content.as_bytes())).map(|(_, hash)| hash)
    }
}

/// A line as what is hashed and the hash.
fn split(line: &str) -> Option<(&str, &str)> {
    let content = line.len().checked_sub(HASH.len() + DIGITS + END.len())?;
    let (content, rest) = line.split_at_checked(content)?;
    let hash = rest.strip_prefix(HASH)?.strip_suffix(END)?;
    Some((content, hash))
}

fn log_has_lines(files: &Files) -> Result<bool, AuditError> {
    match fs::metadata(&files.log) {
        Ok(metadata) => Ok(metadata.len() > 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(&files.log)(error)),
    }
}
