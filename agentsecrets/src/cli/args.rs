//! The command line: global options and one variant per verb.

use clap::{Parser, Subcommand};

use super::context::GlobalArgs;
use super::{
    agent, approvals, audit, call, completions, doctor, env, environment, exec, mcp, policy, project, proxy,
    run, secrets, session, status, trust, workspace,
};
#[cfg(target_os = "linux")]
use super::{daemon, health, interceptor, kubernetes, presence, sidecar, whoami};

/// Credentials for AI agents that never hold them.
#[derive(Debug, Parser)]
#[command(name = "agentsecrets", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: GlobalArgs,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a command as an agent: its traffic is intercepted, and it never holds a secret
    #[cfg_attr(not(target_os = "linux"), command(hide = true))]
    Run(run::Args),
    /// Make one authenticated request
    Call(Box<call::Args>),
    /// Run a command with the real values in its environment
    Env(env::Args),
    /// Give secret values to a trusted program (OpenClaw exec provider)
    Exec(exec::Args),
    /// Run the explicit proxy, for clients that use HTTPS_PROXY
    Proxy(proxy::Args),
    /// Serve AI models over MCP, and frameworks through the bridge
    Mcp(mcp::Args),
    /// Intercept the traffic of agents in other containers
    #[cfg(target_os = "linux")]
    Sidecar(sidecar::Args),
    /// Report whether this container's service is healthy (for container health checks)
    #[cfg(target_os = "linux")]
    Health(health::Args),
    /// Store, list and delete secrets
    Secrets(secrets::Args),
    /// List, switch, copy and merge environments
    Environment(environment::Args),
    /// Create, select and delete projects
    Project(project::Args),
    /// Select a workspace, and manage the list of hosts that agents may reach
    Workspace(workspace::Args),
    /// Check the policy and explain its decisions
    Policy(policy::Args),
    /// Register agents, and issue tokens to them
    Agent(agent::Args),
    /// Start, list and end sessions
    Session(session::Args),
    /// Manage which programs may use which secrets
    Trust(trust::Args),
    /// Show the identity of the calling program as the policy sees it
    #[cfg(target_os = "linux")]
    Whoami(whoami::Args),
    /// List the requests that wait for your approval
    Approvals(approvals::Args),
    /// Approve a pending request
    Approve(approvals::Approve),
    /// Deny a pending request
    Deny(approvals::Deny),
    /// Read and verify the audit log
    Audit(audit::Args),
    /// Show the configuration and its protection on one screen
    Status(status::Args),
    /// Check for problems; every finding has a fix
    Doctor(doctor::Args),
    /// Set the passphrase that confirms your presence on a strict machine
    #[cfg(target_os = "linux")]
    Presence(presence::Args),
    /// Run or install the daemon that keeps secrets under a user of its own
    #[cfg(target_os = "linux")]
    Daemon(daemon::Args),
    /// Run the Kubernetes webhook or node service
    #[cfg(target_os = "linux")]
    Kubernetes(kubernetes::Args),
    /// Print a shell completion script
    Completions(completions::Args),
    /// Handle agents' traffic; `run` starts this process
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Interceptor(interceptor::Args),
}

impl Verb {
    /// Whether a project file of the working folder does not count for this verb.
    pub(super) fn ignores_project_file(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Verb::Interceptor(_) => true,
            verb => matches!(verb, Verb::Completions(_)),
        }
    }

    /// Whether only a person may run this verb; agents may not.
    pub(super) fn is_administrative(&self) -> bool {
        match self {
            Verb::Run(_)
            | Verb::Exec(_)
            | Verb::Proxy(_)
            | Verb::Secrets(_)
            | Verb::Environment(_)
            | Verb::Project(_)
            | Verb::Workspace(_)
            | Verb::Policy(_)
            | Verb::Agent(_)
            | Verb::Session(_)
            | Verb::Trust(_)
            | Verb::Approvals(_)
            | Verb::Approve(_)
            | Verb::Deny(_)
            | Verb::Audit(_) => true,
            #[cfg(target_os = "linux")]
            Verb::Interceptor(_) => true,
            #[cfg(target_os = "linux")]
            Verb::Presence(_) | Verb::Daemon(_) => true,
            Verb::Mcp(args) => args.is_administrative(),
            #[cfg(target_os = "linux")]
            Verb::Sidecar(_) => true,
            #[cfg(target_os = "linux")]
            Verb::Health(_) => false,
            // Inside an agent these two apply the agent's own limits.
            Verb::Call(_) | Verb::Env(_) => false,
            #[cfg(target_os = "linux")]
            Verb::Whoami(_) => false,
            #[cfg(target_os = "linux")]
            Verb::Kubernetes(_) => false,
            Verb::Status(_) | Verb::Doctor(_) | Verb::Completions(_) => false,
        }
    }
}
