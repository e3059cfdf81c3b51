//! `agentsecrets sidecar`: intercepts the traffic of agents in other containers.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::context::Context;
use crate::intercept::ebpf::EbpfError;
use crate::launch::InterceptorError;
use crate::launch::cgroup_discovery::CgroupDiscoveryError;
use crate::launch::sidecar::{Capture, ServiceError, SidecarConfig, serve, wait_for_signal};
use crate::sys::home::Home;
use crate::types::failure::{Exit, Failure};
use crate::types::name::AgentName;

/// Intercept the traffic of agents in other containers, by their cgroup or network namespace
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  agentsecrets sidecar --cgroup /agentsecrets.slice\n  \
    agentsecrets sidecar --spiffe unix:///spiffe-workload-api/spire-agent.sock\n\n\
    deploy/compose.yaml shows a complete setup. It needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SETUID\n\
    and CAP_SETGID, and drops them before it serves. When it ends, the agents' traffic stays blocked.\n\
    With --capture nftables the agents share its network namespace, and it needs neither CAP_BPF nor\n\
    CAP_PERFMON, but it knows less about the calling process (see the manual's page on Kubernetes).")]
pub(super) struct Args {
    /// Agent entry for all agents here [default: the first that matches]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Capture method: eBPF programs at the agents' cgroup, or nftables rules in the shared network namespace
    #[arg(long, value_name = "HOW", value_enum, default_value = "ebpf")]
    capture: CaptureMethod,
    /// Cgroup to attach to, as a path in the host's tree [default: the one that contains this container]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Folder for pinned BPF objects, on the host's bpffs
    #[arg(long, value_name = "FOLDER", default_value = "/host/bpf")]
    pins: PathBuf,
    /// Folder in which agents find the CA certificate
    #[arg(long, value_name = "FOLDER", default_value = "/run/agentsecrets/public")]
    public: PathBuf,
    /// User and group of the interceptor, as numbers [default: the owner of our state]
    #[arg(long, value_name = "UID:GID", value_parser = parse_user)]
    user: Option<(u32, u32)>,
    /// Identify agents' programs too; needs a shared pid namespace and CAP_SYS_PTRACE
    #[arg(long)]
    processes: bool,
    /// Only keep the shared network namespace open, until a signal ends the process
    #[arg(long, exclusive = true)]
    network: bool,
    /// Container engine to query for the images of agents, for `match: { image: … }`
    #[arg(long, value_name = "unix:///SOCKET", value_parser = parse_socket)]
    engine: Option<PathBuf>,
    /// SPIFFE Workload API to query, for `match: { spiffe: … }` [default: $SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "unix:///SOCKET", value_parser = parse_socket)]
    spiffe: Option<PathBuf>,
    #[command(flatten)]
    streamed: AuditStreamArgs,
}

/// The audit export options of a service.
#[derive(Debug, clap::Args)]
pub(super) struct AuditStreamArgs {
    /// Stream the audit log as `audit stream` does
    #[arg(long, value_name = "stdout|URL|none")]
    audit_to: Option<String>,
    /// Serve Prometheus metrics at http://ADDRESS/metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

impl AuditStreamArgs {
    /// The arguments of the `audit stream` process, if one is needed. Its position file is next to the log.
    pub(super) fn command_arguments(&self, home: &Home) -> Option<Vec<OsString>> {
        if self.audit_to.is_none() && self.metrics.is_none() {
            return None;
        }
        let to = self.audit_to.as_deref().unwrap_or("none");
        let mut words: Vec<OsString> = ["audit", "stream", "--to", to, "--position"].map(Into::into).to_vec();
        words.push(home.audit().with_extension("stream").into());
        if let Some(metrics) = self.metrics {
            words.extend(["--metrics".into(), metrics.to_string().into()]);
        }
        Some(words)
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CaptureMethod {
    Ebpf,
    Nftables,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    if args.network {
        return wait_for_signal().map(|()| ExitCode::SUCCESS).map_err(failure);
    }
    let looks = args.cgroup.is_some() || args.processes || args.engine.is_some();
    if looks && matches!(args.capture, CaptureMethod::Nftables) {
        let what = "--cgroup, --processes and --engine have no effect with --capture nftables, which sees only sockets";
        return Err(Failure::new(Exit::Usage, what));
    }
    crate::server::logging::to_stderr();
    let config = SidecarConfig {
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        restriction: context.scope.restriction.clone(),
        agent: args.agent,
        capture: match args.capture {
            CaptureMethod::Ebpf => Capture::Ebpf,
            CaptureMethod::Nftables => Capture::Nftables,
        },
        cgroup: args.cgroup,
        pins: args.pins,
        public_folder: args.public,
        user: args.user,
        sees_processes: args.processes,
        engine_socket: args.engine,
        workload_api_socket: args
            .spiffe
            .map_or_else(workload_api_from_environment, |socket| Ok(Some(socket)))?,
        audit_export: args.streamed.command_arguments(&context.home),
    };
    let interceptor = ["/proc/self/exe".into(), "interceptor".into()];
    serve(&config, &interceptor).map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// Parses `UID:GID`; neither may be root.
pub(super) fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    match parsed {
        Some((uid, gid)) if uid != 0 && gid != 0 => Ok((uid, gid)),
        _ => Err(format!("'{text}' is not a user such as 65532:65532; root must not handle agents' traffic")),
    }
}

/// The socket of the Workload API from the standard variable.
fn workload_api_from_environment() -> Result<Option<PathBuf>, Failure> {
    let named = std::env::var("SPIFFE_ENDPOINT_SOCKET").ok().filter(|text| !text.is_empty());
    let read = named.map(|text| parse_socket(&text)).transpose();
    read.map_err(|reason| Failure::new(Exit::Usage, format!("SPIFFE_ENDPOINT_SOCKET: {reason}")))
}

/// Parses the URL of a Unix socket.
fn parse_socket(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err(format!("'{text}' is not a Unix socket such as unix:///run/agent.sock")),
    }
}

pub(super) fn failure(error: ServiceError) -> Failure {
    let failure = |exit| Failure::new(exit, &error);
    match &error {
        ServiceError::CgroupDiscovery(
            CgroupDiscoveryError::HierarchyNotVisible | CgroupDiscoveryError::NotFound,
        ) => failure(Exit::Failure)
            .hint("mount the host's /sys/fs/cgroup read-only at /host/cgroup, as deploy/compose.yaml does"),
        ServiceError::CgroupDiscovery(
            CgroupDiscoveryError::SharedCgroup(_) | CgroupDiscoveryError::Outside { .. },
        ) => failure(Exit::Failure).hint(
            "give this service and its agents a parent of their own: `cgroup_parent: agentsecrets.slice`",
        ),
        ServiceError::Ebpf(EbpfError::NoBpffs { .. }) => failure(Exit::Failure)
            .hint("mount the host's /sys/fs/bpf/agentsecrets at /host/bpf, as deploy/compose.yaml does"),
        ServiceError::StateOwnedByRoot(folder) => failure(Exit::Failure)
            .hint(format!("chown it to the user of the interceptor, such as 65532: {}", folder.display())),
        ServiceError::Interceptor(InterceptorError::Failed { exit, hint, .. }) => {
            let exit = if *exit == 5 { Exit::Locked } else { Exit::Failure };
            hint.iter().fold(failure(exit), |failure, hint| failure.hint(hint))
        }
        _ => failure(Exit::Failure),
    }
}
