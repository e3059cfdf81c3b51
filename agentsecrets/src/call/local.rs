//! The request through every stage, in this process: for a person, whose policy lets any stored secret be
//! spent, or for a program that is judged as an agent.

use std::sync::Arc;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Injection;
use crate::identity::{Caller, IdentityError};
use crate::inject::Asked;
use crate::pipeline::{Known, Pipeline, Session};
use crate::server::builder::{Stages, watch};
use crate::types::body::Body;
use crate::types::failure::{Exit, Failure};
use crate::types::presented::Shown;
use crate::types::target::Claim;

/// The stages, and for whom they are gone through.
pub struct Here {
    pipeline: Arc<Pipeline>,
    caller: Known,
    shown: Shown,
}

impl Here {
    /// For a single request of `caller`.
    pub fn once(stages: &Stages, caller: Result<Caller, IdentityError>) -> Self {
        let (pipeline, _) = stages.pipeline(Vec::new(), CancellationToken::new(), TaskTracker::new());
        Self { pipeline, caller: Arc::new(caller), shown: Shown::default() }
    }

    /// For as long as it is kept: what changes in the policy and the store is followed. Needs the runtime.
    pub fn lasting(stages: &Stages, caller: Result<Caller, IdentityError>) -> Self {
        let (pipeline, wallets) = stages.pipeline(Vec::new(), CancellationToken::new(), TaskTracker::new());
        watch(&stages.policy, stages.store.clone(), &wallets);
        Self { pipeline, caller: Arc::new(caller), shown: Shown::default() }
    }

    /// The same, showing a token.
    #[must_use]
    pub fn showing(mut self, token: &str) -> Self {
        self.shown = self.shown.and_token(token);
        self
    }

    /// Sends `request` with the secrets of `injections`. A refusal is an answer too.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
        injections: &[Injection],
    ) -> Result<Response<Body>, Failure> {
        request.extensions_mut().insert(asked(injections)?);
        let (caller, shown) = (self.caller.clone(), self.shown.clone());
        let session = Session { caller, claim: Claim::Absolute, shown };
        Ok(self.pipeline.request(&session, request).await)
    }
}

/// The secrets of `injections`, if they can go together.
fn asked(injections: &[Injection]) -> Result<Asked, Failure> {
    injections.iter().try_fold(Asked::default(), |asked, injection| {
        asked.and(injection.reference.clone()).map_err(|clash| Failure::new(Exit::Usage, clash))
    })
}
