//! What Prometheus is told: how many requests ended how, which secrets were spent, how long it took. No label
//! is what an agent says: agents and secrets are those that policy names, so that none makes series without end.

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

/// The bounds of the histogram, in seconds.
const BOUNDS: [f64; 10] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// How many may ask at once. Whoever else would must wait, for as long as `PATIENCE` says at most.
const MOST_SCRAPES: usize = 16;
/// How long one that asks may take.
const PATIENCE: Timeouts = Timeouts {
    handshake: Duration::from_secs(5),
    head: Duration::from_secs(5),
    idle: Duration::from_secs(5),
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(5),
    body_idle: Duration::from_secs(5),
    drain: Duration::from_secs(1),
};

/// The counters.
#[derive(Debug, Clone)]
pub struct Counts {
    registry: Registry,
    requests: IntCounterVec,
    spent: IntCounterVec,
    redacted: IntCounterVec,
    acts: IntCounterVec,
    seconds: HistogramVec,
}

impl Counts {
    /// Counters at zero.
    ///
    /// # Errors
    /// When their names do not fit together.
    pub fn new() -> prometheus::Result<Self> {
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
            "Requests that left with a secret, by agent and secret.",
            &["agent", "secret"],
        )?;
        let redacted = counter(
            "agentsecrets_redacted_answers_total",
            "Answers that a secret was taken out of.",
            &["agent"],
        )?;
        let acts = counter("agentsecrets_administrative_acts_total", "What people did to us.", &["outcome"])?;
        let seconds = HistogramOpts::new(
            "agentsecrets_request_duration_seconds",
            "From a request's beginning to its answer's end.",
        );
        let seconds = HistogramVec::new(seconds.buckets(BOUNDS.to_vec()), &["agent"])?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { registry, requests, spent, redacted, acts, seconds })
    }

    /// Counts `record`.
    pub fn count(&self, record: &Record) {
        let agent = record.agent_id.as_deref().unwrap_or_default();
        if record.status == Status::Intent {
            // Written before a secret leaves: whatever becomes of the request, it was spent.
            for secret in &record.secret_keys {
                self.spent.with_label_values(&[agent, secret]).inc();
            }
            return;
        }
        let outcome = record.status.as_str();
        if record.is_administrative() {
            return self.acts.with_label_values(&[outcome]).inc();
        }
        let reason = record.reason.as_deref().map_or("", slug);
        self.requests.with_label_values(&[agent, outcome, reason]).inc();
        if record.redacted {
            self.redacted.with_label_values(&[agent]).inc();
        }
        if let Some(took) = record.duration_ms {
            let took = Duration::from_millis(took).as_secs_f64();
            self.seconds.with_label_values(&[agent]).observe(took);
        }
    }

    /// What a scrape is answered.
    ///
    /// # Errors
    /// When a counter cannot be written.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Answers scrapes until `stop` is cancelled.
    pub(super) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(MOST_SCRAPES));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (counts, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                let answer = |request: Request<Body>| {
                    let answer = counts.answer(&request);
                    async move { answer }
                };
                let _ = server::serve(stream, false, &PATIENCE, &stop, answer, |_| {}).await;
            });
        }
    }

    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let said = |status, text: String| {
            let mut response = Response::new(full(text));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT));
            response
        };
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => match self.text() {
                Ok(text) => said(StatusCode::OK, text),
                Err(error) => said(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => said(StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
        }
    }
}

/// The slug that a reason begins with; `other` where it begins with none.
fn slug(reason: &str) -> &'static str {
    let first = reason.split(':').next().unwrap_or_default();
    ErrorCode::named(first).map_or("other", ErrorCode::as_str)
}
