//! The interceptor process, which handles agents' traffic. It starts with privileges, opens what needs them,
//! drops them, reports that it is ready, and serves until the launcher ends. It reads no agent's byte before
//! that.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::approval::ApprovalQueue;
use crate::audit::Log;
use crate::authz::Capabilities;
use crate::dns::query_budget::QueryBudget;
use crate::dns::resolver::Resolver;
use crate::identity::cgroup::CgroupTree;
use crate::identity::container_engine::Engine;
use crate::identity::inspector::ProcessInspector;
use crate::identity::process::{Containers, Identifier};
use crate::identity::process_details::ProcessDetails;
use crate::identity::spiffe_workload_api::WorkloadApi;
use crate::intercept::connection_limit::ConnectionLimit;
use crate::intercept::ebpf::FlowMap;
use crate::intercept::transparent::{Records, Transparent};
use crate::pipeline::agent_credentials::{self, CredentialCache};
use crate::pipeline::{Interceptor, Pipeline};
use crate::policy::watch::PolicyWatcher;
use crate::redact::guess_detector::GuessDetector;
use crate::store::helper::StoreHelper;
use crate::store::refresh_tokens::RefreshTokenStore;
use crate::store::{self, Store};
use crate::sys;
use crate::sys::files::private_folder;
use crate::tls;
use crate::tls::authority::CertificateAuthority;
use crate::tls::leaf::LeafCertCache;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::host::Host;
use crate::upstream::client::{Upstream, UpstreamTimeouts};

use super::pods::{self, PodListeners};
use crate::config::Config;
use crate::privsep::Channel;
use crate::server::builder::{capabilities, upstream_tls, watch};
use crate::server::launch_config::{CONTROL_LIMITS, ControlMessage, LaunchConfig, StartResponse};
use crate::server::listeners::{ConnectionServer, serve_dns};
use crate::server::logging;
use crate::server::sandbox::landlock;
use crate::server::sandbox::privileges;
use crate::server::sandbox::seccomp;

const SESSION_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// One pod of a node may hold at most this fraction (1/n) of all connections.
const POD_CONNECTION_SHARE: usize = 4;
/// Descriptors reserved for the sockets in pods' networks.
const POD_DESCRIPTORS: u64 = 4096;

/// Blocking threads of each worker: they hash programs and read stores.
const BLOCKING_THREADS: usize = 4;

/// Everything that is ready before the first byte of an agent is read.
struct Prepared {
    launch: LaunchConfig,
    config: Config,
    records: Arc<Records>,
    connection_limit: Arc<ConnectionLimit>,
    listeners: Vec<TcpListener>,
    dns_udp: Vec<UdpSocket>,
    dns_tcp: Vec<TcpListener>,
    store: Arc<dyn Store>,
    policy: Arc<PolicyWatcher>,
    capabilities: Arc<Capabilities>,
    approvals: Arc<ApprovalQueue>,
    audit: Arc<Log>,
    leaves: Arc<LeafCertCache>,
    upstream_tls: Arc<rustls::ClientConfig>,
    placeholders: BTreeMap<String, String>,
    inbound: Vec<u16>,
    guess_detector: Arc<GuessDetector>,
    workload: Option<WorkloadApi>,
}

/// Serves the launcher at the other end of standard input.
pub(crate) fn serve() -> Result<(), Failure> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().map_err(control_error)?);
    let control = Channel::new(control, CONTROL_LIMITS);
    match prepare_config(&control) {
        Ok((prepared, identifier, pods)) => {
            let ready = StartResponse::Ready {
                authority: prepared.leaves.authority().pem().to_owned(),
                placeholders: prepared.placeholders.clone(),
                inbound: prepared.inbound.clone(),
                secret_folders: prepared
                    .config
                    .stores
                    .iter()
                    .filter_map(|choice| choice.kind.folder())
                    .collect(),
            };
            control.send_json(&ready, &[]).map_err(control_error)?;
            run_workers(prepared, identifier, pods, control)
        }
        Err(failure) => control.send_json(&StartResponse::from_failure(&failure), &[]).map_err(control_error),
    }
}

fn control_error(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::OwnFailure, format!("the interceptor cannot communicate with its launcher: {error}"))
}

