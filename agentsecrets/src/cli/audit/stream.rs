//! `agentsecrets audit stream`: records as they are written, for whoever collects them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anstream::eprintln;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::{Context, Exit, Failure};
use crate::server::builder;
use crate::server::export::{Collector, Counts, Stream, StreamError, Target};
use crate::server::logging;
use crate::sys;

/// Send each record on as it is written, as one JSON object a line
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets audit stream | vector --config vector.yaml
  agentsecrets audit stream --to https://collector:4318 --position stream.json --metrics 127.0.0.1:9464

A record that announces a request has the status INTENT; the one that says how it ended has the same id.
OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES mean what OpenTelemetry says.")]
pub(super) struct Args {
    /// To standard output, to an OpenTelemetry collector by OTLP over HTTP, or nowhere, where it is only counted
    #[arg(long, value_name = "stdout|URL|none", default_value = "stdout")]
    to: String,
    /// Go on where the last stream that kept its position in this file came to
    #[arg(long, value_name = "FILE")]
    position: Option<PathBuf>,
    /// Without a position, begin with what is written from now on, not with the first record
    #[arg(long)]
    new: bool,
    /// Count what is streamed for Prometheus, at http://ADDRESS/metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// End when standard input does, as for whoever started us
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

impl Args {
    /// Whether it does more than print.
    #[cfg(target_os = "linux")]
    pub(super) fn reaches_out(&self) -> bool {
        self.to != "stdout" || self.position.is_some() || self.metrics.is_some()
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<(), Failure> {
    // What a collector asks for may be a key, and lies in our environment.
    sys::protect_memory().map_err(|error| Failure::new(Exit::Failure, error))?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_no_new_privs().map_err(|error| Failure::new(Exit::Failure, error))?;
    logging::to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, error))?;
    let streamed = runtime.block_on(stream(args, context));
    // Somebody who does not read may keep a thread waiting.
    runtime.shutdown_background();
    streamed
}

async fn stream(args: Args, context: &Context) -> Result<(), Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
    let said = |name: &str| std::env::var(name).ok();
    let target = match &*args.to {
        "stdout" => Target::Output,
        "none" => Target::Nowhere,
        url => {
            let tls = builder::upstream_tls()?;
            let (headers, attributes) =
                (said("OTEL_EXPORTER_OTLP_HEADERS"), said("OTEL_RESOURCE_ATTRIBUTES"));
            let collector = Collector::new(url, headers.as_deref(), attributes.as_deref(), &tls);
            Target::Collector(Box::new(collector.map_err(|error| usage(&error))?))
        }
    };
    let counts = match args.metrics {
        None => None,
        Some(address) => {
            let listener = sys::listen(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            });
            let listener = listener.map_err(|error| {
                Failure::new(Exit::Failure, format!("{address} cannot be listened on: {error}"))
            })?;
            let counts = Counts::new().map_err(|error| Failure::new(Exit::Failure, error))?;
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
    let mut ending = sys::Ending::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let asked = stop.clone();
    tokio::spawn(async move {
        ending.asked().await;
        asked.cancel();
    });
    let stream =
        Stream { folder: context.home.audit(), position: args.position, only_new: args.new, target, counts };
    match stream.run(&stop).await {
        // Whoever reads us has seen enough.
        Err(StreamError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.map_err(|error| {
            let failure = Failure::new(Exit::Failure, &error);
            match error {
                StreamError::Collector(_) => {
                    failure.hint("the position is kept: nothing is lost once it does")
                }
                StreamError::Position { .. } => failure.hint("remove the file to stream the whole log again"),
                _ => failure,
            }
        }),
    }
}
