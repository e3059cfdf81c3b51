//! The request as the person's own: through every stage, in this process.

use std::sync::Arc;

use crate::app::call::{Here, Injection};
use crate::app::stages::Stages;
use crate::base::name::{AgentName, SecretName};
use crate::cli::secrets::{open_store, store_failure};
use crate::cli::{Context, Exit, Failure};
use crate::identity::process::who_started_us;
use crate::identity::{Caller, IdentityError};
use crate::policy::{Live, Policy};
use crate::store::Store;

/// What the person is called where agents have a name.
const NAME: &str = "person";

/// The way out for a request with the secrets of `injections`.
pub(super) async fn door(
    injections: &[Injection],
    has_token: bool,
    context: &Context,
) -> Result<Here, Failure> {
    let store = open_store(context)?;
    let policy = Policy::load(&context.home.policy()).map_err(|error| {
        Failure::new(Exit::Failure, format!("the policy is not valid: {error}"))
            .hint("agentsecrets policy check")
    })?;
    let name: AgentName = NAME.parse().map_err(|error| Failure::new(Exit::Failure, error))?;
    let stored = store.list(&context.project, &context.environment).map_err(store_failure)?;
    // Not only those that are asked for: an answer may repeat what an earlier request brought.
    let mut secrets: Vec<SecretName> = stored.into_iter().map(|entry| entry.name).collect();
    secrets.extend(injections.iter().map(|injection| injection.reference.name.clone()));
    let policy = policy.of_the_person_narrowed(name, secrets, &context.scope.narrow);
    let whose = (&context.project, &context.environment);
    let stages = Stages::of(&context.home, whose, Arc::new(Live::fixed(policy)), Arc::new(store))?;
    Ok(Here::once(&stages, caller(has_token).await))
}

/// Who asks. A token that cannot be verified is a claim that cannot be proven.
async fn caller(has_token: bool) -> Result<Caller, IdentityError> {
    if has_token {
        return Err(IdentityError::Token);
    }
    let process = Arc::new(who_started_us().await?);
    Ok(Caller { process, agent: None, session: "".into(), is_ours: false })
}
