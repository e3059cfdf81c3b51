//! The record of values that a program is handed: who asked, for what, and what came of it.

use super::{Context, Failure};
use crate::audit::{IdentityLevel, Log, Opening, Outcome, Pending, Status};

/// Opens the record of `method`, for `whom`. Nothing is written yet. The failures are those of the command
/// that asks.
pub(super) fn open(
    method: &str,
    whom: String,
    context: &Context,
    failed: impl Fn(&str, &dyn std::fmt::Display) -> Failure,
) -> Result<Pending, Failure> {
    let log = Log::open(&context.home.audit()).map_err(|error| failed("nothing is handed over", &error))?;
    let process = context.caller();
    let process = process.ok_or_else(|| failed("cannot look at who called", &"the kernel does not say"))?;
    Ok(log.begin(Opening {
        environment: context.environment.clone(),
        agent_id: None,
        identity_level: IdentityLevel::Kernel,
        process: Some((&*process).into()),
        session_id: None,
        token_id: None,
        method: method.to_owned(),
        target_url: whom,
        domain: String::new(),
    }))
}

/// How it ended without values.
pub(super) fn ended(status: Status, why: &str) -> Outcome {
    Outcome { status, status_code: None, reason: Some(why.to_owned()), redacted: false }
}

/// How it ended with them.
pub(super) fn done() -> Outcome {
    Outcome { status: Status::Ok, status_code: None, reason: None, redacted: false }
}
