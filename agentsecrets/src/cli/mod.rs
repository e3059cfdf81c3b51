//! The command line: one file per verb. Parsing says what was asked; each verb resolves it, acts, and
//! returns an exit code.

mod audit;
mod call;
mod completions;
mod doctor;
mod env;
mod environment;
#[cfg(target_os = "linux")]
mod health;
mod interceptor;
#[cfg(target_os = "linux")]
mod kubernetes;
mod mcp;
mod policy;
mod project;
mod proxy;
mod run;
mod scope;
mod secrets;
#[cfg(target_os = "linux")]
mod sidecar;
mod status;
mod table;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::base::home::Home;
use crate::base::name::{Environment, Project};

use scope::Scope;

pub use crate::base::failure::{Exit, Failure};

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
    Run(run::Args),
    /// Make one authenticated request
    Call(Box<call::Args>),
    /// Start a command with the real values in its environment
    Env(env::Args),
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
    /// Check the policy and explain its decisions
    Policy(policy::Args),
    /// Read and verify the audit log
    Audit(audit::Args),
    /// Show what is set up and what protects it
    Status(status::Args),
    /// Look for problems, each with its fix
    Doctor(doctor::Args),
    /// What a cluster runs: the webhook that puts the sidecar into pods
    #[cfg(target_os = "linux")]
    Kubernetes(kubernetes::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// The process that handles agents' traffic; started by `run`
    #[command(hide = true)]
    Interceptor(interceptor::Args),
}

impl Verb {
    /// Whether it acts for the person, and so not for an agent.
    fn is_administrative(&self) -> bool {
        match self {
            Verb::Run(_)
            | Verb::Proxy(_)
            | Verb::Secrets(_)
            | Verb::Environment(_)
            | Verb::Project(_)
            | Verb::Policy(_)
            | Verb::Audit(_)
            | Verb::Interceptor(_) => true,
            Verb::Mcp(args) => args.is_administrative(),
            #[cfg(target_os = "linux")]
            Verb::Sidecar(_) => true,
            #[cfg(target_os = "linux")]
            Verb::Health(_) => false,
            // Inside an agent they say for themselves what is possible.
            Verb::Call(_) | Verb::Env(_) => false,
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
}

/// Parses, runs, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// What a process that serves has to say of itself goes to standard error; `AGENTSECRETS_LOG` says how much.
fn log_to_stderr() {
    let level = tracing_subscriber::EnvFilter::try_from_env("AGENTSECRETS_LOG");
    let level = level.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // Somebody may listen already, in a test.
    let _ = tracing_subscriber::fmt().with_env_filter(level).with_writer(std::io::stderr).try_init();
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    #[cfg(target_os = "linux")]
    if cli.verb.is_administrative() && crate::launch::inside_agent() {
        return Err(Failure::new(Exit::Denied, "this command is not for agents")
            .hint("a person runs it, in a terminal outside `agentsecrets run`"));
    }
    let runs = matches!(cli.verb, Verb::Run(_) | Verb::Env(_));
    let context = Context::new(cli.global, &cli.verb);
    // There a command's own codes are told from ours.
    let context = context.map_err(|failure| if runs { failure.ending(Exit::Ours) } else { failure })?;
    match cli.verb {
        Verb::Run(args) => run::run(args, &context),
        Verb::Call(args) => call::run(*args, &context),
        Verb::Env(args) => env::run(args, &context),
        Verb::Proxy(args) => proxy::run(args, &context),
        Verb::Mcp(args) => mcp::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Sidecar(args) => sidecar::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Health(args) => health::run(args, &context),
        Verb::Secrets(args) => secrets::run(args, &context),
        Verb::Environment(args) => environment::run(args, &context),
        Verb::Project(args) => project::run(args, &context),
        Verb::Policy(args) => policy::run(args, &context),
        Verb::Audit(args) => audit::run(args, &context),
        Verb::Status(args) => status::run(args, &context),
        Verb::Doctor(args) => doctor::run(args, &context),
        #[cfg(target_os = "linux")]
        Verb::Kubernetes(args) => kubernetes::run(args, &context),
        Verb::Completions(args) => completions::run(args, &context),
        Verb::Interceptor(args) => interceptor::run(args, &context),
    }
}

impl Context {
    fn new(global: Global, verb: &Verb) -> Result<Self, Failure> {
        let home = home(verb)?;
        // The interceptor is told what applies, and an agent's folder is not ours to look into.
        let apart = matches!(verb, Verb::Interceptor(_) | Verb::Completions(_));
        #[cfg(target_os = "linux")]
        let apart = apart || crate::launch::inside_agent();
        let working = std::env::current_dir().ok().filter(|_| !apart);
        let scope = Scope::find(global.project, global.environment, &home, working.as_deref())?;
        let (project, environment) = (scope.project.value.clone(), scope.environment.value.clone());
        Ok(Self { home, project, environment, scope, json: global.json })
    }

    /// The same in the folder `working`: what the command line chose stays, a project file there counts.
    fn within(&self, working: &Path) -> Result<Self, Failure> {
        let (project, environment) = (self.scope.project.of_a_flag(), self.scope.environment.of_a_flag());
        let scope = Scope::find(project, environment, &self.home, Some(working))?;
        let (project, environment) = (scope.project.value.clone(), scope.environment.value.clone());
        Ok(Self { home: self.home.clone(), project, environment, scope, json: self.json })
    }
}

/// Whose files are ours.
fn home(verb: &Verb) -> Result<Home, Failure> {
    #[cfg(target_os = "linux")]
    if let (Verb::Run(_), Some(user)) = (verb, crate::launch::who_called_sudo()) {
        // Under sudo the platform's folders would be root's, and the secrets are the person's.
        return Home::find(Some(&user.dir)).map_err(|error| Failure::new(Exit::Failure, error));
    }
    Home::find(None).map_err(|error| Failure::new(Exit::Failure, error))
}
