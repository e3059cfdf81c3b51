//! What a person does to us is recorded, with the program that did it, before it is done.

use super::{Context, Exit, Failure};
use crate::audit::Log;
use crate::base::name::AgentName;

/// Records that `act` is about to be done, `what` says to what.
pub(super) fn record(
    context: &Context,
    act: &str,
    agent: Option<&AgentName>,
    what: String,
) -> Result<(), Failure> {
    let refused = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("nothing was done, since it cannot be recorded: {error}"))
    };
    let log = Log::open(&context.home.audit()).map_err(|error| refused(&error))?;
    log.act(&context.environment, who()?, act, agent, what).map_err(|error| refused(&error))
}

/// The program that started us, where the system tells.
#[cfg(target_os = "linux")]
fn who() -> Result<Option<std::sync::Arc<crate::identity::Process>>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok(runtime.block_on(crate::identity::process::who_started_us()).ok().map(Into::into))
}

#[cfg(not(target_os = "linux"))]
fn who() -> Result<Option<std::sync::Arc<crate::identity::Process>>, Failure> {
    Ok(None)
}
