//! From the kernel's snapshot of `connect` to a proven process. A process can connect and then become
//! a trusted program, or die and leave its id to another: so whatever `/proc` says must equal the
//! snapshot, before and after the executable was read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use agentsecrets_ebpf::Snapshot;

use crate::intercept::transparent::Trace;
use crate::types::name::AgentName;

use super::container::Container;
use super::executable::Hashes;
use super::image::Image;
use super::inspector::prove;
use super::peer::SocketAddrs;
use super::pod::CurrentPod;
use super::{Caller, CallerAttributes, IdentityError, Process, spiffe};
use crate::identity::ancestry::ProcessStart;
use crate::identity::cgroup::{CgroupTree, is_below};
use crate::identity::container_engine::Engine;
use crate::identity::inspector::{InspectedProcess, ProcessInspector};
use crate::identity::socket_user::user_of;

/// Nanoseconds in a tick of `/proc/<pid>/stat`, whose unit (USER_HZ) is fixed at 100 a second.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Identifies the callers of one run, or of the containers behind a service.
pub struct Identifier {
    inspection: Inspection,
    hashes: Hashes,
    session: Arc<str>,
    agent: Option<AgentName>,
    asked_by: Option<ProcessStart>,
    pod: Option<Arc<CurrentPod>>,
    spiffe: Option<Arc<spiffe::CurrentIdentities>>,
}

/// The means of inspecting callers, beside the kernel's snapshot.
enum Inspection {
    /// The processes of a run, which are all below this cgroup.
    Run(Arc<ProcessInspector>, String),
    /// The host's tree of cgroups and, where they share our pid namespace, the processes.
    Containers(Arc<Containers>, Option<Arc<ProcessInspector>>),
    /// The sockets of our own network, which say whose user's they are.
    Sockets,
}

/// The containers behind a service.
#[derive(Clone)]
pub struct Containers {
    /// The part of the host's tree that is hooked.
    pub hierarchy: CgroupTree,
    /// Our own cgroup in it, if we are there.
    pub ours: Option<String>,
    /// The engine that knows the images of containers.
    pub engine: Option<Arc<Engine>>,
}

impl Identifier {
    /// For the run whose processes are all below `cgroup`, inspected by `inspector`.
    pub fn new(
        inspector: impl Into<Arc<ProcessInspector>>,
        cgroup: String,
        session: Arc<str>,
        agent: Option<AgentName>,
    ) -> Self {
        let (inspection, hashes) = (Inspection::Run(inspector.into(), cgroup), Hashes::default());
        Self { inspection, hashes, session, agent, asked_by: None, pod: None, spiffe: None }
    }

    /// The same for a run that the daemon started because the process `asked_by` asked for it.
    #[must_use]
    pub fn with_pid_namespace(self, asked_by: Option<ProcessStart>) -> Self {
        Self { asked_by, ..self }
    }

    /// The same for callers that are part of the workload of which `known` says who it is.
    #[must_use]
    pub fn of_workload(self, known: Option<Arc<spiffe::CurrentIdentities>>) -> Self {
        Self { spiffe: known, ..self }
    }

    /// For `containers`, whose processes `inspector` inspects, if there is one. No caller is in a session.
    pub fn of_containers(
        containers: Containers,
        inspector: Option<Arc<ProcessInspector>>,
        agent: Option<AgentName>,
    ) -> Self {
        let inspection = Inspection::Containers(Arc::new(containers), inspector);
        Self {
            inspection,
            hashes: Hashes::default(),
            session: "".into(),
            agent,
            asked_by: None,
            pod: None,
            spiffe: None,
        }
    }

    /// For those of these containers that are in the cgroup `cgroup`, which is that of the pod of which `known`
    /// says what the cluster does.
    #[must_use]
    pub fn for_pod(&self, cgroup: String, known: Arc<CurrentPod>) -> Self {
        let inspection = match &self.inspection {
            Inspection::Containers(containers, inspector) => {
                let hierarchy = containers.hierarchy.part(cgroup);
                let (ours, engine) = (containers.ours.clone(), containers.engine.clone());
                Inspection::Containers(Arc::new(Containers { hierarchy, ours, engine }), inspector.clone())
            }
            Inspection::Run(inspector, _) => Inspection::Run(inspector.clone(), cgroup),
            Inspection::Sockets => Inspection::Sockets,
        };
        let (hashes, session, agent) = (self.hashes.clone(), self.session.clone(), self.agent.clone());
        // What we are ourselves says nothing of another pod.
        Self { inspection, hashes, session, agent, asked_by: self.asked_by, pod: Some(known), spiffe: None }
    }

