//! `agentsecrets kubernetes`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anstream::eprintln;
use clap::Subcommand;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, Failure};
use crate::kubernetes::certificate_rotation::{Places, keep};
use crate::kubernetes::sidecar_template::FragmentFile;
use crate::kubernetes::webhook::Webhook;
use crate::launch::node::{self, Node, Status};
use crate::sys::Ending;
use crate::sys::watched_file::Followed;
use crate::tls;

/// What a cluster runs: the webhook that puts the sidecar into pods, and the service that guards a node's.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  agentsecrets kubernetes webhook --sidecar sidecar.yaml --secret webhook-ca \\\n    \
    --configuration agentsecrets --service agentsecrets-webhook"
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put the sidecar into labelled pods, and refuse those that could get around it
    Webhook(WebhookArgs),
    /// Guard the labelled pods of this node: nothing needs to be put into them
    Node(NodeArgs),
    /// How the pods of this node stand, by the file that `node` writes
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets kubernetes node --node worker-3 --user 64646:64646\n\n\
    The chart's mode `node` starts it on every node with all that it needs. It takes CAP_BPF, CAP_NET_ADMIN,\n\
    CAP_PERFMON, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN and CAP_SYS_PTRACE, and the node's process ids; guarded\n\
    pods stay held when it ends.")]
struct NodeArgs {
    /// This node's name, as the cluster has it
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: String,
    /// The label of pods that are guarded
    #[arg(long, value_name = "NAME=VALUE", default_value = "agentsecrets.dev/guard=true")]
    label: node::Label,
    /// A namespace whose pods are looked at; may be given several times [default: every namespace]
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<String>,
    /// Where the host's tree of cgroups is mounted
    #[arg(long, value_name = "FOLDER", default_value = "/host/cgroup")]
    cgroups: PathBuf,
    /// The cgroup of all pods in that tree [default: where kubelets make it]
    #[arg(long, value_name = "PATH")]
    kubepods: Option<String>,
    /// The folder for pins, on the host's bpffs
    #[arg(long, value_name = "FOLDER", default_value = "/host/bpf")]
    pins: PathBuf,
    /// The node's own network, which is no pod's: we are among its processes
    #[arg(long, value_name = "FILE", default_value = "/proc/1/ns/net")]
    network: PathBuf,
    /// The kubelet's folder of pods: certificates are put into their volumes called `agentsecrets-public`
    #[arg(long, value_name = "FOLDER")]
    volumes: Option<PathBuf>,
    /// As whom to serve, as numbers [default: the owner of our state]
    #[arg(long, value_name = "UID:GID", value_parser = super::sidecar::user)]
    user: Option<(u32, u32)>,
    /// Where to say how the pods stand
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    #[command(flatten)]
    streamed: super::sidecar::Streamed,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets kubernetes status --json")]
struct StatusArgs {
    /// The file that `node --status` writes
    #[arg(long, value_name = "FILE", default_value = "/run/agentsecrets/node.json")]
    status: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  agentsecrets kubernetes webhook --sidecar sidecar.yaml --certificate tls.crt --key tls.key"
)]
struct WebhookArgs {
    /// What is put into pods: containers, volumes, variables, as the chart writes it
    #[arg(long, value_name = "FILE")]
    sidecar: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// The certificate chain to show, in PEM; without it, certificates look after themselves
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "secret")]
    certificate: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// The Secret in which the webhook's own authority is kept
    #[arg(long, value_name = "NAME", requires_all = ["configuration", "service"], required_unless_present = "certificate")]
    secret: Option<String>,
    /// The MutatingWebhookConfiguration that is told of that authority
    #[arg(long, value_name = "NAME", requires = "secret")]
    configuration: Option<String>,
    /// The Service by which the API server calls us
    #[arg(long, value_name = "NAME", requires = "secret")]
    service: Option<String>,
    /// Our namespace
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    crate::server::logging::to_stderr();
    let args = match args.verb {
        Verb::Webhook(args) => args,
        Verb::Node(args) => return guard(args, context),
        Verb::Status(args) => return status(&args.status, context.json),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| failed("cannot start threads", error))?.block_on(webhook(args))?;
    Ok(ExitCode::SUCCESS)
}

