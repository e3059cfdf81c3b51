//! Sends a request through the pipeline in this process: for a person, who may use any stored secret, or for
//! a program that is treated as an agent.

use std::sync::Arc;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::injection::Injection;
use crate::identity::{Caller, IdentityError};
use crate::inject::RequestedInjections;
use crate::pipeline::{CallerResult, ConnectionContext, Pipeline};
use crate::server::builder::{PipelineBuilder, watch};
use crate::types::body::Body;
use crate::types::failure::{Exit, Failure};
use crate::types::presented::PresentedCredentials;
use crate::types::target::Claim;

/// The pipeline, with the caller of its requests.
pub(crate) struct LocalSender {
    pipeline: Arc<Pipeline>,
    caller: CallerResult,
    shown: PresentedCredentials,
}

impl LocalSender {
    /// A sender for a single request of `caller`.
    pub(crate) fn for_one_request(builder: &PipelineBuilder, caller: Result<Caller, IdentityError>) -> Self {
        let (pipeline, _) = builder.pipeline(Vec::new(), CancellationToken::new(), TaskTracker::new());
        Self { pipeline, caller: Arc::new(caller), shown: PresentedCredentials::default() }
    }

    /// A sender that follows changes of policy and store. It must be created inside the runtime.
    pub(crate) fn long_lived(builder: &PipelineBuilder, caller: Result<Caller, IdentityError>) -> Self {
        let (pipeline, credentials) =
            builder.pipeline(Vec::new(), CancellationToken::new(), TaskTracker::new());
        watch(&builder.policy, builder.store.clone(), &credentials);
        Self { pipeline, caller: Arc::new(caller), shown: PresentedCredentials::default() }
    }

    /// The same sender, with an agent token.
    #[must_use]
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.shown = self.shown.with_token(token);
        self
    }

    /// Sends `request` with the secrets of `injections`. A rejection is a response too.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        injections: &[Injection],
    ) -> Result<Response<Body>, Failure> {
        request.extensions_mut().insert(injected_secrets(injections)?);
        let (caller, shown) = (self.caller.clone(), self.shown.clone());
        let session = ConnectionContext { caller, claim: Claim::Absolute, shown };
        Ok(self.pipeline.request(&session, request).await)
    }
}

/// The secrets of `injections`, if they do not conflict.
fn injected_secrets(injections: &[Injection]) -> Result<RequestedInjections, Failure> {
    injections.iter().try_fold(RequestedInjections::default(), |injected_secrets, injection| {
        injected_secrets.with(injection.reference.clone()).map_err(|clash| Failure::new(Exit::Usage, clash))
    })
}
