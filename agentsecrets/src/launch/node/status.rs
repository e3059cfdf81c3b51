//! The status file of a node's service, for probes, people and aggregation.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pods::{PodStatus, Pods};
use crate::sys::files;

const MIN_WRITE_INTERVAL: Duration = Duration::from_millis(100);

/// Counts of a node's pods by status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeStatus {
    /// The process that serves.
    pub pid: u32,
    /// Whether the cluster's list of pods was complete once.
    pub listed: bool,
    /// Pods that the cluster or the kernel knows.
    pub known: usize,
    /// Pods that are blocked because the cluster does not know them yet.
    pub held: usize,
    /// Guarded pods.
    pub guarded: usize,
    /// Guarded pods that are served.
    pub served: usize,
    /// Watched cgroup folders and files.
    pub watched: usize,
    /// Uids of guarded pods that ran before they were hooked: they must be restarted.
    pub late: Vec<String>,
    /// Errors, by the pod's uid.
    pub failed: BTreeMap<String, String>,
}

impl NodeStatus {
    fn of(pods: &Pods) -> Self {
        let mut status = Self {
            pid: std::process::id(),
            listed: pods.is_listed,
            known: pods.entries.len(),
            watched: pods.tree.watch_count(),
            ..Self::default()
        };
        for (uid, entry) in &pods.entries {
            let standing = entry.status();
            status.held += usize::from(standing == PodStatus::Held);
            status.guarded += usize::from(matches!(standing, PodStatus::Guarded | PodStatus::Served));
            status.served += usize::from(standing == PodStatus::Served);
            status.late.extend(entry.is_late().then(|| uid.clone()));
            status.failed.extend(entry.error().map(|why| (uid.clone(), why.to_owned())));
        }
        status.late.sort_unstable();
        status
    }
}

pub(super) struct StatusFile {
    path: Option<PathBuf>,
    last: Option<(NodeStatus, Instant)>,
    is_write_pending: bool,
}

impl StatusFile {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, last: None, is_write_pending: false }
    }

    /// Whether a change waits to be written.
    pub(super) fn is_pending(&self) -> bool {
        self.is_write_pending
    }

    /// Writes the status of `pods` if it changed and was not written just now.
    pub(super) fn write(&mut self, pods: &Pods) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < MIN_WRITE_INTERVAL) {
            self.is_write_pending = true;
            return Ok(());
        }
        self.is_write_pending = false;
        let status = NodeStatus::of(pods);
        if self.last.as_ref().is_some_and(|(last, _)| *last == status) {
            return Ok(());
        }
        files::replace(path, &serde_json::to_vec(&status)?)?;
        self.last = Some((status, Instant::now()));
        Ok(())
    }
}
