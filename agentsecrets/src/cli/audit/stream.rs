//! `agentsecrets audit stream`: sends audit records to a collector as they are written.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anstream::eprintln;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Context;
use crate::server::builder;
use crate::server::export::{AuditStream, Collector, Metrics, StreamError, StreamTarget};
use crate::server::logging;
use crate::sys;
use crate::types::failure::{ErrorContext, Exit, Failure};

/// Stream records as they are written, one JSON object per line
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets audit stream | vector --config vector.yaml
  agentsecrets audit stream --to https://collector:4318 --position stream.json --metrics 127.0.0.1:9464

A record with the status INTENT announces a request; the record of its outcome has the same id.
OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES are used as OpenTelemetry specifies.")]
pub(super) struct Args {
    /// Destination: standard output, an OpenTelemetry collector (OTLP over HTTP), or none (metrics only)
    #[arg(long, value_name = "stdout|URL|none", default_value = "stdout")]
    to: String,
    /// Keep the position in this file, and continue from it
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,
    /// Without a saved position, start with new records instead of the first one
    #[arg(long)]
    new: bool,
    /// Serve Prometheus metrics of the streamed records at http://ADDRESS/metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// End when standard input is closed
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

impl Args {
    /// Whether the command does more than print.
    #[cfg(target_os = "linux")]
    pub(super) fn has_outside_effects(&self) -> bool {
        self.to != "stdout" || self.position.is_some() || self.metrics.is_some()
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), Failure> {
    // Our environment may hold the collector's key.
    sys::protect_memory().map_err(Failure::from_error)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_no_new_privs().map_err(Failure::from_error)?;
    logging::to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::from_error)?;
    let streamed = runtime.block_on(stream(args, context));
    // A reader that does not read may block a thread.
    runtime.shutdown_background();
    streamed
}

async fn stream(args: Args, context: &Context) -> Result<(), Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
    let variable = |name: &str| std::env::var(name).ok();
    let target = match &*args.to {
        "stdout" => StreamTarget::Stdout,
        "none" => StreamTarget::None,
        url => {
            let tls = builder::upstream_tls()?;
            let (headers, attributes) =
                (variable("OTEL_EXPORTER_OTLP_HEADERS"), variable("OTEL_RESOURCE_ATTRIBUTES"));
            let collector = Collector::new(url, headers.as_deref(), attributes.as_deref(), &tls);
            StreamTarget::Collector(Box::new(collector.map_err(|error| usage(&error))?))
        }
    };
    let counts = match args.metrics {
        None => None,
        Some(address) => {
            let listener = sys::listen(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            });
            let listener = listener.context(format!("cannot listen on {address}"))?;
            let counts = Metrics::new().map_err(Failure::from_error)?;
            if let Ok(address) = listener.local_addr() {
                eprintln!("metrics are at http://{address}/metrics");
            }
            Some((counts, listener))
        }
    };
    let stop = CancellationToken::new();
    if args.until_input_ends {
        let over = stop.clone();
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            over.cancel();
        });
    }
    let mut ending = sys::ShutdownListener::listen().map_err(Failure::from_error)?;
    let cancelled = stop.clone();
    tokio::spawn(async move {
        ending.asked().await;
        cancelled.cancel();
    });
    let stream = AuditStream {
        folder: context.home.audit(),
        position_file: args.position,
        only_new: args.new,
        target,
        metrics: counts,
    };
    match stream.run(&stop).await {
        // The reader closed the pipe.
        Err(StreamError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.map_err(|error| {
            let failure = Failure::new(Exit::Failure, &error);
            match error {
                StreamError::Collector(_) => {
                    failure.hint("the position is kept: no record is lost once the collector answers")
                }
                StreamError::Position { .. } => failure.hint("remove the file to stream the whole log again"),
                _ => failure,
            }
        }),
    }
}
