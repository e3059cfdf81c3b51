//! `agentsecrets kubernetes`: the admission webhook and the node service.

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

use crate::cli::context::Context;
use crate::kubernetes::certificate_rotation::{self, CertificateTargets};
use crate::kubernetes::sidecar_template::TemplateFile;
use crate::kubernetes::webhook::Webhook;
use crate::launch::node::{self, NodeConfig, NodeStatus};
use crate::sys::ShutdownListener;
use crate::sys::watched_file::WatchedFile;
use crate::tls;
use crate::types::failure::{ErrorContext, Exit, Failure};

/// Run the Kubernetes webhook or node service
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
    /// Inject the sidecar into labelled pods, and reject pods that could bypass it
    Webhook(WebhookArgs),
    /// Intercept the traffic of labelled pods of this node, without a sidecar
    Node(NodeArgs),
    /// Show the state of the pods of this node, from the file that `node` writes
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets kubernetes node --node worker-3 --user 64646:64646\n\n\
    The chart's mode `node` runs it on every node. It needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SETGID,\n\
    CAP_SETUID, CAP_SYS_ADMIN and CAP_SYS_PTRACE, and the host's pid namespace. When it ends, the traffic of\n\
    guarded pods stays blocked.")]
struct NodeArgs {
    /// Name of this node in the cluster
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: String,
    /// Label of the pods to guard
    #[arg(long, value_name = "NAME=VALUE", default_value = "agentsecrets.dev/guard=true")]
    label: node::Label,
    /// Namespace of the pods to guard; may be repeated [default: every namespace]
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<String>,
    /// Mount point of the host's cgroup tree
    #[arg(long, value_name = "FOLDER", default_value = "/host/cgroup")]
    cgroups: PathBuf,
    /// Cgroup of all pods in that tree [default: the kubelet's usual one]
    #[arg(long, value_name = "PATH")]
    kubepods: Option<String>,
    /// Folder for pinned BPF objects, on the host's bpffs
    #[arg(long, value_name = "FOLDER", default_value = "/host/bpf")]
    pins: PathBuf,
    /// Network namespace of the node itself
    #[arg(long, value_name = "FILE", default_value = "/proc/1/ns/net")]
    network: PathBuf,
    /// The kubelet's folder of pods: the CA is written into their volumes named `agentsecrets-public`
    #[arg(long, value_name = "FOLDER")]
    volumes: Option<PathBuf>,
    /// User and group of the interceptor, as numbers [default: the owner of our state]
    #[arg(long, value_name = "UID:GID", value_parser = super::sidecar::parse_user)]
    user: Option<(u32, u32)>,
    /// File to write the state of the pods to
    #[arg(long, value_name = "FILE")]
    status: Option<PathBuf>,
    #[command(flatten)]
    streamed: super::sidecar::AuditStreamArgs,
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
    /// Template of the sidecar (containers, volumes, variables), as the chart writes it
    #[arg(long, value_name = "FILE")]
    sidecar: PathBuf,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Certificate chain in PEM [default: issued and rotated automatically]
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "secret")]
    certificate: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Secret that stores the webhook's own CA
    #[arg(long, value_name = "NAME", requires_all = ["configuration", "service"], required_unless_present = "certificate")]
    secret: Option<String>,
    /// MutatingWebhookConfiguration that receives the CA
    #[arg(long, value_name = "NAME", requires = "secret")]
    configuration: Option<String>,
    /// Service through which the API server calls the webhook
    #[arg(long, value_name = "NAME", requires = "secret")]
    service: Option<String>,
    /// Namespace of the webhook
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    crate::server::logging::to_stderr();
    let args = match args.verb {
        Verb::Webhook(args) => args,
        Verb::Node(args) => return run_node(args, context),
        Verb::Status(args) => return status(&args.status, context.json),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start threads")?.block_on(webhook(args))?;
    Ok(ExitCode::SUCCESS)
}

