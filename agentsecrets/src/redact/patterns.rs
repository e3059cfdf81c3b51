//! What answers are searched for: every form of every secret that the agent may spend, in one automaton,
//! and in others those of what was minted, captured or computed since. The forms themselves are wiped
//! after it is built; the automaton holds them as transitions, which nobody can wipe, so it lives no longer
//! than the policy that it was built for.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::additions::Additions;
use super::encodings::{Form, forms};
use crate::base::secret::Secret;

/// What stands where a secret stood.
pub const MARKER: &[u8] = b"[REDACTED_BY_AGENTSECRETS]";

/// The longest pattern. Longer forms are cut into pieces of this length, which together cover them (and
/// catch an answer that holds only a part). It is also what bounds how much a stream holds back, so
/// that this bound tells nothing about any secret's length.
pub(super) const LONGEST: usize = 256;

/// How much of a pattern the first, cheap search looks for.
const GATE: usize = 8;
/// Up to so many gate patterns, a table with one look-up a byte is worth its memory.
const GATE_TABLE: usize = 512;

/// The forms of a set of secrets, ready to be searched for.
pub struct Patterns {
    /// One for each set of secrets that was there when these were made.
    known: Vec<Arc<Search>>,
    /// What is added while they are in use.
    additions: Arc<Additions>,
}

/// The forms of some secrets that are searched for together.
pub(super) enum Search {
    /// There is no secret.
    Nothing,
    /// `gate` finds whatever could be a match, and is fast because it almost never finds anything;
    /// `all` then finds the matches. The gate looks at the *end* of each pattern: keys begin alike.
    For { gate: Box<AhoCorasick>, all: Box<AhoCorasick> },
    /// There is more than an automaton can hold: no answer can be searched.
    Impossible,
}

impl Patterns {
    /// The patterns of all `values`.
    pub fn build<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Arc<Self> {
        Self::with(values, Arc::default())
    }

    /// The patterns of all `values` and of whatever `additions` hold, now and later: a value is in force,
    /// also for answers under way, as soon as it is added.
    pub fn with<'a>(values: impl IntoIterator<Item = &'a Secret>, additions: Arc<Additions>) -> Arc<Self> {
        Arc::new(Self { known: vec![Arc::new(Search::of(values))], additions })
    }

    /// These and the patterns of `values`, which matter to one request alone, such as its signature.
    pub fn and<'a>(&self, values: impl IntoIterator<Item = &'a Secret>) -> Arc<Self> {
        let known = self.known.iter().cloned().chain([Arc::new(Search::of(values))]).collect();
        Arc::new(Self { known, additions: self.additions.clone() })
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.all(|search| matches!(search, Search::Nothing))
    }

    /// Whether answers cannot be searched, so that none may pass.
    pub(super) fn is_impossible(&self) -> bool {
        !self.all(|search| !matches!(search, Search::Impossible))
    }

    fn all(&self, is: impl Fn(&Search) -> bool) -> bool {
        self.known.iter().all(|search| is(search)) && is(&self.additions.search())
    }

    /// Adds to `runs` what of `bytes` belongs to a match: sorted, and united where runs touch. What
    /// `runs` holds already must lie at the start of `bytes`.
    pub(super) fn cover(&self, bytes: &[u8], runs: &mut Vec<Range<usize>>) {
        let mut all = std::mem::take(runs);
        for search in &self.known {
            search.find(bytes, &mut all);
        }
        self.additions.search().find(bytes, &mut all);
        all.sort_by_key(|run| run.start);
        for run in all {
            match runs.last_mut() {
                Some(last) if last.end >= run.start => last.end = last.end.max(run.end),
                _ => runs.push(run),
            }
        }
    }

    /// `bytes` with the marker in place of every match, or nothing where there is none.
    pub(super) fn scrub(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut runs = Vec::new();
        self.cover(bytes, &mut runs);
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
        Some(clean)
    }
}

