//! The search for a set of secrets in one text: a prefilter that almost never opens, an automaton that finds seeds
//! (short pieces of an encoding), and from each seed a comparison of what stands around it with the encoding itself.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use zeroize::Zeroizing;

use super::unescape::Sink;
use crate::canonical::fold_with_offsets;
use crate::encodings::{Encoding, encodings};
use crate::fragments::fragments;
use crate::prefilter::Prefilter;
use agentsecrets_types::secret::Secret;

/// A match stretches over at most so many bytes of an answer, escapes and line breaks included.
pub(super) const SPAN: usize = 448;

/// The matches in a text.
#[derive(Default)]
pub(super) struct FoundRanges {
    /// What belongs to a secret, or to a piece of one; in any order.
    pub(super) runs: Vec<Range<usize>>,
    /// What is certainly no more than a piece.
    pub(super) pieces: Vec<Range<usize>>,
    /// What may be a whole secret.
    pub(super) wholes: Vec<Range<usize>>,
}

/// Whether the first and the last byte of a text are the first and last of all there is: what is cut off there is no more
/// than a piece.
#[derive(Clone, Copy)]
pub(super) struct MatchBounds {
    pub(super) first: bool,
    pub(super) last: bool,
}

/// A text, perhaps with its escapes taken off, and where each byte of it stood.
pub(super) struct Layer {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    offsets: Vec<Range<usize>>,
}

impl Layer {
    /// The text itself.
    pub(super) fn plain(text: &[u8]) -> Self {
        Self { bytes: Zeroizing::new(text.to_vec()), offsets: (0..text.len()).map(|at| at..at + 1).collect() }
    }

    /// Takes one layer of escapes off.
    pub(super) fn unescaped(&self) -> Self {
        let mut sink =
            UnescapeSink { layer: self, bytes: Vec::with_capacity(self.bytes.len()), offsets: Vec::new() };
        super::unescape::unescape(&self.bytes, &mut sink);
        Self { bytes: Zeroizing::new(sink.bytes), offsets: sink.offsets }
    }

    /// The original range of `range`.
    fn source_range(&self, range: Range<usize>) -> Range<usize> {
        let start = self.offsets.get(range.start).map_or(0, |place| place.start);
        let last = range.end.checked_sub(1).and_then(|last| self.offsets.get(last));
        start..last.map_or(start, |place| place.end)
    }
}

struct UnescapeSink<'l> {
    layer: &'l Layer,
    bytes: Vec<u8>,
    offsets: Vec<Range<usize>>,
}

impl Sink for UnescapeSink<'_> {
    fn literal(&mut self, bytes: &[u8], at: usize) {
        self.bytes.extend_from_slice(bytes);
        self.offsets.extend_from_slice(self.layer.offsets.get(at..at + bytes.len()).unwrap_or_default());
    }

    fn escape(&mut self, bytes: &[u8], at: usize, length: usize) {
        let place = self.layer.source_range(at..at + length);
        self.bytes.extend_from_slice(bytes);
        self.offsets.extend(bytes.iter().map(|_| place.clone()));
    }
}

/// The secrets of one set, ready to be searched for.
pub(super) enum Search {
    /// There is no secret.
    Empty,
    /// There are some.
    Patterns(Box<PatternSet>),
    /// There is more than an automaton can hold: no answer can be searched.
    TooLarge,
}

/// A set of secrets.
pub(super) struct PatternSet {
    /// None where some seed is too short for it.
    prefilter: Option<Prefilter>,
    seeds: AhoCorasick,
    /// Of each of its patterns, the encoding and where in it the seed is.
    origins: Vec<(usize, usize)>,
    encodings: Vec<Encoding>,
}