fn guard(args: NodeArgs, context: &Context) -> Result<ExitCode, Failure> {
    let wanted = Node {
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        narrow: context.scope.narrow.clone(),
        name: args.node,
        label: args.label,
        namespaces: args.namespaces,
        cgroups: args.cgroups,
        kubepods: args.kubepods,
        pins: args.pins,
        network: args.network,
        volumes: args.volumes,
        user: args.user,
        status: args.status,
        streaming: args.streamed.words(&context.home),
    };
    let interceptor = ["/proc/self/exe".into(), "interceptor".into()];
    let client = async || kube::Client::try_default().await;
    node::serve(&wanted, client, &interceptor).map(|()| ExitCode::SUCCESS).map_err(super::sidecar::failure)
}

fn status(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("{}: {error}", file.display()))
            .hint("`agentsecrets kubernetes node --status FILE` writes it")
    };
    let text = std::fs::read_to_string(file).map_err(|error| unreachable(&error))?;
    let status: Status = serde_json::from_str(&text).map_err(|error| unreachable(&error))?;
    if json {
        println!("{text}");
    } else {
        let Status { known, guarded, served, held, .. } = status;
        println!("pods: {known} known, {guarded} guarded, {served} served, {held} held until they are known");
        for (uid, why) in &status.failed {
            println!("{uid}: {why}");
        }
        for uid in &status.late {
            println!("{uid}: ran before it was guarded; restart it");
        }
    }
    let lives = crate::identity::ancestry::start_of(status.pid).is_some();
    if !status.listed || !lives {
        let why =
            if lives { "the cluster has not told of every pod yet" } else { "nobody serves any longer" };
        return Err(unreachable(&why));
    }
    Ok(ExitCode::SUCCESS)
}

async fn webhook(args: WebhookArgs) -> Result<(), Failure> {
    let sidecar = Followed::open(&args.sidecar, FragmentFile(args.sidecar.clone()))
        .map_err(|error| failed("the sidecar's file is not usable", error))?;
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.map_err(|error| failed(&format!("cannot listen on {}", args.listen), error))?;
    let provider = tls::provider();
    let (show, certificate) = watch::channel(None);
    match (&args.certificate, &args.key, args.secret, args.configuration, args.service) {
        (Some(certificate), Some(key), ..) => {
            let certified = from_files(certificate, key, &provider)?;
            show.send_replace(Some(Arc::new(certified)));
        }
        (_, _, Some(secret), Some(configuration), Some(service)) => {
            let client = kube::Client::try_default().await;
            let client = client.map_err(|error| failed("no way to the API server", error))?;
            let namespace = args.namespace;
            let names =
                ["", ".cluster.local"].map(|domain| format!("{service}.{namespace}.svc{domain}")).to_vec();
            let places = Places { namespace, secret, configuration, names };
            tokio::spawn(keep(client, places, provider.clone(), show));
        }
        _ => return Err(Failure::new(Exit::Usage, "--certificate and --key, or --secret, are needed")),
    }
    let stop = CancellationToken::new();
    let mut ending = Ending::listen().map_err(|error| failed("cannot wait for signals", error))?;
    let asked = stop.clone();
    tokio::spawn(async move {
        ending.asked().await;
        asked.cancel();
    });
    let address = listener.local_addr().map_err(|error| failed("cannot listen", error))?;
    eprintln!("agentsecrets: the webhook listens on {address}");
    let webhook = Webhook { sidecar, certificate };
    webhook.serve(listener, provider, stop).await.map_err(|error| failed("cannot serve", error))
}

fn from_files(
    certificate: &Path,
    key: &Path,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, Failure> {
    let unusable = |path: &Path, error: &dyn std::fmt::Display| failed(&path.display().to_string(), error);
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(|error| unusable(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| unusable(certificate, &error))
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}
