//! The short fuzz run of every test run: each target gets its corpus and mutations of it from a fixed
//! seed. The long one is `cargo xtask soak fuzz`.

use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

/// Time limit for the mutations of one target.
const MAX_DURATION: std::time::Duration = std::time::Duration::from_millis(1500);
const MAX_MUTATIONS: u32 = 3000;
/// Maximum size of all corpora in the repository, in bytes.
const MAX_CORPUS_SIZE: u64 = 300_000;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The corpus of a target, sorted by file name.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz().join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn replay(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    target(&[]);
    corpus.iter().for_each(|bytes| target(bytes));
    let start = std::time::Instant::now();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..MAX_MUTATIONS {
        if start.elapsed() > MAX_DURATION {
            return;
        }
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut bytes, &corpus, &mut random);
        }
        // The input must be printed even if the failure aborts.
        let caught = std::panic::catch_unwind(|| target(&bytes));
        assert!(caught.is_ok(), "{name} fails on {:?}", bytes.escape_ascii().to_string());
    }
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(16)).min(bytes.len());
    match random.below(7) {
        0 => bytes.insert(at, random.next() as u8),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.truncate(at),
        3 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            let piece = other[from..].iter().take(64).copied();
            bytes.splice(at..end, piece.collect::<Vec<_>>());
        }
        kind => {
            if let Some(byte) = bytes.get_mut(at) {
                let odd = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'"', b'{', b':', b'%', b'/'];
                *byte = if kind == 5 { *byte ^ (1 << random.below(8)) } else { odd[random.below(odd.len())] };
            }
        }
    }
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_fuzzed_and_small() {
            assert_eq!([$(stringify!($name)),*], TARGETS.map(|(name, _)| name));
            let mut size = 0;
            for (name, _) in TARGETS {
                let file = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
                assert!(file.contains(&format!("run(\"{name}\", bytes)")), "{name}");
                size += corpus(name).iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            }
            assert!(size < MAX_CORPUS_SIZE, "{size} bytes");
        }
    };
}

replays!(hello target dns placeholder policy redact decode vault audit);
