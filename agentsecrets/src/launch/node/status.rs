//! What a node's service says of itself, in a file: for probes, for people, and for whoever adds it up.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pods::{Pods, Standing};
use crate::sys::files;

/// The file is written no more often.
const OFTEN: Duration = Duration::from_millis(100);

/// How a node's pods stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// The process that serves.
    pub pid: u32,
    /// Whether the cluster has told of every pod of the node.
    pub listed: bool,
    /// How many pods are known, to the cluster or the kernel.
    pub known: usize,
    /// How many are held since nobody knows yet whose they are.
    pub held: usize,
    /// How many are guarded.
    pub guarded: usize,
    /// How many of these are served.
    pub served: usize,
    /// How many folders and files of the tree of cgroups are watched.
    pub watched: usize,
    /// The uids of guarded pods that ran before they were: they must be started again.
    pub late: Vec<String>,
    /// What does not work, by the pod's uid.
    pub failed: BTreeMap<String, String>,
}

impl Status {
    fn of(pods: &Pods) -> Self {
        let mut status = Self {
            pid: std::process::id(),
            listed: pods.listed,
            known: pods.all.len(),
            watched: pods.tree.watching(),
            ..Self::default()
        };
        for (uid, entry) in &pods.all {
            let standing = entry.standing();
            status.held += usize::from(standing == Standing::Held);
            status.guarded += usize::from(matches!(standing, Standing::Guarded | Standing::Served));
            status.served += usize::from(standing == Standing::Served);
            status.late.extend(entry.is_late().then(|| uid.clone()));
            status.failed.extend(entry.failed().map(|why| (uid.clone(), why.to_owned())));
        }
        status.late.sort_unstable();
        status
    }
}

/// The file.
pub(super) struct File {
    path: Option<PathBuf>,
    last: Option<(Status, Instant)>,
    late: bool,
}

impl File {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, last: None, late: false }
    }

    /// Whether what the file says may no longer be so.
    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// Writes how `pods` stand, if that has changed and was not written just now.
    pub(super) fn write(&mut self, pods: &Pods) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.last.as_ref().is_some_and(|(_, at)| at.elapsed() < OFTEN) {
            self.late = true;
            return Ok(());
        }
        self.late = false;
        let status = Status::of(pods);
        if self.last.as_ref().is_some_and(|(last, _)| *last == status) {
            return Ok(());
        }
        files::replace(path, &serde_json::to_vec(&status)?)?;
        self.last = Some((status, Instant::now()));
        Ok(())
    }
}
