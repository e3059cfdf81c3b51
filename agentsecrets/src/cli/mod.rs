//! The command line: one file per verb. Parsing says what was asked; each verb resolves it, acts, and
//! returns an exit code.

mod admin_record;
mod agent;
mod approvals;
mod audit;
mod call;
mod completions;
#[cfg(target_os = "linux")]
mod daemon;
mod doctor;
mod env;
mod environment;
mod exec;
#[cfg(target_os = "linux")]
mod health;
#[cfg(target_os = "linux")]
mod interceptor;
#[cfg(target_os = "linux")]
mod kubernetes;
mod mcp;
mod policy;
#[cfg(target_os = "linux")]
mod presence;
#[cfg(target_os = "linux")]
mod privsep;
mod project;
mod proxy;
mod run;
mod scope;
mod secrets;
mod session;
#[cfg(target_os = "linux")]
mod sidecar;
mod status;
mod table;
mod trust;
mod value_export;
#[cfg(target_os = "linux")]
mod whoami;
mod workspace;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::sys::home::Home;
#[cfg(target_os = "linux")]
use crate::types::name::AgentName;
use crate::types::name::{Environment, Project};

use scope::Scope;
use scope::project_file::ProjectFile;

use crate::config::Config;
#[cfg(target_os = "linux")]
use crate::identity::{Caller, IdentityError, Process};
#[cfg(target_os = "linux")]
use crate::identity::{started_us_as, who_started_us_as};
#[cfg(target_os = "linux")]
use crate::privsep::invocation::Ticket;

pub use crate::types::failure::{Exit, Failure};

/// Credentials for AI agents that never hold them.
#[derive(Debug, Parser)]
#[command(name = "agentsecrets", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The project whose secrets are meant [env: AGENTSECRETS_PROJECT]
    #[arg(long, global = true, value_name = "NAME")]
    project: Option<Project>,
    /// The environment whose secrets are meant [env: AGENTSECRETS_ENV, AS_ENV]
    #[arg(long, global = true, value_name = "NAME")]
    environment: Option<Environment>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a command as an agent: its traffic goes through us, its secrets stay here
    #[cfg_attr(not(target_os = "linux"), command(hide = true))]
    Run(run::Args),
    /// Make one authenticated request
    Call(Box<call::Args>),
    /// Start a command with the real values in its environment
    Env(env::Args),
    /// Give a trusted program the values that it asks for
    Exec(exec::Args),
    /// Serve clients that know us for a proxy
    Proxy(proxy::Args),
    /// Serve models and their frameworks
    Mcp(mcp::Args),
    /// Guard agents in other containers
    #[cfg(target_os = "linux")]
    Sidecar(sidecar::Args),
    /// Say whether agents beside this service are held and served
    #[cfg(target_os = "linux")]
    Health(health::Args),
    /// Store, list and delete secrets
    Secrets(secrets::Args),
    /// Choose, copy and merge environments
    Environment(environment::Args),
    /// Make, choose and delete projects
    Project(project::Args),
    /// Choose a workspace, and keep the list of hosts that agents may reach
    Workspace(workspace::Args),
    /// Check the policy and explain its decisions
    Policy(policy::Args),
    /// Register agents, and issue tokens to them
    Agent(agent::Args),
    /// Start, list and end sessions
    Session(session::Args),
    /// Say which programs may spend which secrets
    Trust(trust::Args),
    /// Show what would be known of the program that calls this
    #[cfg(target_os = "linux")]
    Whoami(whoami::Args),
    /// Show the requests that wait for you to approve them
    Approvals(approvals::Args),
    /// Let a request of an agent leave that waits for you
    Approve(approvals::Approve),
    /// Refuse a request of an agent that waits for you
    Deny(approvals::Deny),
    /// Read and verify the audit log
    Audit(audit::Args),
    /// Show what is set up and what protects it
    Status(status::Args),
    /// Look for problems, each with its fix
    Doctor(doctor::Args),
    /// Set the passphrase by which you prove to be there, on a strict machine
    #[cfg(target_os = "linux")]
    Presence(presence::Args),
    /// Keep secrets with a user of their own, behind a door that asks who you are
    #[cfg(target_os = "linux")]
    Daemon(daemon::Args),
    /// What a cluster runs: the webhook that puts the sidecar into pods
    #[cfg(target_os = "linux")]
    Kubernetes(kubernetes::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// The process that handles agents' traffic; started by `run`
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Interceptor(interceptor::Args),
}

impl Verb {
    /// Whether the folder that it is started in says nothing to it.
    fn is_apart(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Verb::Interceptor(_) => true,
            verb => matches!(verb, Verb::Completions(_)),
        }
    }

    /// Whether it acts for the person, and so not for an agent.
    fn is_administrative(&self) -> bool {
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
            // Inside an agent they say for themselves what is possible.
            Verb::Call(_) | Verb::Env(_) => false,
            #[cfg(target_os = "linux")]
            Verb::Whoami(_) => false,
            #[cfg(target_os = "linux")]
            Verb::Kubernetes(_) => false,
            Verb::Status(_) | Verb::Doctor(_) | Verb::Completions(_) => false,
        }
    }
}

