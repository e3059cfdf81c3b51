//! A time limit for a store that may hang. Each request runs on a thread. While an earlier request hangs, further
//! requests fail at once, so that a hanging store does not collect threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::{Entry, Key, Store, StoreError};
use crate::types::name::{Environment, Project};
use crate::types::secret::Secret;

/// The store with its time limit.
pub(super) struct TimeoutStore<S> {
    store: Arc<S>,
    timeout: Duration,
    advice: &'static str,
    /// Requests that exceeded the time limit and still run.
    hanging: Arc<AtomicUsize>,
}

impl<S: Store + 'static> TimeoutStore<S> {
    /// Waits at most `patience` for an answer of `store`; `advice` is what to do when none comes.
    pub(super) fn new(store: S, timeout: Duration, advice: &'static str) -> Self {
        Self { store: Arc::new(store), timeout, advice, hanging: Arc::default() }
    }

    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&S) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if self.hanging.load(Ordering::SeqCst) > 0 {
            return Err(self.hangs("has not answered an earlier question yet".to_owned()));
        }
        // Without room: an answer is taken, or nobody is there to take it.
        let (sender, receiver) = sync_channel(0);
        let (store, hanging) = (self.store.clone(), self.hanging.clone());
        let asking = std::thread::Builder::new().name(self.name().to_owned()).spawn(move || {
            let answer = question(&store);
            if sender.send(answer).is_err() {
                hanging.fetch_sub(1, Ordering::SeqCst);
            }
        });
        asking.map_err(|error| StoreError::Io(format!("the {} cannot be asked: {error}", self.name())))?;
        receiver.recv_timeout(self.timeout).unwrap_or_else(|_| {
            self.hanging.fetch_add(1, Ordering::SeqCst);
            drop(receiver);
            Err(self.hangs(format!("did not answer within {} s", self.timeout.as_secs_f32())))
        })
    }

    fn hangs(&self, what: String) -> StoreError {
        StoreError::Locked(format!("the {} {what}: {}", self.name(), self.advice))
    }
}

impl<S: Store + 'static> Store for TimeoutStore<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let key = key.clone();
        self.ask(move |store| store.get(&key))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let (project, environment) = (project.clone(), environment.clone());
        self.ask(move |store| store.list(&project, &environment))
    }

    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError> {
        let (key, placeholder) = (key.clone(), placeholder.map(str::to_owned));
        self.ask(move |store| store.set(&key, value, placeholder.as_deref()))
    }

    fn version(&self) -> Result<u64, StoreError> {
        self.ask(|store| store.version())
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        let key = key.clone();
        self.ask(move |store| store.delete(&key))
    }

    fn is_writable(&self) -> bool {
        self.store.is_writable()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// A store whose questions wait until the test lets them go.
    struct Hanging(Mutex<Receiver<()>>);

    impl Store for Hanging {
        fn name(&self) -> &'static str {
            "hanging"
        }
        fn get(&self, _: &Key) -> Result<Option<Secret>, StoreError> {
            let _ = self.0.lock().unwrap().recv();
            Ok(Some(Secret::new(b"late".to_vec())))
        }
        fn list(&self, _: &Project, _: &Environment) -> Result<Vec<Entry>, StoreError> {
            Ok(Vec::new())
        }
        fn set(&self, _: &Key, _: Secret, _: Option<&str>) -> Result<(), StoreError> {
            Ok(())
        }
        fn version(&self) -> Result<u64, StoreError> {
            Ok(7)
        }
        fn delete(&self, _: &Key) -> Result<bool, StoreError> {
            Ok(false)
        }
    }

    #[test]
    fn hanging_store_is_an_error_until_it_answers() {
        let (go, gone) = channel();
        let patient = TimeoutStore::new(
            Hanging(Mutex::new(gone)),
            Duration::from_millis(50),
            "turn it off and on again",
        );
        let key = Key {
            project: Project::default(),
            environment: Environment::default(),
            name: "A".parse().unwrap(),
        };
        assert_eq!(patient.version().unwrap(), 7);
        let error = patient.get(&key).err().unwrap();
        assert!(matches!(&error, StoreError::Locked(reason) if reason.contains("off and on")), "{error}");
        let error = patient.version().err().unwrap();
        assert!(error.to_string().contains("earlier question"), "{error}");
        go.send(()).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while patient.version().is_err() {
            assert!(std::time::Instant::now() < end, "it answered and is asked no more");
            std::thread::yield_now();
        }
        go.send(()).unwrap();
        assert_eq!(patient.get(&key).unwrap().unwrap().expose(), b"late");
    }
}
