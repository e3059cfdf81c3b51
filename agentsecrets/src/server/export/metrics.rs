//! Prometheus metrics: requests by outcome, uses of secrets, and durations. Labels come from the policy and
//! never from an agent, so that an agent cannot create unbounded series.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::audit::{Record, Status};
use crate::http::server;
use crate::types::body::{Body, full};
use crate::types::rejection::ErrorCode;
use crate::types::timeouts::Timeouts;

/// Histogram buckets, in seconds.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// Scrapes served at once. Others wait; `SCRAPE_TIMEOUTS` bounds that wait.
const MAX_SCRAPES: usize = 16;
const SCRAPE_TIMEOUTS: Timeouts = Timeouts {
    handshake: Duration::from_secs(5),
    head: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(5),
    body_idle: Duration::from_secs(5),
    drain: Duration::from_secs(1),
};

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    secret_uses: IntCounterVec,
    redacted_responses: IntCounterVec,
    administrative_acts: IntCounterVec,
    duration: HistogramVec,
}

impl Metrics {
    /// Registers all counters, at zero.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let requests = counter(
            "agentsecrets_requests_total",
            "Requests that ended, by agent, outcome and the reason where there is one.",
            &["agent", "outcome", "reason"],
        )?;
        let spent = counter(
            "agentsecrets_secret_uses_total",
            "Requests sent with a secret, by agent and secret.",
            &["agent", "secret"],
        )?;
        let redacted = counter(
            "agentsecrets_redacted_answers_total",
            "Responses from which a secret was removed.",
            &["agent"],
        )?;
        let acts = counter("agentsecrets_administrative_acts_total", "Administrative acts.", &["outcome"])?;
        let seconds = HistogramOpts::new(
            "agentsecrets_request_duration_seconds",
            "Time from the start of a request to the end of its response.",
        );
        let seconds = HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["agent"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            registry,
            requests,
            secret_uses: spent,
            redacted_responses: redacted,
            administrative_acts: acts,
            duration: seconds,
        })
    }

    /// Counts one audit record.
    pub(crate) fn record(&self, record: &Record) {
        let agent = record.agent_id.as_deref().unwrap_or_default();
        if record.status == Status::Intent {
            // Written before a secret leaves: the secret counts as used whatever becomes of the request.
            for secret in &record.secret_keys {
                self.secret_uses.with_label_values(&[agent, secret]).inc();
            }
            return;
        }
        let outcome = record.status.as_str();
        if record.is_administrative() {
            return self.administrative_acts.with_label_values(&[outcome]).inc();
        }
        let reason = record.reason.as_deref().map_or("", error_code);
        self.requests.with_label_values(&[agent, outcome, reason]).inc();
        if record.redacted {
            self.redacted_responses.with_label_values(&[agent]).inc();
        }
        if let Some(duration) = record.duration_ms {
            let duration = Duration::from_millis(duration).as_secs_f64();
            self.duration.with_label_values(&[agent]).observe(duration);
        }
    }

    /// The response to a scrape.
    pub(crate) fn encode(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Answers scrapes until `stop` is cancelled.
    pub(super) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(MAX_SCRAPES));
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (metrics, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let respond = |request: Request<Body>| {
                    let response = metrics.respond(&request);
                    async move { response }
                };
                let _ = server::serve(stream, false, &SCRAPE_TIMEOUTS, &stop, respond, |_| {}).await;
            });
        }
    }

    fn respond(&self, request: &Request<Body>) -> Response<Body> {
        let text_response = |status, text: String| {
            let mut response = Response::new(full(text));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            response
        };
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => match self.encode() {
                Ok(text) => text_response(StatusCode::OK, text),
                Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text_response(StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
        }
    }
}

/// The error code at the start of `reason`; `other` if there is none.
fn error_code(reason: &str) -> &'static str {
    let first = reason.split(':').next().unwrap_or_default();
    ErrorCode::named(first).map_or("other", ErrorCode::as_str)
}
