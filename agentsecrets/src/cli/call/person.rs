//! The request as the person's own: through every stage, in this process.

use std::sync::Arc;

use crate::call::{Here, Injection};
use crate::cli::secrets::{open_store, store_failure};
use crate::cli::{Context, Exit, Failure, mcp};
use crate::identity::{Caller, IdentityError, who_started_us};
use crate::policy::Live;
use crate::server::builder::Stages;
use crate::store::Store;
use crate::types::name::{AgentName, SecretName};

/// What the person is called where agents have a name.
const NAME: &str = "person";

/// The way out for a request with the secrets of `injections`.
pub(super) async fn door(injections: &[Injection], context: &Context) -> Result<Here, Failure> {
    let store = open_store(context)?;
    let policy = mcp::policy(context)?;
    let name: AgentName = NAME.parse().map_err(|error| Failure::new(Exit::Failure, error))?;
    let stored = store.list(&context.project, &context.environment).map_err(store_failure)?;
    // Not only those that are asked for: an answer may repeat what an earlier request brought.
    let mut secrets: Vec<SecretName> = stored.into_iter().map(|entry| entry.name).collect();
    secrets.extend(injections.iter().map(|injection| injection.reference.name.clone()));
    let policy = policy.of_the_person_narrowed(name, secrets, &context.scope.narrow);
    let whose = (&context.project, &context.environment);
    let stages =
        Stages::of(&context.home, whose, Arc::new(Live::fixed(policy)), Arc::new(store))?.unbounded();
    Ok(Here::once(&stages, caller(context).await))
}

/// The way out for a request of the agent whose `token` is shown.
pub(super) async fn door_of_an_agent(token: &str, context: &Context) -> Result<Here, Failure> {
    Ok(mcp::door_of_an_agent("", context).await?.showing(token))
}

/// Who asks.
async fn caller(context: &Context) -> Result<Caller, IdentityError> {
    #[cfg(target_os = "linux")]
    let at_the_door = context.ticket.as_ref().map(|ticket| ticket.process.clone());
    #[cfg(not(target_os = "linux"))]
    let at_the_door = None;
    let process = Arc::new(match at_the_door {
        Some(process) => process,
        None => who_started_us().await?,
    });
    Ok(Caller { process, agent: None, session: "".into(), is_ours: false, standing: Default::default() })
}
