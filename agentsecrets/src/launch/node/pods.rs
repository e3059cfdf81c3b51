//! The pods of a node: it combines the cluster's state and the kernel's cgroups. An unknown pod is blocked
//! until the cluster knows it; but before the cluster's first list is complete no pod is, since the node's
//! own pods, such as those of its network, must start without us. A pod that was guarded once stays guarded
//! until it is gone, even if its label is removed.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::java;
use super::super::sidecar::{ServiceError, step, write_public_file};
use super::cluster::{ClusterEvent, PodState};
use super::network::{NodeNetwork, POD_PORTS, is_populated};
use crate::intercept::ebpf::{FlowMap, Hooks, SharedPrograms};
use crate::launch::node::cgroup_watch::{CgroupChange, CgroupWatch};
use crate::launch::node::messages::PodChannel;
use crate::server::launch_config::{PodInbound, PodMessage};
use crate::tls;

/// The `emptyDir` volume of a pod that receives the certificates.
const CERTIFICATE_VOLUME: &str = "volumes/kubernetes.io~empty-dir/agentsecrets-public";

/// All pods that the cluster or the kernel knows.
pub(super) struct Pods {
    pub(super) tree: CgroupWatch,
    pub(super) channel: PodChannel,
    cgroups: PathBuf,
    shared: SharedPrograms,
    flows: FlowMap,
    networks: NodeNetwork,
    certificates: CertificatePublisher,
    pub(super) entries: HashMap<String, PodEntry>,
    /// Whether the cluster's list was complete once; before that a missing pod means nothing.
    pub(super) is_listed: bool,
    /// Pods named so far by the list that is being received.
    listing: Option<HashSet<String>>,
    retry: HashSet<String>,
}

#[derive(Default)]
pub(super) struct PodEntry {
    state: Option<Box<PodState>>,
    folder: Option<PathBuf>,
    hooks: Option<Hooks>,
    /// Whether it is guarded, and stays so until it is gone.
    is_kept: bool,
    serving: Option<ServedPod>,
    /// Whether it had processes before it was hooked, whose open sockets nothing blocks.
    was_running: bool,
    /// The last error, which is retried.
    error: Option<String>,
}

struct ServedPod {
    /// The inode of its network.
    network: u64,
    cookie: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PodStatus {
    /// It is not an agent.
    Unguarded,
    /// The cluster does not know it yet: it is offline.
    Held,
    /// It is guarded, and offline.
    Guarded,
    /// It is guarded and served.
    Served,
}

impl Pods {
    /// Adopts the hooks that an earlier process left in force.
    pub(super) fn new(
        cgroups: PathBuf,
        shared: SharedPrograms,
        networks: NodeNetwork,
        channel: PodChannel,
        certificates: CertificatePublisher,
        tree: CgroupWatch,
    ) -> Result<Self, ServiceError> {
        let flows = shared.flows()?;
        let (entries, again) = Default::default();
        let (listed, listing) = (false, None);
        let mut pods = Self {
            tree,
            channel,
            cgroups,
            shared,
            flows,
            networks,
            certificates,
            entries,
            is_listed: listed,
            listing,
            retry: again,
        };
        let mut folders = pods.tree.scan().map_err(step("look at the tree of cgroups"))?;
        for (uid, is_kept) in pods.shared.names() {
            let Some(folder) = folders.get(&uid) else {
                // Removed while this service did not run.
                pods.shared.unhook(&uid)?;
                continue;
            };
            let hooks = pods.shared.hook(&uid, folder)?;
            pods.entries.insert(uid, PodEntry { hooks: Some(hooks), is_kept, ..PodEntry::default() });
        }
        pods.shared.collect()?;
        for (uid, folder) in folders.drain() {
            pods.cgroup_created(&uid, folder)?;
        }
        Ok(pods)
    }

