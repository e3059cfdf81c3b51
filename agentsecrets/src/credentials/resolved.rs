//! The values that a grant was exchanged for, on their short way into one request.

use std::sync::Arc;

use crate::types::name::SecretName;
use crate::types::secret::Secret;

/// Values by the names of their secrets.
pub struct Credentials(Vec<(SecretName, Arc<Secret>)>);

impl Credentials {
    /// These values.
    pub(crate) fn new(values: Vec<(SecretName, Arc<Secret>)>) -> Self {
        Self(values)
    }

    /// The value of `name`, where there is one.
    pub fn get(&self, name: &SecretName) -> Option<&Secret> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The same, for a stage that keeps it.
    pub fn shared(&self, name: &SecretName) -> Option<Arc<Secret>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}