impl Search {
    /// For all `values`.
    pub(super) fn of<'a>(values: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut patterns: BTreeSet<Form> = BTreeSet::new();
        for value in values {
            for form in forms(value.expose()) {
                patterns.extend(pieces(&form));
            }
        }
        Self::of_patterns(&patterns)
    }

    /// Adds every match to `runs`, in any order.
    fn find(&self, bytes: &[u8], runs: &mut Vec<Range<usize>>) {
        let (gate, all) = match self {
            Search::Nothing => return,
            Search::For { gate, all } => (gate, all),
            Search::Impossible => return runs.push(0..bytes.len()),
        };
        if !gate.is_match(bytes) {
            return;
        }
        match all.try_find_overlapping_iter(bytes) {
            Ok(matches) => runs.extend(matches.map(|found| found.range())),
            Err(_) => runs.push(0..bytes.len()),
        }
    }

    fn of_patterns(patterns: &BTreeSet<Form>) -> Self {
        if patterns.is_empty() {
            return Self::Nothing;
        }
        let ends: BTreeSet<&[u8]> = patterns.iter().map(|pattern| end_of(pattern)).collect();
        let table = ends.len() <= GATE_TABLE;
        let gate = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .kind(Some(if table { AhoCorasickKind::DFA } else { AhoCorasickKind::ContiguousNFA }))
            .build(&ends);
        let all = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns.iter().map(|pattern| &**pattern));
        match (gate, all) {
            (Ok(gate), Ok(all)) => Self::For { gate: Box::new(gate), all: Box::new(all) },
            _ => Self::Impossible,
        }
    }
}

fn end_of(pattern: &[u8]) -> &[u8] {
    pattern.get(pattern.len().saturating_sub(GATE)..).unwrap_or(pattern)
}

/// Cuts a form into pieces of at most [`LONGEST`] bytes that cover it; the last one overlaps the one before.
fn pieces(form: &[u8]) -> Vec<Form> {
    if form.len() <= LONGEST {
        return vec![Form::of(form)];
    }
    let last = form.get(form.len() - LONGEST..).unwrap_or(form);
    form.chunks_exact(LONGEST).chain([last]).map(Form::of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(values: &[&str]) -> Arc<Patterns> {
        let secrets: Vec<Secret> = values.iter().map(|v| Secret::new(v.as_bytes().to_vec())).collect();
        Patterns::build(&secrets)
    }

    fn scrubbed(values: &[&str], text: &str) -> Option<String> {
        patterns(values).scrub(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn text_without_a_secret_is_left_alone() {
        assert_eq!(scrubbed(&["hunter2hunter2"], "hunter2 hunter2"), None);
        assert_eq!(scrubbed(&[], "anything"), None);
        assert!(patterns(&[]).is_empty());
    }

    #[test]
    fn overlapping_and_touching_secrets_become_one_marker() {
        assert_eq!(
            scrubbed(&["abcdefgh", "efghijkl"], "<abcdefghijkl>").as_deref(),
            Some("<[REDACTED_BY_AGENTSECRETS]>")
        );
        assert_eq!(
            scrubbed(&["abcdefgh"], "abcdefghabcdefgh-abcdefgh").as_deref(),
            Some("[REDACTED_BY_AGENTSECRETS]-[REDACTED_BY_AGENTSECRETS]")
        );
        // A secret within a secret.
        assert_eq!(
            scrubbed(&["abcdefghijkl", "efgh"], "abcdefghijkl").as_deref(),
            Some("[REDACTED_BY_AGENTSECRETS]")
        );
    }

    #[test]
    fn a_long_secret_is_covered_by_its_pieces_to_the_last_byte() {
        let long: String = (0..1000).map(|n| format!("{n:03}")).collect();
        let text = format!("[{long}]");
        assert_eq!(scrubbed(&[&long], &text).as_deref(), Some("[[REDACTED_BY_AGENTSECRETS]]"));
    }
}
