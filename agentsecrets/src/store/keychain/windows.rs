//! The Credential Manager of Windows. It takes values up to 2,560 bytes, and is open while its user is logged
//! on.

use std::collections::HashMap;
use std::error::Error;

use keyring_core::{Entry as Item, Error as Failed, Result as KeyringResult};

/// The attribute that says when a value was set: there are no others than it has by itself.
pub(super) const UPDATED: &str = "comment";
/// Hint for a locked keychain.
pub(super) const TO_UNLOCK: &str =
    "log on at the machine or by remote desktop; in a service or over SSH, where no credentials are loaded";
/// Hint for a missing keychain.
pub(super) const TO_START: &str = "start the service `VaultSvc` (Credential Manager)";
/// Hint for a keychain that hangs.
pub(super) const TO_RESTART: &str = "restart the service `VaultSvc` (Credential Manager)";

/// Opens it.
pub(super) fn open() -> KeyringResult<()> {
    match keyring::Entry::store_status() {
        Ok(()) => Ok(()),
        Err(error) => Err(Failed::PlatformFailure(error.to_string().into())),
    }
}

/// The search for the items of a service: an item's name is its user, a dot, and the service. A dot in
/// `start` may match more items, so results are checked again.
pub(super) fn search(service: &str, start: &str) -> (&'static str, String) {
    ("pattern", format!("^{start}.*\\.{service}$"))
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> KeyringResult<HashMap<String, String>> {
    item.get_attributes()
}

/// Whether a failure means that it is locked: it says so by itself.
pub(super) fn is_locked(_failure: &(dyn Error + Send + Sync + 'static)) -> bool {
    false
}
