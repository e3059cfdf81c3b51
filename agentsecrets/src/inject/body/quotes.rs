//! Placeholders that a body quotes as it passes by. They are not filled, whatever they name; they are
//! noted, since they show what an agent was about.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::base::name::SecretName;
use crate::exchange::body::{Body, BodyError};
use crate::inject::placeholder::Vocabulary;

/// How many names are kept.
const MOST: usize = 32;
/// How much of one piece is looked at together with the next, in bytes: longer placeholders may be missed.
const SEAM: usize = 160;

/// The secrets whose placeholders were seen.
#[derive(Clone, Default)]
pub struct Quotes(Arc<Mutex<Vec<SecretName>>>);

impl Quotes {
    /// Their names so far.
    pub fn names(&self) -> Vec<SecretName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, name: SecretName) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MOST && !names.contains(&name) {
            names.push(name);
        }
    }
}

/// `body`, unchanged, whose placeholders are noted as they pass.
pub(super) fn watch(body: Body, vocabulary: Arc<Vocabulary>) -> (Body, Quotes) {
    let quotes = Quotes::default();
    if body.is_end_stream() {
        return (body, quotes);
    }
    let watched = Watched { body, vocabulary, seam: Vec::new(), quotes: quotes.clone() };
    (watched.boxed_unsync(), quotes)
}

struct Watched {
    body: Body,
    vocabulary: Arc<Vocabulary>,
    /// The end of what passed.
    seam: Vec<u8>,
    quotes: Quotes,
}

impl Watched {
    fn look(&mut self, bytes: &[u8]) {
        let vocabulary = self.vocabulary.clone();
        let head = bytes.get(..SEAM).unwrap_or(bytes);
        let known = self.seam.len();
        self.seam.extend_from_slice(head);
        // Across the seam, and then within: what ends at the end of a piece may go on in the next one.
        let across = vocabulary.mentions(&self.seam).filter(|mention| mention.range.start < known);
        let whole = |end: usize, length: usize| end < length;
        let ends = self.seam.len();
        let mut found: Vec<SecretName> =
            across.filter(|mention| whole(mention.range.end, ends)).map(|mention| mention.name).collect();
        let within = vocabulary.mentions(bytes).filter(|mention| whole(mention.range.end, bytes.len()));
        found.extend(within.map(|mention| mention.name));
        found.into_iter().for_each(|name| self.quotes.add(name));
        if bytes.len() >= SEAM {
            self.seam.clear();
            self.seam.extend_from_slice(bytes.get(bytes.len() - SEAM..).unwrap_or_default());
        } else {
            let from = self.seam.len().saturating_sub(SEAM);
            self.seam.drain(..from);
        }
    }

    fn end(&mut self) {
        let last: Vec<SecretName> =
            self.vocabulary.mentions(&self.seam).map(|mention| mention.name).collect();
        last.into_iter().for_each(|name| self.quotes.add(name));
        self.seam.clear();
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.look(bytes);
                }
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end();
                }
            }
            _ => self.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