    /// For the containers of a pod, whose sockets are in our network, and of which nothing else is seen. No caller
    /// is in a session.
    pub fn of_sockets(agent: Option<AgentName>) -> Self {
        let (hashes, session) = (Hashes::default(), "".into());
        Self {
            inspection: Inspection::Sockets,
            hashes,
            session,
            agent,
            asked_by: None,
            pod: None,
            spiffe: None,
        }
    }

    /// Proves who made the connection of which the kernel kept `trace`.
    pub async fn caller(&self, trace: &Trace) -> Result<Caller, IdentityError> {
        match *trace {
            Trace::Snapshot(snapshot) => self.identify(&snapshot).await,
            Trace::Ends { theirs, wanted } => {
                let ends = SocketAddrs { theirs, ours: wanted };
                let user = tokio::task::spawn_blocking(move || user_of(ends)).await;
                let uid = user.map_err(std::io::Error::other)??;
                // The kernel's tracker may take a connection of ours for an agent's that is over.
                if uid == nix::unistd::geteuid().as_raw() {
                    return Err(IdentityError::Ourselves);
                }
                Ok(self.prove_snapshot(unseen(&Snapshot { uid, ..Snapshot::default() })))
            }
        }
    }

    /// Proves who made the connection of which the kernel kept `snapshot`.
    pub async fn identify(&self, snapshot: &Snapshot) -> Result<Caller, IdentityError> {
        let process = match &self.inspection {
            Inspection::Run(inspector, cgroup) => {
                let below = |seen: &InspectedProcess| is_below(&seen.cgroup, cgroup);
                self.inspect(inspector, snapshot.tgid, snapshot, below).await?
            }
            Inspection::Containers(containers, inspector) => {
                let (containers, id) = (containers.clone(), snapshot.cgroup);
                let found = tokio::task::spawn_blocking(move || containers.agent(id)).await;
                let (cgroup, image) = found.map_err(std::io::Error::other)??;
                let process = match (inspector, snapshot.tgid_here) {
                    (Some(inspector), here @ 1..) => {
                        self.inspect(inspector, here, snapshot, |_| true).await?
                    }
                    _ => unseen(snapshot),
                };
                Process { pid: snapshot.tgid, cgroup: cgroup.as_ref().to_owned(), image, ..process }
            }
            Inspection::Sockets => return Err(IdentityError::Nobody),
        };
        Ok(self.prove_snapshot(process))
    }

    fn prove_snapshot(&self, process: Process) -> Caller {
        let pod = self.pod.as_ref().filter(|known| is_in(&process, known)).cloned();
        let spiffe = self.spiffe.clone();
        Caller {
            process: Arc::new(process),
            agent: self.agent.clone(),
            session: self.session.clone(),
            is_ours: true,
            attributes: CallerAttributes {
                pod,
                spiffe,
                asked_by: self.asked_by,
                ..CallerAttributes::default()
            },
        }
    }

    /// Whether it is not an agent that connected but a process of our own: of our cgroup or, where that is not
    /// seen, of root, which no agent is.
    pub fn is_us(&self, trace: &Trace) -> bool {
        let snapshot = match *trace {
            Trace::Snapshot(snapshot) => snapshot,
            Trace::Ends { theirs, wanted } => {
                return user_of(SocketAddrs { theirs, ours: wanted }).is_ok_and(|user| user == 0);
            }
        };
        let Inspection::Containers(containers, _) = &self.inspection else { return false };
        let path = containers.hierarchy.path(snapshot.cgroup);
        path.is_ok_and(|path| path.is_some_and(|path| containers.is_ours(&path)))
    }

