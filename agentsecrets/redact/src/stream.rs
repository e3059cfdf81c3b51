//! The search as a stream. Every byte that belongs to a match is removed, and each unbroken run of such bytes
//! becomes one marker. The output does not depend on chunk boundaries, unless a unit has left before the next
//! chunk completed a match.
//!
//! A match may continue in bytes that have not arrived, so some bytes wait. *Their content does not decide*
//! which ones: the last [`MAX_HELD`] bytes and up to [`MIN_EMIT`] more wait, whatever the secrets are. In a
//! response made of events or lines a whole one leaves at once; elsewhere whole lines leave after a pause.
//! The held bytes and the time therefore tell nothing about a secret; nor does the search time, since the
//! prefilter looks for eight bytes at once. Bytes that have left stay left context for as long as a match may
//! reach back: a secret that is wrapped in lines, each sent by itself, is removed from its second line on.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::patterns::{MARKER, Matches, Patterns};
use super::search::{MatchBounds, SPAN};
use crate::guess_detector::RedactionReport;

/// How many bytes wait: a match stretches over at most [`SPAN`], and beyond its end some must be known to tell how it
/// is to be read.
pub(super) const MAX_HELD: usize = SPAN + 192;
/// How many bytes leave at a time, at the least, where they are no unit.
const MIN_EMIT: usize = 256;
/// How many bytes that have left are remembered, for the same reasons.
const CONTEXT: usize = MAX_HELD;

/// The unit of a response that leaves at once, because it means something by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A line.
    Line,
    /// Ends with an empty line.
    Event,
    /// Nothing before the end.
    Whole,
}

/// Takes secrets out of one stream of bytes.
pub struct StreamRedactor {
    patterns: Arc<Patterns>,
    unit: Unit,
    /// Bytes that have left, then bytes that wait for more.
    window: Bytes,
    /// So many of the window have left.
    emitted: usize,
    /// Whether the window begins where the stream does.
    is_first: bool,
    /// Whether the last byte that left belonged to a match, and its marker has left with it.
    in_match: bool,
    /// Whether anything was removed that was not told of yet, and whether it was a piece of a secret.
    found: bool,
    has_piece: bool,
}

impl StreamRedactor {
    /// A redactor at the start of a stream.
    pub fn new(patterns: Arc<Patterns>, unit: Unit) -> Self {
        Self {
            patterns,
            unit,
            window: Bytes::new(),
            emitted: 0,
            is_first: true,
            in_match: false,
            found: false,
            has_piece: false,
        }
    }

