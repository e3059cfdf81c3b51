//! The bytes that leave a stream, and their timing.

use proptest::prelude::*;

use super::*;
use crate::patterns::tests::patterns;
use crate::test_encoders::ENCODERS;

/// The output when the stream comes cut at `cuts`.
fn redact_chunks(patterns: &Arc<Patterns>, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = StreamRedactor::new(patterns.clone(), Unit::Whole);
    let mut out = Vec::new();
    let mut at = 0;
    for cut in cuts {
        let end = (at + cut).min(text.len());
        out.extend_from_slice(&stream.push(Bytes::copy_from_slice(&text[at..end])));
        at = end;
    }
    out.extend_from_slice(&stream.push(Bytes::copy_from_slice(&text[at..])));
    out.extend_from_slice(&stream.finish());
    out
}

#[test]
fn secret_split_anywhere_is_redacted() {
    let patterns = patterns(&[b"hunter2hunter2"]);
    let text = b"the password is hunter2hunter2, they say";
    for cut in 0..text.len() {
        assert_eq!(
            redact_chunks(&patterns, text, &[cut]),
            b"the password is [REDACTED_BY_AGENTSECRETS], they say",
            "cut at {cut}"
        );
    }
    assert_eq!(redact_chunks(&patterns, text, &[1; 40]), redact_chunks(&patterns, text, &[]));
}

#[test]
fn complete_unit_is_emitted_at_once() {
    let patterns = patterns(&[b"hunter2hunter2"]);
    let said = |unit, text: &'static str| {
        let mut stream = StreamRedactor::new(patterns.clone(), unit);
        String::from_utf8(stream.push(Bytes::from_static(text.as_bytes())).to_vec()).unwrap()
    };
    assert_eq!(said(Unit::Event, "data: a\ndata: b\n\ndata: c\n"), "data: a\ndata: b\n\n");
    assert_eq!(said(Unit::Event, "data: a\r\n\r\nda"), "data: a\r\n\r\n");
    assert_eq!(said(Unit::Line, "{}\n{\"a\""), "{}\n");
    assert_eq!(said(Unit::Whole, "{}\n{\"a\""), "");
}

#[test]
fn lines_are_emitted_after_idle_timeout() {
    let mut stream = StreamRedactor::new(patterns(&[b"hunter2hunter2"]), Unit::Whole);
    assert_eq!(stream.push(Bytes::from_static(b"no line")), "");
    assert!(!stream.has_line());
    assert_eq!(stream.push(Bytes::from_static(b", then one\nand hunter2")), "");
    assert!(stream.has_line());
    assert_eq!(stream.flush_lines(), "no line, then one\n");
    assert!(!stream.has_line());
    assert_eq!(stream.push(Bytes::from_static(b"hunter2\n")), "");
    assert_eq!(stream.flush_lines(), "and [REDACTED_BY_AGENTSECRETS]\n");
    assert_eq!(stream.finish(), "");
}

#[test]
fn secret_sent_line_by_line_is_redacted_once_recognised() {
    let secret: Vec<u8> = (0..60).map(|at: usize| b'0' + (at * at * 31 % 75) as u8).collect();
    let patterns = patterns(&[&secret]);
    let mut stream = StreamRedactor::new(patterns, Unit::Whole);
    let mut out = Vec::new();
    for line in secret.chunks(20) {
        out.extend_from_slice(&stream.push([line, b"\n"].concat().into()));
        out.extend_from_slice(&stream.flush_lines());
    }
    let marker = b"\n[REDACTED_BY_AGENTSECRETS]";
    let wanted = [&secret[..20], marker, marker, b"\n"].concat();
    assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&wanted));
}

/// Guesses of which 0 to all but one bytes are right, each in the same place of the same text.
fn guesses() -> (Vec<u8>, Vec<Vec<u8>>) {
    let secret: Vec<u8> = (0..32).map(|at: usize| b'a' + (at * at * 31 % 26) as u8).collect();
    let guess = |right: usize| {
        let wrong = secret[right..].iter().map(|byte| if *byte == b'z' { b'y' } else { byte + 1 });
        secret[..right].iter().copied().chain(wrong).collect()
    };
    let right = (0..crate::encodings::piece(secret.len())).map(guess).collect();
    (secret, right)
}

#[test]
fn emitted_sizes_do_not_depend_on_guess() {
    let (secret, guesses) = guesses();
    let patterns = patterns(&[&secret]);
    for unit in [Unit::Whole, Unit::Line, Unit::Event] {
        for size in [1, 7, 100, 1000] {
            let sizes = |guess: &[u8]| {
                let text = [b"say \n", guess, b"\n and say ", guess, b"\n\n", &[b'x'; 2000], guess].concat();
                let mut stream = StreamRedactor::new(patterns.clone(), unit);
                let mut sizes = Vec::new();
                for chunk in text.chunks(size) {
                    sizes.push(stream.push(Bytes::copy_from_slice(chunk)).len());
                    sizes.push(usize::from(stream.has_line()));
                    sizes.push(stream.flush_lines().len());
                }
                sizes.push(stream.finish().len());
                sizes
            };
            let none = sizes(&guesses[0]);
            for (right, guess) in guesses.iter().enumerate() {
                assert_eq!(sizes(guess), none, "{right} right bytes, {unit:?}, chunks of {size}");
            }
        }
    }
}

