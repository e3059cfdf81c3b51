//! Operator commands: programs with real values, and the operator's own requests.

mod call;
mod env;
mod env_mask;

use std::path::Path;

use crate::support::home::AGENTSECRETS;

/// The program under test at a path where an agent (nobody) may execute it.
pub(crate) struct AgentExecutable(pub(crate) String);

impl AgentExecutable {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/tmp").unwrap().keep();
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let copy = folder.join("agentsecrets");
        std::fs::copy(AGENTSECRETS, &copy).unwrap();
        Self(copy.to_str().unwrap().to_owned())
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for AgentExecutable {
    fn drop(&mut self) {
        let _ = Path::new(&self.0).parent().map(std::fs::remove_dir_all);
    }
}
