//! The inputs of an agent's view, and the paths at which the agent finds the certificates.

use std::path::{Path, PathBuf};

use crate::launch::user::AgentUser;

/// The system's roots and this run's authority, as the agent sees them.
pub(crate) const BUNDLE: &str = "/run/agentsecrets/ca-bundle.pem";
/// This run's authority alone.
pub(crate) const AUTHORITY: &str = "/run/agentsecrets/ca.pem";

/// The system's roots and this run's authority, as a Java trust store.
pub(crate) const JAVA: &str = "/run/agentsecrets/cacerts";

pub(crate) struct View<'a> {
    pub(crate) user: &'a AgentUser,
    pub(crate) ours: Vec<PathBuf>,
    /// The certificate of this run's authority, in PEM.
    pub(crate) authority: &'a str,
    /// That and the system's roots, in PEM.
    pub(crate) bundle: &'a str,
    /// The same as a Java trust store.
    pub(crate) java: &'a [u8],
    pub(crate) folder: &'a Path,
    pub(crate) terminals: Vec<PathBuf>,
}
