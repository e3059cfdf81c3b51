//! What a fuzzer calls: one function for everything that reads hostile bytes first, each driving the
//! product's own entry point and judging what came out. It exists in tests and under the feature
//! `fuzzing` only, and decides nothing: `agentsecrets/fuzz` brings the bytes, and so does the replay
//! below, which every test run goes through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod files;
mod injection;
mod responses;
mod wire;

#[cfg(test)]
mod replay;

/// Takes hostile bytes; panics where a promise breaks.
pub type Target = fn(&[u8]);

/// The targets: a name, which is also that of its corpus, and what reads the bytes.
pub const TARGETS: [(&str, Target); 9] = [
    ("hello", wire::hello),
    ("target", wire::target),
    ("dns", wire::dns),
    ("placeholder", injection::placeholder),
    ("policy", injection::policy),
    ("redact", responses::redact),
    ("decode", responses::decode),
    ("vault", files::vault),
    ("audit", files::audit),
];

/// Puts `bytes` to the target of this name; panics where the product, or what it answers, is wrong.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes);
}

/// Bytes that are read from the front; zeros once they are used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().map_or((0, self.0), |(byte, rest)| (*byte, rest));
        self.0 = rest;
        byte
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Runs `work` to its end on this thread's runtime.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
