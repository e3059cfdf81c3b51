//! Fuzz targets, one per parser of hostile bytes. Each drives the product's own entry point and checks
//! the result. The module exists in tests and with the feature `fuzzing` only; `agentsecrets/fuzz`
//! supplies the bytes, and the replay runs the corpus in every test run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod files;
mod injection;
mod input;
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