/// Prepares in this launch: open what needs privileges, drop them, then open the person's files.
fn prepare_config(control: &Channel) -> Result<(Prepared, Identifier, Option<OwnedFd>), Failure> {
    let received = control.recv_json().map_err(control_error)?;
    let (launch, _): (LaunchConfig, _) = received.ok_or_else(|| control_error("it sent no configuration"))?;
    sys::conceal().context("cannot protect our own memory")?;
    if launch.container.is_some() {
        // Under `run` the terminal is the agent's.
        logging::to_stderr();
    }
    let descriptors = sys::raise_descriptor_limit().context("cannot raise our own limits")?;
    let records = match &launch.pins {
        Some(pins) => FlowMap::open(pins).map(Records::Programs),
        None => Ok(Records::Tracker),
    };
    let records = records.context("cannot open the kernel's records")?;
    let inherit = |fds: &[i32]| -> Result<Vec<OwnedFd>, Failure> {
        fds.iter().map(|fd| sys::inherited(*fd)).collect::<io::Result<_>>().map_err(control_error)
    };
    let listeners = inherit(&launch.listeners)?.into_iter().map(TcpListener::from).collect();
    let dns_udp = inherit(&launch.dns_udp)?.into_iter().map(UdpSocket::from).collect();
    let dns_tcp = inherit(&launch.dns_tcp)?.into_iter().map(TcpListener::from).collect();
    let pods = launch.container.as_ref().and_then(|service| service.pod_socket);
    let pods = pods.map(sys::inherited).transpose().map_err(control_error)?;
    let sees_processes = launch.container.as_ref().is_none_or(|service| service.sees_processes);
    let inspector = sees_processes.then(|| privileges::start_inspector(launch.uid, launch.gid)).transpose();
    let inspector = inspector.context("cannot start the process inspector")?;
    let inspector = inspector.map(Arc::new);
    let engine = launch.container.as_ref().and_then(|service| service.engine_socket.as_ref());
    let engine =
        engine.map(|socket| privileges::start_engine_client(socket, launch.uid, launch.gid)).transpose();
    let engine = engine.context("cannot query the container engine")?;
    let workload = launch.container.as_ref().and_then(|service| service.workload_api_socket.as_ref());
    let workload =
        workload.map(|socket| privileges::start_workload_client(socket, launch.uid, launch.gid)).transpose();
    let mut workload = workload.context("cannot query the Workload API")?;
    privileges::drop_privileges(launch.uid, launch.gid).context("cannot give up privileges")?;
    // Create them before the sandbox: Landlock cannot permit a folder that does not exist.
    private_folder(&launch.home.audit()).context("the audit log cannot be written")?;
    match private_folder(&launch.home.capabilities()) {
        // In a container the configuration is read-only, and no agent is registered there.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {}
        made => made.context("the folder of agents and sessions cannot be made")?,
    }
    private_folder(&launch.home.approvals()).context("the folder of approvals cannot be made")?;
    private_folder(&launch.home.rotated()).context("the folder of rotated secrets cannot be made")?;
    let config = Config::load(&launch.home.config())
        .context("the configuration is not valid")
        .map_err(|failure| failure.hint("agentsecrets doctor"))?;
    // Start it before the sandbox: the helper may reach more than this process may.
    let mut helper = StoreHelper::start(
        &config.stores,
        &launch.home,
        (&launch.project, &launch.environment),
        sys::conceal,
    )
    .context("cannot start the store helper")?;
    let identifier = identifier(&launch, inspector.clone(), engine)?;
    let identifier = identifier.of_workload(workload.as_ref().map(WorkloadApi::known));
    landlock::confine_to_home(&launch.home, &launch.cgroup_root).context("cannot restrict file access")?;

    let policy = PolicyWatcher::open_restricted(&launch.home.policy(), launch.restriction.clone())
        .context("the policy is not valid")
        .map_err(|failure| failure.hint("agentsecrets policy check"))?;
    let look = inspector.map(|inspector| inspector as Arc<dyn ProcessDetails>);
    // Agents of a run lose all rights when its session ends.
    let session = launch.container.is_none().then(|| launch.session.as_str().into());
    let scope = (&launch.project, &launch.environment);
    let capabilities = capabilities(&launch.home, scope, session, &config, look)?;
    let (store, exists) = store::open_unattended(&config.stores, &launch.home, |kind| helper.store(kind))
        .map_err(|error| Failure::new(Exit::Locked, error))?;
    let store = Arc::new(store);
    let audit = Log::open(&launch.home.audit()).context("the audit log cannot be written")?;
    // The terminal is the agent's from here on: its Ctrl-C must not end the interceptor first.
    let _ = nix::unistd::setsid();
    seccomp::allow_serving(launch.pins.is_some()).context("cannot restrict system calls")?;

    let provider = tls::provider();
    let authority = CertificateAuthority::generate().context("cannot make the certificate authority")?;
    let leaves = LeafCertCache::new(authority, provider).context("cannot make certificates")?;
    let upstream_tls = upstream_tls()?;
    let (placeholders, inbound) = agent_variables(&launch, &policy, &*store)?;
    if !exists && !placeholders.is_empty() {
        eprintln!(
            "agentsecrets: there is no vault yet, so that no secret can be spent; make it with: \
             agentsecrets secrets set NAME"
        );
    }
    let approvals = Arc::new(ApprovalQueue::new(launch.home.approvals()));
    // Read the known pods first, so that their connections are identified from the start.
    let received = workload.as_mut().map_or(Ok(()), WorkloadApi::recv_first);
    received.context("cannot query the Workload API")?;
    let prepared =
        Prepared {
            launch,
            config,
            records: Arc::new(records),
            connection_limit: ConnectionLimit::for_descriptors(
                descriptors.saturating_sub(if pods.is_some() { POD_DESCRIPTORS } else { 0 }),
            ),
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
            guess_detector: Arc::default(),
            workload,
        };
    Ok((prepared, identifier, pods))
}

