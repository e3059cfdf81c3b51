//! OpenTelemetry logs by OTLP over HTTP. A temporary failure is retried until it succeeds; a permanent
//! rejection ends the stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use percent_encoding::percent_decode_str;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::audit::{Record, Status};

const MAX_RECORDS_PER_REQUEST: usize = 512;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Delay after a failure: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
const MAX_RESPONSE_LENGTH: usize = 64 * 1024;

/// A collector's address, the headers for every request, and the open connection.
pub(crate) struct Collector {
    uri: Uri,
    tls: Option<TlsConnector>,
    headers: HeaderMap,
    resource: Resource,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// Invalid collector settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectorConfigError {
    /// The URL is not one of a collector.
    #[error("a collector has a URL such as https://collector:4318, without a query or a password")]
    Url,
    /// An OpenTelemetry variable is not a list of pairs.
    #[error("{0} is not a list such as name=value,other=value")]
    Pairs(&'static str),
}

/// A permanent rejection by the collector.
#[derive(Debug, thiserror::Error)]
#[error("the collector refuses what it is sent, with status {0}")]
pub(crate) struct CollectorRejection(StatusCode);

enum ExportError {
    Retryable(String, Option<Duration>),
    Permanent(StatusCode),
}

impl From<hyper::Error> for ExportError {
    fn from(error: hyper::Error) -> Self {
        Self::Retryable(error.to_string(), None)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Retryable(error.to_string(), None)
    }
}

impl Collector {
    /// Parses the settings. `/v1/logs` is added if `url` has no path; `headers` and `attributes` have the
    /// syntax of `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_RESOURCE_ATTRIBUTES`.
    pub(crate) fn new(
        url: &str,
        headers: Option<&str>,
        attributes: Option<&str>,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, CollectorConfigError> {
        let url = url::Url::parse(url).map_err(|_| CollectorConfigError::Url)?;
        let is_plain = match url.scheme() {
            "http" => true,
            "https" => false,
            _ => return Err(CollectorConfigError::Url),
        };
        let has_more = url.query().is_some() || url.password().is_some() || !url.username().is_empty();
        if has_more || url.host_str().is_none() {
            return Err(CollectorConfigError::Url);
        }
        let at = match url.path() {
            "" | "/" => url.join("/v1/logs").map_err(|_| CollectorConfigError::Url)?,
            _ => url,
        };
        let uri: Uri = at.as_str().parse().map_err(|_| CollectorConfigError::Url)?;
        let mut all = HeaderMap::new();
        const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        for (name, value) in
            parse_pairs(headers.unwrap_or_default()).ok_or(CollectorConfigError::Pairs(HEADERS))?
        {
            let name: HeaderName = name.parse().map_err(|_| CollectorConfigError::Pairs(HEADERS))?;
            let mut value =
                HeaderValue::from_str(&value).map_err(|_| CollectorConfigError::Pairs(HEADERS))?;
            value.set_sensitive(true);
            all.append(name, value);
        }
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        let defaults = [("service.name", "agentsecrets"), ("service.version", env!("CARGO_PKG_VERSION"))];
        let configured =
            parse_pairs(attributes.unwrap_or_default()).ok_or(CollectorConfigError::Pairs(ATTRIBUTES))?;
        let defaults =
            defaults.into_iter().filter(|(name, _)| configured.iter().all(|(other, _)| other != name));
        let attributes = defaults.map(|(name, value)| string_attribute(name, value));
        let attributes =
            attributes.chain(configured.iter().map(|(name, value)| string_attribute(name, value))).collect();
        let tls = (!is_plain).then(|| {
            let mut config = ClientConfig::clone(tls);
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            TlsConnector::from(Arc::new(config))
        });
        let resource = Resource { attributes, ..Resource::default() };
        Ok(Self { uri, tls, headers: all, resource, connection: None })
    }

    /// Sends `records` and returns once all are acknowledged.
    ///
    /// # Errors ¶| If the collector rejects them permanently; with `insists` it retries instead.
    pub(crate) async fn send(&mut self, records: &[Record], insists: bool) -> Result<(), CollectorRejection> {
        for part in records.chunks(MAX_RECORDS_PER_REQUEST) {
            let body = Bytes::from(self.request(part).encode_to_vec());
            let mut pause = BACKOFF.0;
            loop {
                let result = tokio::time::timeout(REQUEST_TIMEOUT, self.post(body.clone())).await;
                let result = result
                    .unwrap_or_else(|_| Err(ExportError::Retryable("it does not answer".to_owned(), None)));
                match result {
                    Ok(()) => break,
                    Err(ExportError::Permanent(status)) if insists => {
                        let refused = CollectorRejection(status);
                        tracing::error!("{refused}; it is tried again");
                        tokio::time::sleep(BACKOFF.1).await;
                    }
                    Err(ExportError::Permanent(status)) => return Err(CollectorRejection(status)),
                    Err(ExportError::Retryable(why, wait)) => {
                        self.connection = None;
                        tracing::warn!("the collector takes nothing now: {why}; it is tried again");
                        tokio::time::sleep(wait.unwrap_or(pause).min(BACKOFF.1)).await;
                        pause = (pause * 2).min(BACKOFF.1);
                    }
                }
            }
        }
        Ok(())
    }

    async fn post(&mut self, body: Bytes) -> Result<(), ExportError> {
        let mut connection = match self.connection.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => self.connect().await?,
        };
        connection.ready().await?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::post(path);
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            let authority = self.uri.authority().map_or("", |authority| authority.as_str());
            headers.insert(HOST, HeaderValue::from_str(authority).map_err(io::Error::other)?);
        }
        let answer =
            connection.send_request(request.body(Full::new(body)).map_err(io::Error::other)?).await?;
        let status = answer.status();
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let text = Limited::new(answer.into_body(), MAX_RESPONSE_LENGTH).collect().await;
        match status.as_u16() {
            200..300 => {
                let partial =
                    text.ok().and_then(|text| ExportLogsServiceResponse::decode(text.to_bytes()).ok());
                if let Some(partial) = partial.and_then(|answer| answer.partial_success)
                    && partial.rejected_log_records > 0
                {
                    tracing::error!("the collector dropped {} records", partial.rejected_log_records);
                }
                self.connection = Some(connection);
                Ok(())
            }
            // The statuses that OTLP declares retryable.
            429 | 502 | 503 | 504 => Err(ExportError::Retryable(
                format!("it answers with status {status}"),
                retry_after.map(Duration::from_secs),
            )),
            _ => Err(ExportError::Permanent(status)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ExportError> {
        let host = self.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        let Some(tls) = &self.tls else { return http1_handshake(tcp).await };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        http1_handshake(tls.connect(name, tcp).await?).await
    }

    fn request(&self, records: &[Record]) -> ExportLogsServiceRequest {
        let log_records = records.iter().map(log_record).collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource = Some(self.resource.clone());
        let resource_logs = vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }];
        ExportLogsServiceRequest { resource_logs }
    }
}

async fn http1_handshake(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, ExportError> {
    let (sender, connection) = handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Parses `name=value,other=value` with percent-encoded values.
fn parse_pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((name.trim().to_owned(), value.into_owned()))
        })
        .collect()
}

