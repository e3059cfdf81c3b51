//! A cache for a store that is slow, or that asks a person. Cached values are wiped from memory when they expire. The
//! version rises when a value that was read is no longer valid.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::{Entry, Key, Store, StoreError};
use crate::sys::files;
use crate::types::name::{Environment, Project};
use crate::types::secret::Secret;
use crate::types::sync::MutexExt;

/// An error is kept for this time, so that a program that retries does not ask a person each time.
const ERROR_RETENTION: Duration = Duration::from_secs(5);

/// The store with its cached answers.
pub(super) struct CachedStore<S> {
    store: S,
    keep: Duration,
    /// The file by which our own processes tell one another of a change.
    stamp: Option<PathBuf>,
    cache: Mutex<CacheEntry>,
}

#[derive(Default)]
struct CacheEntry {
    values: HashMap<Key, (Instant, Option<Secret>)>,
    refused: Option<(Instant, StoreError)>,
    generation: u64,
    changed: Option<SystemTime>,
}

impl<S: Store> CachedStore<S> {
    /// Keeps what `store` says for `keep`.
    pub(super) fn new(store: S, keep: Duration) -> Self {
        Self { store, keep, stamp: None, cache: Mutex::default() }
    }

    /// Forgets it, too, when another process of ours changed the store, and tells them of changes by this
    /// one.
    pub(super) fn invalidated_by(mut self, stamp: PathBuf) -> Self {
        self.stamp = Some(stamp);
        self.cache().changed = self.changed();
        self
    }

    /// The entries that are still valid.
    fn cache(&self) -> MutexGuard<'_, CacheEntry> {
        // A panic elsewhere leaves at worst a value less.
        let mut cache = self.cache.lock_ignoring_poison();
        let before = cache.values.len();
        cache.values.retain(|_, (since, _)| since.elapsed() < self.keep);
        let changed = self.changed();
        if changed != cache.changed {
            cache.changed = changed;
            cache.values.clear();
            cache.refused = None;
            cache.generation += 1;
        } else if cache.values.len() != before {
            cache.generation += 1;
        }
        if cache.refused.as_ref().is_some_and(|(since, _)| since.elapsed() >= ERROR_RETENTION) {
            cache.refused = None;
        }
        cache
    }

    fn changed(&self) -> Option<SystemTime> {
        fs::metadata(self.stamp.as_ref()?).and_then(|metadata| metadata.modified()).ok()
    }

    /// Remembers that nobody unlocked it.
    fn note<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Locked(_)) = &answer {
            self.cache().refused = Some((Instant::now(), error.clone()));
        }
        answer
    }

    fn refused(&self) -> Result<(), StoreError> {
        self.cache().refused.as_ref().map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    fn notify(&self) -> Result<(), StoreError> {
        let Some(stamp) = &self.stamp else { return Ok(()) };
        let written = files::replace(stamp, format!("{:.0}\n", jiff::Timestamp::now()).as_bytes());
        written.map_err(|error| {
            StoreError::Io(format!(
                "the {} was changed, but {} cannot be written, so agents see it later: {error}",
                self.name(),
                stamp.display()
            ))
        })
    }
}

impl<S: Store> Store for CachedStore<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        self.refused()?;
        if let Some((_, value)) = self.cache().values.get(key) {
            return Ok(value.as_ref().map(copy));
        }
        let value = self.note(self.store.get(key))?;
        self.cache().values.insert(key.clone(), (Instant::now(), value.as_ref().map(copy)));
        Ok(value)
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        self.refused()?;
        self.note(self.store.list(project, environment))
    }

    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError> {
        self.store.set(key, value, placeholder)?;
        self.cache().values.remove(key);
        self.notify()
    }

    fn version(&self) -> Result<u64, StoreError> {
        let of_store = self.store.version()?;
        Ok(self.cache().generation.wrapping_mul(0x9e37_79b9).wrapping_add(of_store))
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        let deleted = self.store.delete(key)?;
        self.cache().values.remove(key);
        self.notify().map(|()| deleted)
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }
}

fn copy(value: &Secret) -> Secret {
    Secret::new(value.expose().to_vec())
}
