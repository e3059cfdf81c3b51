//! The process that handles agents' traffic. It starts with privileges, takes what it needs from the
//! launcher, gives them up, says that it is ready, and serves until the launcher ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::approval::Desk;
use crate::audit::Log;
use crate::authz::Capabilities;
use crate::dns::query_budget::Budget;
use crate::dns::resolver::Resolver;
use crate::identity::cgroup::Hierarchy;
use crate::identity::container_engine::Engine;
use crate::identity::inspector::Witness;
use crate::identity::process::{Containers, Identifier};
use crate::identity::process_details::Look;
use crate::identity::spiffe_workload_api::Workload;
use crate::intercept::connection_limit::Room;
use crate::intercept::ebpf::Flows;
use crate::intercept::transparent::{Records, Transparent};
use crate::pipeline::agent_credentials::{self, Wallets};
use crate::pipeline::{Intercept, Pipeline};
use crate::policy::watch::Live;
use crate::redact::guess_detector::Alarms;
use crate::store::helper::Keeper;
use crate::store::refresh_tokens::Rotated;
use crate::store::{self, Store};
use crate::sys;
use crate::sys::files::private_folder;
use crate::tls;
use crate::tls::authority::Authority;
use crate::tls::leaf::Leaves;
use crate::types::failure::{Exit, Failure};
use crate::types::host::Host;
use crate::upstream::client::{Patience, Upstream};

use super::pods::{self, Served};
use crate::config::Config;
use crate::server::builder::{capabilities, upstream_tls, watch};
use crate::server::launch_config::{Answer, Order};
use crate::server::listeners::{Doors, answer_names};
use crate::server::logging;
use crate::server::runtime::{end_on_signal, runtime};
use crate::server::sandbox::landlock;
use crate::server::sandbox::privileges;
use crate::server::sandbox::seccomp;

/// How often the run's session is looked at.
const SESSION_INTERVAL: Duration = Duration::from_millis(200);
/// A node's pod may hold this part of the connections that there is room for.
const SHARE: usize = 4;
/// Descriptors that the sockets in pods' networks take.
const IN_PODS: u64 = 4096;
/// The longest order we read, in bytes.
const LONGEST_ORDER: u64 = 1 << 20;

/// Everything that is ready before the first byte of an agent is read.
struct Prepared {
    order: Order,
    config: Config,
    records: Arc<Records>,
    room: Arc<Room>,
    listeners: Vec<TcpListener>,
    dns_udp: Vec<UdpSocket>,
    dns_tcp: Vec<TcpListener>,
    store: Arc<dyn Store>,
    policy: Arc<Live>,
    capabilities: Arc<Capabilities>,
    approvals: Arc<Desk>,
    audit: Arc<Log>,
    leaves: Arc<Leaves>,
    upstream_tls: Arc<rustls::ClientConfig>,
    placeholders: BTreeMap<String, String>,
    inbound: Vec<u16>,
    alarms: Arc<Alarms>,
    workload: Option<Workload>,
}

/// Serves the launcher at the other end of standard input.
pub fn serve() -> Result<(), Failure> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(broken)?);
    match prepare(&control) {
        Ok((prepared, identifier, pods)) => {
            let ready = Answer::Ready {
                authority: prepared.leaves.authority().pem().to_owned(),
                placeholders: prepared.placeholders.clone(),
                inbound: prepared.inbound.clone(),
                hidden: prepared.config.stores.iter().filter_map(|choice| choice.kind.folder()).collect(),
            };
            ready.tell(&control).map_err(broken)?;
            work(prepared, identifier, pods, control)
        }
        Err(failure) => Answer::failed(&failure).tell(&control).map_err(broken),
    }
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Ours, format!("the interceptor cannot talk to its launcher: {error}"))
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}

