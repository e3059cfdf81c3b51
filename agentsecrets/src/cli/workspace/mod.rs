//! `agentsecrets workspace`: named workspaces, and the list of hosts that agents may reach. Sharing with a
//! team is not supported yet; those commands fail.

mod allowlist;

use std::process::ExitCode;

use anstream::eprintln;

use super::scope::user::UserScope;
use crate::cli::context::Context;
use crate::cli::output::{print_bytes, print_json, team_sync_unsupported};
use crate::types::failure::{Exit, Failure};
use crate::types::name::Workspace;

/// Select a workspace, and manage the list of hosts that agents may reach
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets workspace allowlist add api.stripe.com
  agentsecrets workspace list")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Manage the hosts that agents may reach, a view of the policy
    Allowlist(allowlist::Args),
    /// Create a workspace on this machine, and select it
    #[command(after_help = "Example: agentsecrets workspace create acme")]
    Create {
        /// Name of the workspace
        name: Workspace,
    },
    /// List the workspaces
    #[command(after_help = "Example: agentsecrets workspace list --json")]
    List,
    /// Select the active workspace
    #[command(after_help = "Example: agentsecrets workspace switch personal")]
    Switch {
        /// Name of the workspace
        name: Workspace,
    },
    /// List the members of the workspace: on this machine, you
    #[command(after_help = "Example: agentsecrets workspace members --json")]
    Members,
    /// Invite a member (not supported yet)
    #[command(hide = true)]
    Invite {
        /// Email address
        email: String,
        /// Role of the member
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// Make a member an administrator (not supported yet)
    #[command(hide = true)]
    Promote {
        /// Email address
        email: String,
    },
    /// Make an administrator a member (not supported yet)
    #[command(hide = true)]
    Demote {
        /// Email address
        email: String,
    },
    /// Remove a member (not supported yet)
    #[command(hide = true)]
    Remove {
        /// Email address
        email: String,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Allowlist(args) => allowlist::run(args, context),
        Verb::Create { name } => create(&name, context),
        Verb::List => list(context),
        Verb::Switch { name } => switch(&name, context),
        Verb::Members => members(context),
        Verb::Invite { .. } => Err(team_sync_unsupported("workspace invite")),
        Verb::Promote { .. } => Err(team_sync_unsupported("workspace promote")),
        Verb::Demote { .. } => Err(team_sync_unsupported("workspace demote")),
        Verb::Remove { .. } => Err(team_sync_unsupported("workspace remove")),
    }
}

fn create(name: &Workspace, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = UserScope::load(&context.home)?;
    if user.all_workspaces().contains(name) {
        return Err(Failure::new(Exit::Failure, format!("there is a workspace {name} already"))
            .hint(format!("agentsecrets workspace switch {name}")));
    }
    user.workspaces.push(name.clone());
    user.workspace = Some(name.clone());
    user.save(&context.home)?;
    eprintln!(
        "created the workspace {name} on this machine: it shares nothing, and all workspaces have the same secrets and policy"
    );
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let user = UserScope::load(&context.home)?;
    let active = user.workspace.clone().unwrap_or_default();
    let all = user.all_workspaces();
    if context.json {
        let entry = |name: &Workspace| serde_json::json!({ "name": name, "type": "local", "active": *name == active });
        return print_json(&all.iter().map(entry).collect::<Vec<_>>());
    }
    // Other programs parse this format.
    let line = |name: &Workspace| format!("{} {name} (local)\n", if *name == active { "→" } else { " " });
    print_bytes(all.iter().map(line).collect::<String>().as_bytes())
}

fn switch(name: &Workspace, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = UserScope::load(&context.home)?;
    if !user.all_workspaces().contains(name) {
        return Err(Failure::new(Exit::NotFound, format!("there is no workspace {name}"))
            .hint("agentsecrets workspace list"));
    }
    user.workspace = Some(name.clone());
    user.save(&context.home)?;
    eprintln!(
        "{name} applies from now on; secrets and policy are the same in each workspace of this machine"
    );
    Ok(ExitCode::SUCCESS)
}

fn members(context: &Context) -> Result<ExitCode, Failure> {
    let you = local_member();
    if context.json {
        return print_json(&[serde_json::json!({ "email": you, "role": "owner", "status": "active" })]);
    }
    print_bytes(format!("{you} (owner) active\n").as_bytes())
}

/// The local user as a member.
fn local_member() -> String {
    #[cfg(target_os = "linux")]
    {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let name = user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
        let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
        format!("{name}@{}", host.as_deref().unwrap_or("localhost"))
    }
    #[cfg(not(target_os = "linux"))]
    {
        "you@localhost".to_owned()
    }
}
