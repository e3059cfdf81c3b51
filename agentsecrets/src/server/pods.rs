//! Pods of a node. The launcher reports which there are, their details in the cluster, and the sockets in
//! their networks; each worker serves a part of them.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::identity::pod::{CurrentPod, Pod};
use crate::identity::process::Identifier;
use crate::policy::watch::PolicyWatcher;
use crate::privsep::{AsyncChannel, Channel};
use crate::server::launch_config::{POD_LIMITS, PodInbound, PodMessage};

/// A pod to serve, with the sockets in its network.
pub(super) struct PodListeners {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) dns_udp: Vec<UdpSocket>,
    pub(super) dns_tcp: Vec<TcpListener>,
    pub(super) identifier: Arc<Identifier>,
    pub(super) details: Arc<CurrentPod>,
    pub(super) removed: CancellationToken,
}

struct ServedPod {
    details: Arc<CurrentPod>,
    removed: CancellationToken,
    /// The ports last sent to the launcher.
    inbound: Vec<u16>,
}

/// Handles the messages on `socket` and hands pods to `workers` until the launcher closes it; then everything
/// ends.
pub(super) async fn run(
    socket: OwnedFd,
    policy: Arc<PolicyWatcher>,
    identifier: Arc<Identifier>,
    workers: Vec<UnboundedSender<PodListeners>>,
    stop: CancellationToken,
) {
    let mut pods = PodWorker { identifier, workers, next_worker: 0, pods: HashMap::new() };
    if let Err(error) = pods.follow(socket, &policy).await {
        tracing::error!(%error, "the launcher's messages are invalid");
    }
    stop.cancel();
}

struct PodWorker {
    identifier: Arc<Identifier>,
    workers: Vec<UnboundedSender<PodListeners>>,
    next_worker: usize,
    pods: HashMap<String, ServedPod>,
}

impl PodWorker {
    async fn follow(&mut self, socket: OwnedFd, policy: &PolicyWatcher) -> io::Result<()> {
        let mut channel = AsyncChannel::from_channel(Channel::new(socket.into(), POD_LIMITS))?;
        let mut changed = policy.subscribe();
        loop {
            let received = tokio::select! {
                received = channel.recv() => Some(received?),
                changed = changed.changed() => { changed.map_err(io::Error::other)?; None }
            };
            let Some(received) = received else {
                let uids: Vec<_> = self.pods.keys().cloned().collect();
                for uid in uids {
                    self.send_inbound(&channel, policy, &uid).await?;
                }
                continue;
            };
            let Some(message) = received else { return Ok(()) };
            if let Some(uid) = self.handle(message.parse_json()?, message.descriptors)? {
                self.send_inbound(&channel, policy, &uid).await?;
            }
        }
    }

    /// Handles one message. Returns the pod whose inbound ports may have changed.
    fn handle(&mut self, message: PodMessage, descriptors: Vec<OwnedFd>) -> io::Result<Option<String>> {
        match message {
            PodMessage::Add { pod, cgroup, sockets } => {
                self.serve(pod, cgroup, sockets, descriptors).map(Some)
            }
            PodMessage::Update(pod) => {
                let Some(served) = self.pods.get(&pod.uid) else { return Ok(None) };
                let uid = pod.uid.clone();
                served.details.is(Some(pod));
                Ok(Some(uid))
            }
            PodMessage::Remove(uid) => {
                self.remove(&uid);
                Ok(None)
            }
        }
    }

    fn serve(
        &mut self,
        pod: Pod,
        cgroup: String,
        [listeners, dns_udp, dns_tcp]: [usize; 3],
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<String> {
        if descriptors.len() != listeners + dns_udp + dns_tcp {
            return Err(io::Error::other("sockets of a pod are missing"));
        }
        let uid = pod.uid.clone();
        self.remove(&uid);
        let (details, removed) = (Arc::new(CurrentPod::new(pod)), CancellationToken::new());
        let identifier = Arc::new(self.identifier.for_pod(cgroup, details.clone()));
        let mut descriptors = descriptors.into_iter();
        let listeners_of_pod = PodListeners {
            listeners: descriptors.by_ref().take(listeners).map(TcpListener::from).collect(),
            dns_udp: descriptors.by_ref().take(dns_udp).map(UdpSocket::from).collect(),
            dns_tcp: descriptors.map(TcpListener::from).collect(),
            identifier,
            details: details.clone(),
            removed: removed.clone(),
        };
        self.pods.insert(uid.clone(), ServedPod { details, removed, inbound: Vec::new() });
        self.next_worker = (self.next_worker + 1) % self.workers.len().max(1);
        let worker = self.workers.get(self.next_worker).ok_or_else(|| io::Error::other("nobody serves"))?;
        worker.send(listeners_of_pod).map_err(io::Error::other)?;
        Ok(uid)
    }

    fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            pod.details.is(None);
            pod.removed.cancel();
        }
    }

    /// Sends a pod's inbound ports to the launcher if they changed.
    async fn send_inbound(
        &mut self,
        channel: &AsyncChannel,
        policy: &PolicyWatcher,
        uid: &str,
    ) -> io::Result<()> {
        let Some(served) = self.pods.get_mut(uid) else { return Ok(()) };
        let Some(pod) = served.details.get() else { return Ok(()) };
        let policy = policy.get();
        let mut inbound: Vec<u16> =
            policy.agents_for_pod(&pod).flat_map(|agent| agent.inbound_ports()).copied().collect();
        inbound.sort_unstable();
        inbound.dedup();
        if inbound == served.inbound {
            return Ok(());
        }
        served.inbound.clone_from(&inbound);
        let text = serde_json::to_vec(&PodInbound { uid: uid.to_owned(), ports: inbound })?;
        channel.send(&text, &[]).await
    }
}
