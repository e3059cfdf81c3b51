//! The pods of a node: for each, what the cluster says and what the kernel has, and what follows from both. A pod
//! of which nothing is known yet may be ours, and is held until something is; but before the cluster's first list is
//! complete none is, since a node's own pods, such as those of its network, must start without us. One that was guarded once stays so
//! until it is gone, whoever takes its label away.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::super::java;
use super::super::sidecar::{NotServed, show, step};
use super::cluster::{News, Told};
use super::network::{Networks, is_populated};
use super::{DOORS, path_below};
use crate::intercept::ebpf::{Flows, Hooks, Shared};
use crate::launch::node::cgroup_watch::{Change, Tree};
use crate::launch::node::messages::Words;
use crate::server::launch_config::{Reach, Word};
use crate::tls;

/// The volume of a pod, an `emptyDir`, that the certificates which it must trust are put into.
const VOLUME: &str = "volumes/kubernetes.io~empty-dir/agentsecrets-public";

/// Every pod that is known to the cluster or to the kernel.
pub(super) struct Pods {
    pub(super) tree: Tree,
    pub(super) words: Words,
    cgroups: PathBuf,
    shared: Shared,
    flows: Flows,
    networks: Networks,
    certificates: Certificates,
    pub(super) all: HashMap<String, Entry>,
    /// Whether the cluster's list was complete once: before that, nothing follows from what is not in it.
    pub(super) listed: bool,
    /// Those that the list which is under way has named.
    listing: Option<HashSet<String>>,
    again: HashSet<String>,
}

/// One of them.
#[derive(Default)]
pub(super) struct Entry {
    told: Option<Box<Told>>,
    folder: Option<PathBuf>,
    hooks: Option<Hooks>,
    /// Whether it is guarded, and so stays until it is gone.
    kept: bool,
    served: Option<Served>,
    /// Whether it had processes before it was hooked, whose sockets nothing holds.
    late: bool,
    /// What does not work, and is tried again.
    failed: Option<String>,
}

/// Where it is served.
struct Served {
    /// Its network, by its inode and its cookie.
    network: u64,
    cookie: u64,
}

/// How a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is nobody's agent.
    Free,
    /// Nobody knows yet whose it is: it is offline.
    Held,
    /// It is guarded, and offline.
    Guarded,
    /// It is guarded and served.
    Served,
}

impl Pods {
    /// Takes up what an earlier process left in force.
    pub(super) fn new(
        cgroups: PathBuf,
        shared: Shared,
        networks: Networks,
        words: Words,
        certificates: Certificates,
        tree: Tree,
    ) -> Result<Self, NotServed> {
        let flows = shared.flows()?;
        let (all, again) = Default::default();
        let (listed, listing) = (false, None);
        let mut pods =
            Self { tree, words, cgroups, shared, flows, networks, certificates, all, listed, listing, again };
        let mut folders = pods.tree.all().map_err(step("look at the tree of cgroups"))?;
        for (uid, kept) in pods.shared.names() {
            let Some(folder) = folders.get(&uid) else {
                // Gone while nobody looked.
                pods.shared.unhook(&uid)?;
                continue;
            };
            let hooks = pods.shared.hook(&uid, folder)?;
            pods.all.insert(uid, Entry { hooks: Some(hooks), kept, ..Entry::default() });
        }
        pods.shared.collect()?;
        for (uid, folder) in folders.drain() {
            pods.made(&uid, folder)?;
        }
        Ok(pods)
    }

    /// What the kernel tells.
    pub(super) fn changed(&mut self, changes: Vec<Change>) -> Result<(), NotServed> {
        for change in changes {
            match change {
                Change::Made(uid, folder) => self.made(&uid, folder)?,
                Change::Removed(uid) => self.removed(&uid)?,
                Change::Populated(uid) => self.settle(&uid)?,
                Change::Anything => {
                    let found = self.tree.all().map_err(step("look at the tree of cgroups"))?;
                    let gone: Vec<_> =
                        self.all.keys().filter(|uid| !found.contains_key(*uid)).cloned().collect();
                    gone.iter().try_for_each(|uid| self.removed(uid))?;
                    found.into_iter().try_for_each(|(uid, folder)| self.made(&uid, folder))?;
                }
            }
        }
        Ok(())
    }

