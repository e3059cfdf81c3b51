//! Reads the body that a rule may fill secrets into. What cannot be read for sure is kept as it is, to be
//! refused if it names a secret.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use super::quotes::{watch, without_ours};
use super::{Content, Held, Payload, Quotes, ROOM, Room, Share, Whole, json, multipart};
use crate::inject::placeholder::Vocabulary;
use crate::policy::evaluate::Reading;
use crate::types::body::{Body, BodyError, limited};
use crate::types::rejection::{ErrorCode, Rejection};

/// What a body says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Form,
    Multipart(String),
}

impl Payload {
    /// The body of the request with these `parts`, read if it is of a kind that `reading` is about. `room`
    /// is waited for. Refused with `body_too_large` over the limit, and with `bad_request` where the body is
    /// compressed or broke off.
    pub async fn read(
        parts: &Parts,
        body: Body,
        reading: Option<&Reading>,
        room: &Room,
    ) -> Result<Self, Rejection> {
        let Some(reading) = reading else { return Ok(Payload::Streaming(body)) };
        let wanted = kind(&parts.headers)?.filter(|kind| match kind {
            Kind::Json => reading.json,
            Kind::Form | Kind::Multipart(_) => reading.form,
        });
        if wanted.is_none() && !reading.all {
            return Ok(Payload::Streaming(body));
        }
        if let Some(coding) = coding(&parts.headers).filter(|_| wanted.is_some()) {
            return Err(bad(format!(
                "the body is compressed ({coding}), and this rule looks for secrets in it: send it without \
                 Content-Encoding"
            )));
        }
        let (bytes, mut trailers, share) =
            collect(body, reading.most, room).await.map_err(|error| match error {
                BodyError::TooLarge => too_large(reading),
                error => bad(error.to_string()),
            })?;
        trailers.iter_mut().for_each(without_ours);
        let content = match wanted {
            Some(kind) => content(&bytes, kind).await,
            None if bytes.is_empty() => Content::Nothing,
            None => Content::Other,
        };
        Ok(Payload::Read(Whole { bytes, trailers, content, quotes: Quotes::default(), room: share }))
    }
}

/// The whole of `body`, if it is no larger than `most`, which takes its share of `room` as long as it lives.
pub(in crate::inject) async fn held(body: Body, most: u64, room: &Room) -> Result<Bytes, BodyError> {
    collect(body, most, room).await.map(|(bytes, ..)| bytes)
}

async fn collect(body: Body, most: u64, room: &Room) -> Result<(Bytes, Option<HeaderMap>, Share), BodyError> {
    let hint = body.size_hint();
    if hint.lower() > most {
        return Err(BodyError::TooLarge);
    }
    let share = room.take(hint.upper().unwrap_or(most).min(most)).await;
    let collected = limited(body, most).collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((Bytes::from_owner(Held(collected.to_bytes(), share.clone())), trailers, share))
}

impl Payload {
    /// The body, held to the rule's own limit.
    pub fn within(self, most: Option<u64>) -> Result<Self, Rejection> {
        let Some(most) = most else { return Ok(self) };
        let is_larger = match &self {
            Payload::Streaming(body) => body.size_hint().lower() > most,
            Payload::Read(whole) => whole.bytes.len() as u64 > most,
        };
        if is_larger {
            let message = format!("the body is larger than the {most} bytes that the rule allows");
            return Err(Rejection::new(ErrorCode::BodyTooLarge, "", message));
        }
        Ok(match self {
            Payload::Streaming(body) => Payload::Streaming(limited(body, most)),
            read => read,
        })
    }

    /// The body, and what it quotes where nobody looked for what it asks for.
    pub fn watched(self, vocabulary: &Arc<Vocabulary>) -> (Self, Quotes) {
        match self {
            Payload::Streaming(body) => {
                let (body, quotes) = watch(body, vocabulary.clone());
                (Payload::Streaming(body), quotes)
            }
            Payload::Read(whole) => {
                let quotes = whole.quotes.clone();
                (Payload::Read(whole), quotes)
            }
        }
    }
}

impl Room {
    /// Waits for the room that so many bytes need; a body may be larger than all of it, and has it alone then.
    async fn take(&self, bytes: u64) -> Option<Arc<OwnedSemaphorePermit>> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(ROOM as u32);
        self.0.clone().acquire_many_owned(kib).await.ok().map(Arc::new)
    }
}

async fn content(bytes: &Bytes, kind: Kind) -> Content {
    if bytes.is_empty() {
        return Content::Nothing;
    }
    let read = match kind {
        Kind::Json => json::check(bytes).map(|_| Content::Json),
        Kind::Form => Ok(Content::Form),
        Kind::Multipart(boundary) => multipart::read(bytes, boundary).await.map(Content::Multipart),
    };
    read.unwrap_or_else(Content::Unreadable)
}

/// What the headers say that the body is; nothing if it is of no kind that carries secrets.
pub(super) fn kind(headers: &HeaderMap) -> Result<Option<Kind>, Rejection> {
    let mut kinds = Vec::new();
    for value in headers.get_all(CONTENT_TYPE) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kinds.push(match &*essence {
            "application/json" | "text/json" => Some(Kind::Json),
            "application/x-www-form-urlencoded" => Some(Kind::Form),
            "multipart/form-data" => {
                let boundary = multer::parse_boundary(&*value);
                Some(Kind::Multipart(boundary.map_err(|_| bad("the multipart form has no boundary"))?))
            }
            other if other.ends_with("+json") => Some(Kind::Json),
            _ => None,
        });
    }
    match kinds.len() {
        0 | 1 => Ok(kinds.pop().flatten()),
        _ if kinds.iter().all(Option::is_none) => Ok(None),
        _ => Err(bad("there is more than one Content-Type")),
    }
}

fn coding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let codings: Vec<String> = codings
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|coding| String::from_utf8_lossy(coding).trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    (!codings.is_empty()).then(|| codings.join(", ").chars().take(40).collect())
}

fn bad(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, "", message)
}

fn too_large(reading: &Reading) -> Rejection {
    let why = if reading.all { "a person must approve it" } else { "this rule looks for secrets in it" };
    let message = format!(
        "the body is larger than {} bytes, and {why}: send less, or raise the rule's max_body",
        reading.most
    );
    Rejection::new(ErrorCode::BodyTooLarge, "", message)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_body_for_which_there_is_no_room_waits_until_another_has_left() {
        let room = Room::default();
        let large = room.take(1 << 40).now_or_never().flatten().unwrap();
        let mut small = Box::pin(room.take(1));
        assert!(small.as_mut().now_or_never().is_none());
        let body = Bytes::from_owner(Held(b"x", Some(large)));
        let part = body.slice(..1);
        drop(body);
        assert!(small.as_mut().now_or_never().is_none());
        drop(part);
        assert!(small.now_or_never().flatten().is_some());
    }
}
