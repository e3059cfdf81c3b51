//! The search in a text, and the text that remains.

use proptest::prelude::*;

use super::*;
use crate::search::SPAN;
use crate::test_encoders::ENCODERS;

pub(crate) fn patterns(values: &[&[u8]]) -> Arc<Patterns> {
    let secrets: Vec<Secret> = values.iter().map(|value| Secret::new(value.to_vec())).collect();
    Patterns::build(&secrets)
}

fn scrubbed(values: &[&str], text: &str) -> Option<String> {
    let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
    patterns(&values).redact_bytes(text.as_bytes()).map(|clean| String::from_utf8(clean.bytes).unwrap())
}

const KEY: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";

#[test]
fn text_without_secret_is_unchanged() {
    assert_eq!(scrubbed(&["hunter2hunter2"], "hunter2 hunter2"), None);
    assert_eq!(scrubbed(&[], "anything"), None);
    assert!(patterns(&[]).is_empty());
}

#[test]
fn every_encoding_of_every_value_is_redacted_whole() {
    let long: String = (0..300).map(|n| format!("{n:03}")).collect();
    let values = [
        KEY,
        "hunter2/hunter2",
        "p\"a/s&s <w>'r+d\\4_-",
        "na\u{ef}ve \u{43a}\u{43b}\u{44e}\u{447} \u{1f511} 42",
        "100%_sure=%41&amp;",
        "12345678",
        long.as_str(),
    ];
    for value in values {
        let patterns = patterns(&[value.as_bytes()]);
        for (name, echo) in ENCODERS {
            let echo = echo(value.as_bytes());
            let text = [b"\"before\": <", &echo[..], b">, after"].concat();
            let Some(clean) = patterns.redact_bytes(&text) else {
                panic!("{value:?}: {name} passes: {:?}", String::from_utf8_lossy(&text))
            };
            let clean = String::from_utf8_lossy(&clean.bytes).into_owned();
            assert!(clean.starts_with("\"before\": <") && clean.ends_with(">, after"), "{name}: {clean}");
            // Where the value stands alone nothing of it is left but what folding leaves out.
            if !name.starts_with("base64") && long != value {
                let left = clean.replace(std::str::from_utf8(MARKER).unwrap(), "");
                let rest = left["\"before\": <".len()..left.len() - ">, after".len()].to_owned();
                assert!(rest.len() <= 7, "{value:?}: of {name}, {rest:?} is left in {clean:?}");
            }
        }
    }
}

#[test]
fn piece_is_redacted_from_threshold_on() {
    for (length, piece) in [(16, 12), (20, 15), (32, 24), (64, 24), (1000, 24)] {
        let secret: Vec<u8> = (0..length).map(|at: usize| b'a' + (at * at * 31 % 26) as u8).collect();
        let patterns = patterns(&[&secret]);
        for start in (0..=length - piece).step_by(1 + length / 50) {
            let text = [b"<", &secret[start..start + piece], b">"].concat();
            let clean = patterns.redact_bytes(&text).map(|clean| (clean.bytes, clean.has_piece));
            assert_eq!(
                clean,
                Some(([b"<", MARKER, b">"].concat(), true)),
                "{piece} of {length} from {start}"
            );
        }
        assert!(patterns.redact_bytes(&secret[..piece]).unwrap().has_piece, "at the end of the text");
        assert!(patterns.redact_bytes(&secret[length - piece..]).unwrap().has_piece, "at its beginning");
        let text = [b"<", &secret[..piece.min(12) - 4], b">"].concat();
        assert_eq!(patterns.redact_bytes(&text), None, "{length}");
    }
}

#[test]
fn piece_is_redacted_in_any_encoding() {
    let secret: Vec<u8> = (0..64).map(|at: usize| b'0' + (at * at * 31 % 75) as u8).collect();
    let patterns = patterns(&[&secret]);
    for start in 0..=40 {
        for (name, echo) in ENCODERS {
            let echo = echo(&secret[start..start + 24]);
            assert!(patterns.redact_bytes(&echo).is_some(), "{name} from {start}");
        }
    }
}

