//! MaskedValues taken out of what a command writes: the redaction of answers, for a reader who waits. A prompt has
//! no line break at its end, so what is held back for the bytes that may follow is shown when none do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::patterns::Patterns;
use crate::stream::{StreamRedactor, Unit};
use agentsecrets_types::secret::Secret;

/// After so long without output, all is shown but what may be the beginning of a value.
const IDLE_TIMEOUT: Duration = Duration::from_millis(40);
/// After so long that too.
const FINAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The values that are masked.
pub struct MaskedValues {
    values: Vec<Secret>,
    patterns: Arc<Patterns>,
}

/// Masks one stream of output.
pub struct Mask {
    values: Arc<MaskedValues>,
    stream: StreamRedactor,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is held.
    Empty,
    /// The stream may hold something.
    Holding,
    /// It was emptied, but for what may be the beginning of a value.
    HoldingPrefix,
}

impl MaskedValues {
    /// These.
    pub fn new(values: Vec<Secret>) -> Arc<Self> {
        let patterns = Patterns::build(&values);
        Arc::new(Self { values, patterns })
    }

    /// The number of bytes at the end of `text` that may begin a value, or one of its lines.
    fn prefix_len(&self, text: &[u8]) -> usize {
        let lines = self.values.iter().flat_map(|value| value.expose().split(|byte| *byte == b'\n'));
        let prefix_len = |line: &[u8]| {
            let most = text.len().min(line.len().saturating_sub(1));
            (1..=most).rev().find(|length| line.get(..*length).is_some_and(|start| text.ends_with(start)))
        };
        lines.filter_map(prefix_len).max().unwrap_or(0)
    }
}

impl Mask {
    /// At the start of a stream.
    pub fn new(values: Arc<MaskedValues>) -> Self {
        let stream = StreamRedactor::new(values.patterns.clone(), Unit::Line);
        Self { values, stream, state: State::Empty }
    }

    /// Takes the next output, and gives what can be shown.
    pub fn push(&mut self, output: Vec<u8>) -> Bytes {
        if output.is_empty() {
            return Bytes::new();
        }
        self.state = State::Holding;
        self.stream.push(output.into())
    }

    /// The longest time without output before `pause` is due. `None`: nothing is held.
    pub fn timeout(&self) -> Option<Duration> {
        match self.state {
            State::Empty => None,
            State::Holding => Some(IDLE_TIMEOUT),
            State::HoldingPrefix => Some(FINAL_TIMEOUT),
        }
    }

    /// There was no output for so long: gives what is shown now.
    pub fn pause(&mut self) -> Bytes {
        if self.state != State::Holding {
            return self.finish();
        }
        let shown = self.stream.flush(|held| self.values.prefix_len(held));
        self.state = if self.stream.is_holding() { State::HoldingPrefix } else { State::Empty };
        shown
    }

    /// There is no more output: gives the rest.
    pub fn finish(&mut self) -> Bytes {
        self.state = State::Empty;
        self.stream.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(values: &[&str]) -> Mask {
        Mask::new(MaskedValues::new(
            values.iter().map(|value| Secret::new(value.as_bytes().to_vec())).collect(),
        ))
    }

    fn text(bytes: Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn prompt_is_shown_after_idle_timeout() {
        let mut mask = mask(&["hunter2/hunter2"]);
        assert_eq!(mask.timeout(), None);
        assert_eq!(text(mask.push(b"key hunter2/hunter2.\nPassword: ".to_vec())), {
            "key [REDACTED_BY_AGENTSECRETS].\n"
        });
        assert_eq!(mask.timeout(), Some(IDLE_TIMEOUT));
        assert_eq!(text(mask.pause()), "Password: ");
        assert_eq!(mask.timeout(), None);
    }

    #[test]
    fn value_split_by_pauses_is_masked() {
        let mut mask = mask(&["hunter2/hunter2"]);
        let mut shown = text(mask.push(b"a hunt".to_vec())) + &text(mask.pause());
        assert_eq!(shown, "a ");
        for piece in ["er", "2/", "hunter", "2 b"] {
            shown += &text(mask.push(piece.into()));
            shown += &text(mask.pause());
        }
        assert_eq!(shown, "a [REDACTED_BY_AGENTSECRETS] b");
    }

    #[test]
    fn false_prefix_is_shown_after_final_timeout() {
        let mut mask = mask(&["hunter2/hunter2", "first line\nsecond line"]);
        assert_eq!(text(mask.push(b"the secon".to_vec())) + &text(mask.pause()), "the ");
        assert_eq!(mask.timeout(), Some(FINAL_TIMEOUT));
        assert_eq!(text(mask.pause()), "secon");
        assert_eq!(text(mask.push(b"hunt".to_vec())) + &text(mask.finish()), "hunt");
    }
}
