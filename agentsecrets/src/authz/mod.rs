//! Keychain-Auth: what a caller must have beside a rule that allows its request. A rule says what an agent may
//! do; a capability says that this program may do it now.

pub mod agents;
pub mod clock;
pub mod registry;
mod revocation;
pub mod session_uses;
pub mod sessions;
mod state;
#[cfg(test)]
mod state_tests;
pub mod token;
pub mod trust;
pub mod whoami;

use std::borrow::Cow;
use std::sync::Arc;

use crate::identity::{Caller, IdentityError};
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::injection::SecretUse;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};
use crate::types::presented::PresentedCredentials;
use crate::types::rejection::Rejection;

pub use revocation::RevocationGuard;
pub use state::{Admitted, Refused};

use registry::RegistryError;
use state::AuthzState;
use trust::Trust;

/// Everything that bounds the callers of one home. What is made by `default` bounds nobody, and lets in nobody
/// who shows a token.
#[derive(Default)]
pub struct Capabilities {
    state: Option<Arc<AuthzState>>,
    trust: Option<Arc<Trust>>,
    bounds: Vec<Box<dyn CapabilityCheck>>,
}

impl Capabilities {
    /// Follows the files of `home`, for the callers who spend the secrets of a project and environment. Those of
    /// a run have nothing left when its session, `run`, ends.
    ///
    /// # Errors
    /// When one of them cannot be read, or has a mistake.
    pub fn open(
        home: &Home,
        project: &Project,
        environment: &Environment,
        run: Option<Arc<str>>,
    ) -> Result<Self, RegistryError> {
        let state = AuthzState::open(home, project, environment, run)?;
        Ok(Self { state: Some(state), ..Self::default() })
    }

    /// Capabilities from the present contents of the files. Later changes are ignored.
    ///
    /// # Errors
    /// If a file is invalid.
    pub fn fixed(
        home: &Home,
        agents: agents::Agents,
        sessions: sessions::Sessions,
    ) -> Result<Self, RegistryError> {
        let state = Arc::new(AuthzState::fixed(home, agents, sessions)?);
        Ok(Self { state: Some(state), ..Self::default() })
    }

    /// With these pins of programs.
    #[must_use]
    pub fn trusting(mut self, trust: Arc<Trust>) -> Self {
        self.trust = Some(trust);
        self
    }

    /// The pins.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }

    /// `caller`, with what is known of it now beside what the kernel says: whether a pin holds.
    pub fn capability_check<'a>(&self, caller: &'a Caller) -> Cow<'a, Caller> {
        let trusted = self.trust.as_ref().is_some_and(|trust| trust.holds(caller));
        if trusted == caller.attributes.trusted {
            return Cow::Borrowed(caller);
        }
        let mut caller = caller.clone();
        caller.attributes.trusted = trusted;
        Cow::Owned(caller)
    }

    /// One bound more.
    #[must_use]
    pub fn and(mut self, bound: impl CapabilityCheck + 'static) -> Self {
        self.bounds.push(Box::new(bound));
        self
    }

    /// The caller with what it was given: its pins, its sessions, and what the token says that it shows. What it shows
    /// must be good, even where nothing would have had to be shown.
    ///
    /// # Errors
    /// When it may not do anything.
    pub fn admit(
        &self,
        known: &Result<Caller, IdentityError>,
        shown: &PresentedCredentials,
    ) -> Result<Admitted, Box<Refused>> {
        let mut admitted = match (&self.state, known) {
            (Some(state), _) => state.admit(known, shown)?,
            (None, _) if !shown.is_empty() => {
                return Err(Refused::denied("tokens cannot be verified here"));
            }
            (None, Ok(caller)) => Admitted { caller: caller.clone(), held: RevocationGuard::default() },
            (None, Err(error)) => {
                return Err(Refused::denied(format!("the caller cannot be proven: {error}")));
            }
        };
        if let Cow::Owned(known) = self.capability_check(&admitted.caller) {
            admitted.caller = known;
        }
        Ok(admitted)
    }

    /// Counts that `caller` spends a secret.
    ///
    /// # Errors
    /// When it did so as often as it may.
    pub async fn charge(&self, caller: &Caller) -> Result<(), Rejection> {
        let Some(state) = self.state.as_ref().filter(|state| state.counts(caller)) else { return Ok(()) };
        let (state, caller) = (state.clone(), caller.clone());
        let charged = tokio::task::spawn_blocking(move || state.charge(&caller)).await;
        charged.unwrap_or_else(|error| {
            let slug = crate::types::rejection::ErrorCode::CapabilityDenied;
            Err(Rejection::new(slug, format!("the uses of the session cannot be counted: {error}")))
        })
    }

    /// Why the session of the run that is served is over, if it is.
    pub fn run_over(&self) -> Option<String> {
        self.state.as_ref()?.run_end_reason()
    }
}

impl CapabilityCheck for Capabilities {
    fn rejection(&self, caller: &Caller, ask: &AccessRequest<'_>, spends: &[SecretUse]) -> Option<Rejection> {
        let own = self.state.as_ref().and_then(|state| state.refusal(caller, ask, spends));
        let trust = || self.trust.as_ref().and_then(|trust| trust.rejection(caller, ask, spends));
        own.or_else(trust)
            .or_else(|| self.bounds.iter().find_map(|bound| bound.rejection(caller, ask, spends)))
    }
}
