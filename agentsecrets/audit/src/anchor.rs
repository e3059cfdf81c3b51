//! The head of the log, kept outside of it: how long it is known to be, so that cutting off its end
//! shows. It only ever moves forward, and only over bytes that are safely on the disk: after a power
//! cut the log may be longer than its anchor, never shorter.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;

use super::chain::{ChainKey, FIRST};
use super::{AuditError, Files, at};
use agentsecrets_sys::files;

/// The proven length of the log, in bytes, and the hash of the line that ends there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) length: u64,
    pub(super) last_hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    length: u64,
    last_hash: String,
    #[expect(dead_code, reason = "compared as text, with the rest of the line")]
    mac: String,
}

impl Anchor {
    /// The anchor of a log that has not begun.
    pub(super) fn start() -> Self {
        Self { length: 0, last_hash: FIRST.into() }
    }

    /// Reads the anchor, `None` if there is no file.
    pub(super) fn read(files: &Files, key: &ChainKey) -> Result<Option<Self>, AuditError> {
        let text = match fs::read_to_string(&files.head) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(AuditError::Missing("its anchor is not the one that was written"));
            }
            Err(error) => return Err(at(&files.head)(error)),
        };
        let forged = AuditError::Missing("its anchor is not the one that was written");
        let Ok(line) = serde_json::from_str::<Line>(&text) else { return Err(forged) };
        let anchor = Self { length: line.length, last_hash: line.last_hash };
        // Written again and compared whole: no byte of it is free.
        let sound = bool::from(subtle::ConstantTimeEq::ct_eq(text.as_bytes(), anchor.text(key).as_bytes()));
        if sound { Ok(Some(anchor)) } else { Err(forged) }
    }

    /// Moves the anchor to here, unless it is further already. The log's bytes must be on the disk.
    pub(super) fn advance(&self, files: &Files, key: &ChainKey) -> Result<(), AuditError> {
        let _lock = lock(files)?;
        let now = Self::read(files, key)?;
        if now.is_some_and(|anchor| anchor.length >= self.length) {
            return Ok(());
        }
        files::replace(&files.head, self.text(key).as_bytes()).map_err(at(&files.head))
    }

    /// Fails unless the log has a line of this hash that ends at this length.
    pub(super) fn check(&self, files: &Files, log: &mut File) -> Result<(), AuditError> {
        if self.length == 0 {
            return Ok(());
        }
        // The hash stands at the end of its line, before `"}` and a newline.
        let expected = format!("{}\"}}\n", self.last_hash);
        let mut found = vec![0; expected.len()];
        let start = self.length.saturating_sub(expected.len() as u64);
        let read = log.seek(SeekFrom::Start(start)).and_then(|_| log.read_exact(&mut found));
        match read {
            Ok(()) if found == expected.as_bytes() => Ok(()),
            Ok(()) => Err(AuditError::Missing("what the anchor says was written is not there")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(AuditError::Missing("lines that the anchor says were written are gone from its end"))
            }
            Err(error) => Err(at(&files.log)(error)),
        }
    }

    fn text(&self, key: &ChainKey) -> String {
        let mut text = format!("{{\"length\":{},\"last_hash\":\"{}\"", self.length, self.last_hash);
        let mac = key.hash(text.as_bytes());
        text += ",\"mac\":\"";
        text += &mac;
        text += "\"}\n";
        text
    }
}

/// Keeps other processes from opening the log or moving its anchor while it lives.
pub(super) fn lock(files: &Files) -> Result<File, AuditError> {
    let path = files.folder.join("lock");
    let file = files::append(&path).map_err(at(&path))?;
    super::lock::wait_for(&file, &path)?;
    Ok(file)
}
