//! Locks on the files of the log.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{AuditError, at};

/// The longest time for which another process may hold the log.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Locks `file`, which others hold for moments only.
pub(super) fn wait_for(file: &File, path: &Path) -> Result<(), AuditError> {
    let started = Instant::now();
    loop {
        match agentsecrets_sys::try_lock(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(at(path)(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_TIMEOUT => {
                return Err(AuditError::Busy);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}
