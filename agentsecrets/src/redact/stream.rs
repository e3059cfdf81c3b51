//! The search as a stream. Every byte that belongs to a match is removed, and each unbroken run of such
//! bytes becomes one marker: however the bytes are cut into chunks, the output is the same.
//!
//! A match may go on in bytes that have not come yet, so some must wait. Which ones is decided *without
//! looking at whether they match*: those after the last line break, at most one less than the longest
//! pattern, which is the same number for every secret. Somebody who measures what is held back
//! therefore learns nothing about a secret. (The gate of the search looks for eight bytes at once: time
//! spent on it does not lead to a secret byte by byte either.) No pattern holds a line break, so lines (JSON lines, events
//! of an event stream) leave at once.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::patterns::{LONGEST, MARKER, Patterns};

/// Takes secrets out of one stream of bytes.
pub struct Scrubber {
    patterns: Arc<Patterns>,
    /// What waits for the bytes that follow.
    held: Bytes,
    /// So many of the held bytes are known to belong to a match.
    covered: usize,
    /// Whether the last byte that left belonged to a match, and its marker has left with it.
    open: bool,
    found: bool,
}

impl Scrubber {
    /// A scrubber at the start of a stream.
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self { patterns, held: Bytes::new(), covered: 0, open: false, found: false }
    }

    /// Takes the next bytes, and gives those that can leave (perhaps none).
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.patterns.is_empty() || chunk.is_empty() {
            return chunk;
        }
        let bytes = if self.held.is_empty() { chunk } else { join(&self.held, &chunk) };
        let cut = leaving(&bytes);
        self.leave(&bytes, cut)
    }

    /// The message ends here, so what was held leaves. The stream may go on with another one.
    pub fn finish(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.held);
        let rest = self.leave(&bytes, bytes.len());
        self.open = false;
        rest
    }

    /// Whether anything was removed so far.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Lets go of `bytes[..cut]` and holds the rest.
    fn leave(&mut self, bytes: &Bytes, cut: usize) -> Bytes {
        let mut runs = Vec::new();
        if self.covered > 0 {
            runs.push(0..self.covered);
        }
        self.patterns.cover(bytes, &mut runs);
        self.covered = 0;
        let clean = if runs.is_empty() { bytes.slice(..cut) } else { self.without(bytes, cut, &runs) };
        if runs.is_empty() && cut > 0 {
            self.open = false;
        }
        self.held = bytes.slice(cut..);
        clean
    }

    fn without(&mut self, bytes: &[u8], cut: usize, runs: &[Range<usize>]) -> Bytes {
        let mut clean = BytesMut::with_capacity(cut + MARKER.len());
        let mut at = 0;
        let mut open = self.open;
        for run in runs {
            if run.start <= cut && cut < run.end {
                self.covered = run.end - cut;
            }
            if run.start >= cut {
                break;
            }
            if run.start > at {
                open = false;
            }
            clean.extend_from_slice(bytes.get(at..run.start).unwrap_or_default());
            if !open {
                clean.extend_from_slice(MARKER);
                self.found = true;
            }
            open = true;
            at = run.end.min(cut);
        }
        if at < cut {
            clean.extend_from_slice(bytes.get(at..cut).unwrap_or_default());
            open = false;
        }
        self.open = open;
        clean.freeze()
    }
}

/// How many of `bytes` can leave before more is known.
fn leaving(bytes: &[u8]) -> usize {
    let hold_from = bytes.len().saturating_sub(LONGEST - 1);
    let tail = bytes.get(hold_from..).unwrap_or_default();
    let line = tail.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
    hold_from + line
}

