//! A body as it passes by. Placeholders that it quotes are not filled, whatever they name; they are noted,
//! since they show what an agent was about. Trailers that are ours end here, as our headers do.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::inject::headers::is_ours;
use crate::inject::placeholder::Vocabulary;
use crate::types::body::{Body, BodyError};
use crate::types::name::SecretName;

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

    /// Adds those in `bytes`.
    pub(super) fn note(&self, vocabulary: &Vocabulary, bytes: &[u8]) {
        vocabulary.mentions(bytes).for_each(|mention| self.add(mention.name));
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
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame {
            if let Some(bytes) = frame.data_ref() {
                self.look(bytes);
            }
            if let Some(trailers) = frame.trailers_mut() {
                without_ours(trailers);
            }
        }
        if self.body.is_end_stream()
            || frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
        {
            self.end();
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

/// Takes off the trailers that are for us alone.
pub(super) fn without_ours(trailers: &mut HeaderMap) {
    let ours: Vec<_> = trailers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in ours {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;

    fn quoted(pieces: Vec<&str>) -> Vec<String> {
        let vocabulary = Vocabulary::new([
            ("A".parse().unwrap(), None),
            ("B".parse().unwrap(), Some("custom".to_owned())),
        ]);
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::from((*piece).to_owned())))).collect();
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let (body, quotes) = watch(body, Arc::new(vocabulary));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let passed = runtime.block_on(body.collect()).unwrap().to_bytes();
        assert_eq!(passed, pieces.concat());
        let mut names: Vec<String> = quotes.names().iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn a_name_is_noted_whole_wherever_a_piece_ends() {
        assert_eq!(quoted(vec!["say AS_SECRET_A"]), ["A"]);
        assert_eq!(quoted(vec!["say AS_SECRET_A", "BC"]), ["ABC"]);
        assert_eq!(quoted(vec!["{{", "A", "}} and cus", "tom", "."]), ["A", "B"]);
        assert!(quoted(vec!["custom", "er"]).is_empty());
        let long = "x".repeat(500);
        assert_eq!(quoted(vec![&long, " AS_SEC", "RET_A ", &long]), ["A"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0..60usize, 0..8)) {
            let text = "AS_SECRET_A, {{B}} AS_SECRET_XY custom AS_SECRET_Z";
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < text.len()).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            pieces.push(&text[from..]);
            prop_assert_eq!(quoted(pieces), ["A", "B", "XY", "Z"]);
        }
    }
}
