//! Linux: agents can be started, and the clients that they run are known.

use super::{Finding, clients};
use crate::connection::ebpf;

/// Where certificate roots come from.
pub(super) const ROOTS: &str = "apt-get install ca-certificates";

/// What can be asked about by itself.
#[derive(Debug, clap::Subcommand)]
pub(super) enum About {
    /// Which programs trust a run's authority, and what to do about those that cannot
    #[command(after_help = "Example:\n  agentsecrets doctor clients")]
    Clients,
}

impl About {
    pub(super) fn findings(self) -> Vec<Finding> {
        match self {
            Self::Clients => clients::all(),
        }
    }
}

/// Whether agents can be started here.
pub(super) fn agents() -> Vec<Finding> {
    vec![match ebpf::probe() {
        Ok(()) => Finding::good("the kernel can send an agent's connections through us"),
        Err(error) => Finding::bad("agents cannot be started here", error.to_string()),
    }]
}

/// Who trusts us, and what is promised only inside `run`, said plainly.
pub(super) fn clients() -> Vec<Finding> {
    let mut findings = clients::summary();
    findings.push(Finding::warning(
        "unguarded: outside `run`, a program of the same user can read our files as you can",
        "start agents with `agentsecrets run`; it hides the vault, its key and our sockets from them",
    ));
    findings
}
