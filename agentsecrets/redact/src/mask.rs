//! Values taken out of what a command writes: the redaction of answers, for a reader who waits. A prompt has
//! no line break at its end, so what is held back for the bytes that may follow is shown when none do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::patterns::Patterns;
use crate::stream::{StreamRedactor, Unit};
use agentsecrets_types::secret::Secret;

/// After so long without output, all is shown but what may be the beginning of a value.
const PAUSE: Duration = Duration::from_millis(40);
/// After so long that too.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// The values that are masked.
pub struct Values {
    values: Vec<Secret>,
    patterns: Arc<Patterns>,
}

/// Masks one stream of output.
pub struct Mask {
    values: Arc<Values>,
    scrubber: StreamRedactor,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is held.
    Empty,
    /// The scrubber may hold something.
    Flowing,
    /// It was emptied, but for what may be the beginning of a value.
    Paused,
}

impl Values {
    /// These.
    pub fn new(values: Vec<Secret>) -> Arc<Self> {
        let patterns = Patterns::build(&values);
        Arc::new(Self { values, patterns })
    }

    /// The number of bytes at the end of `text` that may begin a value, or one of its lines.
    fn begun(&self, text: &[u8]) -> usize {
        let lines = self.values.iter().flat_map(|value| value.expose().split(|byte| *byte == b'\n'));
        let begun = |line: &[u8]| {
            let most = text.len().min(line.len().saturating_sub(1));
            (1..=most).rev().find(|length| line.get(..*length).is_some_and(|start| text.ends_with(start)))
        };
        lines.filter_map(begun).max().unwrap_or(0)
    }
}

impl Mask {
    /// At the start of a stream.
    pub fn new(values: Arc<Values>) -> Self {
        let scrubber = StreamRedactor::new(values.patterns.clone(), Unit::Line);
        Self { values, scrubber, state: State::Empty }
    }

    /// Takes the next output, and gives what can be shown.
    pub fn pass(&mut self, output: Vec<u8>) -> Bytes {
        if output.is_empty() {
            return Bytes::new();
        }
        self.state = State::Flowing;
        self.scrubber.push(output.into())
    }

    /// The longest time without output before `pause` is due. `None`: nothing is held.
    pub fn patience(&self) -> Option<Duration> {
        match self.state {
            State::Empty => None,
            State::Flowing => Some(PAUSE),
            State::Paused => Some(LONG_PAUSE),
        }
    }

    /// There was no output for so long: gives what is shown now.
    pub fn pause(&mut self) -> Bytes {
        if self.state != State::Flowing {
            return self.finish();
        }
        let shown = self.scrubber.release(|held| self.values.begun(held));
        self.state = if self.scrubber.holds() { State::Paused } else { State::Empty };
        shown
    }

    /// There is no more output: gives the rest.
    pub fn finish(&mut self) -> Bytes {
        self.state = State::Empty;
        self.scrubber.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(values: &[&str]) -> Mask {
        Mask::new(Values::new(values.iter().map(|value| Secret::new(value.as_bytes().to_vec())).collect()))
    }

    fn text(bytes: Bytes) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_prompt_is_shown_at_a_pause_and_lines_at_once() {
        let mut mask = mask(&["hunter2/hunter2"]);
        assert_eq!(mask.patience(), None);
        assert_eq!(text(mask.pass(b"key hunter2/hunter2.\nPassword: ".to_vec())), {
            "key [REDACTED_BY_AGENTSECRETS].\n"
        });
        assert_eq!(mask.patience(), Some(PAUSE));
        assert_eq!(text(mask.pause()), "Password: ");
        assert_eq!(mask.patience(), None);
    }

    #[test]
    fn a_value_that_comes_in_pieces_between_pauses_is_masked() {
        let mut mask = mask(&["hunter2/hunter2"]);
        let mut shown = text(mask.pass(b"a hunt".to_vec())) + &text(mask.pause());
        assert_eq!(shown, "a ");
        for piece in ["er", "2/", "hunter", "2 b"] {
            shown += &text(mask.pass(piece.into()));
            shown += &text(mask.pause());
        }
        assert_eq!(shown, "a [REDACTED_BY_AGENTSECRETS] b");
    }

    #[test]
    fn what_only_looked_like_a_beginning_is_shown_after_a_while_and_at_the_end() {
        let mut mask = mask(&["hunter2/hunter2", "first line\nsecond line"]);
        assert_eq!(text(mask.pass(b"the secon".to_vec())) + &text(mask.pause()), "the ");
        assert_eq!(mask.patience(), Some(LONG_PAUSE));
        assert_eq!(text(mask.pause()), "secon");
        assert_eq!(text(mask.pass(b"hunt".to_vec())) + &text(mask.finish()), "hunt");
    }
}