impl Search {
    /// For all `values`.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let parts = values.into_iter().flat_map(|value| fragments(value.expose()));
        let encodings: Vec<Encoding> = parts.flat_map(|part| encodings(&part)).collect();
        if encodings.is_empty() {
            return Self::Empty;
        }
        let seeds = || {
            encodings.iter().enumerate().flat_map(|(number, encoding)| {
                let cut = |seed: &Range<usize>| encoding.bytes.get(seed.clone()).unwrap_or_default();
                encoding.seeds.iter().map(move |seed| (number, seed.start, cut(seed)))
            })
        };
        let prefilter = Prefilter::of(seeds().map(|(_, _, seed)| seed));
        // Without a prefilter it sees every byte.
        let kind = if prefilter.is_some() { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(kind))
            .build(seeds().map(|(_, _, seed)| seed));
        match automaton {
            Ok(automaton) => {
                let origins = seeds().map(|(encoding, at, _)| (encoding, at)).collect();
                Self::Patterns(Box::new(PatternSet { prefilter, seeds: automaton, origins, encodings }))
            }
            Err(_) => Self::TooLarge,
        }
    }

    /// Whether there may be anything in `folded`.
    pub(super) fn may_match(&self, folded: &[u8]) -> bool {
        match self {
            Self::Empty => false,
            Self::Patterns(known) => match &known.prefilter {
                Some(prefilter) => prefilter.may_match(folded),
                None => known.seeds.is_match(folded),
            },
            Self::TooLarge => !folded.is_empty(),
        }
    }

    /// Adds to `found` what there is in `layer`.
    pub(super) fn find(&self, layer: &Layer, ends: MatchBounds, found: &mut FoundRanges) {
        match self {
            Self::Empty => {}
            Self::Patterns(known) => known.find(layer, ends, found),
            Self::TooLarge => found.runs.push(layer.source_range(0..layer.bytes.len())),
        }
    }

    /// The approximate memory in bytes.
    pub(super) fn size(&self) -> usize {
        let Self::Patterns(known) = self else { return 0 };
        let encodings: usize = known
            .encodings
            .iter()
            .map(|encoding| encoding.bytes.len() + encoding.seeds.len() * 16 + 160)
            .sum();
        known.seeds.memory_usage()
            + encodings
            + known.origins.len() * 32
            + size_of::<Prefilter>()
            + (32 << 10)
    }
}

impl PatternSet {
    fn find(&self, layer: &Layer, ends: MatchBounds, found: &mut FoundRanges) {
        let (folded, offsets) = fold_with_offsets(&layer.bytes);
        let text = LayerText { layer, ends, folded: Zeroizing::new(folded), offsets };
        for seed in self.seeds.find_overlapping_iter(&*text.folded) {
            let Some((number, offset)) = self.origins.get(seed.pattern().as_usize()).copied() else {
                continue;
            };
            let Some(encoding) = self.encodings.get(number) else { continue };
            let alignment = text.compare(encoding, seed.range(), offset);
            text.record(encoding, &alignment, offset..offset + seed.len(), found);
        }
    }
}

/// A layer that is searched.
struct LayerText<'l> {
    layer: &'l Layer,
    ends: MatchBounds,
    folded: Zeroizing<Vec<u8>>,
    /// The position in the layer of each folded byte.
    offsets: Vec<usize>,
}

/// A range of folded text that equals a range of an encoding.
struct Alignment {
    start: usize,
    end: usize,
    /// The offset in the encoding.
    offset: usize,
    /// Whether the encoding goes on before, and behind, but the text does otherwise.
    is_piece: bool,
}

