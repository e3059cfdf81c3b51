//! The keeper where no process of ours can be split off: the stores are asked in the process that serves.

use std::io;
use std::sync::Arc;

use super::{Choice, Kind, Store, StoreError};
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};

/// Gives out the stores themselves.
pub struct Keeper {
    home: Home,
}

impl Keeper {
    /// For the stores of `home`. There is nobody to start, to bind to a project, or to `conceal`.
    pub fn start(
        _choices: &[Choice],
        home: &Home,
        _whose: (&Project, &Environment),
        _conceal: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        Ok(Self { home: home.clone() })
    }

    /// The store of this `kind`.
    pub fn store(&mut self, kind: &Kind) -> Result<Arc<dyn Store>, StoreError> {
        Ok(super::kept(kind, &self.home))
    }
}