/// In this order: what needs privileges, then giving them up, then what touches the person's files.
fn prepare(control: &UnixStream) -> Result<(Prepared, Identifier, Option<OwnedFd>), Failure> {
    let mut line = String::new();
    BufReader::new(control.take(LONGEST_ORDER)).read_line(&mut line).map_err(broken)?;
    let order: Order = serde_json::from_str(&line).map_err(broken)?;
    sys::conceal().map_err(|error| failed("cannot protect our own memory", error))?;
    if order.service.is_some() {
        // Under `run` the terminal is the agent's.
        logging::to_stderr();
    }
    let descriptors =
        sys::raise_descriptor_limit().map_err(|error| failed("cannot raise our own limits", error))?;
    let records = match &order.pins {
        Some(pins) => Flows::open(pins).map(Records::Programs),
        None => Ok(Records::Tracker),
    };
    let records = records.map_err(|error| failed("cannot open the kernel's records", error))?;
    let inherit = |fds: &[i32]| -> Result<Vec<OwnedFd>, Failure> {
        fds.iter().map(|fd| sys::inherited(*fd)).collect::<io::Result<_>>().map_err(broken)
    };
    let listeners = inherit(&order.listeners)?.into_iter().map(TcpListener::from).collect();
    let dns_udp = inherit(&order.dns_udp)?.into_iter().map(UdpSocket::from).collect();
    let dns_tcp = inherit(&order.dns_tcp)?.into_iter().map(TcpListener::from).collect();
    let pods = order.service.as_ref().and_then(|service| service.pods);
    let pods = pods.map(sys::inherited).transpose().map_err(broken)?;
    let sees = order.service.as_ref().is_none_or(|service| service.processes);
    let witness = sees.then(|| privileges::start_witness(order.uid, order.gid)).transpose();
    let witness = witness.map_err(|error| failed("cannot start the witness of processes", error))?;
    let witness = witness.map(Arc::new);
    let engine = order.service.as_ref().and_then(|service| service.engine.as_ref());
    let engine = engine.map(|socket| privileges::start_asker(socket, order.uid, order.gid)).transpose();
    let engine = engine.map_err(|error| failed("cannot ask the engine", error))?;
    let workload = order.service.as_ref().and_then(|service| service.spiffe.as_ref());
    let workload =
        workload.map(|socket| privileges::start_workload(socket, order.uid, order.gid)).transpose();
    let mut workload = workload.map_err(|error| failed("cannot ask the Workload API", error))?;
    privileges::drop_privileges(order.uid, order.gid)
        .map_err(|error| failed("cannot give up privileges", error))?;
    // Made now: what is not there cannot be opened to us.
    private_folder(&order.home.audit()).map_err(|error| failed("the audit log cannot be written", error))?;
    match private_folder(&order.home.capabilities()) {
        // A container's configuration is: nobody registers an agent there.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
        made => made.map_err(|error| failed("the folder of agents and sessions cannot be made", error))?,
    }
    private_folder(&order.home.approvals())
        .map_err(|error| failed("the folder of approvals cannot be made", error))?;
    private_folder(&order.home.rotated())
        .map_err(|error| failed("the folder of rotated secrets cannot be made", error))?;
    let config = Config::load(&order.home.config())
        .map_err(|error| failed("the configuration is not valid", error).hint("agentsecrets doctor"))?;
    // It may reach what we may not from here on.
    let mut keeper =
        Keeper::start(&config.stores, &order.home, (&order.project, &order.environment), sys::conceal)
            .map_err(|error| failed("cannot start the keeper of stores", error))?;
    let identifier = identifier(&order, witness.clone(), engine)?;
    let identifier = identifier.of_workload(workload.as_ref().map(Workload::known));
    landlock::confine(&order.home, &order.cgroup_root)
        .map_err(|error| failed("cannot confine ourselves", error))?;

    let policy = Live::open_narrowed(&order.home.policy(), order.narrow.clone())
        .map_err(|error| failed("the policy is not valid", error).hint("agentsecrets policy check"))?;
    let look = witness.map(|witness| witness as Arc<dyn Look>);
    // The agents of a run have nothing left when its session ends.
    let run = order.service.is_none().then(|| order.session.as_str().into());
    let whose = (&order.project, &order.environment);
    let capabilities = capabilities(&order.home, whose, run, &config, look)?;
    let (store, exists) = store::follow(&config.stores, &order.home, |kind| keeper.store(kind))
        .map_err(|error| Failure::new(Exit::Locked, error))?;
    let store = Arc::new(store);
    let audit =
        Log::open(&order.home.audit()).map_err(|error| failed("the audit log cannot be written", error))?;
    // From here on the terminal is the agent's: its Ctrl-C must not end us before it.
    let _ = nix::unistd::setsid();
    seccomp::allow_serving(order.pins.is_some())
        .map_err(|error| failed("cannot restrict ourselves", error))?;

    let provider = tls::provider();
    let authority =
        Authority::generate().map_err(|error| failed("cannot make the certificate authority", error))?;
    let leaves =
        Leaves::new(authority, provider).map_err(|error| failed("cannot make certificates", error))?;
    let upstream_tls = upstream_tls()?;
    let (placeholders, inbound) = introduce(&order, &policy, &*store)?;
    if !exists && !placeholders.is_empty() {
        eprintln!(
            "agentsecrets: there is no vault yet, so that no secret can be spent; make it with: \
             agentsecrets secrets set NAME"
        );
    }
    let approvals = Arc::new(Desk::at(order.home.approvals()));
    // What starts after us then finds who it is, where that is known already.
    let heard = workload.as_mut().map_or(Ok(()), Workload::hear_first);
    heard.map_err(|error| failed("cannot ask the Workload API", error))?;
    let prepared = Prepared {
        order,
        config,
        records: Arc::new(records),
        room: Room::for_descriptors(descriptors.saturating_sub(if pods.is_some() { IN_PODS } else { 0 })),
        listeners,
        dns_udp,
        dns_tcp,
        store,
        policy: Arc::new(policy),
        capabilities,
        approvals,
        audit,
        leaves: Arc::new(leaves),
        upstream_tls,
        placeholders,
        inbound,
        alarms: Arc::default(),
        workload,
    };
    Ok((prepared, identifier, pods))
}

