//! The explicit proxy's sandbox, entered before it reads a client's bytes. On systems other than Linux it
//! restricts nothing.

use std::sync::Arc;

use crate::identity::process_details::ProcessDetails;
use crate::identity::socket::LocalPeers;
use crate::sys::home::Home;
#[cfg(target_os = "linux")]
use crate::types::failure::ErrorContext;
use crate::types::failure::Failure;

pub(crate) struct ProxySandbox {
    #[cfg(target_os = "linux")]
    inspector: Arc<crate::identity::inspector::ProcessInspector>,
}

#[cfg(target_os = "linux")]
impl ProxySandbox {
    /// Starts the process inspector. The process must have one thread.
    pub(crate) fn start() -> Result<Self, Failure> {
        let inspector = crate::server::sandbox::privileges::start_own_inspector();
        let inspector = inspector.context("cannot start the process inspector")?;
        Ok(Self { inspector: Arc::new(inspector) })
    }

    pub(crate) fn process_details(&self) -> Option<Arc<dyn ProcessDetails>> {
        Some(self.inspector.clone())
    }

    /// Restricts files and privileges to what serving `home` needs. The process must have one thread.
    pub(crate) fn confine(&self, home: &Home) -> Result<(), Failure> {
        crate::server::sandbox::privileges::shed_privileges(home).context("cannot give up privileges")?;
        crate::server::sandbox::landlock::confine_to_home(home, std::path::Path::new("/sys/fs/cgroup"))
            .context("cannot restrict file access")
    }

    /// Restricts system calls, and returns the source of callers' identities.
    pub(crate) fn restrict_system_calls(self) -> Result<LocalPeers, Failure> {
        crate::server::sandbox::seccomp::allow_serving(false).context("cannot restrict system calls")?;
        LocalPeers::seen_by(self.inspector).context("cannot look at our own program")
    }
}

#[cfg(not(target_os = "linux"))]
impl ProxySandbox {
    pub(crate) fn start() -> Result<Self, Failure> {
        Ok(Self {})
    }

    pub(crate) fn process_details(&self) -> Option<Arc<dyn ProcessDetails>> {
        crate::identity::process_details()
    }

    pub(crate) fn confine(&self, _home: &Home) -> Result<(), Failure> {
        Ok(())
    }

    pub(crate) fn restrict_system_calls(self) -> Result<LocalPeers, Failure> {
        Ok(LocalPeers::of_this_system())
    }
}