    /// Takes the next bytes, and gives those that can leave (perhaps none).
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if chunk.is_empty() || (self.window.is_empty() && self.patterns.is_empty()) {
            return chunk;
        }
        let bytes = if self.window.is_empty() { chunk } else { join(&self.window, &chunk) };
        let tail = bytes.len().saturating_sub(MAX_HELD).max(self.emitted);
        let cut = match self.units(bytes.get(tail..).unwrap_or_default()) {
            // Bytes that drip leave some at a time.
            0 if tail - self.emitted < MIN_EMIT => self.emitted,
            units => tail + units,
        };
        self.emit(&bytes, cut, false)
    }

    /// Whether whole lines wait that may leave by themselves.
    pub fn has_line(&self) -> bool {
        line_end(self.held()) > 0
    }

    /// Nothing has come for a while: whole lines leave.
    pub fn flush_lines(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.window);
        let cut = self.emitted + line_end(bytes.get(self.emitted..).unwrap_or_default());
        self.emit(&bytes, cut, false)
    }

    /// Nothing has come for a while, and somebody waits: all leaves but so many of the last bytes as `keep`
    /// says of those that are held.
    pub fn flush(&mut self, keep: impl FnOnce(&[u8]) -> usize) -> Bytes {
        let bytes = std::mem::take(&mut self.window);
        let kept = keep(bytes.get(self.emitted..).unwrap_or_default());
        // What begins within the last bytes and leaves unfinished is a piece, whatever may follow it.
        self.emit(&bytes, bytes.len().saturating_sub(kept).max(self.emitted), kept == 0)
    }

    /// Whether anything waits.
    pub fn is_holding(&self) -> bool {
        !self.held().is_empty()
    }

    /// The message ends here, so what was held leaves. The stream may go on with another one.
    pub fn finish(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.window);
        let rest = self.emit(&bytes, bytes.len(), true);
        (self.window, self.emitted, self.is_first, self.in_match) = (Bytes::new(), 0, true, false);
        rest
    }

    /// Whether anything was removed that was not told of yet.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Notes in `report` what was removed since it was last told.
    pub(super) fn report_to(&mut self, report: &RedactionReport) {
        if std::mem::take(&mut self.found) {
            report.found(std::mem::take(&mut self.has_piece));
        }
    }

    fn held(&self) -> &[u8] {
        self.window.get(self.emitted..).unwrap_or_default()
    }

    /// The number of bytes of `tail` that form whole units.
    fn units(&self, tail: &[u8]) -> usize {
        match self.unit {
            Unit::Whole => 0,
            Unit::Line => line_end(tail),
            Unit::Event => event_end(tail),
        }
    }

    /// Lets go of what is held in `bytes[..cut]` and holds the rest. `is_last`: nothing follows.
    fn emit(&mut self, bytes: &Bytes, cut: usize, is_last: bool) -> Bytes {
        let clean = if cut > self.emitted {
            let Matches { runs, pieces } =
                self.patterns.matches(bytes, MatchBounds { first: self.is_first, last: is_last });
            let leaves = |piece: &Range<usize>| piece.end > self.emitted && piece.start < cut;
            self.has_piece |= pieces.iter().any(leaves);
            if runs.is_empty() {
                self.in_match = false;
                bytes.slice(self.emitted..cut)
            } else {
                self.redact_ranges(bytes, cut, &runs)
            }
        } else {
            Bytes::new()
        };
        let from = cut.saturating_sub(CONTEXT);
        self.window = bytes.slice(from..);
        self.emitted = cut - from;
        self.is_first &= from == 0;
        clean
    }

    fn redact_ranges(&mut self, bytes: &[u8], cut: usize, runs: &[Range<usize>]) -> Bytes {
        let mut clean = BytesMut::with_capacity(cut - self.emitted + MARKER.len());
        let mut at = self.emitted;
        let here = runs.iter().filter(|run| run.end > self.emitted && run.start < cut);
        for run in here {
            if run.start > at {
                self.in_match = false;
                clean.extend_from_slice(bytes.get(at..run.start).unwrap_or_default());
            }
            if !self.in_match {
                clean.extend_from_slice(MARKER);
            }
            (self.in_match, self.found) = (true, true);
            at = run.end.min(cut);
        }
        if at < cut {
            clean.extend_from_slice(bytes.get(at..cut).unwrap_or_default());
            self.in_match = false;
        }
        clean.freeze()
    }
}

/// The end of the last whole line of `bytes`.
fn line_end(bytes: &[u8]) -> usize {
    memchr::memrchr2(b'\n', b'\r', bytes).map_or(0, |at| at + 1)
}

/// The end of the last empty line of `bytes`.
fn event_end(bytes: &[u8]) -> usize {
    let is_empty_line = |end: usize| {
        let lines = bytes.get(..end).unwrap_or_default();
        [&b"\n\n"[..], b"\r\r", b"\n\r\n"].iter().any(|empty| lines.ends_with(empty))
    };
    memchr::memrchr2_iter(b'\n', b'\r', bytes).map(|at| at + 1).find(|end| is_empty_line(*end)).unwrap_or(0)
}

fn join(held: &[u8], chunk: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(held.len() + chunk.len());
    bytes.extend_from_slice(held);
    bytes.extend_from_slice(chunk);
    bytes.freeze()
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
