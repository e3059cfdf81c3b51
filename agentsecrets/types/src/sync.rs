//! Mutexes whose poisoning is ignored.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex although a thread panicked while it held the lock.
pub trait MutexExt<T> {
    /// Locks the mutex. Only for values that every statement leaves consistent, so that a panic in the middle of a
    /// critical section does no harm; elsewhere poisoning is a reason to stop.
    fn lock_ignoring_poison(&self) -> MutexGuard<'_, T>;
}

impl<T> MutexExt<T> for Mutex<T> {
    fn lock_ignoring_poison(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisoned_mutex_is_locked() {
        let mutex = Mutex::new(1);
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _guard = mutex.lock().unwrap();
                panic!("while holding the lock");
            });
            assert!(panicked.join().is_err());
        });
        assert!(mutex.lock().is_err());
        assert_eq!(*mutex.lock_ignoring_poison(), 1);
    }
}
