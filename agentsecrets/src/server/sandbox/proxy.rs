//! What the explicit proxy gives up before it reads what programs send it. Where a system offers no such thing,
//! it gives up nothing.

use std::sync::Arc;

use crate::identity::process_details::Look;
use crate::identity::socket::Neighbours;
use crate::sys::home::Home;
#[cfg(target_os = "linux")]
use crate::types::failure::Exit;
use crate::types::failure::Failure;

/// The proxy's way into confinement.
pub(crate) struct Fence {
    #[cfg(target_os = "linux")]
    witness: Arc<crate::identity::inspector::Witness>,
}

#[cfg(target_os = "linux")]
impl Fence {
    /// Starts the witness, which looks at programs for us from here on. The process must have one thread.
    pub(crate) fn begin() -> Result<Self, Failure> {
        let witness = crate::server::sandbox::privileges::start_witness_of_our_own();
        let witness = witness.map_err(|error| failed("cannot start the witness of processes", error))?;
        Ok(Self { witness: Arc::new(witness) })
    }

    /// Who looks at programs.
    pub(crate) fn look(&self) -> Option<Arc<dyn Look>> {
        Some(self.witness.clone())
    }

    /// Leaves the files and the privileges that serving `home` takes. The process must have one thread.
    pub(crate) fn confine(&self, home: &Home) -> Result<(), Failure> {
        crate::server::sandbox::privileges::shed_privileges(home)
            .map_err(|error| failed("cannot give up privileges", error))?;
        crate::server::sandbox::landlock::confine(home, std::path::Path::new("/sys/fs/cgroup"))
            .map_err(|error| failed("cannot confine ourselves", error))
    }

    /// Leaves the system calls that serving takes, and says who tells who calls.
    pub(crate) fn close(self) -> Result<Neighbours, Failure> {
        crate::server::sandbox::seccomp::allow_serving(false)
            .map_err(|error| failed("cannot restrict ourselves", error))?;
        Neighbours::seen_by(self.witness).map_err(|error| failed("cannot look at our own program", error))
    }
}

#[cfg(not(target_os = "linux"))]
impl Fence {
    /// Nothing looks at programs for us.
    pub(super) fn begin() -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Who looks at programs.
    pub(super) fn look(&self) -> Option<Arc<dyn Look>> {
        crate::identity::look_closer()
    }

    /// Leaves everything.
    pub(super) fn confine(&self, _home: &Home) -> Result<(), Failure> {
        Ok(())
    }

    /// Says who tells who calls.
    pub(super) fn close(self) -> Result<Neighbours, Failure> {
        Ok(Neighbours::of_this_system())
    }
}

#[cfg(target_os = "linux")]
fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}