fn join(held: &[u8], chunk: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(held.len() + chunk.len());
    bytes.extend_from_slice(held);
    bytes.extend_from_slice(chunk);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::base::secret::Secret;

    fn patterns(values: &[Vec<u8>]) -> Arc<Patterns> {
        let secrets: Vec<Secret> = values.iter().map(|value| Secret::new(value.clone())).collect();
        Patterns::build(&secrets)
    }

    /// The output when the stream comes cut at `cuts`.
    fn stream(patterns: &Arc<Patterns>, text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut scrubber = Scrubber::new(patterns.clone());
        let mut out = Vec::new();
        let mut at = 0;
        for cut in cuts {
            let end = (at + cut).min(text.len());
            out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text[at..end])));
            at = end;
        }
        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text[at..])));
        out.extend_from_slice(&scrubber.finish());
        out
    }

    fn contains(haystack: &[u8], needle: &[u8]) -> bool {
        haystack.windows(needle.len()).any(|window| window == needle)
    }

    #[test]
    fn a_secret_cut_anywhere_is_found() {
        let patterns = patterns(&[b"hunter2hunter2".to_vec()]);
        let text = b"the password is hunter2hunter2, they say";
        for cut in 0..text.len() {
            assert_eq!(
                stream(&patterns, text, &[cut]),
                b"the password is [REDACTED_BY_AGENTSECRETS], they say",
                "cut at {cut}"
            );
        }
        assert_eq!(stream(&patterns, text, &[1; 40]), stream(&patterns, text, &[]));
    }

    #[test]
    fn a_whole_line_leaves_at_once() {
        let patterns = patterns(&[b"hunter2hunter2".to_vec()]);
        let mut scrubber = Scrubber::new(patterns);
        let event = Bytes::from_static(b"data: hello\n\n");
        assert_eq!(scrubber.push(event.clone()), event);
    }

    #[test]
    fn what_is_held_back_does_not_depend_on_what_it_says() {
        let patterns = patterns(&[b"hunter2hunter2".to_vec()]);
        let lengths = |text: &'static [u8]| {
            let mut scrubber = Scrubber::new(patterns.clone());
            text.chunks(7).map(|chunk| scrubber.push(Bytes::from_static(chunk)).len()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(b"say hunter2hunte? and more"), lengths(b"say nothing of it, and more"));
    }

    #[test]
    fn a_run_longer_than_what_is_held_back_is_one_marker() {
        let patterns = patterns(&[b"aaaaaaaa".to_vec()]);
        let text = [b"<".to_vec(), vec![b'a'; 5000], b">".to_vec()].concat();
        assert_eq!(stream(&patterns, &text, &[100, 1, 400, 256, 255]), b"<[REDACTED_BY_AGENTSECRETS]>");
    }

    /// A text of pieces, some of which are forms of the secrets, over few letters so that near misses are common.
    fn texts() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>, Vec<usize>)> {
        let secret = proptest::collection::vec(proptest::sample::select(b"abc\"/&+ :\n".to_vec()), 4..40);
        proptest::collection::vec(secret, 1..4).prop_flat_map(|secrets| {
            let forms: Vec<Vec<u8>> = secrets
                .iter()
                .flat_map(|secret| super::super::encodings::forms(secret))
                .map(|form| form.to_vec())
                .chain([b"abc".to_vec(), b"\n".to_vec(), b"".to_vec()])
                .collect();
            let piece = prop_oneof![
                2 => proptest::sample::select(forms),
                1 => proptest::collection::vec(any::<u8>(), 0..20),
                1 => proptest::collection::vec(proptest::sample::select(b"abc\"/&+ :\n".to_vec()), 0..300),
            ];
            let text = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
            (Just(secrets), text, proptest::collection::vec(0usize..80, 0..30))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_chunking_gives_the_same_output_and_no_form_survives((secrets, text, cuts) in texts()) {
            let patterns = patterns(&secrets);
            let whole = patterns.scrub(&text).unwrap_or_else(|| text.clone());
            prop_assert_eq!(&stream(&patterns, &text, &cuts), &whole);
            prop_assert_eq!(&stream(&patterns, &text, &vec![1; text.len()]), &whole);
            let bare = String::from_utf8_lossy(&whole).replace("[REDACTED_BY_AGENTSECRETS]", "\u{0}");
            for form in secrets.iter().flat_map(|secret| super::super::encodings::forms(secret)) {
                prop_assert!(!contains(bare.as_bytes(), &form));
            }
        }

        #[test]
        fn bytes_without_a_match_pass_unchanged(
            text in proptest::collection::vec(any::<u8>(), 0..2000),
            cuts in proptest::collection::vec(0usize..300, 0..10),
        ) {
            let patterns = patterns(&[b"a secret that nobody guesses".to_vec()]);
            prop_assert_eq!(stream(&patterns, &text, &cuts), text);
        }

        #[test]
        fn base64_of_text_around_a_secret_is_redacted(before in ".{0,7}", after in ".{0,7}", cut in 0usize..60) {
            let patterns = patterns(&[b"hunter2hunter2".to_vec()]);
            let text = STANDARD.encode(format!("{before}hunter2hunter2{after}"));
            let clean = stream(&patterns, text.as_bytes(), &[cut]);
            prop_assert!(contains(&clean, MARKER));
        }
    }

    /// `cargo test --lib redact::stream::tests::throughput -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn throughput() {
        let secrets: Vec<Vec<u8>> =
            (0..5).map(|n| format!("sk_live_{n}f8a7Kd93jfLLw02mXz{n}").into_bytes()).collect();
        let patterns = patterns(&secrets);
        let chunk = Bytes::from(
            (0..16384u32).map(|n| (n.wrapping_mul(2654435761) >> 13) as u8 & 0x7f).collect::<Vec<_>>(),
        );
        let mut scrubber = Scrubber::new(patterns);
        let start = std::time::Instant::now();
        let rounds = 2000;
        let passed: usize = (0..rounds).map(|_| scrubber.push(chunk.clone()).len()).sum();
        let seconds = start.elapsed().as_secs_f64();
        println!("{:.0} MB/s", passed as f64 / 1e6 / seconds);
    }
}