    /// The process `pid`, if it is the one of `snapshot` and `is_there`.
    async fn inspect(
        &self,
        inspector: &ProcessInspector,
        pid: u32,
        snapshot: &Snapshot,
        is_there: impl FnOnce(&InspectedProcess) -> bool,
    ) -> Result<Process, IdentityError> {
        let is_right = |seen: &InspectedProcess, exe: &Metadata| {
            if seen.start_time != snapshot.start_boottime / NANOSECONDS_PER_TICK {
                return Err(IdentityError::Gone);
            }
            if exe.ino() != snapshot.exe_inode {
                return Err(IdentityError::Changed);
            }
            if is_there(seen) { Ok(()) } else { Err(IdentityError::Elsewhere) }
        };
        prove(inspector, &self.hashes, pid, || Ok(snapshot.uid), is_right).await
    }
}

impl Containers {
    /// The path of the agent's cgroup with this id, and the image of its container.
    fn agent(&self, id: u64) -> Result<(Arc<str>, Option<Arc<Image>>), IdentityError> {
        let path = self.hierarchy.path(id)?.ok_or(IdentityError::Gone)?;
        if self.is_ours(&path) {
            return Err(IdentityError::Elsewhere);
        }
        let image = match (Container::of(&path), self.engine.as_deref()) {
            // An entry of the policy that asks for another image, or for none, must not be taken instead.
            (Some(container), Some(engine)) => engine.image(container.id).map_err(IdentityError::Engine)?,
            _ => None,
        };
        Ok((path, image))
    }

    fn is_ours(&self, path: &str) -> bool {
        self.ours.as_ref().is_some_and(|ours| is_below(path, ours))
    }
}

/// Whether the path of the process's cgroup has the uid of the pod that is `known`.
fn is_in(process: &Process, known: &CurrentPod) -> bool {
    let uid = process.container().and_then(|container| container.pod());
    uid.is_some() && uid == known.get().map(|pod| pod.uid.clone())
}

/// The facts that the kernel's snapshot contains by itself.
fn unseen(snapshot: &Snapshot) -> Process {
    Process {
        pid: snapshot.tgid,
        start_time: snapshot.start_boottime / NANOSECONDS_PER_TICK,
        exe: PathBuf::new(),
        sha256: String::new(),
        uid: snapshot.uid,
        cgroup: String::new(),
        image: None,
        here: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_snapshot() -> Snapshot {
        let pid = std::process::id();
        Snapshot {
            start_boottime: ProcessInspector::Here.inspect(pid).unwrap().start_time * NANOSECONDS_PER_TICK
                + 1,
            exe_inode: std::fs::metadata("/proc/self/exe").unwrap().ino(),
            tgid: pid,
            ..Snapshot::default()
        }
    }

    fn identifier(cgroup: &str) -> Identifier {
        Identifier::new(ProcessInspector::Here, cgroup.to_owned(), "session".into(), None)
    }

    #[tokio::test]
    async fn process_of_snapshot_is_identified() {
        let caller = identifier("").identify(&own_snapshot()).await.unwrap();
        assert_eq!(caller.process.exe, std::env::current_exe().unwrap());
        assert_eq!(caller.process.sha256.len(), 64);
    }

    #[tokio::test]
    async fn own_connection_is_not_an_agents() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, wanted) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let caller = Identifier::of_sockets(None).caller(&Trace::Ends { theirs, wanted }).await;
        assert!(matches!(caller, Err(IdentityError::Ourselves)));
    }

    #[tokio::test]
    async fn changed_program_process_or_cgroup_is_refused() {
        let own = own_snapshot();
        let other_program = Snapshot { exe_inode: own.exe_inode + 1, ..own };
        assert!(matches!(identifier("").identify(&other_program).await, Err(IdentityError::Changed)));
        let recycled = Snapshot { start_boottime: own.start_boottime + NANOSECONDS_PER_TICK, ..own };
        assert!(matches!(identifier("").identify(&recycled).await, Err(IdentityError::Gone)));
        assert!(matches!(identifier("/no-such").identify(&own).await, Err(IdentityError::Elsewhere)));
    }
}
