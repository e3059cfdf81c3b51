//! The request as the person's own: through every stage, in this process.

use std::sync::Arc;

use http::Request;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Answer, refused};
use super::flags::Injection;
use super::references;
use crate::app::config::Config;
use crate::app::stages::{Stages, upstream_tls};
use crate::audit::Log;
use crate::base::name::{AgentName, SecretName};
use crate::base::refusal::Refusal;
use crate::cli::secrets::{open_store, store_failure};
use crate::cli::{Context, Exit, Failure};
use crate::exchange::body::Body;
use crate::exchange::target::Claim;
use crate::identity::{Caller, IdentityError, who_started_us};
use crate::inject::Asked;
use crate::pipeline::Session;
use crate::policy::{Live, Policy};
use crate::store::Store;

/// What the person is called where agents have a name.
const NAME: &str = "person";

/// Sends `request` with the secrets of `injections`.
pub(super) fn ask(
    runtime: &Runtime,
    mut request: Request<Body>,
    injections: &[Injection],
    has_token: bool,
    context: &Context,
) -> Result<Answer, Failure> {
    let mut asked = Asked::default();
    for reference in references(injections) {
        asked = asked.and(reference.clone()).map_err(|clash| Failure::new(Exit::Usage, clash))?;
    }
    let store = Arc::new(open_store(context)?);
    let stages = stages(&asked, store, context)?;
    request.extensions_mut().insert(asked);
    let answer = runtime.block_on(async {
        let session = Session { caller: Arc::new(caller(has_token).await), claim: Claim::Absolute };
        let (pipeline, _) = stages.pipeline(Vec::new(), CancellationToken::new(), TaskTracker::new());
        let response = pipeline.request(&session, request).await;
        let refusal = response.extensions().get::<Refusal>().map(refused);
        Answer::read(response, refusal).await
    });
    Ok(answer)
}

/// Who asks. A token that cannot be verified is a claim that cannot be proven.
async fn caller(has_token: bool) -> Result<Caller, IdentityError> {
    if has_token {
        return Err(IdentityError::Token);
    }
    let process = Arc::new(who_started_us().await?);
    Ok(Caller { process, agent: None, session: "".into(), is_ours: false })
}

fn stages(asked: &Asked, store: Arc<dyn Store>, context: &Context) -> Result<Stages, Failure> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(Exit::Failure, format!("{what}: {error}"));
    let config = Config::load(&context.home.config())
        .map_err(|error| failed("the configuration is not valid", &error).hint("agentsecrets doctor"))?;
    let policy = Policy::load(&context.home.policy())
        .map_err(|error| failed("the policy is not valid", &error).hint("agentsecrets policy check"))?;
    let name: AgentName = NAME.parse().map_err(|error| Failure::new(Exit::Failure, error))?;
    let stored = store.list(&context.project, &context.environment).map_err(store_failure)?;
    // Not only those that are asked for: an answer may repeat what an earlier request brought.
    let mut secrets: Vec<SecretName> = stored.into_iter().map(|entry| entry.name).collect();
    secrets.extend(asked.references().iter().map(|reference| reference.name.clone()));
    Ok(Stages {
        config,
        policy: Arc::new(Live::fixed(policy.of_the_person_narrowed(name, secrets, &context.scope.narrow))),
        // What bounds programs does not bind the person.
        capabilities: Arc::default(),
        store,
        audit: Log::open(&context.home.audit())
            .map_err(|error| failed("the audit log cannot be written", &error))?,
        upstream_tls: upstream_tls()?,
        rotated: context.home.rotated(),
        project: context.project.clone(),
        environment: context.environment.clone(),
    })
}
