//! A request's body. It streams, but for one that a rule may fill secrets into: that one is read whole, up
//! to a limit, before the decision, since what it names is part of what is decided. What is not filled in
//! leaves as the bytes that came.

pub(super) mod digest;
mod fill;
mod form;
pub(super) mod json;
mod multipart;
mod quotes;
mod read;
#[cfg(test)]
mod tests;

pub(super) use fill::signature;
pub use quotes::Quotes;
pub(super) use read::held;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::placeholder::Vocabulary;
use super::references::References;
use crate::policy::access_request::{Place, Spot};
use crate::types::body::{Body, full};
use crate::types::rejection::{ErrorCode, Rejection};

/// How much of the bodies of one agent's requests is held at once, in KiB.
const ROOM: usize = 64 << 10;

/// The body of a request.
pub enum Payload {
    /// It passes by.
    Streaming(Body),
    /// It was read.
    Read(Whole),
}

/// A body that was read whole.
pub struct Whole {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
    content: Content,
    /// Names that it quotes where nothing is ever filled: in keys, names of fields, and files.
    quotes: Quotes,
    room: Share,
}

/// What a body holds.
enum Content {
    /// Nothing.
    Nothing,
    /// A JSON document.
    Json,
    /// A URL-encoded form.
    Form,
    /// A multipart form.
    Multipart(Vec<multipart::Part>),
    /// Something that no secret is ever put into.
    Other,
    /// It is not what its type says, for this reason.
    Unreadable(&'static str),
}

/// What the bodies of one agent's requests may take together; those for which there is no room wait.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

/// Bytes that hold their share of the room as long as they live.
struct Held<B>(B, #[expect(dead_code, reason = "it gives back its share when it is dropped")] Share);

type Share = Option<Arc<OwnedSemaphorePermit>>;

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Payload {
    /// The whole of it, if it was read.
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Payload::Streaming(_) => None,
            Payload::Read(whole) => Some(&whole.bytes),
        }
    }

    /// What stands behind it, if it was read.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        match self {
            Payload::Streaming(_) => None,
            Payload::Read(whole) => whole.trailers.as_ref(),
        }
    }

    /// Adds the secrets that it names. Refused is what names some in a form that nobody can read for sure.
    pub(super) fn references(
        &self,
        vocabulary: &Vocabulary,
        references: &mut References,
    ) -> Result<(), Rejection> {
        let Payload::Read(whole) = self else { return Ok(()) };
        let quotes = &whole.quotes;
        match &whole.content {
            Content::Nothing => Ok(()),
            Content::Other => {
                quotes.note(vocabulary, &whole.bytes);
                Ok(())
            }
            Content::Form => form::references(&whole.bytes, vocabulary, references, quotes),
            Content::Multipart(parts) => multipart::references(parts, vocabulary, references, quotes),
            Content::Json => match std::str::from_utf8(&whole.bytes) {
                Ok(text) => {
                    json::keys(text, |key| quotes.note(vocabulary, key.as_bytes()));
                    json::strings(text, |at, value| {
                        references.note(vocabulary, value.as_bytes(), || Spot::new(Place::Json, at.path()))
                    })
                }
                Err(_) => Ok(()),
            },
            Content::Unreadable(why) if vocabulary.mentions(&whole.bytes).next().is_some() => {
                let message =
                    format!("the body names a secret, but is not what its Content-Type says: {why}");
                Err(Rejection::new(ErrorCode::BadRequest, "", message))
            }
            Content::Unreadable(_) => Ok(()),
        }
    }

    /// As it goes on the wire.
    pub fn into_body(self) -> Body {
        match self {
            Payload::Streaming(body) => body,
            Payload::Read(Whole { bytes, trailers: None, .. }) => full(bytes),
            Payload::Read(Whole { bytes, trailers: Some(trailers), .. }) => {
                let frames = [Frame::data(bytes), Frame::trailers(trailers)];
                StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync()
            }
        }
    }
}

impl From<Body> for Payload {
    fn from(body: Body) -> Self {
        Payload::Streaming(body)
    }
}
