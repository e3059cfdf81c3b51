//! The search for a set of secrets in one text: a gate that almost never opens, an automaton that finds seeds
//! (short pieces of a form), and from each seed a comparison of what stands around it with the form itself.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use zeroize::Zeroizing;

use super::unescape::Sink;
use crate::canonical::fold_with_places;
use crate::encodings::{Encoding, encodings};
use crate::fragments::fragments;
use crate::prefilter::Prefilter;
use agentsecrets_types::secret::Secret;

/// A match stretches over at most so many bytes of an answer, escapes and line breaks included.
pub(super) const SPAN: usize = 448;

/// The matches in a text.
#[derive(Default)]
pub(super) struct Match {
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
    places: Vec<Range<usize>>,
}

impl Layer {
    /// The text itself.
    pub(super) fn plain(text: &[u8]) -> Self {
        Self { bytes: Zeroizing::new(text.to_vec()), places: (0..text.len()).map(|at| at..at + 1).collect() }
    }

    /// Takes one layer of escapes off.
    pub(super) fn unescaped(&self) -> Self {
        let mut below =
            Below { layer: self, bytes: Vec::with_capacity(self.bytes.len()), places: Vec::new() };
        super::unescape::unescape(&self.bytes, &mut below);
        Self { bytes: Zeroizing::new(below.bytes), places: below.places }
    }

    /// The original range of `range`.
    fn place(&self, range: Range<usize>) -> Range<usize> {
        let start = self.places.get(range.start).map_or(0, |place| place.start);
        let last = range.end.checked_sub(1).and_then(|last| self.places.get(last));
        start..last.map_or(start, |place| place.end)
    }
}

struct Below<'l> {
    layer: &'l Layer,
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Sink for Below<'_> {
    fn literal(&mut self, bytes: &[u8], at: usize) {
        self.bytes.extend_from_slice(bytes);
        self.places.extend_from_slice(self.layer.places.get(at..at + bytes.len()).unwrap_or_default());
    }

    fn escape(&mut self, bytes: &[u8], at: usize, length: usize) {
        let place = self.layer.place(at..at + length);
        self.bytes.extend_from_slice(bytes);
        self.places.extend(bytes.iter().map(|_| place.clone()));
    }
}

/// The secrets of one set, ready to be searched for.
pub(super) enum Search {
    /// There is no secret.
    Nothing,
    /// There are some.
    For(Box<Known>),
    /// There is more than an automaton can hold: no answer can be searched.
    Impossible,
}

/// A set of secrets.
pub(super) struct Known {
    /// None where some seed is too short for it.
    gate: Option<Prefilter>,
    seeds: AhoCorasick,
    /// Of each of its patterns, the form and where in it the seed is.
    origins: Vec<(usize, usize)>,
    forms: Vec<Encoding>,
}

impl Search {
    /// For all `values`.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let parts = values.into_iter().flat_map(|value| fragments(value.expose()));
        let forms: Vec<Encoding> = parts.flat_map(|part| encodings(&part)).collect();
        if forms.is_empty() {
            return Self::Nothing;
        }
        let seeds = || {
            forms.iter().enumerate().flat_map(|(number, form)| {
                let cut = |seed: &Range<usize>| form.bytes.get(seed.clone()).unwrap_or_default();
                form.seeds.iter().map(move |seed| (number, seed.start, cut(seed)))
            })
        };
        let gate = Prefilter::of(seeds().map(|(_, _, seed)| seed));
        // Without a gate it sees every byte.
        let kind = if gate.is_some() { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(kind))
            .build(seeds().map(|(_, _, seed)| seed));
        match automaton {
            Ok(automaton) => {
                let origins = seeds().map(|(form, at, _)| (form, at)).collect();
                Self::For(Box::new(Known { gate, seeds: automaton, origins, forms }))
            }
            Err(_) => Self::Impossible,
        }
    }

    /// Whether there may be anything in `folded`.
    pub(super) fn may_match(&self, folded: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::For(known) => match &known.gate {
                Some(gate) => gate.may_hold(folded),
                None => known.seeds.is_match(folded),
            },
            Self::Impossible => !folded.is_empty(),
        }
    }

    /// Adds to `found` what there is in `layer`.
    pub(super) fn find(&self, layer: &Layer, ends: MatchBounds, found: &mut Match) {
        match self {
            Self::Nothing => {}
            Self::For(known) => known.find(layer, ends, found),
            Self::Impossible => found.runs.push(layer.place(0..layer.bytes.len())),
        }
    }

    /// The approximate memory in bytes.
    pub(super) fn size(&self) -> usize {
        let Self::For(known) = self else { return 0 };
        let forms: usize =
            known.forms.iter().map(|form| form.bytes.len() + form.seeds.len() * 16 + 160).sum();
        known.seeds.memory_usage() + forms + known.origins.len() * 32 + size_of::<Prefilter>() + (32 << 10)
    }
}

impl Known {
    fn find(&self, layer: &Layer, ends: MatchBounds, found: &mut Match) {
        let (folded, places) = fold_with_places(&layer.bytes);
        let text = Text { layer, ends, folded: Zeroizing::new(folded), places };
        for seed in self.seeds.find_overlapping_iter(&*text.folded) {
            let Some((number, offset)) = self.origins.get(seed.pattern().as_usize()).copied() else {
                continue;
            };
            let Some(form) = self.forms.get(number) else { continue };
            let stretch = text.compare(form, seed.range(), offset);
            text.judge(form, &stretch, offset..offset + seed.len(), found);
        }
    }
}