fn run_node(args: NodeArgs, context: &Context) -> Result<ExitCode, Failure> {
    let config = NodeConfig {
        home: context.home.clone(),
        project: context.project.clone(),
        environment: context.environment.clone(),
        restriction: context.scope.restriction.clone(),
        name: args.node,
        label: args.label,
        namespaces: args.namespaces,
        cgroups: args.cgroups,
        kubepods: args.kubepods,
        pins: args.pins,
        network: args.network,
        kubelet_pods_folder: args.volumes,
        user: args.user,
        status_file: args.status,
        audit_export: args.streamed.command_arguments(&context.home),
    };
    let interceptor = ["/proc/self/exe".into(), "interceptor".into()];
    let client = async || kube::Client::try_default().await;
    node::serve(&config, client, &interceptor).map(|()| ExitCode::SUCCESS).map_err(super::sidecar::failure)
}

fn status(file: &Path, json: bool) -> Result<ExitCode, Failure> {
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Unreachable, format!("{}: {error}", file.display()))
            .hint("`agentsecrets kubernetes node --status FILE` writes it")
    };
    let text = std::fs::read_to_string(file).map_err(|error| unreachable(&error))?;
    let status: NodeStatus = serde_json::from_str(&text).map_err(|error| unreachable(&error))?;
    if json {
        println!("{text}");
    } else {
        let NodeStatus { known, guarded, served, held, .. } = status;
        println!("pods: {known} known, {guarded} guarded, {served} served, {held} held until they are known");
        for (uid, reason) in &status.failed {
            println!("{uid}: {reason}");
        }
        for uid in &status.late {
            println!("{uid}: ran before it was guarded; restart it");
        }
    }
    let is_alive = crate::identity::ancestry::start_of(status.pid).is_some();
    if !status.listed || !is_alive {
        let reason =
            if is_alive { "the cluster has not listed every pod yet" } else { "the node service has ended" };
        return Err(unreachable(&reason));
    }
    Ok(ExitCode::SUCCESS)
}

async fn webhook(args: WebhookArgs) -> Result<(), Failure> {
    let sidecar = WatchedFile::open(&args.sidecar, TemplateFile(args.sidecar.clone()))
        .context("the sidecar template is not valid")?;
    let listener = tokio::net::TcpListener::bind(args.listen).await;
    let listener = listener.context(format!("cannot listen on {}", args.listen))?;
    let provider = tls::provider();
    let (show, certificate) = watch::channel(None);
    match (&args.certificate, &args.key, args.secret, args.configuration, args.service) {
        (Some(certificate), Some(key), ..) => {
            let certified = from_files(certificate, key, &provider)?;
            show.send_replace(Some(Arc::new(certified)));
        }
        (_, _, Some(secret), Some(configuration), Some(service)) => {
            let client = kube::Client::try_default().await;
            let client = client.context("cannot connect to the API server")?;
            let namespace = args.namespace;
            let names =
                ["", ".cluster.local"].map(|domain| format!("{service}.{namespace}.svc{domain}")).to_vec();
            let targets = CertificateTargets { namespace, secret, configuration, dns_names: names };
            tokio::spawn(certificate_rotation::run(client, targets, provider.clone(), show));
        }
        _ => return Err(Failure::new(Exit::Usage, "--certificate and --key, or --secret, are required")),
    }
    let stop = CancellationToken::new();
    let mut ending = ShutdownListener::listen().context("cannot wait for signals")?;
    let cancelled = stop.clone();
    tokio::spawn(async move {
        ending.asked().await;
        cancelled.cancel();
    });
    let address = listener.local_addr().context("cannot listen")?;
    eprintln!("agentsecrets: the webhook listens on {address}");
    let webhook = Webhook { sidecar, certificate };
    webhook.serve(listener, provider, stop).await.context("cannot serve")
}

fn from_files(
    certificate: &Path,
    key: &Path,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, Failure> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.context(certificate.display())?;
    let private = PrivateKeyDer::from_pem_file(key).context(key.display())?;
    CertifiedKey::from_der(chain, private, provider).context(certificate.display())
}
