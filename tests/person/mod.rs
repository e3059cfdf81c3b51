//! The person's own door: programs that a person gives real values, and requests that a person makes.

mod call;
mod env;
mod masking;

use std::path::Path;

use crate::support::home::AGENTSECRETS;

/// The program under test where an agent, who is nobody, may execute it.
pub(crate) struct AgentsCopy(pub(crate) String);

impl AgentsCopy {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap().keep();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let copy = folder.join("agentsecrets");
        std::fs::copy(AGENTSECRETS, &copy).unwrap();
        Self(copy.to_str().unwrap().to_owned())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for AgentsCopy {
    fn drop(&mut self) {
        let _ = Path::new(&self.0).parent().map(std::fs::remove_dir_all);
    }
}