    /// What the cluster tells.
    pub(super) fn told(&mut self, news: News) -> Result<(), NotServed> {
        match news {
            News::Listing => self.listing = Some(HashSet::new()),
            News::Is(told) => {
                let uid = told.pod.uid.clone();
                if let Some(listing) = &mut self.listing {
                    listing.insert(uid.clone());
                }
                let entry = self.all.entry(uid.clone()).or_default();
                let known = Word::Known(told.pod.clone());
                let changed = entry.told.as_ref().is_none_or(|before| before.pod != told.pod);
                entry.told = Some(told);
                if entry.served.is_some() && changed {
                    match self.words.say(&known, &[]) {
                        // What cannot be said of it is not known, and nothing is served by it.
                        Err(error) if error.kind() == io::ErrorKind::InvalidData => self.close(&uid)?,
                        said => said.map_err(step("tell the interceptor"))?,
                    }
                }
                self.settle(&uid)?;
            }
            News::Gone(uid) => self.forgotten(&uid)?,
            News::Listed => {
                let listing = self.listing.take().unwrap_or_default();
                let was = |(uid, entry): (&String, &Entry)| {
                    (entry.told.is_some() && !listing.contains(uid)).then(|| uid.clone())
                };
                let gone: Vec<_> = self.all.iter().filter_map(was).collect();
                gone.iter().try_for_each(|uid| self.forgotten(uid))?;
                if !self.listed {
                    self.listed = true;
                    let all: Vec<_> = self.all.keys().cloned().collect();
                    all.iter().try_for_each(|uid| self.settle(uid))?;
                }
            }
        }
        Ok(())
    }

    /// What the interceptor tells: which ports of a pod are open.
    pub(super) fn reach(&mut self, reach: &Reach) -> Result<(), NotServed> {
        if let Some(hooks) = self.all.get(&reach.uid).and_then(|entry| entry.hooks.as_ref()) {
            self.shared.allow_inbound(hooks.id, &reach.inbound)?;
        }
        Ok(())
    }

    /// Whether something is to be looked at again.
    pub(super) fn waits(&self) -> bool {
        !self.again.is_empty()
    }

    /// Looks again.
    pub(super) fn again(&mut self) -> Result<(), NotServed> {
        std::mem::take(&mut self.again).iter().try_for_each(|uid| self.settle(uid))
    }

    fn made(&mut self, uid: &str, folder: PathBuf) -> Result<(), NotServed> {
        self.all.entry(uid.to_owned()).or_default().folder = Some(folder);
        self.settle(uid)
    }

    fn removed(&mut self, uid: &str) -> Result<(), NotServed> {
        let Some(entry) = self.all.get_mut(uid) else { return Ok(()) };
        entry.folder = None;
        self.release(uid)?;
        if let Some(entry) = self.all.get_mut(uid) {
            (entry.kept, entry.late, entry.failed) = (false, false, None);
        }
        self.drop_if_unknown(uid);
        Ok(())
    }

    /// The cluster knows it no longer: nothing vouches for it, so that it is offline for as long as it is there.
    fn forgotten(&mut self, uid: &str) -> Result<(), NotServed> {
        let Some(entry) = self.all.get_mut(uid) else { return Ok(()) };
        entry.told = None;
        self.close(uid)?;
        self.settle(uid)?;
        self.drop_if_unknown(uid);
        Ok(())
    }

    fn drop_if_unknown(&mut self, uid: &str) {
        if self.all.get(uid).is_some_and(|entry| entry.told.is_none() && entry.folder.is_none()) {
            self.all.remove(uid);
        }
    }

    /// Does what follows from what is known of the pod.
    fn settle(&mut self, uid: &str) -> Result<(), NotServed> {
        let Some(entry) = self.all.get(uid) else { return Ok(()) };
        let Some(folder) = entry.folder.clone() else { return Ok(()) };
        match &entry.told {
            _ if entry.kept => self.guard(uid, &folder),
            Some(told) if told.is_ours => self.guard(uid, &folder),
            Some(_) => self.release(uid),
            // Static pods are the node's own, and the cluster knows them by another name.
            None if !self.listed || is_static(uid) => Ok(()),
            None => self.hook(uid, &folder).map(drop),
        }
    }

    fn guard(&mut self, uid: &str, folder: &Path) -> Result<(), NotServed> {
        if !self.hook(uid, folder)? {
            return Ok(());
        }
        let Some(entry) = self.all.get_mut(uid) else { return Ok(()) };
        if !entry.kept {
            entry.hooks.as_ref().map_or(Ok(()), Hooks::keep)?;
            entry.kept = true;
        }
        self.serve(uid, folder)
    }

    /// Whether it is hooked.
    fn hook(&mut self, uid: &str, folder: &Path) -> Result<bool, NotServed> {
        let Some(entry) = self.all.get_mut(uid) else { return Ok(false) };
        if entry.hooks.is_none() {
            let late = is_populated(folder);
            match self.shared.hook(uid, folder) {
                Ok(hooks) => (entry.hooks, entry.late, entry.failed) = (Some(hooks), late, None),
                // Removed in the meantime.
                Err(_) if !folder.exists() => return Ok(false),
                Err(error) => {
                    tracing::error!(%uid, %error, "a pod cannot be held");
                    entry.failed = Some(error.to_string());
                    self.again.insert(uid.to_owned());
                    return Ok(false);
                }
            }
            if late {
                tracing::warn!(%uid, "this pod ran before it was held: restart it, since nothing holds the sockets that it has");
            }
        }
        // One that was removed meanwhile cannot be watched, and need not be.
        if let Err(error) = self.tree.watch(uid, folder)
            && folder.exists()
        {
            self.again.insert(uid.to_owned());
            self.fails(uid, &format!("its cgroup cannot be watched: {error}"))?;
        }
        Ok(true)
    }

