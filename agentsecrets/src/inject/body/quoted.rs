//! Observes placeholders in a streaming body. They are never filled, and are recorded because they show
//! what an agent was doing. Internal trailers are removed, as internal headers are.

use std::sync::{Arc, Mutex};

use http_body::Body as _;
use http_body_util::BodyExt;

use crate::inject::placeholder::Placeholders;
use crate::types::body::{Body, BodyHooks, HookedBody, PolledFrame};
use crate::types::hop_by_hop::remove_internal;
use crate::types::name::SecretName;
use crate::types::sync::MutexExt;

/// Maximum number of recorded names.
const MAX_NAMES: usize = 32;
/// Number of bytes of one chunk that are searched again with the next, in bytes. Longer placeholders may
/// be missed.
const OVERLAP: usize = 160;

/// Names of the secrets whose placeholders were seen and not filled.
#[derive(Clone, Default)]
pub struct QuotedPlaceholders(Arc<Mutex<Vec<SecretName>>>);

impl QuotedPlaceholders {
    /// Returns the names recorded so far.
    pub fn names(&self) -> Vec<SecretName> {
        self.0.lock_ignoring_poison().clone()
    }

    /// Records the placeholders in `bytes`.
    pub(super) fn record(&self, placeholders: &Placeholders, bytes: &[u8]) {
        placeholders.find_iter(bytes).for_each(|matched| self.add(matched.name));
    }

    fn add(&self, name: SecretName) {
        let mut names = self.0.lock_ignoring_poison();
        if names.len() < MAX_NAMES && !names.contains(&name) {
            names.push(name);
        }
    }
}

/// Returns `body` unchanged, recording its placeholders as they pass.
pub(super) fn observe(body: Body, placeholders: Arc<Placeholders>) -> (Body, QuotedPlaceholders) {
    let quoted = QuotedPlaceholders::default();
    if body.is_end_stream() {
        return (body, quoted);
    }
    let observer = PlaceholderObserver { placeholders, overlap: Vec::new(), quoted: quoted.clone() };
    (HookedBody::new(body, observer).boxed_unsync(), quoted)
}

struct PlaceholderObserver {
    placeholders: Arc<Placeholders>,
    /// The end of the bytes that passed.
    overlap: Vec<u8>,
    quoted: QuotedPlaceholders,
}

impl PlaceholderObserver {
    fn scan(&mut self, bytes: &[u8]) {
        let placeholders = self.placeholders.clone();
        let head = bytes.get(..OVERLAP).unwrap_or(bytes);
        let known = self.overlap.len();
        self.overlap.extend_from_slice(head);
        // Search across the boundary, then within: a match at the end of a chunk may continue in the
        // next.
        let across = placeholders.find_iter(&self.overlap).filter(|matched| matched.range.start < known);
        let whole = |end: usize, length: usize| end < length;
        let ends = self.overlap.len();
        let mut found: Vec<SecretName> =
            across.filter(|matched| whole(matched.range.end, ends)).map(|matched| matched.name).collect();
        let within = placeholders.find_iter(bytes).filter(|matched| whole(matched.range.end, bytes.len()));
        found.extend(within.map(|matched| matched.name));
        found.into_iter().for_each(|name| self.quoted.add(name));
        if bytes.len() >= OVERLAP {
            self.overlap.clear();
            self.overlap.extend_from_slice(bytes.get(bytes.len() - OVERLAP..).unwrap_or_default());
        } else {
            let from = self.overlap.len().saturating_sub(OVERLAP);
            self.overlap.drain(..from);
        }
    }

    fn finish(&mut self) {
        let last: Vec<SecretName> =
            self.placeholders.find_iter(&self.overlap).map(|matched| matched.name).collect();
        last.into_iter().for_each(|name| self.quoted.add(name));
        self.overlap.clear();
    }
}

impl BodyHooks for PlaceholderObserver {
    fn on_frame(&mut self, mut frame: PolledFrame, is_end: bool) -> PolledFrame {
        if let Some(Ok(frame)) = &mut frame {
            if let Some(bytes) = frame.data_ref() {
                self.scan(bytes);
            }
            if let Some(trailers) = frame.trailers_mut() {
                remove_internal(trailers);
            }
        }
        let is_trailers = matches!(&frame, Some(Ok(frame)) if frame.is_trailers());
        if is_end || is_trailers || frame.is_none() {
            self.finish();
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;

    use super::*;

    fn quoted(pieces: Vec<&str>) -> Vec<String> {
        let placeholders = Placeholders::new([
            ("A".parse().unwrap(), None),
            ("B".parse().unwrap(), Some("custom".to_owned())),
        ]);
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::from((*piece).to_owned())))).collect();
        let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
        let (body, quoted) = observe(body, Arc::new(placeholders));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let passed = runtime.block_on(body.collect()).unwrap().to_bytes();
        assert_eq!(passed, pieces.concat());
        let mut names: Vec<String> = quoted.names().iter().map(ToString::to_string).collect();
        names.sort();
        names
    }

    #[test]
    fn placeholder_across_chunks_is_recorded() {
        assert_eq!(quoted(vec!["say AS_SECRET_A"]), ["A"]);
        assert_eq!(quoted(vec!["say AS_SECRET_A", "BC"]), ["ABC"]);
        assert_eq!(quoted(vec!["{{", "A", "}} and cus", "tom", "."]), ["A", "B"]);
        assert!(quoted(vec!["custom", "er"]).is_empty());
        let long = "x".repeat(500);
        assert_eq!(quoted(vec![&long, " AS_SEC", "RET_A ", &long]), ["A"]);
    }

    proptest! {
        #[test]
        fn segmentation_is_irrelevant(cuts in prop::collection::vec(0..60usize, 0..8)) {
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
