//! The pod that a caller is in, as the cluster's API server tells it. Which pod that is, the kernel says: the uid
//! in the path of its cgroup. What the pod's own containers say counts for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its uid, which no other pod ever has.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The namespace that it is in.
    pub namespace: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its labels: whoever wrote the pod chose them.
    pub labels: BTreeMap<String, String>,
}

/// The current facts about a pod. Readers see each change at once.
#[derive(Debug, Default)]
pub struct CurrentPod(ArcSwapOption<Pod>);

impl CurrentPod {
    /// Known to be this one.
    pub fn new(pod: Pod) -> Self {
        Self(ArcSwapOption::from_pointee(pod))
    }

    /// From now on it is known to be so; nothing is known once the cluster has it no longer.
    pub fn is(&self, pod: Option<Pod>) {
        self.0.store(pod.map(Arc::new));
    }

    /// The current facts.
    pub fn get(&self) -> Option<Arc<Pod>> {
        self.0.load_full()
    }
}
