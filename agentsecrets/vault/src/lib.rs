//! The vault: secrets in one encrypted file, for machines without a keychain and for services. No
//! plaintext value is ever on disk; names, times and placeholders are readable to who may read the
//! file, but cannot be changed unseen. It refuses to guess: a vault that is damaged, altered, of
//! another format or under another key is an error with its fix. Whoever can put back an *entire*
//! older copy of the file can roll it back, which only a vault that is open at the time notices.
//!
//! The format is a page of the manual (`manual::stores`), with test vectors beside this file. A file is
//! replaced whole, under an exclusive lock on the file of the same name with `.lock` added; readers take no
//! lock.
#![forbid(unsafe_code)]

mod encoding;
mod envelope;
mod keys;
mod maintenance;
mod prompt;
mod vault;

pub use agentsecrets_types::store::MAX_VALUE_SIZE;
pub use encoding::Base64;
pub use keys::{Unlock, derive, open as unseal, random, seal};
pub use maintenance::restore;
pub use prompt::{new_passphrase, unlock, unlock_from_environment};
#[cfg(any(test, feature = "fuzzing"))]
pub use vault::resealed;
pub use vault::{Vault, exists};
