//! How fast answers are searched, beside a copy of the same bytes; and what the patterns of many secrets cost. Run it with
//! `cargo xtask bench redact`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use agentsecrets::redact::patterns::Patterns;
use agentsecrets::redact::stream::{StreamRedactor, Unit};
use agentsecrets::types::secret::Secret;
use bytes::{Bytes, BytesMut};

/// What hyper hands on at a time, in bytes.
const CHUNK: usize = 16 << 10;
/// How much is searched in each round, in bytes, and how many rounds there are, of which the best counts.
const ROUND: usize = 64 << 20;
const ROUNDS: usize = 5;

fn main() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    println!("patterns                     size       built in");
    let mut sets = Vec::new();
    for (name, count, length) in [
        ("5 secrets of 32 bytes", 5, 32),
        ("50 secrets of 64 bytes", 50, 64),
        ("a key file of 4 KiB", 1, 4096),
    ] {
        let secrets: Vec<Secret> = (0..count).map(|_| Secret::new(random.letters(length))).collect();
        let started = Instant::now();
        let patterns = Patterns::build(&secrets);
        println!("{name:<24} {:>6} KiB  {:>9.1?}", patterns.size() >> 10, started.elapsed());
        sets.push((name, patterns));
    }
    println!("\ntext                     copied     searched for");
    for (name, text) in texts(&mut random) {
        print!("{name:<24} {:>4.1} GB/s", rate(&text, copy));
        for (_, patterns) in &sets {
            let mut stream = StreamRedactor::new(patterns.clone(), Unit::Whole);
            print!("  {:>5.2} GB/s", rate(&text, |chunk| stream.push(chunk).len()));
        }
        println!();
    }
    println!("\n(searched for: {})", sets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "));
    let (_, patterns) = &sets[0];
    small(patterns);
}

/// What a small answer costs.
fn small(patterns: &Arc<Patterns>) {
    let answer = Bytes::from(vec![b'x'; 1024]);
    let rounds = 200_000;
    let started = Instant::now();
    for _ in 0..rounds {
        let mut stream = StreamRedactor::new(patterns.clone(), Unit::Whole);
        black_box((stream.push(answer.clone()), stream.finish()));
    }
    println!("an answer of 1 KiB takes {:.2} us", started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
}

/// Gigabytes a second of what `pass` does to each chunk.
fn rate(text: &Bytes, mut pass: impl FnMut(Bytes) -> usize) -> f64 {
    let chunks: Vec<Bytes> =
        (0..text.len() / CHUNK).map(|at| text.slice(at * CHUNK..(at + 1) * CHUNK)).collect();
    let size: usize = chunks.iter().map(Bytes::len).sum();
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..ROUND / size {
            for chunk in &chunks {
                black_box(pass(chunk.clone()));
            }
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    (ROUND / size * size) as f64 / best / 1e9
}

fn copy(chunk: Bytes) -> usize {
    black_box(BytesMut::from(&*chunk)).len()
}

/// Answers of several kinds, a megabyte each.
fn texts(random: &mut Random) -> Vec<(&'static str, Bytes)> {
    let mut fill = |next: &mut dyn FnMut(&mut Random) -> Vec<u8>| {
        let mut text = Vec::with_capacity(1 << 20);
        while text.len() < 1 << 20 {
            text.extend_from_slice(&next(random));
        }
        Bytes::from(text)
    };
    vec![
        (
            "JSON",
            fill(&mut |random| {
                format!("{{\"id\":{},\"name\":\"{}\",\"ok\":true}},\n", random.next() % 9999, text(random, 8))
                    .into()
            }),
        ),
        (
            "JSON with escapes",
            fill(&mut |random| {
                format!("{{\"text\":\"{}\\n\\\"{}\\\"\\n\"}},", text(random, 30), text(random, 4)).into()
            }),
        ),
        (
            "HTML",
            fill(&mut |random| {
                format!(
                    "<p class=\"{}\">{} &amp; {}</p>\n",
                    text(random, 3),
                    text(random, 60),
                    text(random, 20)
                )
                .into()
            }),
        ),
        (
            "base64",
            fill(&mut |random| {
                let mut line = random.letters(76);
                line.push(b'\n');
                line
            }),
        ),
        ("bytes", fill(&mut |random| random.next().to_le_bytes().to_vec())),
    ]
}

/// So many letters, with blanks between words.
fn text(random: &mut Random, length: usize) -> String {
    let mut text = random.letters(length);
    text.iter_mut().skip(5).step_by(7).for_each(|letter| *letter = b' ');
    String::from_utf8(text).unwrap_or_default()
}

/// Numbers that look random, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn letters(&mut self, length: usize) -> Vec<u8> {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        (0..length).map(|_| LETTERS[(self.next() >> 20) as usize % 64]).collect()
    }
}
