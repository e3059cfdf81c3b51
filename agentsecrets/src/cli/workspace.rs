//! `agentsecrets workspace`: a name for what a team will share, and the list of hosts that agents may reach.
//! There is no exchange with a team yet: what would need one fails and says so.

mod allowlist;

use std::process::ExitCode;

use anstream::eprintln;

use super::scope::user::User;
use super::secrets::{json, show};
use super::{Context, Exit, Failure};
use crate::types::name::Workspace;

/// Choose a workspace, and keep the list of hosts that agents may reach.
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
    /// The hosts that agents may reach: a view on the policy
    Allowlist(allowlist::Args),
    /// Make a workspace on this machine, and use it
    #[command(after_help = "Example: agentsecrets workspace create acme")]
    Create {
        /// Its name
        name: Workspace,
    },
    /// List the workspaces
    #[command(after_help = "Example: agentsecrets workspace list --json")]
    List,
    /// Make a workspace the one that applies
    #[command(after_help = "Example: agentsecrets workspace switch personal")]
    Switch {
        /// Its name
        name: Workspace,
    },
    /// List the members of the workspace: on this machine, you
    #[command(after_help = "Example: agentsecrets workspace members --json")]
    Members,
    /// Invite somebody: there is no exchange with a team yet
    #[command(hide = true)]
    Invite {
        /// Whom
        email: String,
        /// As what
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// Make a member an administrator: there is no exchange with a team yet
    #[command(hide = true)]
    Promote {
        /// Whom
        email: String,
    },
    /// Make an administrator a member: there is no exchange with a team yet
    #[command(hide = true)]
    Demote {
        /// Whom
        email: String,
    },
    /// Remove a member: there is no exchange with a team yet
    #[command(hide = true)]
    Remove {
        /// Whom
        email: String,
    },
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Allowlist(args) => allowlist::run(args, context),
        Verb::Create { name } => create(&name, context),
        Verb::List => list(context),
        Verb::Switch { name } => switch(&name, context),
        Verb::Members => members(context),
        Verb::Invite { .. } => Err(needs_a_team("workspace invite")),
        Verb::Promote { .. } => Err(needs_a_team("workspace promote")),
        Verb::Demote { .. } => Err(needs_a_team("workspace demote")),
        Verb::Remove { .. } => Err(needs_a_team("workspace remove")),
    }
}

/// Why `command` cannot be done.
pub(super) fn needs_a_team(command: &str) -> Failure {
    let what =
        format!("`{command}` needs a team's workspace, and this version cannot share one: nothing was done");
    Failure::new(Exit::Failure, what).hint(
        "secrets, projects and the policy are this machine's; `secrets vault backup` makes a copy to carry",
    )
}

fn create(name: &Workspace, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
    if user.all_workspaces().contains(name) {
        return Err(Failure::new(Exit::Failure, format!("there is a workspace {name} already"))
            .hint(format!("agentsecrets workspace switch {name}")));
    }
    user.workspaces.push(name.clone());
    user.workspace = Some(name.clone());
    user.save(&context.home)?;
    eprintln!(
        "made the workspace {name}, which is a name on this machine: it shares nothing, and secrets and policy are the same in each"
    );
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let user = User::load(&context.home)?;
    let active = user.workspace.clone().unwrap_or_default();
    let all = user.all_workspaces();
    if context.json {
        let entry = |name: &Workspace| serde_json::json!({ "name": name, "type": "local", "active": *name == active });
        return json(&all.iter().map(entry).collect::<Vec<_>>());
    }
    // As other programs read it.
    let line = |name: &Workspace| format!("{} {name} (local)\n", if *name == active { "→" } else { " " });
    show(all.iter().map(line).collect::<String>().as_bytes())
}

fn switch(name: &Workspace, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
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
    let you = you();
    if context.json {
        return json(&[serde_json::json!({ "email": you, "role": "owner", "status": "active" })]);
    }
    show(format!("{you} (owner) active\n").as_bytes())
}

/// The person, as this machine knows them.
fn you() -> String {
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
