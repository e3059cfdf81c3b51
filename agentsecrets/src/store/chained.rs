//! The stores in the order that the person chose: the first that holds a name answers for it. A store that
//! cannot be read ends the search, since what lies behind it may be older; only where the configuration
//! calls it optional does the next one answer, and that is said.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::eprintln;

use super::{Entry, Key, Store, StoreError};
use crate::types::name::{Environment, Project};
use crate::types::secret::Secret;

/// A store in the order.
pub struct StoreEntry {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Whether the next one answers where this one is absent or locked.
    pub optional: bool,
}

/// Stores in an order.
pub struct ChainedStore {
    entries: Vec<StoreEntry>,
    /// Whether it was said that a store is passed over.
    reported: Vec<AtomicBool>,
}

impl ChainedStore {
    /// These, the first first.
    pub fn new(entries: Vec<StoreEntry>) -> Self {
        let reported = entries.iter().map(|_| AtomicBool::new(false)).collect();
        Self { entries, reported }
    }

    /// The stores that a value would go to, were they there.
    pub fn writable(&self) -> impl Iterator<Item = &dyn Store> {
        self.entries.iter().map(|entry| &*entry.store).filter(|store| store.is_writable())
    }

    /// Stores a value in the first store that can be written to, and says which that was.
    pub fn set_in_first(
        &self,
        key: &Key,
        value: Secret,
        placeholder: Option<&str>,
    ) -> Result<&'static str, StoreError> {
        let store = self.writer(&key.project, &key.environment)?;
        store.set(key, value, placeholder).map(|()| store.name())
    }

    /// Stores several values there, and says where.
    pub fn set_all_in_first(&self, values: Vec<(Key, Secret)>) -> Result<&'static str, StoreError> {
        let Some((key, _)) = values.first() else { return Ok("nothing") };
        let store = self.writer(&key.project, &key.environment)?;
        store.set_all(values).map(|()| store.name())
    }

    /// Removes a value from the store that answers for it; which that was, if there was one.
    pub fn remove(&self, key: &Key) -> Result<Option<&'static str>, StoreError> {
        match self.holder(key)? {
            Some(store) => Ok(store.delete(key)?.then(|| store.name())),
            None => Ok(None),
        }
    }

    /// The name of the store that answers for `key`.
    pub fn answering(&self, key: &Key) -> Result<Option<&'static str>, StoreError> {
        self.holder(key).map(|store| store.map(|store| store.name()))
    }

    fn holder(&self, key: &Key) -> Result<Option<&dyn Store>, StoreError> {
        self.search(|store| Ok(store.get(key)?.map(|_| store)))
    }

    fn writer(&self, project: &Project, environment: &Environment) -> Result<&dyn Store, StoreError> {
        let mut last = StoreError::Refused(
            "none of the stores in config.yaml can be written to: add `vault` or `keychain` to `stores`"
                .into(),
        );
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.store.is_writable()) {
            // Looked at first, so that what does not answer is passed over before a value is sent to it.
            match entry.store.list(project, environment) {
                Err(error) if entry.optional && is_unavailable(&error) => {
                    self.report(at, &error);
                    last = error;
                }
                Err(error) => return Err(error),
                Ok(_) => return Ok(&*entry.store),
            }
        }
        Err(last)
    }

    /// The first thing that a store yields. At least one of them must have answered.
    fn search<'a, T>(
        &'a self,
        mut ask: impl FnMut(&'a dyn Store) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut away = None;
        let mut answered = false;
        for (at, entry) in self.entries.iter().enumerate() {
            match ask(&*entry.store) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => answered = true,
                Err(error) if entry.optional && is_unavailable(&error) => {
                    self.report(at, &error);
                    away = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match away {
            Some(error) if !answered => Err(error),
            _ => Ok(None),
        }
    }

    /// Says once that a store is passed over, and who answers instead.
    fn report(&self, at: usize, error: &StoreError) {
        let before = self.reported.get(at).is_none_or(|reported| reported.swap(true, Ordering::Relaxed));
        let Some(entry) = self.entries.get(at).filter(|_| !before) else { return };
        let next = self.entries.get(at + 1).map_or("no other store", |next| next.store.name());
        eprintln!("agentsecrets: {error}; {next} answers instead of the {}", entry.store.name());
    }
}

/// Whether another store may answer, where the person says so: damage and mistakes are never passed over.
fn is_unavailable(error: &StoreError) -> bool {
    matches!(error, StoreError::Absent(_) | StoreError::Locked(_))
}

impl Store for ChainedStore {
    fn name(&self) -> &'static str {
        self.entries.first().map_or("none", |entry| entry.store.name())
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        self.search(|store| store.get(key))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let mut found = BTreeMap::new();
        self.search(|store| {
            for entry in store.list(project, environment)? {
                found.entry(entry.name.clone()).or_insert(entry);
            }
            Ok(None::<()>)
        })?;
        Ok(found.into_values().collect())
    }

    fn set(&self, key: &Key, value: Secret, placeholder: Option<&str>) -> Result<(), StoreError> {
        self.set_in_first(key, value, placeholder).map(drop)
    }

    fn version(&self) -> Result<u64, StoreError> {
        let mut hasher = DefaultHasher::new();
        for entry in &self.entries {
            match entry.store.version() {
                Ok(version) => version.hash(&mut hasher),
                // That it is away is a state like another: when it comes back, what was read is old.
                Err(error) if entry.optional && is_unavailable(&error) => "away".hash(&mut hasher),
                Err(error) => return Err(error),
            }
        }
        Ok(hasher.finish())
    }

    fn delete(&self, key: &Key) -> Result<bool, StoreError> {
        self.remove(key).map(|from| from.is_some())
    }

    fn is_writable(&self) -> bool {
        self.writable().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A store with one secret, or with an error for every question.
    struct One(&'static str, Mutex<Result<Option<&'static str>, StoreError>>, bool);

    impl Store for One {
        fn name(&self) -> &'static str {
            self.0
        }
        fn get(&self, _: &Key) -> Result<Option<Secret>, StoreError> {
            self.1
                .lock()
                .unwrap()
                .clone()
                .map(|value| value.map(|value| Secret::new(value.as_bytes().to_vec())))
        }
        fn list(&self, _: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
            let value = self.1.lock().unwrap().clone()?;
            let entry = |_| Entry {
                name: "A".parse().unwrap(),
                environment: environment.clone(),
                updated: None,
                placeholder: None,
                store: self.0,
            };
            Ok(value.map(entry).into_iter().collect())
        }
        fn set(&self, _: &Key, _: Secret, _: Option<&str>) -> Result<(), StoreError> {
            *self.1.lock().unwrap() = Ok(Some("written"));
            Ok(())
        }
        fn version(&self) -> Result<u64, StoreError> {
            self.1.lock().unwrap().clone().map(|_| 1)
        }
        fn delete(&self, _: &Key) -> Result<bool, StoreError> {
            if !self.2 {
                return crate::store::read_only::read_only(self.0);
            }
            *self.1.lock().unwrap() = Ok(None);
            Ok(true)
        }
        fn is_writable(&self) -> bool {
            self.2
        }
    }

    /// Name, what it holds, whether it can be written to, whether it is optional.
    type Given = (&'static str, Result<Option<&'static str>, StoreError>, bool, bool);

    fn stores(of: &[Given]) -> ChainedStore {
        let entry = |(name, value, writable, optional): &Given| StoreEntry {
            store: Arc::new(One(name, Mutex::new(value.clone()), *writable)),
            optional: *optional,
        };
        ChainedStore::new(of.iter().map(entry).collect())
    }

    fn key() -> Key {
        Key { project: Project::default(), environment: Environment::default(), name: "A".parse().unwrap() }
    }

    fn locked() -> Result<Option<&'static str>, StoreError> {
        Err(StoreError::Locked("it is locked".into()))
    }

    fn value(stores: &ChainedStore) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(stores.get(&key())?.map(|value| value.expose().to_vec()))
    }

    #[test]
    fn first_store_with_the_name_answers() {
        let both = stores(&[
            ("x", Ok(None), true, false),
            ("y", Ok(Some("y")), true, false),
            ("z", Ok(Some("z")), true, false),
        ]);
        assert_eq!(value(&both).unwrap().unwrap(), b"y");
        let listed = both.list(&Project::default(), &Environment::default()).unwrap();
        assert_eq!(listed.iter().map(|entry| entry.store).collect::<Vec<_>>(), ["y"]);
        assert_eq!(both.remove(&key()).unwrap(), Some("y"));
        assert_eq!(value(&both).unwrap().unwrap(), b"z");
    }

    #[test]
    fn unavailable_store_ends_search_unless_optional() {
        let fixed = stores(&[("x", locked(), true, false), ("y", Ok(Some("y")), true, false)]);
        assert!(
            value(&fixed).is_err()
                && fixed.version().is_err()
                && fixed.set_in_first(&key(), Secret::new(vec![1]), None).is_err()
        );
        let optional = stores(&[("x", locked(), true, true), ("y", Ok(Some("y")), true, false)]);
        assert_eq!(value(&optional).unwrap().unwrap(), b"y");
        assert!(optional.version().is_ok());
        assert_eq!(optional.set_in_first(&key(), Secret::new(vec![1]), None).unwrap(), "y");
    }

    #[test]
    fn damage_and_total_unavailability_are_errors() {
        assert!(value(&stores(&[("x", locked(), true, true), ("y", locked(), true, true)])).is_err());
        let damaged = Err(StoreError::Damaged("it is damaged".into()));
        assert!(value(&stores(&[("x", damaged, true, true), ("y", Ok(Some("y")), true, false)])).is_err());
    }

    #[test]
    fn values_go_to_first_writable_store() {
        let order = stores(&[("x", Ok(None), false, false), ("y", Ok(None), true, false)]);
        assert_eq!(order.set_in_first(&key(), Secret::new(vec![1]), None).unwrap(), "y");
        assert_eq!(value(&order).unwrap().unwrap(), b"written");
        let none = stores(&[("x", Ok(Some("x")), false, false)]);
        assert!(matches!(none.set_in_first(&key(), Secret::new(vec![1]), None), Err(StoreError::Refused(_))));
        assert!(matches!(none.remove(&key()), Err(StoreError::Refused(_))));
    }

    #[test]
    fn returning_store_changes_version() {
        let order = stores(&[("x", locked(), true, true), ("y", Ok(Some("y")), true, false)]);
        let before = order.version().unwrap();
        let store = &order.entries[0].store;
        store.set(&key(), Secret::new(vec![1]), None).unwrap();
        assert_ne!(order.version().unwrap(), before);
        assert_eq!(value(&order).unwrap().unwrap(), b"written");
    }
}
