//! Keychain-Auth: what a caller must have beside a rule that allows its request. A rule says what an agent may
//! do; a capability says that this program may do it now.

use crate::base::refusal::Refusal;
use crate::identity::Caller;
use crate::policy::ask::Ask;
use crate::policy::bounds::Bounds;
use crate::policy::grant::Spend;

/// Everything that bounds the callers of one home.
#[derive(Default)]
pub struct Capabilities {
    bounds: Vec<Box<dyn Bounds>>,
}

impl Bounds for Capabilities {
    fn refusal(&self, caller: &Caller, ask: &Ask<'_>, spends: &[Spend]) -> Option<Refusal> {
        self.bounds.iter().find_map(|bound| bound.refusal(caller, ask, spends))
    }
}
