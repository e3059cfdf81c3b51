//! Sends a request of the person through the pipeline in this process.

use std::sync::Arc;

use crate::call::{Injection, LocalSender};
use crate::cli::context::Context;
use crate::cli::mcp;
use crate::cli::stores::open_store;
use crate::identity::{Caller, IdentityError, parent_process};
use crate::policy::PolicyWatcher;
use crate::server::builder::PipelineBuilder;
use crate::store::Store;
use crate::types::failure::Failure;
use crate::types::name::{AgentName, SecretName};

/// The agent name of the person in policy and log.
const PERSON_AGENT_NAME: &str = "person";

/// The sender for a request with the secrets of `injections`.
pub(super) async fn person_sender(
    injections: &[Injection],
    context: &Context,
) -> Result<LocalSender, Failure> {
    let store = open_store(context)?;
    let policy = mcp::load_policy(context)?;
    let name: AgentName = PERSON_AGENT_NAME.parse().map_err(Failure::from_error)?;
    let stored = store.list(&context.project, &context.environment)?;
    // All stored secrets, not only the requested ones: a response may repeat a secret of an earlier request.
    let mut secrets: Vec<SecretName> = stored.into_iter().map(|entry| entry.name).collect();
    secrets.extend(injections.iter().map(|injection| injection.reference.name.clone()));
    let policy = policy.for_operator_restricted(name, secrets, &context.scope.restriction);
    let scope = (&context.project, &context.environment);
    let builder = PipelineBuilder::with_policy_and_store(
        &context.home,
        scope,
        Arc::new(PolicyWatcher::fixed(policy)),
        Arc::new(store),
    )?
    .for_operator();
    Ok(LocalSender::for_one_request(&builder, caller(context).await))
}

/// The sender for a request of the agent that owns `token`.
pub(super) async fn agent_sender(token: &str, context: &Context) -> Result<LocalSender, Failure> {
    Ok(mcp::agent_sender("", context).await?.with_token(token))
}

/// The calling process.
#[cfg_attr(
    not(target_os = "linux"),
    expect(unused_variables, reason = "only Linux has a daemon that forwards")
)]
async fn caller(context: &Context) -> Result<Caller, IdentityError> {
    #[cfg(target_os = "linux")]
    let forwarded = context.invocation.as_ref().map(|invocation| invocation.process.clone());
    #[cfg(not(target_os = "linux"))]
    let forwarded = None;
    let process = Arc::new(match forwarded {
        Some(process) => process,
        None => parent_process().await?,
    });
    Ok(Caller { process, agent: None, session: "".into(), is_ours: false, attributes: Default::default() })
}
