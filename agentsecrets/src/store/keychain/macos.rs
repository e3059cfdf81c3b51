//! The login keychain of macOS.

use std::collections::HashMap;
use std::error::Error;

use keyring_core::{Entry as Item, Error as Failed, Result as KeyringResult};

/// No attribute says when a value was set.
pub(super) const UPDATED: &str = "updated";
/// Hint for a locked keychain.
pub(super) const TO_UNLOCK: &str = "unlock it in Keychain Access, or with `security unlock-keychain`, and allow \
    agentsecrets the item; over SSH, where nobody can be asked";
/// Hint for a missing keychain.
pub(super) const TO_START: &str = "make one in Keychain Access, or with `security create-keychain`";
/// Hint for a keychain that hangs.
pub(super) const TO_RESTART: &str = "look for a window that asks for its password, or log in again";

/// `errSecAuthFailed`, `errSecInteractionNotAllowed`, `errSecInteractionRequired`, `userCanceledErr`: the
/// password is wrong, nobody can be asked, or whoever was asked said no.
const LOCKED: [i32; 4] = [-25293, -25308, -25315, -128];

/// Opens it.
pub(super) fn open() -> KeyringResult<()> {
    match keyring::Entry::store_status() {
        Ok(()) => Ok(()),
        Err(error) => Err(Failed::PlatformFailure(error.to_string().into())),
    }
}

/// The search for the items of a service.
pub(super) fn search(service: &str, _start: &str) -> (&'static str, String) {
    ("service", service.to_owned())
}

/// Nothing is kept beside a value. To look would be to read it, for which the person may be asked.
pub(super) fn attributes(_item: &Item) -> KeyringResult<HashMap<String, String>> {
    Ok(HashMap::new())
}

/// Whether a failure means that it is locked.
pub(super) fn is_locked(failure: &(dyn Error + Send + Sync + 'static)) -> bool {
    let failure = failure.downcast_ref::<security_framework::base::Error>();
    failure.is_some_and(|failure| LOCKED.contains(&failure.code()))
}