    pub(super) fn handle_cgroup_changes(&mut self, changes: Vec<CgroupChange>) -> Result<(), ServiceError> {
        for change in changes {
            match change {
                CgroupChange::Created(uid, folder) => self.cgroup_created(&uid, folder)?,
                CgroupChange::Removed(uid) => self.cgroup_removed(&uid)?,
                CgroupChange::Populated(uid) => self.reconcile(&uid)?,
                CgroupChange::RescanNeeded => {
                    let found = self.tree.scan().map_err(step("look at the tree of cgroups"))?;
                    let gone: Vec<_> =
                        self.entries.keys().filter(|uid| !found.contains_key(*uid)).cloned().collect();
                    gone.iter().try_for_each(|uid| self.cgroup_removed(uid))?;
                    found.into_iter().try_for_each(|(uid, folder)| self.cgroup_created(&uid, folder))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn handle_cluster_event(&mut self, event: ClusterEvent) -> Result<(), ServiceError> {
        match event {
            ClusterEvent::ListStarted => self.listing = Some(HashSet::new()),
            ClusterEvent::Applied(state) => {
                let uid = state.pod.uid.clone();
                if let Some(listing) = &mut self.listing {
                    listing.insert(uid.clone());
                }
                let entry = self.entries.entry(uid.clone()).or_default();
                let update = PodMessage::Update(state.pod.clone());
                let changed = entry.state.as_ref().is_none_or(|before| before.pod != state.pod);
                entry.state = Some(state);
                if entry.serving.is_some() && changed {
                    match self.channel.send(&update, &[]) {
                        // The message is too long: without its details the pod must not be served.
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                            self.stop_serving(&uid)?
                        }
                        sent => sent.map_err(step("tell the interceptor"))?,
                    }
                }
                self.reconcile(&uid)?;
            }
            ClusterEvent::Deleted(uid) => self.deleted_from_cluster(&uid)?,
            ClusterEvent::ListCompleted => {
                let listing = self.listing.take().unwrap_or_default();
                let is_missing = |(uid, entry): (&String, &PodEntry)| {
                    (entry.state.is_some() && !listing.contains(uid)).then(|| uid.clone())
                };
                let gone: Vec<_> = self.entries.iter().filter_map(is_missing).collect();
                gone.iter().try_for_each(|uid| self.deleted_from_cluster(uid))?;
                if !self.is_listed {
                    self.is_listed = true;
                    let entries: Vec<_> = self.entries.keys().cloned().collect();
                    entries.iter().try_for_each(|uid| self.reconcile(uid))?;
                }
            }
        }
        Ok(())
    }

    /// Opens the pod's inbound ports, as the interceptor reports them.
    pub(super) fn set_inbound(&mut self, message: &PodInbound) -> Result<(), ServiceError> {
        if let Some(hooks) = self.entries.get(&message.uid).and_then(|entry| entry.hooks.as_ref()) {
            self.shared.allow_inbound(hooks.id, &message.ports)?;
        }
        Ok(())
    }

    pub(super) fn has_retries(&self) -> bool {
        !self.retry.is_empty()
    }

    pub(super) fn retry_pending(&mut self) -> Result<(), ServiceError> {
        std::mem::take(&mut self.retry).iter().try_for_each(|uid| self.reconcile(uid))
    }

    fn cgroup_created(&mut self, uid: &str, folder: PathBuf) -> Result<(), ServiceError> {
        self.entries.entry(uid.to_owned()).or_default().folder = Some(folder);
        self.reconcile(uid)
    }

    fn cgroup_removed(&mut self, uid: &str) -> Result<(), ServiceError> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(()) };
        entry.folder = None;
        self.unguard(uid)?;
        if let Some(entry) = self.entries.get_mut(uid) {
            (entry.is_kept, entry.was_running, entry.error) = (false, false, None);
        }
        self.drop_if_unknown(uid);
        Ok(())
    }

    /// The cluster no longer knows the pod: it is offline for as long as its cgroup exists.
    fn deleted_from_cluster(&mut self, uid: &str) -> Result<(), ServiceError> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(()) };
        entry.state = None;
        self.stop_serving(uid)?;
        self.reconcile(uid)?;
        self.drop_if_unknown(uid);
        Ok(())
    }

