//! The error of stores that cannot be written to.

use crate::types::store::StoreError;

/// The error of a write to a read-only store.
pub(super) fn read_only<T>(store: &str) -> Result<T, StoreError> {
    Err(StoreError::Refused(format!("the {store} store is only read: change the secret where it comes from")))
}
