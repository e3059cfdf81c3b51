//! Errors of synchronisation. Each kind of attack by a store has a variant of its own.

use agentsecrets_types::failure::{Exit, Failure};
use agentsecrets_types::store::StoreError;

/// Why a workspace could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store lacks a commit that this machine has seen.
    #[error(
        "rollback detected: the store no longer has commit {0}, which this machine has seen; nothing was accepted"
    )]
    RolledBack(u64),
    /// The store has another commit at a number that this machine has seen.
    #[error(
        "fork detected: commit {0} in the store is not the one that this machine has seen; nothing was accepted"
    )]
    Forked(u64),
    /// A commit does not continue the history.
    #[error("replay or fork detected: commit {0} does not follow the commit before it; nothing was accepted")]
    Unlinked(u64),
    /// A commit is missing while a later one exists.
    #[error("dropped commit detected: the store lacks commit {0} and has a later one; nothing was accepted")]
    Dropped(u64),
    /// The bytes of a commit are not those that its author signed.
    #[error("alteration detected: commit {seq} is not what its author signed ({what}); nothing was accepted")]
    Altered {
        /// Number of the commit.
        seq: u64,
        /// The part that does not match.
        what: &'static str,
    },
    /// A commit does what its author may not do.
    #[error("forbidden change detected: commit {seq} by {author} {what}; nothing was accepted")]
    Forbidden {
        /// Number of the commit.
        seq: u64,
        /// Its author.
        author: String,
        /// The forbidden change.
        what: String,
    },
    /// The local member may not make this change.
    #[error("{0}")]
    Denied(String),
    /// The named object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request cannot be fulfilled.
    #[error("{0}")]
    Refused(String),
    /// The local member has no keys yet, or no more.
    #[error("{0}")]
    NotMember(String),
    /// The storage service refused or failed.
    #[error("{what}")]
    Storage {
        /// The failure.
        what: String,
        /// The fix.
        fix: &'static str,
    },
    /// A file on this machine cannot be read or written.
    #[error("{0}")]
    Local(String),
    /// A library failed.
    #[error("{0}")]
    Crypto(&'static str),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Error::Local(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, hint) = match &error {
            Error::NotFound(_) => (Exit::NotFound, None),
            Error::Denied(_) | Error::NotMember(_) => (Exit::Denied, None),
            Error::Storage { fix, .. } => (Exit::Failure, Some(*fix)),
            Error::RolledBack(_)
            | Error::Forked(_)
            | Error::Unlinked(_)
            | Error::Dropped(_)
            | Error::Altered { .. }
            | Error::Forbidden { .. } => (
                Exit::Failure,
                Some(
                    "do not trust this storage: compare `agentsecrets workspace status` with the other members",
                ),
            ),
            _ => (Exit::Failure, None),
        };
        let failure = Failure::new(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
