//! Matches the Kubernetes pod of a caller.

use std::collections::BTreeMap;

use crate::identity::Caller;
use crate::identity::pod::Pod;

/// The facts that a pod must have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PodMatcher {
    pub(super) namespace: Option<String>,
    pub(super) service_account: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

impl PodMatcher {
    /// Whether the facts hold for the pod of `caller` now. For a caller without a known pod they do not.
    pub(super) fn matches(&self, caller: &Caller) -> bool {
        caller.attributes.pod.as_ref().and_then(|known| known.get()).is_some_and(|pod| self.matches_pod(&pod))
    }

    /// Whether the facts hold for `pod`.
    pub(super) fn matches_pod(&self, pod: &Pod) -> bool {
        self.namespace.as_ref().is_none_or(|name| *name == pod.namespace)
            && self.service_account.as_ref().is_none_or(|name| *name == pod.service_account)
            && self.labels.iter().all(|(label, value)| pod.labels.get(label) == Some(value))
    }
}
