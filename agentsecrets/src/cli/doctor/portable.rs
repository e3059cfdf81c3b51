//! Checks of systems other than Linux: what they cannot enforce, with the alternative.

use super::finding::Finding;
use crate::cli::context::Context;

/// The fix for missing certificate roots.
pub(super) const MISSING_ROOTS_FIX: &str = "look at the system's own list of trusted certificates";

/// No topic can be checked alone.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Topic {}

impl Topic {
    pub(super) fn findings(self) -> Vec<Finding> {
        match self {}
    }
}

/// Reports that agents cannot be started here.
pub(super) fn agents() -> Vec<Finding> {
    vec![Finding::warning(
        "`run` needs Linux: here nothing stops a program that does not use the proxy from going past us",
        "use the explicit proxy: agentsecrets proxy start",
    )]
}

/// Reports the protections that are missing here.
pub(super) fn clients(_context: &Context) -> Vec<Finding> {
    let mut findings = vec![Finding::warning(
        "unguarded: a program of the same user can read our files, and ask the keychain, as you can",
        "run agents as another user, who cannot; or on Linux, with `agentsecrets run`",
    )];
    if cfg!(windows) {
        findings.push(Finding::warning(
            "our memory is not guarded: a program of the same user can open our process and read it",
            "run agents as another user",
        ));
    }
    findings.push(Finding::warning(
        "memory that holds secrets may be swapped to disk here",
        "encrypt the disk, including swap",
    ));
    findings
}
