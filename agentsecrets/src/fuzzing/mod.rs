//! Fuzz targets, one per parser of hostile bytes. Each drives the product's own entry point and checks
//! the result. The module exists in tests and with the feature `fuzzing` only; `agentsecrets/fuzz`
//! supplies the bytes, and the replay runs the corpus in every test run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod files;
mod injection;
mod responses;
mod wire;

#[cfg(test)]
mod replay;

/// A fuzz target. It panics when an invariant breaks.
pub type Target = fn(&[u8]);

/// All targets by name. The corpus of a target has the same name.
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

/// Runs the target `name` on `bytes`. Panics when an invariant breaks.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target of this name");
    target(bytes);
}

/// A byte reader that returns zeros past the end.
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

/// Runs `work` to completion on this thread's runtime.
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
