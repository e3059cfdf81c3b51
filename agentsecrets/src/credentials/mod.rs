//! From a grant to values: no grant, no secret.

mod jwt;
pub mod minter;
mod oauth;
pub mod resolved;
pub mod runtime;
pub mod token_request;

use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::access_request::SecretReference;
use crate::policy::grant::Grant;
use crate::policy::value_export::ValueExport;
use crate::store::{Key, Store, StoreError};
use crate::types::name::{Environment, Project, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;

pub use resolved::Credentials;

/// The values that one agent may spend, read from the store ahead of its requests: answers must be
/// searched for all of them, spent or not.
pub struct Values(HashMap<SecretName, Arc<Secret>>);

impl Values {
    /// Reads the `names` of a project and environment. A name that the store does not hold is left out;
    /// a store that cannot be read is an error.
    pub fn load<'a>(
        store: &dyn Store,
        project: &Project,
        environment: &Environment,
        names: impl Iterator<Item = &'a SecretName>,
    ) -> Result<Self, StoreError> {
        let mut values = HashMap::new();
        for name in names {
            let key = Key { project: project.clone(), environment: environment.clone(), name: name.clone() };
            if let Some(value) = store.get(&key)? {
                values.insert(name.clone(), Arc::new(value));
            }
        }
        Ok(Self(values))
    }

    /// Every value, for the patterns that answers are searched for.
    pub fn to_redact(&self) -> impl Iterator<Item = &Secret> {
        self.0.values().map(|value| &**value)
    }

    /// The values here that `next` does not have: replaced since, deleted, or no longer this agent's.
    pub fn gone_from(&self, next: &Self) -> Vec<Arc<Secret>> {
        let kept = |value: &Arc<Secret>| next.0.values().any(|other| **other == **value);
        self.0.values().filter(|value| !kept(value)).cloned().collect()
    }

    /// Whether there is a value for each of `references`, but for those that are `made`.
    pub fn hold(
        &self,
        references: &[SecretReference],
        made: impl Fn(&SecretName) -> bool,
    ) -> Result<(), Rejection> {
        let is_absent = |name: &SecretName| !self.0.contains_key(name) && !made(name);
        let absent = references.iter().find(|reference| is_absent(&reference.name));
        absent.map_or(Ok(()), |reference| Err(missing(&reference.name)))
    }

    /// The values that `handover` lets an agent have.
    pub fn hand_over(&self, handover: &ValueExport) -> Result<Vec<(SecretName, Arc<Secret>)>, Rejection> {
        let mut values = Vec::with_capacity(handover.names().len());
        for name in handover.names() {
            match self.0.get(name) {
                Some(value) => values.push((name.clone(), value.clone())),
                None if handover.is_explicit() => return Err(missing(name)),
                None => {}
            }
        }
        Ok(values)
    }

    /// The values that `grant` lets this one request spend; `made` are those that are not stored.
    pub fn resolve(
        &self,
        grant: &Grant,
        made: &[(SecretName, Arc<Secret>)],
    ) -> Result<Credentials, Rejection> {
        let mut credentials = Vec::with_capacity(grant.secret_uses().len());
        for spend in grant.secret_uses() {
            let value = made.iter().find(|(name, _)| *name == spend.name).map(|(_, value)| value);
            let value = value.or_else(|| self.0.get(&spend.name)).ok_or_else(|| missing(&spend.name))?;
            credentials.push((spend.name.clone(), value.clone()));
        }
        Ok(Credentials::new(credentials))
    }

    /// The value of `name`, for making others of it.
    fn get(&self, name: &SecretName) -> Option<Arc<Secret>> {
        self.0.get(name).cloned()
    }
}

/// Other tools match these words.
fn missing(name: &SecretName) -> Rejection {
    Rejection::new(ErrorCode::SecretMissing, format!("secret '{name}' not found in keychain"))
}