fn identifier(
    launch: &LaunchConfig,
    inspector: Option<Arc<ProcessInspector>>,
    engine: Option<Engine>,
) -> Result<Identifier, Failure> {
    let (cgroup, agent) = (launch.cgroup.clone(), launch.agent.clone());
    match (&launch.container, inspector) {
        (None, Some(inspector)) => {
            let identifier = Identifier::new(inspector, cgroup, launch.session.as_str().into(), agent);
            Ok(identifier.with_pid_namespace(launch.requested_by))
        }
        (None, None) => Err(control_error("the run's processes cannot be inspected")),
        (Some(_), _) if launch.pins.is_none() => Ok(Identifier::of_sockets(agent)),
        (Some(service), inspector) => {
            let hierarchy = CgroupTree::new(launch.cgroup_root.clone(), cgroup);
            let find = |id| hierarchy.path(id).and_then(|found| found.ok_or(io::ErrorKind::NotFound.into()));
            let own_cgroup = service.own_cgroup.map(find).transpose();
            let own_cgroup = own_cgroup.context("our own cgroup cannot be found")?;
            let own_cgroup = own_cgroup.map(|own_cgroup| own_cgroup.as_ref().to_owned());
            let containers = Containers { hierarchy, ours: own_cgroup, engine: engine.map(Arc::new) };
            Ok(Identifier::of_containers(containers, inspector, agent))
        }
    }
}

/// The agent's environment variables (`NAME` = placeholder) and the inbound ports that its policy opens.
fn agent_variables(
    launch: &LaunchConfig,
    policy: &PolicyWatcher,
    store: &dyn Store,
) -> Result<(BTreeMap<String, String>, Vec<u16>), Failure> {
    let policy = policy.get();
    let agents = match &launch.agent {
        Some(name) => vec![policy.agent(name).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("the policy has no agent '{name}'"))
                .hint(format!("agents are named in {}", launch.home.policy().display()))
        })?],
        None => policy.agents().iter().collect(),
    };
    let names: Vec<_> = agents.iter().flat_map(|agent| agent.secrets().cloned()).collect();
    let stored: Vec<_> = agents.iter().flat_map(|agent| agent.stored_secrets()).collect();
    let credentials =
        agent_credentials::fill(store, &launch.project, &launch.environment, names, &stored, Arc::default())
            .map_err(|error| Failure::new(Exit::Locked, error))?;
    let placeholders =
        credentials.vocabulary.placeholders().map(|(name, text)| (name.to_string(), text.to_owned()));
    Ok((
        placeholders.collect(),
        agents.iter().flat_map(|agent| agent.inbound_ports().iter().copied()).collect(),
    ))
}