    fn drop_if_unknown(&mut self, uid: &str) {
        if self.entries.get(uid).is_some_and(|entry| entry.state.is_none() && entry.folder.is_none()) {
            self.entries.remove(uid);
        }
    }

    /// Brings the hooks and the listeners in line with the pod's state.
    fn reconcile(&mut self, uid: &str) -> Result<(), ServiceError> {
        let Some(entry) = self.entries.get(uid) else { return Ok(()) };
        let Some(folder) = entry.folder.clone() else { return Ok(()) };
        match &entry.state {
            _ if entry.is_kept => self.guard_pod(uid, &folder),
            Some(state) if state.is_selected => self.guard_pod(uid, &folder),
            Some(_) => self.unguard(uid),
            // Static pods are the node's own; the cluster knows them by another uid.
            None if !self.is_listed || is_static(uid) => Ok(()),
            None => self.hook_pod(uid, &folder).map(drop),
        }
    }

    fn guard_pod(&mut self, uid: &str, folder: &Path) -> Result<(), ServiceError> {
        if !self.hook_pod(uid, folder)? {
            return Ok(());
        }
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(()) };
        if !entry.is_kept {
            entry.hooks.as_ref().map_or(Ok(()), Hooks::keep)?;
            entry.is_kept = true;
        }
        self.serve_pod(uid, folder)
    }

    /// Attaches the hooks if needed; returns whether they are attached.
    fn hook_pod(&mut self, uid: &str, folder: &Path) -> Result<bool, ServiceError> {
        let Some(entry) = self.entries.get_mut(uid) else { return Ok(false) };
        if entry.hooks.is_none() {
            let was_running = is_populated(folder);
            match self.shared.hook(uid, folder) {
                Ok(hooks) => (entry.hooks, entry.was_running, entry.error) = (Some(hooks), was_running, None),
                // Removed in the meantime.
                Err(_) if !folder.exists() => return Ok(false),
                Err(error) => {
                    tracing::error!(%uid, %error, "a pod cannot be held");
                    entry.error = Some(error.to_string());
                    self.retry.insert(uid.to_owned());
                    return Ok(false);
                }
            }
            if was_running {
                tracing::warn!(%uid, "this pod ran before it was held: restart it, since nothing holds the sockets that it has");
            }
        }
        // A cgroup that was removed meanwhile need not be watched.
        if let Err(error) = self.tree.watch(uid, folder)
            && folder.exists()
        {
            self.retry.insert(uid.to_owned());
            self.record_error(uid, &format!("its cgroup cannot be watched: {error}"))?;
        }
        Ok(true)
    }

    /// Opens missing listeners, and closes those in a network that is gone.
    fn serve_pod(&mut self, uid: &str, folder: &Path) -> Result<(), ServiceError> {
        let Some(entry) = self.entries.get(uid) else { return Ok(()) };
        let Some(state) = &entry.state else { return Ok(()) };
        if let Some(why) = state.violation.clone() {
            self.stop_serving(uid)?;
            return self.record_error(uid, &why);
        }
        let Some(network) = self.networks.pod_network(folder) else {
            if is_populated(folder) {
                self.retry.insert(uid.to_owned());
                return Ok(());
            }
            return self.stop_serving(uid);
        };
        if entry.serving.as_ref().is_some_and(|serving| serving.network == network.inode) {
            return Ok(());
        }
        let (pod, cgroup) = (state.pod.clone(), path_below(&self.cgroups, folder));
        self.stop_serving(uid)?;
        let (sockets, cookie) = match network.bind(POD_PORTS) {
            Ok(bound) => bound,
            Err(error) => {
                // Its loopback may not be up yet.
                self.retry.insert(uid.to_owned());
                return self
                    .record_error(uid, &format!("no listeners can be opened in its network: {error}"));
            }
        };
        if let Err(error) = self.certificates.publish(uid) {
            tracing::warn!(%uid, %error, "a pod cannot be shown our certificates");
        }
        let counts = [&sockets.listeners, &sockets.dns_udp, &sockets.dns_tcp].map(Vec::len);
        let entries = sockets.listeners.iter().chain(&sockets.dns_udp).chain(&sockets.dns_tcp);
        let entries: Vec<_> = entries.map(AsFd::as_fd).collect();
        match self.channel.send(&PodMessage::Add { pod, cgroup, sockets: counts }, &entries) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.record_error(uid, &error.to_string());
            }
            sent => sent.map_err(step("tell the interceptor"))?,
        }
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.serving = Some(ServedPod { network: network.inode, cookie });
            entry.error = None;
        }
        Ok(())
    }

    fn record_error(&mut self, uid: &str, why: &str) -> Result<(), ServiceError> {
        if let Some(entry) = self.entries.get_mut(uid)
            && entry.error.as_deref() != Some(why)
        {
            tracing::warn!(%uid, "a pod is not served: {why}");
            entry.error = Some(why.to_owned());
        }
        Ok(())
    }

    fn stop_serving(&mut self, uid: &str) -> Result<(), ServiceError> {
        let Some(serving) = self.entries.get_mut(uid).and_then(|entry| entry.serving.take()) else {
            return Ok(());
        };
        self.channel.send(&PodMessage::Remove(uid.to_owned()), &[]).map_err(step("tell the interceptor"))?;
        self.flows.forget(serving.cookie)?;
        Ok(())
    }

    fn unguard(&mut self, uid: &str) -> Result<(), ServiceError> {
        self.stop_serving(uid)?;
        self.tree.unwatch(uid);
        let Some(hooks) = self.entries.get_mut(uid).and_then(|entry| entry.hooks.take()) else {
            return Ok(());
        };
        self.shared.allow_inbound(hooks.id, &[])?;
        Ok(self.shared.unhook(uid)?)
    }
}