    /// Makes the doors where they are not, and ends those of a network that is gone.
    fn serve(&mut self, uid: &str, folder: &Path) -> Result<(), NotServed> {
        let Some(entry) = self.all.get(uid) else { return Ok(()) };
        let Some(told) = &entry.told else { return Ok(()) };
        if let Some(why) = told.unfit.clone() {
            self.close(uid)?;
            return self.fails(uid, &why);
        }
        let Some(network) = self.networks.of(folder) else {
            if is_populated(folder) {
                self.again.insert(uid.to_owned());
                return Ok(());
            }
            return self.close(uid);
        };
        if entry.served.as_ref().is_some_and(|served| served.network == network.inode) {
            return Ok(());
        }
        let (pod, cgroup) = (told.pod.clone(), path_below(&self.cgroups, folder));
        self.close(uid)?;
        let (sockets, cookie) = match network.bind(DOORS) {
            Ok(bound) => bound,
            Err(error) => {
                // Its loopback may not be up yet.
                self.again.insert(uid.to_owned());
                return self.fails(uid, &format!("no doors can be made in its network: {error}"));
            }
        };
        if let Err(error) = self.certificates.show(uid) {
            tracing::warn!(%uid, %error, "a pod cannot be shown our certificates");
        }
        let counts = [&sockets.listeners, &sockets.dns_udp, &sockets.dns_tcp].map(Vec::len);
        let all = sockets.listeners.iter().chain(&sockets.dns_udp).chain(&sockets.dns_tcp);
        let all: Vec<_> = all.map(AsFd::as_fd).collect();
        match self.words.say(&Word::Serve { pod, cgroup, sockets: counts }, &all) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.fails(uid, &error.to_string());
            }
            said => said.map_err(step("tell the interceptor"))?,
        }
        if let Some(entry) = self.all.get_mut(uid) {
            entry.served = Some(Served { network: network.inode, cookie });
            entry.failed = None;
        }
        Ok(())
    }

    fn fails(&mut self, uid: &str, why: &str) -> Result<(), NotServed> {
        if let Some(entry) = self.all.get_mut(uid)
            && entry.failed.as_deref() != Some(why)
        {
            tracing::warn!(%uid, "a pod is not served: {why}");
            entry.failed = Some(why.to_owned());
        }
        Ok(())
    }

    /// Ends the doors.
    fn close(&mut self, uid: &str) -> Result<(), NotServed> {
        let Some(served) = self.all.get_mut(uid).and_then(|entry| entry.served.take()) else { return Ok(()) };
        self.words.say(&Word::Gone(uid.to_owned()), &[]).map_err(step("tell the interceptor"))?;
        self.flows.forget(served.cookie)?;
        Ok(())
    }

    /// Ends everything.
    fn release(&mut self, uid: &str) -> Result<(), NotServed> {
        self.close(uid)?;
        self.tree.unwatch(uid);
        let Some(hooks) = self.all.get_mut(uid).and_then(|entry| entry.hooks.take()) else { return Ok(()) };
        self.shared.allow_inbound(hooks.id, &[])?;
        Ok(self.shared.unhook(uid)?)
    }
}

impl Entry {
    pub(super) fn standing(&self) -> Standing {
        match (&self.hooks, self.kept, &self.served) {
            (_, _, Some(_)) => Standing::Served,
            (_, true, None) => Standing::Guarded,
            (Some(_), false, None) => Standing::Held,
            (None, false, None) => Standing::Free,
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.late && self.kept
    }

    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }
}

/// Whether a pod of this uid is one of the node's own: theirs are hashes, without dashes.
fn is_static(uid: &str) -> bool {
    !uid.contains('-')
}

/// The certificates that agents must trust, and where their pods look for them.
pub(super) struct Certificates {
    volumes: Option<PathBuf>,
    files: [(&'static str, Vec<u8>); 3],
}

impl Certificates {
    pub(super) fn new(volumes: Option<PathBuf>, authority: &str) -> Self {
        let bundle = tls::bundle::bundle(authority);
        let java = java::trust_store(&bundle);
        let files = [("ca.pem", authority.into()), ("bundle.pem", bundle.into()), ("roots.jks", java)];
        Self { volumes, files }
    }

    /// Puts them into the pod's volume for them, if it has one.
    fn show(&self, uid: &str) -> io::Result<()> {
        let Some(volumes) = &self.volumes else { return Ok(()) };
        let folder = volumes.join(uid).join(VOLUME);
        if !fs::symlink_metadata(&folder).is_ok_and(|folder| folder.is_dir()) {
            return Ok(());
        }
        self.files.iter().try_for_each(|(name, bytes)| show(&folder.join(name), bytes))
    }
}
