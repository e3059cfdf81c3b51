//! Every attempt leaves exactly one record, without values, in a log whose edits show. `log` writes
//! it, `chain` says what makes a line true, `anchor` keeps the log's length outside of it, `query`
//! reads it back. A log that cannot be written or does not fit its anchor stops spending: it never
//! goes on silently.
//!
//! # On disk
//!
//! For a log in the folder `audit`: `audit/audit.jsonl` holds the lines; beside the folder,
//! `audit.key` holds 32 random bytes and `audit.head` the anchor. A line is one JSON object that ends
//! in `,"prev_hash":"H","hash":"H"}` and a newline, where each H is 64 digits of lower-case hex:
//! `hash` is HMAC-SHA256, under the key, of the line's bytes before `,"hash":`, and `prev_hash` is the
//! line before's `hash`, or zeros. `audit.head` is `{"length":N,"last_hash":"H","mac":"H"}`: the log's
//! first N bytes end with a line of that hash; `mac` is the HMAC of the bytes before `,"mac":`.
//!
//! A request that is about to spend a secret first writes an intent: the same object with the status
//! `INTENT`. Whoever can read the key and write all three files can forge all of it; whoever can put
//! back older copies of both log and anchor can rewind it, and removing all three begins a new log. The
//! anchor follows the log within a quarter of a second while it grows; lines younger than that can be
//! cut off unseen, edited never.
#![forbid(unsafe_code)]

mod admin;
mod anchor;
mod chain;
mod escape;
mod lock;
mod log;
pub mod query;
mod record;
mod retry_queue;
pub mod tail;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use admin::AdminAct;
pub use escape::visible;
pub use log::{Log, Pending};
pub use record::{IdentityLevel, Opening, Outcome, Record, Status, target_url};

/// Why the log was not written or not believed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file could not be read or written.
    #[error("the audit log cannot be used: {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A line is not what was written, or not where it was written.
    #[error("the audit log was altered: line {line}: {what}")]
    Line {
        /// The line, counted from 1.
        line: u64,
        /// The fault.
        what: &'static str,
    },
    /// Every line is sound, but lines, anchor or key are missing.
    #[error("the audit log was altered: {0}")]
    Missing(&'static str),
    /// Another process keeps the log locked.
    #[error("the audit log is held by another process; is one stopped?")]
    Busy,
    /// The system yields no random bytes.
    #[error("the system yields no random bytes")]
    Random,
}

/// The files of a log.
#[derive(Debug, Clone)]
struct Files {
    folder: PathBuf,
    log: PathBuf,
    key: PathBuf,
    head: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            log: folder.join("audit.jsonl"),
            key: folder.with_extension("key"),
            head: folder.with_extension("head"),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    let path = path.to_path_buf();
    move |source| AuditError::Io { path, source }
}
