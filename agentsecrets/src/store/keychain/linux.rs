//! The Secret Service, by the store that `keyring` uses, by itself: it must be opened again after the daemon
//! was restarted.

use std::collections::HashMap;
use std::error::Error;

use keyring_core::{Entry as Item, Result as KeyringResult};
use zbus_secret_service_keyring_store::Store;

/// The attribute that says when a value was set.
pub(super) const UPDATED: &str = "updated";
/// Hint for a locked keychain.
pub(super) const TO_UNLOCK: &str = "unlock it in your desktop's password manager, or with \
    `gnome-keyring-daemon --replace --unlock`; without a desktop";
/// Hint for a missing keychain.
pub(super) const TO_START: &str =
    "start a Secret Service such as gnome-keyring on your session's D-Bus (DBUS_SESSION_BUS_ADDRESS)";
/// Hint for a keychain that hangs.
pub(super) const TO_RESTART: &str = "restart your session's Secret Service";

/// Opens it.
pub(super) fn open() -> KeyringResult<()> {
    keyring_core::set_default_store(Store::new()?);
    Ok(())
}

/// The search for the items of a service. The Secret Service has no prefix search for users.
pub(super) fn search(service: &str, _start: &str) -> (&'static str, String) {
    ("service", service.to_owned())
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> KeyringResult<HashMap<String, String>> {
    item.get_attributes()
}

/// Whether a failure means that it is locked: it says so by itself.
pub(super) fn is_locked(_failure: &(dyn Error + Send + Sync + 'static)) -> bool {
    false
}
