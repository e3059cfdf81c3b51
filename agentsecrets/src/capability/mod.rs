//! Keychain-Auth: what a caller must have beside a rule that allows its request. A rule says what an agent may
//! do; a capability says that this program may do it now.

pub mod trust;
pub mod whoami;

use std::borrow::Cow;
use std::sync::Arc;

use crate::base::refusal::Refusal;
use crate::identity::Caller;
use crate::policy::ask::Ask;
use crate::policy::bounds::Bounds;
use crate::policy::grant::Spend;

use trust::Trust;

/// Everything that bounds the callers of one home.
#[derive(Default)]
pub struct Capabilities {
    trust: Option<Arc<Trust>>,
    bounds: Vec<Box<dyn Bounds>>,
}

impl Capabilities {
    /// Those of a home with these pins.
    pub fn with(trust: Arc<Trust>) -> Self {
        Self { trust: Some(trust), bounds: Vec::new() }
    }

    /// `caller`, with what is known of it now beside what the kernel says.
    pub fn know<'a>(&self, caller: &'a Caller) -> Cow<'a, Caller> {
        match self.trust.as_ref().is_some_and(|trust| trust.holds(caller)) {
            trusted if trusted == caller.trusted => Cow::Borrowed(caller),
            trusted => Cow::Owned(Caller { trusted, ..caller.clone() }),
        }
    }

    /// The pins.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_deref()
    }
}

impl Bounds for Capabilities {
    fn refusal(&self, caller: &Caller, ask: &Ask<'_>, spends: &[Spend]) -> Option<Refusal> {
        let trust = self.trust.as_ref().and_then(|trust| trust.refusal(caller, ask, spends));
        trust.or_else(|| self.bounds.iter().find_map(|bound| bound.refusal(caller, ask, spends)))
    }
}
