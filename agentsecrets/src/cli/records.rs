//! Records of administrative acts and of exported values. An act is recorded, with the program that asked for
//! it, before it is done; without a record it is not done.

use super::context::Context;
use crate::audit::{AdminAct, IdentityLevel, Log, Opening, Outcome, Pending, Status};
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{AgentName, SecretName};

/// Records the administrative act `act` (the command as typed) before it is done to an agent or to secrets.
pub(super) fn record_act(
    context: &Context,
    act: &str,
    agent: Option<&AgentName>,
    secrets: &[SecretName],
    notes: Vec<String>,
) -> Result<(), Failure> {
    let has_details = agent.is_some() || !secrets.is_empty() || !notes.is_empty();
    if context.is_in_daemon() && !has_details {
        // The daemon has recorded that much.
        return Ok(());
    }
    let unrecorded = "nothing was done, since it cannot be recorded";
    let log = Log::open(&context.home.audit()).context(unrecorded)?;
    let (environment, process) = (&context.environment, context.caller().map(|process| (&*process).into()));
    let act = AdminAct { environment, act, agent, secrets, process, status: Status::Ok, reason: None, notes };
    log.administrative(act).context(unrecorded)
}

/// Opens the record of the export `method` to the program `target`. Nothing is written yet. `exit` is the
/// exit code of a failure.
pub(super) fn begin_export(
    method: &str,
    target: String,
    context: &Context,
    exit: Exit,
) -> Result<Pending, Failure> {
    let log = Log::open(&context.home.audit()).context_with_exit(exit, "no value is given")?;
    let process = context.caller();
    let process = process.ok_or_else(|| {
        Failure::new(exit, "the calling program cannot be identified: the kernel does not say")
    })?;
    Ok(log.begin(Opening {
        environment: context.environment.clone(),
        agent_id: None,
        identity_level: IdentityLevel::Kernel,
        process: Some((&*process).into()),
        session_id: None,
        token_id: None,
        method: method.to_owned(),
        target_url: target,
        domain: String::new(),
    }))
}

/// The outcome of an export that gave no value.
pub(super) fn export_failed(status: Status, reason: &str) -> Outcome {
    Outcome { status, status_code: None, reason: Some(reason.to_owned()), redacted: false }
}

/// The outcome of an export that gave the values.
pub(super) fn export_done() -> Outcome {
    Outcome { status: Status::Ok, status_code: None, reason: None, redacted: false }
}
