//! Checks of Linux: kernel support, clients and privilege separation.

use super::clients;
use super::finding::Finding;
use crate::cli::context::Context;
use crate::intercept::ebpf;
use crate::operator::polkit;
use crate::operator::system_config::{ConfirmationMethod, SystemConfig};
use crate::privsep::confirmation::Passphrase;

/// The fix for missing certificate roots.
pub(super) const MISSING_ROOTS_FIX: &str = "apt-get install ca-certificates";

/// A topic that can be checked alone.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Topic {
    /// List the programs that trust the CA of a run, and a fix for those that do not
    #[command(after_help = "Example:\n  agentsecrets doctor clients")]
    Clients,
}

impl Topic {
    pub(super) fn findings(self) -> Vec<Finding> {
        match self {
            Self::Clients => clients::all(),
        }
    }
}

/// Checks that agents can be started here.
pub(super) fn agents() -> Vec<Finding> {
    vec![match ebpf::probe() {
        Ok(()) => Finding::good("the kernel can send an agent's connections through us"),
        Err(error) => Finding::bad("agents cannot be started here", error.to_string()),
    }]
}

/// Checks clients, and reports protections that exist only inside `run`.
pub(super) fn clients(context: &Context) -> Vec<Finding> {
    let mut findings = clients::summary();
    findings.push(privilege_separation(context));
    findings
}

/// Reports whether secrets are protected from other programs of the same user.
fn privilege_separation(context: &Context) -> Finding {
    if let Some(ticket) = &context.invocation {
        return presence(context, ticket.uid == 0);
    }
    Finding::warning(
        "unguarded: outside `run`, a program of the same user can read our files as you can",
        "start agents with `agentsecrets run`, which hides them; to keep them from every program of yours: sudo \
         agentsecrets daemon install",
    )
}

/// Checks that the person can confirm presence.
fn presence(context: &Context, is_root: bool) -> Finding {
    let passphrase = context.home.policy().parent().is_some_and(|home| Passphrase::in_home(home).is_set());
    let by_polkit = matches!(
        SystemConfig::load(),
        Ok(Some(SystemConfig { confirmation: ConfirmationMethod::Polkit, .. }))
    );
    let sound = if by_polkit { Some(polkit::check_configuration()) } else { None };
    match sound {
        Some(Err(reason)) => Finding::warning(
            format!("polkit is configured to confirm your presence, but cannot: {reason}"),
            "sudo agentsecrets daemon install --presence polkit",
        ),
        Some(Ok(())) => {
            Finding::good("stored secrets belong to the daemon's own user, and polkit confirms your presence")
        }
        None if passphrase || is_root => Finding::good("stored secrets belong to the daemon's own user"),
        None => Finding::warning(
            "no passphrase is set for your presence: only root and trusted programs may do anything",
            "sudo agentsecrets presence set",
        ),
    }
}
