//! Reading the log on as it is written, from a place that can be kept and returned to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::FIRST;
use super::query::parse;
use super::record::{Record, Status};
use super::{AuditError, Files, at};

/// How much is read at once, in bytes.
const PIECE: u64 = 1024 * 1024;

/// A place between two lines of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bookmark {
    /// How many bytes stand before it.
    pub offset: u64,
    /// The hash of the line that ends there: a log that has another one there is not the log that was read.
    pub hash: String,
}

impl Default for Bookmark {
    fn default() -> Self {
        Self { offset: 0, hash: FIRST.to_string() }
    }
}

/// The log's new records, as they are written.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    at: Bookmark,
    unfinished: Vec<u8>,
}

impl Follower {
    /// From the end of the log as it is now.
    pub fn at_end(folder: &Path) -> Self {
        let path = Files::of(folder).log;
        let offset = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, at: Bookmark { offset, ..Bookmark::default() }, unfinished: Vec::new() }
    }

    /// From `bookmark` on, if it is a place of this log; none if it is of another.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn from(folder: &Path, bookmark: Bookmark) -> Result<Option<Self>, AuditError> {
        let path = Files::of(folder).log;
        let is_there = bookmark.offset == 0 || ends_there(&path, &bookmark).map_err(at(&path))?;
        Ok(is_there.then_some(Self { path, at: bookmark, unfinished: Vec::new() }))
    }

    /// Behind the last record that was given.
    pub fn bookmark(&self) -> &Bookmark {
        &self.at
    }

    /// Some of what was completed since the last call, intents too; nothing where nothing was.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn lines(&mut self) -> Result<Vec<Record>, AuditError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.path)(error)),
        };
        let from = self.at.offset + self.unfinished.len() as u64;
        let read =
            file.seek(SeekFrom::Start(from)).and_then(|_| file.take(PIECE).read_to_end(&mut self.unfinished));
        read.map_err(at(&self.path))?;
        let whole = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.unfinished.drain(..whole).collect();
        let records: Vec<Record> = lines.split(|byte| *byte == b'\n').filter_map(parse).collect();
        self.at.offset += whole as u64;
        if let Some(last) = records.last() {
            self.at.hash.clone_from(&last.hash);
        }
        Ok(records)
    }

    /// The same without intents.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn fresh(&mut self) -> Result<Vec<Record>, AuditError> {
        let mut records = self.lines()?;
        records.retain(|record| record.status != Status::Intent);
        Ok(records)
    }
}

/// Whether a line with the bookmark's hash ends at its place.
fn ends_there(path: &Path, bookmark: &Bookmark) -> io::Result<bool> {
    let end = format!("\"hash\":\"{}\"}}\n", bookmark.hash);
    let Some(start) = bookmark.offset.checked_sub(end.len() as u64) else { return Ok(false) };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(start))?;
    let mut found = Vec::new();
    file.take(end.len() as u64).read_to_end(&mut found)?;
    Ok(found == end.as_bytes())
}
