//! Where no agent can be started: what this system cannot do, each with what is there instead.

use super::Finding;
use crate::cli::Context;

/// Where certificate roots come from.
pub(super) const ROOTS: &str = "look at the system's own list of trusted certificates";

/// Nothing can be asked about by itself.
#[derive(Debug, clap::Subcommand)]
pub(super) enum About {}

impl About {
    pub(super) fn findings(self) -> Vec<Finding> {
        match self {}
    }
}

/// What is said of agents here.
pub(super) fn agents() -> Vec<Finding> {
    vec![Finding::warning(
        "`run` needs Linux: here nothing stops a program that does not use the proxy from going past us",
        "use the explicit proxy: agentsecrets proxy start",
    )]
}

/// What is not promised here, said plainly.
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
        "memory that holds secrets may be swapped here",
        "encrypt the disk, with what is swapped",
    ));
    findings
}