/// Starts one thread per core, each with its own runtime; all accept from the same sockets.
fn run_workers(
    mut prepared: Prepared,
    identifier: Identifier,
    mut pods: Option<OwnedFd>,
    control: Channel,
) -> Result<(), Failure> {
    if let Some(workload) = prepared.workload.take() {
        let spawned = thread::Builder::new().name("workload".to_owned()).spawn(|| workload.listen());
        spawned.context("cannot start a thread")?;
    }
    let prepared = Arc::new(prepared);
    let (stop, agents_ready) = (CancellationToken::new(), CancellationToken::new());
    let resolver = Arc::new(Resolver::system());
    let credentials = Arc::new(CredentialCache::new(
        prepared.store.clone(),
        prepared.launch.project.clone(),
        prepared.launch.environment.clone(),
        RefreshTokenStore::at(&prepared.launch.home.rotated()),
    ));
    let identifier = Arc::new(identifier);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut threads = Vec::new();
    let (workers, pods_to_serve): (Vec<_>, Vec<_>) = (0..cores).map(|_| mpsc::unbounded_channel()).unzip();
    for (core, pods_to_serve) in pods_to_serve.into_iter().enumerate() {
        let (workers, pods) = (workers.clone(), pods.take());
        let (prepared, resolver, credentials) = (prepared.clone(), resolver.clone(), credentials.clone());
        let (identifier, stop, agents_ready) = (identifier.clone(), stop.clone(), agents_ready.clone());
        let worker = move || -> io::Result<()> {
            let runtime = runtime()?;
            runtime.block_on(async {
                // With this blocking thread alive, blocking work queues when no further thread can be created.
                tokio::task::spawn_blocking(|| {}).await.map_err(io::Error::other)?;
                if core == 0 {
                    tokio::spawn(answer_dns_for_all(&prepared, resolver.clone())?);
                    watch(&prepared.policy, prepared.store.clone(), &credentials);
                    tokio::spawn(end_on_signal(stop.clone())?);
                }
                if let Some(pods) = pods {
                    let (policy, identifier) = (prepared.policy.clone(), identifier.clone());
                    tokio::spawn(pods::run(pods, policy, identifier, workers, stop.clone()));
                }
                run_worker(&prepared, resolver, credentials, identifier, pods_to_serve, agents_ready, stop)
                    .await
            })
        };
        let spawned = thread::Builder::new().name(format!("worker-{core}")).spawn(worker);
        threads.push(spawned.context("cannot start a thread")?);
    }
    let (launcher, capabilities) =
        (control.try_clone().map_err(control_error)?, prepared.capabilities.clone());
    if prepared.launch.container.is_none() {
        let watcher = thread::Builder::new().name("session".to_owned());
        watcher
            .spawn(move || notify_session_end(&capabilities, &launcher))
            .context("cannot start a thread")?;
    }
    let control_thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
        // The launcher notifies us once that agents may start; after that only its end is awaited.
        if matches!(control.recv_json(), Ok(Some((ControlMessage::AgentsReady, _)))) {
            agents_ready.cancel();
            let _ = control.recv();
        }
        stop.cancel();
    });
    control_thread.context("cannot start a thread")?;
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Notifies the launcher when the run's session ends, so that it ends the command.
fn notify_session_end(capabilities: &Capabilities, launcher: &Channel) {
    while capabilities.run_over().is_none() {
        thread::sleep(SESSION_POLL_INTERVAL);
    }
    let _ = launcher.send_json(&ControlMessage::SessionEnded, &[]);
}

