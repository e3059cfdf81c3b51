//! The store helper of systems on which no helper process is split off: the stores are asked in this process.

use std::io;
use std::sync::Arc;

use super::{Store, StoreConfig, StoreError, StoreKind};
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};

/// Opens the stores in this process.
pub struct StoreHelper {
    home: Home,
}

impl StoreHelper {
    /// For the stores of `home`. No process is started, bound to a project, or concealed.
    pub fn start(
        _configs: &[StoreConfig],
        home: &Home,
        _scope: (&Project, &Environment),
        _conceal: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Self> {
        Ok(Self { home: home.clone() })
    }

    /// The store of this `kind`.
    pub fn store(&mut self, kind: &StoreKind) -> Result<Arc<dyn Store>, StoreError> {
        kind.open_unattended(&self.home)
    }
}
