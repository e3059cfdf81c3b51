//! End-to-end encrypted workspaces on storage that already exists. A workspace is a log of signed, hash-linked
//! commits in an object store. Each commit is one object, created under a condition, so no writer overwrites
//! another. The store sees ciphertext, random ids and sizes in classes; a store that swaps, drops, replays, rolls
//! back or forks commits is detected and named.
//!
//! - [`Identity`]: the keys of a member. [`Invitation`] and [`Recovery`] carry or restore one.
//! - [`Commit`]: one object of the log. [`State`]: the result of verifying a log and opening what one member may read.
//! - [`Client`]: fetches commits from a [`Remote`] and submits [`Draft`]s.
//! - [`merge`]: the three-way comparison of local and shared secrets.
//!
//! The format is a page of the manual (`manual::teams`), with test vectors beside this crate.
#![forbid(unsafe_code)]

mod build;
mod cache;
mod client;
mod commit;
mod crypto;
mod error;
mod id;
mod identity;
mod invitation;
pub mod merge;
mod padding;
mod recovery;
mod remote;
mod roster;
mod state;

pub use build::{Draft, SecretChange};
pub use cache::{Cache, Pin};
pub use client::Client;
pub use commit::{Commit, Hash};
pub use error::Error;
pub use id::Id;
pub use identity::{Identity, PublicIdentity};
pub use invitation::{Invitation, JoinRequest};
pub use recovery::Recovery;
pub use remote::Remote;
pub use roster::{Access, Member, Operation, PendingInvitation, Role, Roster, SharedFile};
pub use state::{Address, State, Version};

#[cfg(test)]
mod tests;