/// Who will say whom connections are from.
fn identifier(
    order: &Order,
    witness: Option<Arc<Witness>>,
    engine: Option<Engine>,
) -> Result<Identifier, Failure> {
    let (cgroup, agent) = (order.cgroup.clone(), order.agent.clone());
    match (&order.service, witness) {
        (None, Some(witness)) => {
            let identifier = Identifier::new(witness, cgroup, order.session.as_str().into(), agent);
            Ok(identifier.asked_by(order.asked_by))
        }
        (None, None) => Err(broken("nobody sees the run's processes")),
        (Some(_), _) if order.pins.is_none() => Ok(Identifier::of_sockets(agent)),
        (Some(service), witness) => {
            let hierarchy = Hierarchy::new(order.cgroup_root.clone(), cgroup);
            let find = |id| hierarchy.path(id).and_then(|found| found.ok_or(io::ErrorKind::NotFound.into()));
            let ours = service.ours.map(find).transpose();
            let ours = ours.map_err(|error| failed("our own cgroup cannot be found", error))?;
            let ours = ours.map(|ours| ours.as_ref().to_owned());
            let containers = Containers { hierarchy, ours, engine: engine.map(Arc::new) };
            Ok(Identifier::of_containers(containers, witness, agent))
        }
    }
}

/// What the agent is told of its secrets: their placeholders.
fn introduce(
    order: &Order,
    policy: &Live,
    store: &dyn Store,
) -> Result<(BTreeMap<String, String>, Vec<u16>), Failure> {
    let policy = policy.get();
    let agents = match &order.agent {
        Some(name) => vec![policy.agent(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("the policy has no agent '{name}'"))
                .hint(format!("agents are named in {}", order.home.policy().display()))
        })?],
        None => policy.agents().iter().collect(),
    };
    let names: Vec<_> = agents.iter().flat_map(|agent| agent.secrets().cloned()).collect();
    let stored: Vec<_> = agents.iter().flat_map(|agent| agent.stored()).collect();
    let wallet =
        agent_credentials::fill(store, &order.project, &order.environment, names, &stored, Arc::default())
            .map_err(|error| Failure::new(Exit::Locked, error))?;
    let placeholders =
        wallet.vocabulary.placeholders().map(|(name, text)| (name.to_string(), text.to_owned()));
    Ok((placeholders.collect(), agents.iter().flat_map(|agent| agent.inbound().iter().copied()).collect()))
}

