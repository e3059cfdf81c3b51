//! Reading the log on as it is written, from a place that can be kept and returned to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chain::FIRST;
use super::query::parse;
use super::record::{Record, Status};
use super::{AuditError, Files, at};
use agentsecrets_sys::Version;

/// Interval at which a followed log is read.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes per read: more than any line has.
const READ_SIZE: u64 = 1024 * 1024;

/// A place between two lines of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bookmark {
    /// The offset in bytes.
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
    /// The file that was read last: another one at its path is another log.
    file: Option<Version>,
    /// The offset of the next read.
    offset: u64,
    /// Behind the last record that was given.
    bookmark: Bookmark,
}

impl Follower {
    /// From the first record on.
    pub fn at_start(folder: &Path) -> Self {
        Self { path: Files::of(folder).log, file: None, offset: 0, bookmark: Bookmark::default() }
    }

    /// From the end of the log as it is now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn at_end(folder: &Path) -> Result<Self, AuditError> {
        let mut follower = Self::at_start(folder);
        let length = std::fs::metadata(&follower.path).map_or(0, |metadata| metadata.len());
        // Its last line may be in the middle of being written: what begins before the end is read again.
        follower.offset = length.saturating_sub(READ_SIZE);
        if follower.offset > 0 {
            follower.skip_to_a_line()?;
        }
        while !follower.records()?.is_empty() {}
        Ok(follower)
    }

    /// From `bookmark` on, if it is a place of this log; none if it is of another.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn resume(folder: &Path, bookmark: Bookmark) -> Result<Option<Self>, AuditError> {
        let mut follower = Self::at_start(folder);
        let is_there =
            bookmark.offset == 0 || ends_there(&follower.path, &bookmark).map_err(at(&follower.path))?;
        follower.offset = bookmark.offset;
        follower.bookmark = bookmark;
        Ok(is_there.then_some(follower))
    }

    /// Behind the last record that was given.
    pub fn bookmark(&self) -> &Bookmark {
        &self.bookmark
    }

    /// Some of what was written since the last call, intents too; nothing where nothing was. A log that took the
    /// place of the one before is read from its beginning.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn records(&mut self) -> Result<Vec<Record>, AuditError> {
        let Some(bytes) = self.piece()? else { return Ok(Vec::new()) };
        let mut records = Vec::new();
        let mut read = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            read += line.len() as u64;
            match parse(line) {
                Some(record) => {
                    self.bookmark = Bookmark { offset: self.offset + read, hash: record.hash.clone() };
                    records.push(record);
                }
                None => tracing::warn!(offset = self.offset, "a line of the audit log is no record"),
            }
        }
        if read == 0 && bytes.len() as u64 == READ_SIZE {
            return Err(at(&self.path)(io::Error::new(io::ErrorKind::InvalidData, "a line is endless")));
        }
        self.offset += read;
        Ok(records)
    }

    /// The same without intents.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn outcomes(&mut self) -> Result<Vec<Record>, AuditError> {
        let mut records = self.records()?;
        records.retain(|record| record.status != Status::Intent);
        Ok(records)
    }

    /// The bytes that follow, at most a piece of them.
    fn piece(&mut self) -> Result<Option<Vec<u8>>, AuditError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&self.path)(error)),
        };
        let found = Version::of(&file).map_err(at(&self.path))?;
        let length = file.metadata().map_err(at(&self.path))?.len();
        let is_another = self.file.as_ref().is_some_and(|before| !found.is_of_same_file(before));
        if is_another || length < self.offset {
            tracing::warn!(
                "another audit log took the place of the one that was followed: all of it is read"
            );
            (self.offset, self.bookmark) = (0, Bookmark::default());
        }
        self.file = Some(found);
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.take(READ_SIZE).read_to_end(&mut bytes));
        read.map_err(at(&self.path))?;
        Ok(Some(bytes))
    }

    /// From the middle of a line to its end.
    fn skip_to_a_line(&mut self) -> Result<(), AuditError> {
        let bytes = self.piece()?.unwrap_or_default();
        let rest = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
        self.offset += rest;
        Ok(())
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