async fn run_worker(
    prepared: &Prepared,
    resolver: Arc<Resolver>,
    credentials: Arc<CredentialCache>,
    identifier: Arc<Identifier>,
    mut pods_to_serve: mpsc::UnboundedReceiver<PodListeners>,
    agents_ready: CancellationToken,
    stop: CancellationToken,
) -> io::Result<()> {
    let timeouts = prepared.config.timeouts;
    let upstream = Upstream::new(prepared.upstream_tls.clone(), resolver.clone(), prepared.own_addresses()?)
        .with_timeouts(UpstreamTimeouts { connect: timeouts.connect, response: timeouts.answer });
    let tasks = TaskTracker::new();
    let pipeline = Arc::new(Pipeline {
        policy: prepared.policy.clone(),
        capabilities: prepared.capabilities.clone(),
        approvals: prepared.approvals.clone(),
        credentials,
        guess_detector: prepared.guess_detector.clone(),
        upstream: Arc::new(upstream),
        audit: prepared.audit.clone(),
        environment: prepared.launch.environment.clone(),
        timeouts,
        stop: stop.clone(),
        tasks: tasks.clone(),
    });
    let intercept = Arc::new(Interceptor { pipeline, leaves: prepared.leaves.clone() });
    let server = ConnectionServer { intercept, tasks: tasks.clone(), agents_ready, stop: stop.clone() };
    for listener in &prepared.listeners {
        let listener = Transparent::new(listener.try_clone()?, prepared.records.clone())?;
        let limit = prepared.connection_limit.clone();
        tokio::spawn(server.clone().accept(listener, identifier.clone(), limit, CancellationToken::new()));
    }
    loop {
        let pod = tokio::select! {
            pod = pods_to_serve.recv() => pod,
            () = stop.cancelled() => break,
        };
        let Some(pod) = pod else {
            stop.cancelled().await;
            break;
        };
        if let Err(error) = serve_pod(prepared, &resolver, &server, pod) {
            tracing::error!(%error, "a pod cannot be served");
        }
    }
    // Requests in flight may finish; the rest are aborted, and their records say so.
    tasks.close();
    let _ = tokio::time::timeout(timeouts.drain, tasks.wait()).await;
    Ok(())
}

/// Accepts connections and answers DNS queries of one pod until it is removed.
fn serve_pod(
    prepared: &Prepared,
    resolver: &Arc<Resolver>,
    server: &ConnectionServer,
    pod: PodListeners,
) -> io::Result<()> {
    let PodListeners { listeners, dns_udp, dns_tcp, identifier, details, removed } = pod;
    // A pod that takes all it can get leaves capacity for the others.
    let share = prepared.connection_limit.share(prepared.connection_limit.most() / POD_CONNECTION_SHARE);
    for listener in listeners {
        let listener = Transparent::new(listener, prepared.records.clone())?;
        tokio::spawn(server.clone().accept(listener, identifier.clone(), share.clone(), removed.clone()));
    }
    let (budget, policy) = (QueryBudget::default(), prepared.policy.clone());
    let allows = move |host: &Host| {
        let naming = details.get().map(|pod| policy.get().host_match_for_pod(&pod, host));
        naming.is_some_and(|naming| budget.admits(&host.to_string(), &naming))
    };
    let names = serve_dns(dns_udp, dns_tcp, allows, resolver.clone())?;
    tokio::spawn(async move { removed.run_until_cancelled(names).await });
    Ok(())
}

/// Serves DNS for all agents that reach our own listeners.
fn answer_dns_for_all(
    prepared: &Arc<Prepared>,
    resolver: Arc<Resolver>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let udp = prepared.dns_udp.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
    let tcp = prepared.dns_tcp.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?;
    let (prepared, budget) = (prepared.clone(), QueryBudget::default());
    let allows = move |host: &Host| {
        let naming = prepared.policy.get().host_match(prepared.launch.agent.as_ref(), host);
        budget.admits(&host.to_string(), &naming)
    };
    serve_dns(udp, tcp, allows, resolver)
}

/// A worker's runtime. Its few blocking threads stay alive.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::MAX)
        .build()
}

/// Cancels `stop` on SIGTERM.
fn end_on_signal(stop: CancellationToken) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        terminate.recv().await;
        stop.cancel();
    })
}

impl Prepared {
    /// Our own listeners, which are never dialled for an agent.
    fn own_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let tcp = self.listeners.iter().chain(&self.dns_tcp).map(TcpListener::local_addr);
        tcp.chain(self.dns_udp.iter().map(UdpSocket::local_addr)).collect()
    }
}
