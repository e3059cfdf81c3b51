//! Linux: agents can be started, and the clients that they run are known.

use super::{Finding, clients};
use crate::cli::Context;
use crate::intercept::ebpf;
use crate::privsep::confirmation::Presence;
use crate::privsep::polkit;
use crate::privsep::system_config::{Means, System};

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
pub(super) fn clients(context: &Context) -> Vec<Finding> {
    let mut findings = clients::summary();
    findings.push(door(context));
    findings
}

/// What is promised only inside `run`, said plainly.
fn door(context: &Context) -> Finding {
    if let Some(ticket) = &context.ticket {
        return closed(context, ticket.uid == 0);
    }
    Finding::warning(
        "unguarded: outside `run`, a program of the same user can read our files as you can",
        "start agents with `agentsecrets run`, which hides them; to keep them from every program of yours: sudo \
         agentsecrets daemon install",
    )
}

/// Whether the person can prove to be there.
fn closed(context: &Context, is_root: bool) -> Finding {
    let passphrase = context.home.policy().parent().is_some_and(|home| Presence::in_home(home).is_set());
    let by_polkit = matches!(System::find(), Ok(Some(System { presence: Means::Polkit, .. })));
    let sound = if by_polkit { Some(polkit::is_sound()) } else { None };
    match sound {
        Some(Err(why)) => Finding::warning(
            format!("polkit is to ask for your presence, and cannot: {why}"),
            "sudo agentsecrets daemon install --presence polkit",
        ),
        Some(Ok(())) => Finding::good("the person's door is closed, and polkit asks for your presence"),
        None if passphrase || is_root => {
            Finding::good("the person's door is closed: what is stored belongs to the daemon's own user")
        }
        None => Finding::warning(
            "no passphrase is set for your presence: only root and trusted programs may do anything",
            "sudo agentsecrets presence set",
        ),
    }
}