/// A layer that is searched.
struct Text<'l> {
    layer: &'l Layer,
    ends: MatchBounds,
    folded: Zeroizing<Vec<u8>>,
    /// The position in the layer of each folded byte.
    places: Vec<usize>,
}

/// A stretch of folded text that is a stretch of a form.
struct Stretch {
    start: usize,
    end: usize,
    /// The offset in the encoding.
    offset: usize,
    /// Whether the form goes on before, and behind, but the text does otherwise.
    is_piece: bool,
}

impl Text<'_> {
    /// Extends a match around a seed, which is at `offset` of `form`, as far as the text equals the encoding.
    fn compare(&self, form: &Encoding, seed: Range<usize>, offset: usize) -> Stretch {
        // Farther than any piece, so that one is told from a whole.
        let most = SPAN.min(form.bytes.len());
        let before = self.folded.get(..seed.start).unwrap_or_default().iter().rev();
        let form_before = form.bytes.get(..offset).unwrap_or_default().iter().rev();
        let left = before.zip(form_before).take(most).take_while(|(text, form)| text == form).count();
        let form_end = offset + seed.len();
        let after = self.folded.get(seed.end..).unwrap_or_default().iter();
        let form_after = form.bytes.get(form_end..).unwrap_or_default().iter();
        let right = after.zip(form_after).take(most).take_while(|(text, form)| text == form).count();
        // What could have stood there, had the text gone on as the form does.
        let (room_left, room_right) = (seed.start, self.folded.len() - seed.end);
        let room_left = if self.ends.first { usize::MAX } else { room_left };
        let room_right = if self.ends.last { usize::MAX } else { room_right };
        let ends_left = left < offset.min(room_left).min(most);
        let rest = form.whole.saturating_sub(form_end).min(room_right).min(most);
        Stretch {
            start: seed.start - left,
            end: seed.end + right,
            offset: offset - left,
            is_piece: ends_left || right < rest,
        }
    }

    /// Adds to `found` what of `stretch` must not pass: the whole, and the pieces that have `seed` in them, since
    /// every other piece has another.
    fn judge(&self, form: &Encoding, stretch: &Stretch, seed: Range<usize>, found: &mut Match) {
        let (from, to) = (stretch.offset, stretch.offset + stretch.end - stretch.start);
        let mut cover = |piece: Range<usize>| {
            let start = stretch.start + piece.start - from;
            let run = start..start + piece.len();
            let run = self.is_exact(form, &run).then(|| self.place(form, &piece, run)).flatten();
            if let Some(run) = &run {
                join(&mut found.runs, run);
                join(if stretch.is_piece { &mut found.pieces } else { &mut found.wholes }, run);
            }
            run.is_some()
        };
        if from == 0 && to >= form.whole {
            cover(0..to);
        }
        if form.exactly.is_some() || form.core.len() <= form.least {
            return;
        }
        let first = from.max(form.core.start).max(seed.end.saturating_sub(form.least));
        let last = to.min(form.core.end).min(seed.start + form.least);
        for start in first..(last + 1).saturating_sub(form.least) {
            let end = start + form.least;
            // What everybody knows goes with the secret that it belongs to.
            let known_before = start == form.core.start && from == 0;
            let known_behind = end == form.core.end && to >= form.whole;
            let with = if known_before { 0 } else { start }..if known_behind { to } else { end };
            if !cover(with) {
                cover(start..end);
            }
        }
    }

    fn is_exact(&self, form: &Encoding, run: &Range<usize>) -> bool {
        let Some(exactly) = &form.exactly else { return true };
        let Some(start) = self.places.get(run.start).copied() else { return false };
        self.layer
            .bytes
            .get(start..)
            .is_some_and(|rest| rest.starts_with(exactly.get(..form.whole).unwrap_or(exactly)))
    }

    /// The original range of `run`, which is `piece` of `form`; `None` if it stretches too far.
    fn place(&self, form: &Encoding, piece: &Range<usize>, run: Range<usize>) -> Option<Range<usize>> {
        let bytes = &*self.layer.bytes;
        let mut start = *self.places.get(run.start)?;
        let mut end = self.places.get(run.end.checked_sub(1)?)? + 1;
        if self.layer.place(start..end).len() > SPAN {
            return None;
        }
        let is_base64 =
            |at: usize| bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || b"+/-_".contains(b));
        if form.leans.0 && piece.start == 0 && start > 0 && is_base64(start - 1) {
            start -= 1;
        }
        if form.leans.1 && piece.end == form.whole && is_base64(end) {
            end += 1;
        }
        // Not half a character.
        let goes_on = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        if bytes.get(end - 1).is_some_and(|byte| !byte.is_ascii()) {
            end += (0..3).take_while(|more| goes_on(end + more)).count();
        }
        let back = (0..3).take_while(|back| start > *back && goes_on(start - back)).count();
        Some(self.layer.place(start - back..end))
    }
}

/// Adds `run`, to the last of `runs` where they touch.
fn join(runs: &mut Vec<Range<usize>>, run: &Range<usize>) {
    match runs.last_mut() {
        Some(last) if last.start <= run.start && run.start <= last.end => last.end = last.end.max(run.end),
        _ => runs.push(run.clone()),
    }
}

/// Sorts `runs`, and makes one of those that touch.
pub(super) fn unite(runs: &mut Vec<Range<usize>>) {
    runs.sort_unstable_by_key(|run| run.start);
    runs.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
}