fn log_record(record: &Record) -> LogRecord {
    let severity = match record.status {
        Status::Ok | Status::Intent | Status::Pending => SeverityNumber::Info,
        Status::Blocked => SeverityNumber::Warn,
        Status::Error | Status::Aborted => SeverityNumber::Error,
    };
    let outcome = record.status.as_str();
    let time = record.timestamp.parse::<jiff::Timestamp>().map_or(0, |time| time.as_nanosecond());
    let time = u64::try_from(time).unwrap_or_default();
    let mut attributes = vec![
        string_attribute("log.record.uid", &record.id),
        string_attribute("agentsecrets.outcome", outcome),
        string_attribute("agentsecrets.environment", &record.environment),
        list_attribute("agentsecrets.secrets", &record.secret_keys),
        KeyValue {
            key: "agentsecrets.redacted".to_owned(),
            value: Some(AnyValue { value: Some(Value::BoolValue(record.redacted)) }),
            ..KeyValue::default()
        },
    ];
    let process = record.process.as_ref();
    let named = [
        ("http.request.method", Some(&record.method)),
        ("url.full", Some(&record.target_url)),
        ("server.address", Some(&record.domain)),
        ("agentsecrets.agent", record.agent_id.as_ref()),
        ("agentsecrets.reason", record.reason.as_ref()),
        ("agentsecrets.rule", record.rule.as_ref()),
        ("agentsecrets.token", record.token_id.as_ref()),
        ("agentsecrets.session", record.session_id.as_ref()),
        ("agentsecrets.hash", Some(&record.hash)),
        ("process.executable.path", process.map(|process| &process.exe)),
        ("container.id", process.and_then(|process| process.container.as_ref())),
        ("k8s.pod.uid", process.and_then(|process| process.pod.as_ref())),
    ];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
    attributes.extend(
        named.filter(|(_, value)| !value.is_empty()).map(|(name, value)| string_attribute(name, value)),
    );
    let numbers = [
        ("http.response.status_code", record.status_code.map(i64::from)),
        ("agentsecrets.duration_ms", record.duration_ms.and_then(|duration| i64::try_from(duration).ok())),
        ("process.pid", process.map(|process| i64::from(process.pid))),
    ];
    attributes.extend(numbers.into_iter().filter_map(|(name, value)| Some(integer_attribute(name, value?))));
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity.into(),
        body: Some(string_value(&format!("{outcome} {} {}", record.method, record.target_url))),
        attributes,
        event_name: "agentsecrets.audit".to_owned(),
        ..LogRecord::default()
    }
}

fn string_value(value: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.to_owned())) }
}

fn string_attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(string_value(value)), ..KeyValue::default() }
}

fn integer_attribute(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn list_attribute(key: &str, values: &[String]) -> KeyValue {
    let values = values.iter().map(|value| string_value(value)).collect();
    let value = Some(AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