#[test]
fn whole_secret_is_not_reported_as_piece() {
    for value in [KEY, "p\"a/s&s <w>'r+d\\4_-", "bob:hunter2hunter2"] {
        let patterns = patterns(&[value.as_bytes()]);
        for (name, echo) in ENCODERS {
            let clean = patterns.redact_bytes(&[b"<", &echo(value.as_bytes())[..], b">"].concat()).unwrap();
            assert!(!clean.has_piece, "{value}: {name}");
        }
    }
}

#[test]
fn hostile_prefix_does_not_hide_secret() {
    let key = "64abcd/ef gh\u{e9}ijk";
    let patterns = patterns(&[key.as_bytes()]);
    for before in [
        "%", "%25", "\\", r"\\", r"\\\", r"\\\\\\\", r"\x", r"\u00", "&#x", "&", "=", "%%", "\n", "\ndata:",
        "\0", r"\u",
    ] {
        for (name, echo) in ENCODERS {
            let text = [before.as_bytes(), &echo(key.as_bytes()), b"."].concat();
            assert!(patterns.redact_bytes(&text).is_some(), "{before:?} hides {name}");
        }
    }
    // Of a value that looks as if it had escapes itself.
    assert!(scrubbed(&["!a 0\\n&aAA!!"], "!a 0\\n&amp;aAA!!").is_some());
    assert!(scrubbed(&["! aaaAAA"], "\\%2521%2520aaaAAA").is_some());
}

#[test]
fn short_value_is_matched_exactly() {
    assert_eq!(scrubbed(&["test1"], "a test1 b").as_deref(), Some("a [REDACTED_BY_AGENTSECRETS] b"));
    for near in ["Test1", "te\nst1", "te\\st1", "tes-t1"] {
        assert_eq!(scrubbed(&["test1"], near), None, "{near:?}");
    }
    assert_eq!(scrubbed(&["a.b"], "a.b"), None, "too short to be searched for");
}

#[test]
fn public_parts_are_not_redacted() {
    let header = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9";
    let token = format!("{header}.{}.{}", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "c2lnbmF0dXJlIG9mIHRoaXMgb25l");
    assert_eq!(scrubbed(&[&token], &format!("{header}.other")), None);
    assert_eq!(scrubbed(&[&token], &token).as_deref(), Some("[REDACTED_BY_AGENTSECRETS]"));
    let url = "postgres://application_user:hunter2hunter2@database.internal.example.com/orders";
    assert_eq!(scrubbed(&[url], "at database.internal.example.com/orders"), None);
    assert_eq!(scrubbed(&[url], url).as_deref(), Some("[REDACTED_BY_AGENTSECRETS]"));
}

#[test]
fn adjacent_secrets_become_one_marker() {
    assert_eq!(
        scrubbed(&["abcdefgh", "efghijkl"], "<abcdefghijkl>").as_deref(),
        Some("<[REDACTED_BY_AGENTSECRETS]>")
    );
    assert_eq!(
        scrubbed(&["abcdefgh"], "abcdefghabcdefgh.abcdefgh").as_deref(),
        Some("[REDACTED_BY_AGENTSECRETS].[REDACTED_BY_AGENTSECRETS]")
    );
    // A secret within a secret.
    assert_eq!(
        scrubbed(&["abcdefghijkl", "efgh"], "abcdefghijkl").as_deref(),
        Some("[REDACTED_BY_AGENTSECRETS]")
    );
}

#[test]
fn rewrapped_key_file_is_redacted() {
    let body: String = (0..1600).map(|at: usize| char::from(b'a' + (at * at * 31 % 26) as u8)).collect();
    let lines: Vec<String> =
        body.as_bytes().chunks(64).map(|c| String::from_utf8(c.to_vec()).unwrap()).collect();
    let pem = |lines: &str| format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n");
    let known = pem(&lines.join("\n"));
    for text in [pem(&lines.join("\n")), pem(&lines.join("\\n")), pem(&lines.join("\r\n  ")), pem(&body)] {
        let clean = scrubbed(&[&known], &text).unwrap();
        assert_eq!(clean.matches("[REDACTED_BY_AGENTSECRETS]").count(), 1, "{clean}");
        assert!(clean.len() < 110, "{clean}");
    }
    assert!(scrubbed(&[&known], &lines[7]).is_some());
    assert_eq!(scrubbed(&[&known], "-----BEGIN PRIVATE KEY-----"), None);
}

