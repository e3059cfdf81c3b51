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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Context, Exit, Failure};
use crate::base::followed::Followed;
use crate::kubernetes::fragment::FragmentFile;
use crate::kubernetes::keep::{Places, keep};
use crate::kubernetes::webhook::Webhook;
use crate::tls;

/// What a cluster runs: the webhook that puts the sidecar into pods.
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
pub(super) fn run(args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    let Verb::Webhook(args) = args.verb;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| failed("cannot start threads", error))?.block_on(webhook(args))?;
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
    end_on_signal(&stop).map_err(|error| failed("cannot wait for signals", error))?;
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

fn end_on_signal(stop: &CancellationToken) -> std::io::Result<()> {
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format!("{what}: {error}"))
}