impl LayerText<'_> {
    /// Extends a match around a seed, which is at `offset` of `encoding`, as far as the text equals the encoding.
    fn compare(&self, encoding: &Encoding, seed: Range<usize>, offset: usize) -> Alignment {
        // Farther than any piece, so that one is told from a whole.
        let most = SPAN.min(encoding.bytes.len());
        let before = self.folded.get(..seed.start).unwrap_or_default().iter().rev();
        let encoding_before = encoding.bytes.get(..offset).unwrap_or_default().iter().rev();
        let left =
            before.zip(encoding_before).take(most).take_while(|(text, encoding)| text == encoding).count();
        let encoding_end = offset + seed.len();
        let after = self.folded.get(seed.end..).unwrap_or_default().iter();
        let encoding_after = encoding.bytes.get(encoding_end..).unwrap_or_default().iter();
        let right =
            after.zip(encoding_after).take(most).take_while(|(text, encoding)| text == encoding).count();
        // What could have stood there, had the text gone on as the encoding does.
        let (room_left, room_right) = (seed.start, self.folded.len() - seed.end);
        let room_left = if self.ends.first { usize::MAX } else { room_left };
        let room_right = if self.ends.last { usize::MAX } else { room_right };
        let ends_left = left < offset.min(room_left).min(most);
        let rest = encoding.whole_len.saturating_sub(encoding_end).min(room_right).min(most);
        Alignment {
            start: seed.start - left,
            end: seed.end + right,
            offset: offset - left,
            is_piece: ends_left || right < rest,
        }
    }

    /// Adds to `found` what of `alignment` must not pass: the whole, and the pieces that have `seed` in them, since
    /// every other piece has another.
    fn record(
        &self,
        encoding: &Encoding,
        alignment: &Alignment,
        seed: Range<usize>,
        found: &mut FoundRanges,
    ) {
        let (from, to) = (alignment.offset, alignment.offset + alignment.end - alignment.start);
        let mut cover = |piece: Range<usize>| {
            let start = alignment.start + piece.start - from;
            let run = start..start + piece.len();
            let run =
                self.is_exact(encoding, &run).then(|| self.source_range(encoding, &piece, run)).flatten();
            if let Some(run) = &run {
                push_range(&mut found.runs, run);
                push_range(if alignment.is_piece { &mut found.pieces } else { &mut found.wholes }, run);
            }
            run.is_some()
        };
        if from == 0 && to >= encoding.whole_len {
            cover(0..to);
        }
        if encoding.exact.is_some() || encoding.core.len() <= encoding.min_piece {
            return;
        }
        let first = from.max(encoding.core.start).max(seed.end.saturating_sub(encoding.min_piece));
        let last = to.min(encoding.core.end).min(seed.start + encoding.min_piece);
        for start in first..(last + 1).saturating_sub(encoding.min_piece) {
            let end = start + encoding.min_piece;
            // What everybody knows goes with the secret that it belongs to.
            let known_before = start == encoding.core.start && from == 0;
            let known_behind = end == encoding.core.end && to >= encoding.whole_len;
            let with = if known_before { 0 } else { start }..if known_behind { to } else { end };
            if !cover(with) {
                cover(start..end);
            }
        }
    }

    fn is_exact(&self, encoding: &Encoding, run: &Range<usize>) -> bool {
        let Some(exact) = &encoding.exact else { return true };
        let Some(start) = self.offsets.get(run.start).copied() else { return false };
        self.layer
            .bytes
            .get(start..)
            .is_some_and(|rest| rest.starts_with(exact.get(..encoding.whole_len).unwrap_or(exact)))
    }

    /// The original range of `run`, which is `piece` of `encoding`; `None` if it stretches too far.
    fn source_range(
        &self,
        encoding: &Encoding,
        piece: &Range<usize>,
        run: Range<usize>,
    ) -> Option<Range<usize>> {
        let bytes = &*self.layer.bytes;
        let mut start = *self.offsets.get(run.start)?;
        let mut end = self.offsets.get(run.end.checked_sub(1)?)? + 1;
        if self.layer.source_range(start..end).len() > SPAN {
            return None;
        }
        let is_base64 =
            |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(b));
        if encoding.shared_ends.0 && piece.start == 0 && start > 0 && is_base64(start - 1) {
            start -= 1;
        }
        if encoding.shared_ends.1 && piece.end == encoding.whole_len && is_base64(end) {
            end += 1;
        }
        // Not half a character.
        let goes_on = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        if bytes.get(end - 1).is_some_and(|byte| !byte.is_ascii()) {
            end += (0..3).take_while(|more| goes_on(end + more)).count();
        }
        let back = (0..3).take_while(|back| start > *back && goes_on(start - back)).count();
        Some(self.layer.source_range(start - back..end))
    }
}

/// Adds `run`, to the last of `runs` where they touch.
fn push_range(runs: &mut Vec<Range<usize>>, run: &Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.start <= run.start && run.start <= last.end => last.end = last.end.max(run.end),
        _ => runs.push(run.clone()),
    }
}

/// Sorts `runs`, and makes one of those that touch.
pub(super) fn merge_ranges(runs: &mut Vec<Range<usize>>) {
    runs.sort_unstable_by_key(|run| run.start);
    runs.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
}