/// What a verb needs to act.
#[derive(Debug)]
pub struct Context {
    /// Where our files are.
    pub home: Home,
    /// The project that applies.
    pub project: Project,
    /// The environment that applies.
    pub environment: Environment,
    /// Who chose them, and what else a project file says.
    pub scope: Scope,
    /// Whether to print JSON.
    pub json: bool,
    /// What the daemon says of who asked, where it was the daemon that started us.
    #[cfg(target_os = "linux")]
    pub ticket: Option<Ticket>,
}

/// Parses, runs, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if cli.verb.is_administrative() && crate::launch::inside_agent() {
        return Err(Failure::new(Exit::Denied, "this command is not for agents")
            .hint("a person runs it, in a terminal outside `agentsecrets run`"));
    }
    let runs = matches!(cli.verb, Verb::Run(_) | Verb::Env(_));
    // There a command's own codes are told from ours.
    let of_ours = |failure: Failure| {
        if runs && failure.exit() == Exit::Failure { failure.ending(Exit::Ours) } else { failure }
    };
    #[cfg(target_os = "linux")]
    let ticket = match &cli.verb {
        Verb::Interceptor(_) | Verb::Daemon(_) => None,
        _ => Ticket::take().map_err(of_ours)?,
    };
    #[cfg(target_os = "linux")]
    if ticket.is_none()
        && !crate::launch::inside_agent()
        && let Some(exit) = privsep::through(&cli).map_err(of_ours)?
    {
        return Ok(ExitCode::from(exit));
    }
    #[cfg(target_os = "linux")]
    let context = Context::new(cli.global, &cli.verb, ticket);
    #[cfg(not(target_os = "linux"))]
    let context = Context::new(cli.global, &cli.verb);
    let context = context.map_err(|failure| if runs { failure.ending(Exit::Ours) } else { failure })?;
    context.guard(&cli.verb)?;
    match cli.verb {
        Verb::Run(args) => run::run(args, &context),
        Verb::Call(args) => call::run(*args, &context),
        Verb::Env(args) => env::run(args, &context),
        Verb::Exec(args) => exec::run(args, &context),
        Verb::Proxy(args) => proxy::run(args, &context),
        Verb::Mcp(args) => mcp::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Sidecar(args) => sidecar::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Health(args) => health::run(args, &context),
        Verb::Secrets(args) => secrets::run(args, &context),
        Verb::Environment(args) => environment::run(args, &context),
        Verb::Project(args) => project::run(args, &context),
        Verb::Workspace(args) => workspace::run(args, &context),
        Verb::Policy(args) => policy::run(args, &context),
        Verb::Agent(args) => agent::run(args, &context),
        Verb::Session(args) => session::run(args, &context),
        Verb::Trust(args) => trust::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Whoami(args) => whoami::run(args, &context),
        Verb::Approvals(args) => approvals::run(args, &context),
        Verb::Approve(args) => approvals::approve(&args, &context),
        Verb::Deny(args) => approvals::deny(&args, &context),
        Verb::Audit(args) => audit::run(args, &context),
        Verb::Status(args) => status::run(args, &context),
        Verb::Doctor(args) => doctor::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Presence(args) => presence::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Daemon(args) => daemon::run(args),
        #[cfg(target_os = "linux")]
        Verb::Kubernetes(args) => kubernetes::run(args, &context),
        Verb::Completions(args) => completions::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Interceptor(args) => interceptor::run(args, &context),
    }
}

impl Context {
    fn new(
        global: Global,
        verb: &Verb,
        #[cfg(target_os = "linux")] mut ticket: Option<Ticket>,
    ) -> Result<Self, Failure> {
        let home = home(verb)?;
        // The interceptor is told what applies, and an agent's folder is not ours to look into.
        let apart = verb.is_apart();
        let apart = apart || crate::launch::inside_agent();
        #[cfg(target_os = "linux")]
        let apart = apart || ticket.is_some();
        let working = std::env::current_dir().ok().filter(|_| !apart);
        let file = working.as_deref().map(ProjectFile::find).transpose()?.flatten();
        #[cfg(target_os = "linux")]
        let file = match ticket.as_mut().and_then(Ticket::project_file) {
            Some((path, open, uid)) => Some(ProjectFile::read_open(&path, open, uid)?),
            None => file,
        };
        let scope = Scope::find(global.project, global.environment, &home, file)?;
        let (project, environment) = (scope.project.value.clone(), scope.environment.value.clone());
        Ok(Self {
            home,
            project,
            environment,
            scope,
            json: global.json,
            #[cfg(target_os = "linux")]
            ticket,
        })
    }

    /// Whether the person's own configuration is strict. One that cannot be read may be.
    fn is_strict(&self) -> Result<bool, Failure> {
        let config = Config::load(&self.home.config()).map_err(|error| {
            let what = format!("the configuration is not valid, and so may be strict: {error}");
            Failure::new(Exit::Failure, what).hint("agentsecrets doctor")
        })?;
        Ok(config.strict)
    }

