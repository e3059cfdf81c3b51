//! The patterns that responses are searched for: every encoding of every secret that the agent may spend, and
//! of the values minted, captured or computed since. A response is searched as it is, and with one and two
//! layers of escapes removed. Encodings are wiped on drop. The automata hold pieces of them as transitions,
//! which cannot be wiped, so they live no longer than the policy that they were built for.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::search::{FoundRanges, Layer, MatchBounds, Search, merge_ranges};
use super::unescape::{LAYERS, has_escape, unescape};
use crate::canonical::fold;
use crate::dynamic_patterns::DynamicPatterns;
use agentsecrets_types::secret::Secret;

/// Replaces a secret.
pub const MARKER: &[u8] = b"[REDACTED_BY_AGENTSECRETS]";

/// The secrets of one agent, ready to be searched for.
pub struct Patterns {
    /// One for each set of secrets that was there when these were made.
    searches: Vec<Arc<Search>>,
    /// What is added while they are in use.
    dynamic: Arc<DynamicPatterns>,
}

/// The secret ranges of a text.
#[derive(Default)]
pub(super) struct Matches {
    /// Sorted, and no two touch.
    pub(super) runs: Vec<Range<usize>>,
    /// What is certainly no more than a piece of a secret.
    pub(super) pieces: Vec<Range<usize>>,
}

/// Text with its escapes taken off, and folded text.
type Scratch = (Vec<u8>, Vec<u8>, Vec<u8>);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Patterns {
    /// The patterns of all `values`.
    pub fn build<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Arc<Self> {
        Self::with(values, Arc::default())
    }

    /// The patterns of all `values` and of whatever `dynamic` hold, now and later: a value is in force,
    /// also for answers under way, as soon as it is added.
    pub fn with<'a>(
        values: impl IntoIterator<Item = &'a Secret>,
        dynamic: Arc<DynamicPatterns>,
    ) -> Arc<Self> {
        Arc::new(Self { searches: vec![Arc::new(Search::of(values))], dynamic })
    }

    /// These and the patterns of `values`, which matter to one request alone, such as its signature.
    pub fn and<'a>(&self, values: impl IntoIterator<Item = &'a Secret>) -> Arc<Self> {
        let searches = self.searches.iter().cloned().chain([Arc::new(Search::of(values))]).collect();
        Arc::new(Self { searches, dynamic: self.dynamic.clone() })
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        !self.any(|search| !matches!(search, Search::Empty))
    }

    /// The approximate memory in bytes.
    pub fn size(&self) -> usize {
        self.searches.iter().map(|search| search.size()).sum::<usize>() + self.dynamic.search().size()
    }

    /// Whether answers cannot be searched, so that none may pass.
    pub(super) fn is_too_large(&self) -> bool {
        self.any(|search| matches!(search, Search::TooLarge))
    }

    fn any(&self, is: impl Fn(&Search) -> bool) -> bool {
        self.searches.iter().any(|search| is(search)) || is(&self.dynamic.search())
    }

    /// The secret ranges of `bytes`.
    pub(super) fn matches(&self, bytes: &[u8], ends: MatchBounds) -> Matches {
        let mut found = FoundRanges::default();
        SCRATCH.with_borrow_mut(|(text, next, folded)| {
            fold(bytes, folded);
            self.find(bytes, 0, folded, ends, &mut found);
            let mut current = bytes;
            for layer in 1..=LAYERS {
                if !has_escape(current) {
                    break;
                }
                next.clear();
                if !unescape(current, next) {
                    break;
                }
                std::mem::swap(text, next);
                fold(text, folded);
                self.find(bytes, layer, folded, ends, &mut found);
                current = text.as_slice();
            }
            if !found.runs.is_empty() {
                // What is left here of it is not to be found later.
                [text, next, folded].into_iter().for_each(|scratch| scratch.fill(0));
            }
        });
        let FoundRanges { mut runs, mut pieces, mut wholes } = found;
        merge_ranges(&mut runs);
        merge_ranges(&mut wholes);
        let is_within = |piece: &Range<usize>| {
            wholes.iter().any(|whole| whole.start <= piece.start && piece.end <= whole.end)
        };
        pieces.retain(|piece| !is_within(piece));
        Matches { runs, pieces }
    }

    fn find(&self, bytes: &[u8], layer: usize, folded: &[u8], ends: MatchBounds, found: &mut FoundRanges) {
        if !self.any(|search| search.may_match(folded)) {
            return;
        }
        let text = (0..layer).fold(Layer::plain(bytes), |text, _| text.unescaped());
        for search in &self.searches {
            search.find(&text, ends, found);
        }
        self.dynamic.search().find(&text, ends, found);
    }

    /// `bytes` with the marker in place of every match, or nothing where there is none.
    pub(super) fn redact_bytes(&self, bytes: &[u8]) -> Option<RedactedBytes> {
        let Matches { runs, pieces } = self.matches(bytes, MatchBounds { first: true, last: true });
        if runs.is_empty() {
            return None;
        }
        let mut clean = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for run in runs {
            clean.extend_from_slice(bytes.get(at..run.start).unwrap_or_default());
            clean.extend_from_slice(MARKER);
            at = run.end;
        }
        clean.extend_from_slice(bytes.get(at..).unwrap_or_default());
        Some(RedactedBytes { bytes: clean, has_piece: !pieces.is_empty() })
    }
}

/// A text from which something was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RedactedBytes {
    pub(super) bytes: Vec<u8>,
    /// Whether any of it was no more than a piece of a secret.
    pub(super) has_piece: bool,
}

#[cfg(test)]
#[path = "patterns_tests.rs"]
pub(crate) mod tests;