impl PodEntry {
    pub(super) fn status(&self) -> PodStatus {
        match (&self.hooks, self.is_kept, &self.serving) {
            (_, _, Some(_)) => PodStatus::Served,
            (_, true, None) => PodStatus::Guarded,
            (Some(_), false, None) => PodStatus::Held,
            (None, false, None) => PodStatus::Unguarded,
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.was_running && self.is_kept
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// Whether the uid is one of a static pod: a hash without dashes.
fn is_static(uid: &str) -> bool {
    !uid.contains('-')
}

/// Publishes the certificates that agents must trust.
pub(super) struct CertificatePublisher {
    volumes: Option<PathBuf>,
    files: [(&'static str, Vec<u8>); 3],
}

impl CertificatePublisher {
    pub(super) fn new(volumes: Option<PathBuf>, authority: &str) -> Self {
        let bundle = tls::bundle::bundle(authority);
        let java = java::trust_store(&bundle);
        let files = [("ca.pem", authority.into()), ("bundle.pem", bundle.into()), ("roots.jks", java)];
        Self { volumes, files }
    }

    /// Writes them into the pod's volume, if it has one.
    fn publish(&self, uid: &str) -> io::Result<()> {
        let Some(volumes) = &self.volumes else { return Ok(()) };
        let folder = volumes.join(uid).join(CERTIFICATE_VOLUME);
        if !fs::symlink_metadata(&folder).is_ok_and(|folder| folder.is_dir()) {
            return Ok(());
        }
        self.files.iter().try_for_each(|(name, bytes)| write_public_file(&folder.join(name), bytes))
    }
}

/// `folder` as a path of the hierarchy at `root`.
pub(super) fn path_below(root: &Path, folder: &Path) -> String {
    crate::identity::cgroup::path_in(root, folder).unwrap_or_else(|| "/".to_owned())
}
