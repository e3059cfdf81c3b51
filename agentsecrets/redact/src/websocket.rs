//! A server's messages on their way to the agent, searched like an answer's body. A message leaves when it is
//! whole, and is remembered: a secret that is cut in two by the end of a message is taken out from there on.

use std::sync::Arc;

use bytes::Bytes;

use super::patterns::Patterns;
use super::stream::{StreamRedactor, Unit};
use crate::guess_detector::RedactionReport;

/// Takes the agent's secrets out of the messages of one conversation.
pub struct Conversation {
    stream: StreamRedactor,
    patterns: Arc<Patterns>,
    report: RedactionReport,
}

impl Conversation {
    pub(super) fn new(patterns: Arc<Patterns>, report: RedactionReport) -> Self {
        Self { stream: StreamRedactor::new(patterns.clone(), Unit::Whole), patterns, report }
    }

    /// Takes the next part of a message, and gives what may leave of it, perhaps nothing. With the last part
    /// everything leaves that was held back, since somebody waits for it.
    pub fn part(&mut self, bytes: Bytes, is_last: bool) -> Bytes {
        let mut clean = self.stream.push(bytes);
        if is_last {
            let rest = self.stream.flush(|_| 0);
            if !rest.is_empty() {
                clean = Bytes::from([clean, rest].concat());
            }
        }
        self.stream.report_to(&self.report);
        clean
    }

    /// Whether the next message may come: pieces of a secret have not come back too often.
    pub fn may_go_on(&self) -> bool {
        self.report.next_message()
    }

    /// Something short that is sent by itself, searched by itself.
    pub fn whole(&self, bytes: Bytes) -> Bytes {
        match self.patterns.redact_bytes(&bytes) {
            None => bytes,
            Some(clean) => {
                self.report.found(clean.has_piece);
                clean.bytes.into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentsecrets_types::secret::Secret;

    #[test]
    fn secret_in_message_parts_is_redacted() {
        let patterns = Patterns::build(&[Secret::new(b"hunter2/hunter2".to_vec())]);
        let report = RedactionReport::default();
        let mut conversation = Conversation::new(patterns, report.clone());
        let mut say =
            |text: &'static str, is_last| conversation.part(Bytes::from_static(text.as_bytes()), is_last);
        assert_eq!(say("hello", true), "hello");
        assert!(!report.redacted());
        assert_eq!(say("it is hunter2/", false), "");
        assert_eq!(say("hunter2.", true), "it is [REDACTED_BY_AGENTSECRETS].");
        assert!(report.redacted());
        assert_eq!(say("bye", true), "bye");
        assert_eq!(conversation.whole(Bytes::from_static(b"hunter2/hunter2")), "[REDACTED_BY_AGENTSECRETS]");
    }

    #[test]
    fn secret_split_across_messages_is_redacted_once_recognised() {
        let patterns = Patterns::build(&[Secret::new(b"correct-horse-battery".to_vec())]);
        let report = RedactionReport::default();
        let mut conversation = Conversation::new(patterns, report.clone());
        let mut say = |text: &'static str| conversation.part(Bytes::from_static(text.as_bytes()), true);
        assert_eq!(say("it is corr"), "it is corr");
        assert_eq!(say("ect-hor"), "ect-hor");
        assert_eq!(say("se-batt"), "[REDACTED_BY_AGENTSECRETS]");
        assert_eq!(say("ery, so"), ", so");
        assert_eq!(say("ery, so"), "ery, so");
        assert!(report.redacted());
    }
}
