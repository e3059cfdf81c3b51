//! The pods of a node, as the interceptor hears of them from the launcher: which there are, what the cluster says
//! of each, and the sockets that stand in its network. Each worker serves its share of them.

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::identity::pod::{Known, Pod};
use crate::identity::process::Identifier;
use crate::policy::watch::Live;
use crate::server::launch_config::{LONGEST_WORD, Reach, Word};
use crate::sys::fd_passing;

/// A pod to be served, with the sockets in its network.
pub(super) struct Served {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) dns_udp: Vec<UdpSocket>,
    pub(super) dns_tcp: Vec<TcpListener>,
    pub(super) identifier: Arc<Identifier>,
    pub(super) known: Arc<Known>,
    /// Cancelled when it is served no longer.
    pub(super) over: CancellationToken,
}

/// A pod that is served.
struct Serving {
    known: Arc<Known>,
    over: CancellationToken,
    /// What was answered of it.
    inbound: Vec<u16>,
}

/// Follows what is said on `socket` and has it done by `workers`, until nobody says anything any more; then
/// everything ends.
pub(super) async fn follow(
    socket: OwnedFd,
    policy: Arc<Live>,
    identifier: Arc<Identifier>,
    workers: Vec<UnboundedSender<Served>>,
    stop: CancellationToken,
) {
    let mut pods = Pods { identifier, workers, next: 0, serving: HashMap::new() };
    if let Err(error) = pods.follow(socket, &policy).await {
        tracing::error!(%error, "the launcher cannot be understood");
    }
    stop.cancel();
}

struct Pods {
    identifier: Arc<Identifier>,
    workers: Vec<UnboundedSender<Served>>,
    /// Whose turn it is.
    next: usize,
    serving: HashMap<String, Serving>,
}

impl Pods {
    async fn follow(&mut self, socket: OwnedFd, policy: &Live) -> io::Result<()> {
        let socket = fd_passing::awaited(socket)?;
        let mut changed = policy.subscribe();
        let mut buffer = vec![0; LONGEST_WORD];
        loop {
            let heard = tokio::select! {
                heard = socket.async_io(Interest::READABLE, |socket| fd_passing::receive(socket, &mut buffer)) => Some(heard?),
                changed = changed.changed() => { changed.map_err(io::Error::other)?; None }
            };
            let Some(heard) = heard else {
                let uids: Vec<_> = self.serving.keys().cloned().collect();
                for uid in uids {
                    self.answer(&socket, policy, &uid).await?;
                }
                continue;
            };
            if heard.length == 0 {
                return Ok(());
            }
            let word = serde_json::from_slice(buffer.get(..heard.length).unwrap_or_default())?;
            if let Some(uid) = self.hear(word, heard.descriptors)? {
                self.answer(&socket, policy, &uid).await?;
            }
        }
    }

    /// Does what was said; the pod that something may have changed for.
    fn hear(&mut self, word: Word, descriptors: Vec<OwnedFd>) -> io::Result<Option<String>> {
        match word {
            Word::Serve { pod, cgroup, sockets } => self.serve(pod, cgroup, sockets, descriptors).map(Some),
            Word::Known(pod) => {
                let Some(serving) = self.serving.get(&pod.uid) else { return Ok(None) };
                let uid = pod.uid.clone();
                serving.known.is(Some(pod));
                Ok(Some(uid))
            }
            Word::Gone(uid) => {
                self.end(&uid);
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
        self.end(&uid);
        let (known, over) = (Arc::new(Known::new(pod)), CancellationToken::new());
        let identifier = Arc::new(self.identifier.for_pod(cgroup, known.clone()));
        let mut descriptors = descriptors.into_iter();
        let served = Served {
            listeners: descriptors.by_ref().take(listeners).map(TcpListener::from).collect(),
            dns_udp: descriptors.by_ref().take(dns_udp).map(UdpSocket::from).collect(),
            dns_tcp: descriptors.map(TcpListener::from).collect(),
            identifier,
            known: known.clone(),
            over: over.clone(),
        };
        self.serving.insert(uid.clone(), Serving { known, over, inbound: Vec::new() });
        self.next = (self.next + 1) % self.workers.len().max(1);
        let worker = self.workers.get(self.next).ok_or_else(|| io::Error::other("nobody serves"))?;
        worker.send(served).map_err(io::Error::other)?;
        Ok(uid)
    }

    fn end(&mut self, uid: &str) {
        if let Some(serving) = self.serving.remove(uid) {
            serving.known.is(None);
            serving.over.cancel();
        }
    }

    /// Says on which ports others may reach a pod, if that is not what was said last.
    async fn answer(&mut self, socket: &AsyncFd<OwnedFd>, policy: &Live, uid: &str) -> io::Result<()> {
        let Some(serving) = self.serving.get_mut(uid) else { return Ok(()) };
        let Some(pod) = serving.known.get() else { return Ok(()) };
        let policy = policy.get();
        let mut inbound: Vec<u16> =
            policy.agents_in(&pod).flat_map(|agent| agent.inbound()).copied().collect();
        inbound.sort_unstable();
        inbound.dedup();
        if inbound == serving.inbound {
            return Ok(());
        }
        serving.inbound.clone_from(&inbound);
        let text = serde_json::to_vec(&Reach { uid: uid.to_owned(), inbound })?;
        socket.async_io(Interest::WRITABLE, |socket| fd_passing::send(socket, &text, &[])).await.map(drop)
    }
}
