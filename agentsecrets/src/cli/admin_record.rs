//! What a person does to us is recorded, with the program that asked for it, before it is done.

use super::{Context, Exit, Failure};
use crate::audit::{Act, Log, Status};
use crate::types::name::{AgentName, SecretName};

/// Records that `act`, named as it is typed, is about to be done to an agent or to secrets; `notes` say how.
pub(super) fn record(
    context: &Context,
    act: &str,
    agent: Option<&AgentName>,
    secrets: &[SecretName],
    notes: Vec<String>,
) -> Result<(), Failure> {
    let tells_more = agent.is_some() || !secrets.is_empty() || !notes.is_empty();
    if context.is_at_the_door() && !tells_more {
        // The door has recorded that much.
        return Ok(());
    }
    let refused = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("nothing was done, since it cannot be recorded: {error}"))
    };
    let log = Log::open(&context.home.audit()).map_err(|error| refused(&error))?;
    let (environment, process) = (&context.environment, context.caller());
    let act = Act { environment, act, agent, secrets, process, status: Status::Ok, reason: None, notes };
    log.administrative(act).map_err(|error| refused(&error))
}
