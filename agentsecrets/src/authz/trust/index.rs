//! The trust pins, indexed by the program's path.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::GlobMatcher;

use super::pins::{Pin, Pins};
use crate::authz::registry::RegistryError;
use crate::types::name::SecretName;

/// The pins as they are looked up: by the program's path, and by what they reserve.
#[derive(Default)]
pub(crate) struct PinIndex {
    programs: HashMap<PathBuf, Vec<IndexedPin>>,
    reserved: HashSet<SecretName>,
}

/// A pin, ready to be compared.
pub(super) struct IndexedPin {
    pub(super) pin: Arc<Pin>,
    pub(super) cgroup: Option<GlobMatcher>,
}

impl PinIndex {
    pub(super) fn new(pins: Pins, path: &Path) -> Result<Self, RegistryError> {
        let mut known = Self::default();
        for pin in pins.all() {
            let invalid = |what| RegistryError::Invalid { path: path.to_path_buf(), line: 1, what };
            let cgroup = pin.cgroup.as_ref().map(|glob| crate::policy::parse_glob(glob).map_err(invalid));
            let cgroup = cgroup.transpose()?.map(|glob| glob.compile_matcher());
            known.reserved.extend(pin.secrets.iter().cloned());
            let indexed = IndexedPin { pin: Arc::new(pin.clone()), cgroup };
            known.programs.entry(pin.program.path.clone()).or_default().push(indexed);
        }
        Ok(known)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Whether some pin names `secret`, so that nobody else spends it.
    pub(super) fn is_reserved(&self, secret: &SecretName) -> bool {
        self.reserved.contains(secret)
    }

    /// The pins of the program that the kernel shows as `exe`.
    pub(super) fn of(&self, exe: &Path) -> Option<&[IndexedPin]> {
        self.programs.get(exe).map(Vec::as_slice)
    }
}
