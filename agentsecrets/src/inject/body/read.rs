//! Buffers the bodies that a rule may fill secrets into. A malformed body is kept as it is and rejected
//! if it names a secret.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::budget::{BodyBudget, BodyPermit, PermittedBytes};
use super::quoted::{QuotedPlaceholders, observe};
use super::request_body::{BufferedBody, Content, RequestBody};
use super::{json, multipart};
use crate::inject::placeholder::Placeholders;
use crate::policy::evaluate::BodyRequirements;
use crate::types::body::{Body, BodyError, limited};
use crate::types::hop_by_hop::remove_internal;
use crate::types::rejection::{ErrorCode, Rejection};

/// Content type of a body that may carry secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentKind {
    Json,
    Form,
    Multipart(String),
}

impl RequestBody {
    /// Reads the body of the request with these `parts`, and buffers it if `reading` asks for its content
    /// type. Waits for `budget`. Fails with `body_too_large` above the limit, and with `bad_request` if
    /// the body is compressed or broken off.
    pub(crate) async fn read(
        parts: &Parts,
        body: Body,
        reading: Option<&BodyRequirements>,
        budget: &BodyBudget,
    ) -> Result<Self, Rejection> {
        let Some(reading) = reading else { return Ok(RequestBody::Streaming(body)) };
        let kind = content_kind(&parts.headers)?.filter(|kind| match kind {
            ContentKind::Json => reading.json,
            ContentKind::Form | ContentKind::Multipart(_) => reading.form,
        });
        if kind.is_none() && !reading.any_type {
            return Ok(RequestBody::Streaming(body));
        }
        if let Some(coding) = content_coding(&parts.headers).filter(|_| kind.is_some()) {
            return Err(bad(format!(
                "the body is compressed ({coding}), and this rule looks for secrets in it: send it without \
                 Content-Encoding"
            )));
        }
        let (bytes, mut trailers, share) =
            buffer_with_trailers(body, reading.max_bytes, budget).await.map_err(|error| match error {
                BodyError::TooLarge => too_large(reading),
                error => bad(error.to_string()),
            })?;
        trailers.iter_mut().for_each(remove_internal);
        let content = match kind {
            Some(kind) => parse_content(&bytes, kind).await,
            None if bytes.is_empty() => Content::Empty,
            None => Content::Other,
        };
        Ok(RequestBody::Buffered(BufferedBody {
            bytes,
            trailers,
            content,
            quoted: QuotedPlaceholders::default(),
            permit: share,
        }))
    }
}

/// Buffers `body` up to `max_size` bytes. The bytes hold their share of `budget` while they live.
pub(in crate::inject) async fn buffer(
    body: Body,
    max_size: u64,
    budget: &BodyBudget,
) -> Result<Bytes, BodyError> {
    buffer_with_trailers(body, max_size, budget).await.map(|(bytes, ..)| bytes)
}

async fn buffer_with_trailers(
    body: Body,
    max_size: u64,
    budget: &BodyBudget,
) -> Result<(Bytes, Option<HeaderMap>, BodyPermit), BodyError> {
    let hint = body.size_hint();
    if hint.lower() > max_size {
        return Err(BodyError::TooLarge);
    }
    let share = budget.acquire(hint.upper().unwrap_or(max_size).min(max_size)).await;
    let collected = limited(body, max_size).collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((Bytes::from_owner(PermittedBytes(collected.to_bytes(), share.clone())), trailers, share))
}

impl RequestBody {
    /// Applies the rule's size limit.
    pub(crate) fn limit(self, max_size: Option<u64>) -> Result<Self, Rejection> {
        let Some(max_size) = max_size else { return Ok(self) };
        let is_larger = match &self {
            RequestBody::Streaming(body) => body.size_hint().lower() > max_size,
            RequestBody::Buffered(whole) => whole.bytes.len() as u64 > max_size,
        };
        if is_larger {
            let message = format!("the body is larger than the {max_size} bytes that the rule allows");
            return Err(Rejection::new(ErrorCode::BodyTooLarge, message));
        }
        Ok(match self {
            RequestBody::Streaming(body) => RequestBody::Streaming(limited(body, max_size)),
            read => read,
        })
    }

    /// Returns the body, and the placeholders in it that are not filled.
    pub(crate) fn observed(self, placeholders: &Arc<Placeholders>) -> (Self, QuotedPlaceholders) {
        match self {
            RequestBody::Streaming(body) => {
                let (body, quoted) = observe(body, placeholders.clone());
                (RequestBody::Streaming(body), quoted)
            }
            RequestBody::Buffered(whole) => {
                let quoted = whole.quoted.clone();
                (RequestBody::Buffered(whole), quoted)
            }
        }
    }
}

async fn parse_content(bytes: &Bytes, kind: ContentKind) -> Content {
    if bytes.is_empty() {
        return Content::Empty;
    }
    let read = match kind {
        ContentKind::Json => json::validate(bytes).map(|_| Content::Json),
        ContentKind::Form => Ok(Content::Form),
        ContentKind::Multipart(boundary) => multipart::parse(bytes, boundary).await.map(Content::Multipart),
    };
    read.unwrap_or_else(Content::Malformed)
}

/// Parses the content type; `None` if it carries no secrets.
pub(super) fn content_kind(headers: &HeaderMap) -> Result<Option<ContentKind>, Rejection> {
    let mut kinds = Vec::new();
    for value in headers.get_all(CONTENT_TYPE) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kinds.push(match &*essence {
            "application/json" | "text/json" => Some(ContentKind::Json),
            "application/x-www-form-urlencoded" => Some(ContentKind::Form),
            "multipart/form-data" => {
                let boundary = multer::parse_boundary(&*value);
                Some(ContentKind::Multipart(boundary.map_err(|_| bad("the multipart form has no boundary"))?))
            }
            other if other.ends_with("+json") => Some(ContentKind::Json),
            _ => None,
        });
    }
    match kinds.len() {
        0 | 1 => Ok(kinds.pop().flatten()),
        _ if kinds.iter().all(Option::is_none) => Ok(None),
        _ => Err(bad("there is more than one Content-Type")),
    }
}

fn content_coding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let codings: Vec<String> = codings
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|coding| String::from_utf8_lossy(coding).trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    (!codings.is_empty()).then(|| codings.join(", ").chars().take(40).collect())
}

fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, message)
}

fn too_large(reading: &BodyRequirements) -> Rejection {
    let why = if reading.any_type { "a person must approve it" } else { "this rule looks for secrets in it" };
    let message = format!(
        "the body is larger than {} bytes, and {why}: send less, or raise the rule's max_body",
        reading.max_bytes
    );
    Rejection::new(ErrorCode::BodyTooLarge, message)
}