#[test]
fn redaction_keeps_utf8_boundaries() {
    let patterns = patterns(&["\u{f6}\u{e4}\u{fc}\u{f6}\u{e4}\u{fc}\u{f6}\u{e4}\u{fc}".as_bytes()]);
    // All but the second half of the last character.
    let clean =
        patterns.redact_bytes("\u{f6}\u{e4}\u{fc}\u{f6}\u{e4}\u{fc}\u{f6}\u{e4}\u{e7}.".as_bytes()).unwrap();
    assert!(String::from_utf8(clean.bytes).is_ok());
}

#[test]
fn pattern_memory_is_bounded() {
    let many: Vec<Secret> = (0..50)
        .map(|n: usize| {
            Secret::new((0..64).map(|at: usize| b'0' + ((at + n * 7) * (at + 3) % 70) as u8).collect())
        })
        .collect();
    let file = Secret::new((0..4096).map(|at: usize| b'0' + (at * at * 31 % 75) as u8).collect());
    for (values, most) in [(many, 2 << 20), (vec![file], 2 << 20)] {
        let started = std::time::Instant::now();
        let size = Patterns::build(&values).size();
        println!("{} secrets: {} KiB, built in {:?}", values.len(), size >> 10, started.elapsed());
        assert!(size < most, "{size}");
    }
}

/// Whether what stands before an echo takes nothing of it into an escape, in any layer.
fn is_read_alone(before: &[u8], echo: &[u8]) -> bool {
    let read = |text: &Vec<u8>| {
        let mut out = Vec::new();
        unescape(text, &mut out);
        out
    };
    let layers =
        |text: Vec<u8>| std::iter::successors(Some(text), move |text| Some(read(text))).take(LAYERS + 1);
    layers([before, echo].concat()).zip(layers(echo.to_vec())).all(|(all, alone)| all.ends_with(&alone))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_secret_is_redacted_in_every_encoding(
        secret in "[ -~]{8,80}",
        which in 0..ENCODERS.len(),
        before in "[a-z<>%&\\\\=]{0,12}",
    ) {
        let secret = secret.trim();
        prop_assume!(secret.len() >= 8 && secret.bytes().filter(|byte| !b"=\\".contains(byte)).count() >= 8);
        prop_assume!(!secret.starts_with("{") && !secret.contains("%u"));
        let patterns = patterns(&[secret.as_bytes()]);
        let (name, echo) = ENCODERS[which];
        let echo = echo(secret.as_bytes());
        // Of a short one too little is left where an escape that was begun takes its first characters.
        let is_cut = !is_read_alone(before.as_bytes(), &echo);
        prop_assume!(secret.len() >= 16 || !is_cut);
        let text = [before.as_bytes(), &echo, b"<"].concat();
        prop_assert!(patterns.redact_bytes(&text).is_some(), "{} of {:?}", name, secret);
    }

    #[test]
    fn random_text_is_unchanged(text in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let patterns = patterns(&[KEY.as_bytes(), b"correct horse battery staple"]);
        prop_assert_eq!(patterns.redact_bytes(&text), None);
    }

    #[test]
    fn match_length_is_bounded(
        gaps in proptest::collection::vec(0usize..80, 32),
    ) {
        let mut text = Vec::new();
        for (byte, gap) in KEY.bytes().zip(&gaps) {
            text.push(byte);
            text.extend(std::iter::repeat_n(0, *gap));
        }
        for run in patterns(&[KEY.as_bytes()]).matches(&text, MatchBounds { first: true, last: true }).runs {
            // Pieces that overlap.
            prop_assert!(run.len() <= 2 * SPAN);
        }
    }
}