/// One thread per core, each with a runtime of its own, all taking connections from the same sockets.
fn work(
    mut prepared: Prepared,
    identifier: Identifier,
    mut pods: Option<OwnedFd>,
    mut control: UnixStream,
) -> Result<(), Failure> {
    if let Some(workload) = prepared.workload.take() {
        let spawned = thread::Builder::new().name("workload".to_owned()).spawn(|| workload.listen());
        spawned.map_err(|error| failed("cannot start a thread", error))?;
    }
    let prepared = Arc::new(prepared);
    let (stop, introduced) = (CancellationToken::new(), CancellationToken::new());
    let resolver = Arc::new(Resolver::system());
    let wallets = Arc::new(Wallets::new(
        prepared.store.clone(),
        prepared.order.project.clone(),
        prepared.order.environment.clone(),
        Rotated::at(&prepared.order.home.rotated()),
    ));
    let identifier = Arc::new(identifier);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut threads = Vec::new();
    let (workers, served): (Vec<_>, Vec<_>) = (0..cores).map(|_| mpsc::unbounded_channel()).unzip();
    for (core, served) in served.into_iter().enumerate() {
        let (workers, pods) = (workers.clone(), pods.take());
        let (prepared, resolver, wallets) = (prepared.clone(), resolver.clone(), wallets.clone());
        let (identifier, stop, introduced) = (identifier.clone(), stop.clone(), introduced.clone());
        let run = move || -> io::Result<()> {
            let runtime = runtime()?;
            runtime.block_on(async {
                // With this one thread there, work that blocks waits where no other thread can be made.
                tokio::task::spawn_blocking(|| {}).await.map_err(io::Error::other)?;
                if core == 0 {
                    tokio::spawn(answer_all_names(&prepared, resolver.clone())?);
                    watch(&prepared.policy, prepared.store.clone(), &wallets);
                    tokio::spawn(end_on_signal(stop.clone())?);
                }
                if let Some(pods) = pods {
                    let (policy, identifier) = (prepared.policy.clone(), identifier.clone());
                    tokio::spawn(pods::follow(pods, policy, identifier, workers, stop.clone()));
                }
                serve_connections(&prepared, resolver, wallets, identifier, served, introduced, stop).await
            })
        };
        let spawned = thread::Builder::new().name(format!("worker-{core}")).spawn(run);
        threads.push(spawned.map_err(|error| failed("cannot start a thread", error))?);
    }
    let (told, capabilities) = (control.try_clone().map_err(broken)?, prepared.capabilities.clone());
    if prepared.order.service.is_none() {
        let over = thread::Builder::new().name("session".to_owned());
        over.spawn(move || tell_when_over(&capabilities, told))
            .map_err(|error| failed("cannot start a thread", error))?;
    }
    let follow = thread::Builder::new().name("control".to_owned()).spawn(move || {
        // The launcher says once that agents may start; that it ended is all we wait for then.
        if matches!(control.read(&mut [0u8; 1]), Ok(1..)) {
            introduced.cancel();
            let _ = control.read(&mut [0u8; 1]);
        }
        stop.cancel();
    });
    follow.map_err(|error| failed("cannot start a thread", error))?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Tells the launcher that the session of its run is over: it ends the command.
fn tell_when_over(capabilities: &Capabilities, mut launcher: UnixStream) {
    while capabilities.run_over().is_none() {
        thread::sleep(SESSION_INTERVAL);
    }
    let _ = launcher.write_all(b"!");
}

async fn serve_connections(
    prepared: &Prepared,
    resolver: Arc<Resolver>,
    wallets: Arc<Wallets>,
    identifier: Arc<Identifier>,
    mut served: mpsc::UnboundedReceiver<Served>,
    introduced: CancellationToken,
    stop: CancellationToken,
) -> io::Result<()> {
    let timeouts = prepared.config.timeouts;
    let upstream = Upstream::new(prepared.upstream_tls.clone(), resolver.clone(), prepared.own_addresses()?)
        .with_patience(Patience { connect: timeouts.connect, answer: timeouts.answer });
    let tasks = TaskTracker::new();
    let pipeline = Arc::new(Pipeline {
        policy: prepared.policy.clone(),
        capabilities: prepared.capabilities.clone(),
        approvals: prepared.approvals.clone(),
        wallets,
        alarms: prepared.alarms.clone(),
        upstream: Arc::new(upstream),
        audit: prepared.audit.clone(),
        environment: prepared.order.environment.clone(),
        timeouts,
        stop: stop.clone(),
        tasks: tasks.clone(),
    });
    let intercept = Arc::new(Intercept { pipeline, leaves: prepared.leaves.clone() });
    let doors = Doors {
        intercept,
        room: prepared.room.clone(),
        tasks: tasks.clone(),
        introduced,
        stop: stop.clone(),
    };
    for listener in &prepared.listeners {
        let listener = Transparent::new(listener.try_clone()?, prepared.records.clone())?;
        let all = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        tokio::spawn(doors.clone().accept(listener, identifier.clone(), all, CancellationToken::new()));
    }
    loop {
        let pod = tokio::select! {
            pod = served.recv() => pod,
            () = stop.cancelled() => break,
        };
        let Some(pod) = pod else {
            stop.cancelled().await;
            break;
        };
        if let Err(error) = serve_pod(prepared, &resolver, &doors, pod) {
            tracing::error!(%error, "a pod cannot be served");
        }
    }
    // What is under way may finish; what does not is broken off, and its record says so.
    tasks.close();
    let _ = tokio::time::timeout(timeouts.drain, tasks.wait()).await;
    Ok(())
}

/// Takes connections and answers questions of one of a node's pods until it is over.
fn serve_pod(prepared: &Prepared, resolver: &Arc<Resolver>, doors: &Doors, pod: Served) -> io::Result<()> {
    let Served { listeners, dns_udp, dns_tcp, identifier, known, over } = pod;
    // Whoever takes all that it can get leaves room for the others.
    let share = Arc::new(Semaphore::new((prepared.room.most() / SHARE).max(1)));
    for listener in listeners {
        let listener = Transparent::new(listener, prepared.records.clone())?;
        tokio::spawn(doors.clone().accept(listener, identifier.clone(), share.clone(), over.clone()));
    }
    let (budget, policy) = (Budget::default(), prepared.policy.clone());
    let allows = move |host: &Host| {
        let naming = known.get().map(|pod| policy.get().naming_in(&pod, host));
        naming.is_some_and(|naming| budget.admits(&host.to_string(), &naming))
    };
    let names = answer_names(dns_udp, dns_tcp, allows, resolver.clone())?;
    tokio::spawn(async move { over.run_until_cancelled(names).await });
    Ok(())
}

/// Our resolver, for the questions of all agents that come to our own doors.
fn answer_all_names(
    prepared: &Arc<Prepared>,
    resolver: Arc<Resolver>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let udp = prepared.dns_udp.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
    let tcp = prepared.dns_tcp.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
    let (prepared, budget) = (prepared.clone(), Budget::default());
    let allows = move |host: &Host| {
        let naming = prepared.policy.get().naming(prepared.order.agent.as_ref(), host);
        budget.admits(&host.to_string(), &naming)
    };
    answer_names(udp, tcp, allows, resolver)
}

impl Prepared {
    /// Where we listen: never to be dialled for an agent.
    fn own_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let tcp = self.listeners.iter().chain(&self.dns_tcp).map(TcpListener::local_addr);
        tcp.chain(self.dns_udp.iter().map(UdpSocket::local_addr)).collect()
    }
}
