//! A server's messages on their way to the agent, searched like an answer's body. A message leaves when it is
//! whole, and is remembered: a secret that is cut in two by the end of a message is taken out from there on.

use std::sync::Arc;

use bytes::Bytes;

use super::patterns::Patterns;
use super::stream::{StreamRedactor, Unit};
use crate::guess_detector::RedactionReport;

/// Takes the agent's secrets out of the messages of one conversation.
pub struct Conversation {
    scrubber: StreamRedactor,
    patterns: Arc<Patterns>,
    findings: RedactionReport,
}

impl Conversation {
    pub(super) fn new(patterns: Arc<Patterns>, findings: RedactionReport) -> Self {
        Self { scrubber: StreamRedactor::new(patterns.clone(), Unit::Whole), patterns, findings }
    }

    /// Takes the next part of a message, and gives what may leave of it, perhaps nothing. With the last part
    /// everything leaves that was held back, since somebody waits for it.
    pub fn part(&mut self, bytes: Bytes, is_last: bool) -> Bytes {
        let mut clean = self.scrubber.push(bytes);
        if is_last {
            let rest = self.scrubber.release(|_| 0);
            if !rest.is_empty() {
                clean = Bytes::from([clean, rest].concat());
            }
        }
        self.scrubber.tell(&self.findings);
        clean
    }

    /// Whether the next message may come: pieces of a secret have not come back too often.
    pub fn may_go_on(&self) -> bool {
        self.findings.next_message()
    }

    /// Something short that is sent by itself, searched by itself.
    pub fn whole(&self, bytes: Bytes) -> Bytes {
        match self.patterns.scrub(&bytes) {
            None => bytes,
            Some(clean) => {
                self.findings.found(clean.has_piece);
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
    fn a_secret_in_parts_of_a_message_is_found() {
        let patterns = Patterns::build(&[Secret::new(b"hunter2/hunter2".to_vec())]);
        let findings = RedactionReport::default();
        let mut conversation = Conversation::new(patterns, findings.clone());
        let mut say =
            |text: &'static str, is_last| conversation.part(Bytes::from_static(text.as_bytes()), is_last);
        assert_eq!(say("hello", true), "hello");
        assert!(!findings.redacted());
        assert_eq!(say("it is hunter2/", false), "");
        assert_eq!(say("hunter2.", true), "it is [REDACTED_BY_AGENTSECRETS].");
        assert!(findings.redacted());
        assert_eq!(say("bye", true), "bye");
        assert_eq!(conversation.whole(Bytes::from_static(b"hunter2/hunter2")), "[REDACTED_BY_AGENTSECRETS]");
    }

    #[test]
    fn a_secret_that_is_cut_by_the_ends_of_messages_is_taken_out_as_soon_as_it_is_known() {
        let patterns = Patterns::build(&[Secret::new(b"correct-horse-battery".to_vec())]);
        let findings = RedactionReport::default();
        let mut conversation = Conversation::new(patterns, findings.clone());
        let mut say = |text: &'static str| conversation.part(Bytes::from_static(text.as_bytes()), true);
        assert_eq!(say("it is corr"), "it is corr");
        assert_eq!(say("ect-hor"), "ect-hor");
        assert_eq!(say("se-batt"), "[REDACTED_BY_AGENTSECRETS]");
        assert_eq!(say("ery, so"), ", so");
        assert_eq!(say("ery, so"), "ery, so");
        assert!(findings.redacted());
    }
}