#[test]
fn search_time_does_not_depend_on_guess() {
    let (secret, guesses) = guesses();
    // Chance makes a gate look twice at some text or other; each of these has its own.
    let gates: Vec<_> = (0..5).map(|_| patterns(&[&secret])).collect();
    let texts: Vec<Bytes> =
        guesses[..16].iter().map(|guess| Bytes::from(guess.repeat(8192 / guess.len()))).collect();
    // Interleaved, so that whatever else the machine does falls on all alike; the least of many is what the search
    // itself takes.
    let mut least = vec![std::time::Duration::MAX; texts.len()];
    for round in 0..100 {
        for (least, text) in least.iter_mut().zip(&texts) {
            let mut stream = StreamRedactor::new(gates[round % gates.len()].clone(), Unit::Whole);
            let started = std::time::Instant::now();
            std::hint::black_box(stream.push(text.clone()));
            *least = started.elapsed().min(*least);
        }
    }
    let mut sorted = least.clone();
    sorted.sort();
    let middle = sorted[sorted.len() / 2];
    for (right, time) in least.iter().enumerate() {
        let ratio = time.as_secs_f64() / middle.as_secs_f64();
        assert!((0.8..1.25).contains(&ratio), "{right} right bytes take {ratio:.2} of the usual: {least:?}");
    }
}

#[test]
fn run_longer_than_window_is_one_marker() {
    let patterns = patterns(&[b"aaaaaaaa"]);
    let text = [b"<".to_vec(), vec![b'a'; 5000], b">".to_vec()].concat();
    assert_eq!(redact_chunks(&patterns, &text, &[100, 1, 400, 256, 255]), b"<[REDACTED_BY_AGENTSECRETS]>");
}

#[test]
fn large_secret_in_small_chunks_is_one_marker() {
    let secret: Vec<u8> =
        (0..5000u32).map(|at| b'0' + (at.wrapping_mul(2_654_435_761) >> 13) as u8 % 12).collect();
    let patterns = patterns(&[&secret]);
    let text = [b"<", &secret[..], b">"].concat();
    for size in [1, 100, 700, 5000] {
        let cuts = vec![size; text.len() / size];
        assert_eq!(redact_chunks(&patterns, &text, &cuts), b"<[REDACTED_BY_AGENTSECRETS]>", "{size}");
    }
}

/// A text of pieces, some of which are echoes of the secrets, over few letters so that near misses are common.
fn texts() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>, Vec<usize>)> {
    const LETTERS: &[u8] = b"abc\"/&+ :\n%\\=A0\0";
    let secret = proptest::collection::vec(proptest::sample::select(LETTERS.to_vec()), 4..50);
    proptest::collection::vec(secret, 1..4).prop_flat_map(|secrets| {
        let echoes: Vec<Vec<u8>> = secrets
            .iter()
            .flat_map(|secret| ENCODERS.iter().map(|(_, echo)| echo(secret)))
            .chain([b"abc".to_vec(), b"\n".to_vec(), b"".to_vec()])
            .collect();
        let piece = prop_oneof![
            2 => proptest::sample::select(echoes),
            1 => proptest::collection::vec(any::<u8>(), 0..20),
            1 => proptest::collection::vec(proptest::sample::select(LETTERS.to_vec()), 0..300),
        ];
        let text = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
        (Just(secrets), text, proptest::collection::vec(0usize..800, 0..30))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn output_does_not_depend_on_chunking((secrets, text, cuts) in texts()) {
        let values: Vec<&[u8]> = secrets.iter().map(Vec::as_slice).collect();
        let patterns = patterns(&values);
        let whole = patterns.redact_bytes(&text).map_or_else(|| text.clone(), |clean| clean.bytes);
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        prop_assert_eq!(show(&redact_chunks(&patterns, &text, &cuts)), show(&whole));
        prop_assert_eq!(show(&redact_chunks(&patterns, &text, &vec![1; text.len()])), show(&whole));
    }

    #[test]
    fn bytes_without_match_are_unchanged(
        text in proptest::collection::vec(any::<u8>(), 0..4000),
        cuts in proptest::collection::vec(0usize..900, 0..10),
    ) {
        let patterns = patterns(&[b"a secret that nobody guesses"]);
        prop_assert_eq!(redact_chunks(&patterns, &text, &cuts), text);
    }
}
