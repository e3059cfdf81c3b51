//! The invocation of a command that was requested through the daemon. Only a process that runs as root or as the
//! daemon's user believes the one in its environment.

use crate::identity::Process;
use crate::operator::system_config::SystemConfig;
use crate::privsep::invocation;
use crate::types::failure::{Exit, Failure};

pub(crate) type Invocation = invocation::Invocation<Process>;

/// Takes the invocation of this process, if a session worker started it. Call it once, with a single thread;
/// programs started later inherit none.
///
/// # Errors
/// If it cannot be read: a process that should act for somebody must not act for itself instead.
pub(crate) fn take_inherited() -> Result<Option<Invocation>, Failure> {
    if std::env::var_os(invocation::INVOCATION_VARIABLE).is_none() {
        return Ok(None);
    }
    let user = nix::unistd::geteuid();
    let is_believed = SystemConfig::load()?.is_some_and(|system| user.is_root() || user == system.uid);
    if !is_believed {
        return Ok(None);
    }
    Invocation::take_from_environment().map_err(|error| {
        Failure::new(Exit::Failure, format!("the daemon's invocation cannot be read: {error}"))
    })
}