    /// Where the person's own configuration is strict and no daemon stands behind it, nothing shows a value or
    /// gives a right: what a process of the person's own user checks, another one of that user gets around.
    #[cfg(target_os = "linux")]
    fn guard(&self, verb: &Verb) -> Result<(), Failure> {
        let needs_presence = privsep::need(verb) == crate::privsep::authorizer::Need::Presence;
        if self.ticket.is_some() || !needs_presence || crate::launch::inside_agent() {
            return Ok(());
        }
        if nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        if !self.is_strict()? {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Denied,
            "the configuration is strict, and there is no daemon to prove your presence to",
        )
        .hint("sudo agentsecrets daemon install"))
    }

    /// Where the configuration is strict there must be a daemon, which only Linux has: nothing else is done.
    #[cfg(not(target_os = "linux"))]
    fn guard(&self, verb: &Verb) -> Result<(), Failure> {
        if matches!(verb, Verb::Status(_) | Verb::Doctor(_) | Verb::Completions(_)) {
            return Ok(());
        }
        if !self.is_strict()? {
            return Ok(());
        }
        Err(Failure::new(Exit::Denied, "the configuration is strict, and only Linux has the daemon for that").hint(
            "take `strict: true` out of config.yaml, and know that any program of yours can then ask as you can",
        ))
    }

    /// Who asked for this, as the kernel says.
    #[cfg(target_os = "linux")]
    pub(crate) fn caller(&self) -> Option<std::sync::Arc<Process>> {
        let process = match &self.ticket {
            Some(ticket) => Some(ticket.process.clone()),
            None => return who_called(),
        };
        process.map(std::sync::Arc::new)
    }

    /// The program that started this command, or the one that asked the daemon for it.
    #[cfg(target_os = "linux")]
    pub(crate) fn starter(&self) -> Option<std::sync::Arc<Process>> {
        let asked = self.ticket.as_ref().and_then(|ticket| ticket.started_by.clone());
        asked.map_or_else(|| self.caller(), |process| Some(std::sync::Arc::new(process)))
    }

    /// The program that started this command.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn starter(&self) -> Option<std::sync::Arc<crate::identity::Process>> {
        who_called()
    }

    /// Who asked for this, as the system says.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn caller(&self) -> Option<std::sync::Arc<crate::identity::Process>> {
        who_called()
    }

    /// The program that started this command, as an agent that means the entry `agent`. Where the daemon acts for
    /// it, that is the program which started the one that asked.
    #[cfg(target_os = "linux")]
    async fn caller_as(&self, agent: Option<AgentName>) -> Result<Caller, IdentityError> {
        match &self.ticket {
            Some(ticket) => {
                let started_by = ticket.started_by.clone().ok_or(IdentityError::Nobody)?;
                started_us_as(started_by, ticket.uid, agent)
            }
            None => who_started_us_as(agent).await,
        }
    }

    /// The program that started this command, as an agent that means the entry `agent`.
    #[cfg(not(target_os = "linux"))]
    async fn caller_as(
        &self,
        agent: Option<crate::types::name::AgentName>,
    ) -> Result<crate::identity::Caller, crate::identity::IdentityError> {
        crate::identity::who_started_us_as(agent).await
    }

    /// Fails where the daemon acts for who asked: it would write with its own rights, not the caller's.
    fn may_write_project_file(&self) -> Result<(), Failure> {
        if !self.is_at_the_door() {
            return Ok(());
        }
        let what = "the daemon writes no file of yours, and so no project file";
        Err(Failure::new(Exit::Denied, what)
            .hint("write .agentsecrets/project.json yourself, or choose elsewhere than below such a file"))
    }

    /// Whether the daemon acts for who asked.
    fn is_at_the_door(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.ticket.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// The same in the folder `working`: what the command line chose stays, a project file there counts.
    fn within(&self, working: &Path) -> Result<Self, Failure> {
        let (project, environment) = (self.scope.project.of_a_flag(), self.scope.environment.of_a_flag());
        let scope = Scope::find(project, environment, &self.home, ProjectFile::find(working)?)?;
        let (project, environment) = (scope.project.value.clone(), scope.environment.value.clone());
        Ok(Self {
            home: self.home.clone(),
            project,
            environment,
            scope,
            json: self.json,
            #[cfg(target_os = "linux")]
            ticket: None,
        })
    }
}

/// Whose files are ours.
fn home(verb: &Verb) -> Result<Home, Failure> {
    // Under sudo the platform's folders would be root's, and the secrets are the person's.
    let person = matches!(verb, Verb::Run(_)).then(crate::launch::home_of_who_called_sudo).flatten();
    Home::find(person.as_deref()).map_err(|error| Failure::new(Exit::Failure, error))
}

/// Who called us, as the kernel says.
fn who_called() -> Option<std::sync::Arc<crate::identity::Process>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(crate::identity::who_started_us()).ok().map(std::sync::Arc::new)
}
