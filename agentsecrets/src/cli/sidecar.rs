//! `agentsecrets sidecar`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Context, Exit, Failure};
use crate::intercept::ebpf::EbpfError;
use crate::launch::NoInterceptor;
use crate::launch::cgroup_discovery::NoPlace;
use crate::launch::sidecar::{Capture, NotServed, Sidecar, hold_network, serve};
use crate::sys::home::Home;
use crate::types::name::AgentName;

/// Guard agents in other containers: what is started in this one's cgroup goes through here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  agentsecrets sidecar --cgroup /agentsecrets.slice\n  \
    agentsecrets sidecar --spiffe unix:///spiffe-workload-api/spire-agent.sock\n\n\
    deploy/compose.yaml starts it with all that it needs. It takes CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON,\n\
    CAP_SETUID and CAP_SETGID, and gives them up before it serves; agents stay held when it ends.\n\
    With --capture nftables the agents share its network, CAP_BPF and CAP_PERFMON are not needed, and\n\
    less is known of who calls: the manual's page on Kubernetes says what.")]
pub(super) struct Args {
    /// The policy's agent entry, if all agents here are one [default: the first that matches]
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// What leads agents' connections here: programs at their cgroup, or rules of the network shared with them
    #[arg(long, value_name = "HOW", value_enum, default_value = "ebpf")]
    capture: How,
    /// The cgroup to hook, as a path in the host's tree [default: the one that holds this container]
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// The folder for pins, on the host's bpffs
    #[arg(long, value_name = "FOLDER", default_value = "/host/bpf")]
    pins: PathBuf,
    /// Where agents read the certificates that they must trust
    #[arg(long, value_name = "FOLDER", default_value = "/run/agentsecrets/public")]
    public: PathBuf,
    /// As whom to serve, as numbers [default: the owner of our state]
    #[arg(long, value_name = "UID:GID", value_parser = user)]
    user: Option<(u32, u32)>,
    /// Prove agents' programs too: they share our pid namespace, and we have CAP_SYS_PTRACE
    #[arg(long)]
    processes: bool,
    /// Only hold the network that a service and its agents share, until told to end
    #[arg(long, exclusive = true)]
    network: bool,
    /// Ask this engine which images agents' containers are of, for `match: { image: … }`
    #[arg(long, value_name = "unix:///SOCKET", value_parser = socket)]
    engine: Option<PathBuf>,
    /// Ask this SPIFFE Workload API who we are, for `match: { spiffe: … }` [default: $SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "unix:///SOCKET", value_parser = socket)]
    spiffe: Option<PathBuf>,
    #[command(flatten)]
    streamed: Streamed,
}

/// What a service does with its audit log beside keeping it.
#[derive(Debug, clap::Args)]
pub(super) struct Streamed {
    /// Send the audit log on as it is written, as `audit stream` does
    #[arg(long, value_name = "stdout|URL|none")]
    audit_to: Option<String>,
    /// Count requests for Prometheus, at http://ADDRESS/metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

impl Streamed {
    /// Our own program's arguments for that, if anything is to be done. Its place is kept beside the log.
    pub(super) fn words(&self, home: &Home) -> Option<Vec<OsString>> {
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
enum How {
    Ebpf,
    Nftables,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    if args.network {
        return hold_network().map(|()| ExitCode::SUCCESS).map_err(failure);
    }
    let looks = args.cgroup.is_some() || args.processes || args.engine.is_some();
    if looks && matches!(args.capture, How::Nftables) {
        let what =
            "--cgroup, --processes and --engine are of no use with --capture nftables, which sees sockets";
        return Err(Failure::new(Exit::Usage, what));
    }
    crate::server::logging::to_stderr();
    let wanted = Sidecar {
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        narrow: context.scope.narrow.clone(),
        agent: args.agent,
        capture: match args.capture {
            How::Ebpf => Capture::Ebpf,
            How::Nftables => Capture::Nftables,
        },
        cgroup: args.cgroup,
        pins: args.pins,
        public: args.public,
        user: args.user,
        processes: args.processes,
        engine: args.engine,
        spiffe: args.spiffe.map_or_else(workload_api, |socket| Ok(Some(socket)))?,
        streaming: args.streamed.words(&context.home),
    };
    let interceptor = ["/proc/self/exe".into(), "interceptor".into()];
    serve(&wanted, &interceptor).map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// `UID:GID`, neither of which is root's.
pub(super) fn user(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    match parsed {
        Some((uid, gid)) if uid != 0 && gid != 0 => Ok((uid, gid)),
        _ => Err(format!("'{text}' is no user such as 65532:65532; root handles no agent's traffic")),
    }
}

/// The socket of the Workload API where the standard has it looked for.
fn workload_api() -> Result<Option<PathBuf>, Failure> {
    let named = std::env::var("SPIFFE_ENDPOINT_SOCKET").ok().filter(|text| !text.is_empty());
    let read = named.map(|text| socket(&text)).transpose();
    read.map_err(|why| Failure::new(Exit::Usage, format!("SPIFFE_ENDPOINT_SOCKET: {why}")))
}

/// The file of a socket.
fn socket(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => Err(format!("'{text}' is no socket of this machine such as unix:///run/agent.sock")),
    }
}

pub(super) fn failure(error: NotServed) -> Failure {
    let failure = |exit| Failure::new(exit, &error);
    match &error {
        NotServed::NoPlace(NoPlace::NoTree | NoPlace::NotFound) => failure(Exit::Failure)
            .hint("mount the host's /sys/fs/cgroup read-only at /host/cgroup, as deploy/compose.yaml does"),
        NotServed::NoPlace(NoPlace::NotOurs(_) | NoPlace::Outside { .. }) => failure(Exit::Failure).hint(
            "give this service and its agents a parent of their own: `cgroup_parent: agentsecrets.slice`",
        ),
        NotServed::Ebpf(EbpfError::NoBpffs { .. }) => failure(Exit::Failure)
            .hint("mount the host's /sys/fs/bpf/agentsecrets at /host/bpf, as deploy/compose.yaml does"),
        NotServed::Root(folder) => failure(Exit::Failure)
            .hint(format!("chown it to the user that is to serve, such as 65532: {}", folder.display())),
        NotServed::NoInterceptor(NoInterceptor::Refused { exit, hint, .. }) => {
            let exit = if *exit == 5 { Exit::Locked } else { Exit::Failure };
            hint.iter().fold(failure(exit), |failure, hint| failure.hint(hint))
        }
        _ => failure(Exit::Failure),
    }
}
