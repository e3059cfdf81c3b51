//! `agentsecrets mcp`: the ways in for models and their frameworks. They speak for an agent, wherever they are
//! started: inside `run` for that agent, outside for the program that started them, as the kernel shows it.

mod install;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::secrets::{choices, open_store};
use super::{Context, Exit, Failure};
use crate::call::{Answer, Door, Here};
use crate::identity::look_closer;
use crate::launch::inside_agent;
use crate::mcp::{self, bridge};
use crate::policy::{Live, Policy};
use crate::server::builder::Stages;
use crate::store::Kind;
use crate::sys;
use crate::types::name::AgentName;
use crate::vault;

/// The largest request that a plugin may make, in bytes.
const LARGEST: u64 = 16 << 20;
/// The largest answer that a plugin is given, in bytes.
const MOST_OF_AN_ANSWER: usize = 64 << 20;
/// How long what still runs may take to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serve models: an MCP server, its installation, and the bridge for frameworks.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets mcp install
  agentsecrets mcp serve --agent coder
  printf '{\"url\":\"https://api.stripe.com/v1/balance\",\"injections\":{\"bearer\":\"STRIPE_KEY\"}}' |
      agentsecrets mcp bridge proxy.call")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Serve MCP on standard input and output; a client starts it
    #[command(after_help = "Example: agentsecrets mcp serve --agent coder

The tools are list_secrets and api_call. Every request is judged by the policy as an agent's: of the
entry that --agent names if its `match` holds for the program that started this one, else of the first
that does. Inside `agentsecrets run` it is a request of that agent.")]
    Serve {
        /// The agent entry that is meant
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Add the server to the configuration of Claude Desktop, Claude Code, Cursor, VS Code and Windsurf
    #[command(after_help = "Examples:
  agentsecrets mcp install --dry-run
  agentsecrets mcp install cursor vscode --agent coder
  agentsecrets mcp install claude-code --project-dir .

What else stands in a file stays as it is, and what the file was before is kept: `agentsecrets mcp
uninstall` brings it back.")]
    Install {
        #[command(flatten)]
        clients: Clients,
        /// The agent entry that the server is to be started for
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Take the server out of those files again
    #[command(after_help = "Example: agentsecrets mcp uninstall cursor")]
    Uninstall {
        #[command(flatten)]
        clients: Clients,
    },
    /// Answer a framework's plugin: one JSON request on standard input, one JSON answer
    #[command(after_help = "Example: echo '{}' | agentsecrets mcp bridge status")]
    Bridge {
        /// What is asked
        #[arg(value_enum)]
        what: Asked,
    },
}

/// Whose files are meant.
#[derive(Debug, clap::Args)]
struct Clients {
    /// These clients; without any, those that are found
    #[arg(value_enum, value_name = "CLIENT")]
    clients: Vec<mcp::install::Client>,
    /// The files of the project in this folder, which others may share, instead of your own
    #[arg(long, value_name = "DIR")]
    project_dir: Option<PathBuf>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Asked {
    /// Send one request
    #[value(name = "proxy.call")]
    Call,
    /// Say which environment is active
    Status,
}

impl Args {
    /// Whether it edits files of the person's own programs, which is done as that person.
    pub(super) fn is_about_clients(&self) -> bool {
        matches!(self.verb, Verb::Install { .. } | Verb::Uninstall { .. })
    }

    /// Whether it speaks for an agent.
    #[cfg(target_os = "linux")]
    pub(super) fn speaks(&self) -> bool {
        matches!(self.verb, Verb::Serve { .. } | Verb::Bridge { what: Asked::Call })
    }

    /// Whether it only asks which environment applies.
    #[cfg(target_os = "linux")]
    pub(super) fn asks_for_status(&self) -> bool {
        matches!(self.verb, Verb::Bridge { what: Asked::Status })
    }

    /// The agent entry that is meant.
    #[cfg(target_os = "linux")]
    pub(super) fn agent(&self) -> Option<&AgentName> {
        match &self.verb {
            Verb::Serve { agent } => agent.as_ref(),
            _ => None,
        }
    }

    /// Whether it acts for the person, and so not for an agent.
    pub(super) fn is_administrative(&self) -> bool {
        match self.verb {
            Verb::Install { .. } | Verb::Uninstall { .. } => true,
            Verb::Serve { .. } | Verb::Bridge { .. } => false,
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Serve { agent } => serve(agent, context),
        Verb::Install { clients, agent } => install::install(&clients, agent.as_ref(), context),
        Verb::Uninstall { clients } => install::uninstall(&clients, context),
        Verb::Bridge { what } => Ok(bridge(what, context)),
    }
}

fn serve(agent: Option<AgentName>, context: &Context) -> Result<ExitCode, Failure> {
    crate::server::logging::to_stderr();
    let failed = |error: io::Error| Failure::new(Exit::Failure, error);
    sys::conceal().map_err(failed)?;
    let stages = match inside_agent() {
        true => None,
        false => {
            nobody_to_ask(context)?;
            let whose = (&context.project, &context.environment);
            Some(Stages::lasting(&context.home, whose, &context.scope.narrow, look_closer(), || Ok(()))?)
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let served = runtime.block_on(async {
        let door = match &stages {
            Some(stages) => Door::Here(Here::lasting(stages, context.caller_as(agent).await)),
            None => Door::Wire { token: None },
        };
        mcp::serve(door).await
    });
    runtime.shutdown_timeout(PATIENCE);
    served.map(|()| ExitCode::SUCCESS)
}

/// Fails where a passphrase would have to be typed: a terminal that a client left us is not ours to ask at.
fn nobody_to_ask(context: &Context) -> Result<(), Failure> {
    let path = context.home.vault();
    let has_vault = choices(context)?.iter().any(|choice| choice.kind == Kind::Vault) && vault::exists(&path);
    if !has_vault || vault::unlock_from_environment().is_some() {
        return Ok(());
    }
    let what =
        format!("the vault at {} is opened by a passphrase, and nobody can be asked for it", path.display());
    Err(Failure::new(Exit::Locked, what).hint(
        "open it by a key file (agentsecrets secrets vault key), and name that in the client's configuration as \
         AGENTSECRETS_VAULT_KEY_FILE",
    ))
}

/// Answers the plugin whatever happens: without an answer it would know nothing.
fn bridge(what: Asked, context: &Context) -> ExitCode {
    let answered = match what {
        Asked::Call => call(context),
        Asked::Status => Ok((bridge::status(&context.environment), ExitCode::SUCCESS)),
    };
    let (answer, code) = answered
        .unwrap_or_else(|failure| (bridge::failed(failure.what()), ExitCode::from(failure.exit() as u8)));
    match writeln!(io::stdout(), "{answer}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn call(context: &Context) -> Result<(serde_json::Value, ExitCode), Failure> {
    let usage = |why: String| Failure::new(Exit::Usage, why);
    let mut text = Vec::new();
    let read = io::stdin().lock().take(LARGEST + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::new(Exit::Failure, error))?;
    if text.len() as u64 > LARGEST {
        return Err(usage(format!("the request is larger than {} MiB", LARGEST >> 20)));
    }
    let asked = bridge::Asked::read(&text).map_err(usage)?;
    let there = asked.path.as_deref().filter(|_| !inside_agent()).map(|path| context.within(path));
    let there = there.transpose()?;
    let context = there.as_ref().unwrap_or(context);
    if let Some(expected) = asked.environment.as_ref().filter(|expected| **expected != context.environment) {
        let active = &context.environment;
        return Err(usage(format!(
            "environment '{expected}' was asked for, and '{active}' is the active one"
        )));
    }
    let (request, injections) = asked.request().map_err(usage)?;
    if !inside_agent() {
        nobody_to_ask(context)?;
    }
    sys::conceal().map_err(|error| Failure::new(Exit::Failure, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, error))?;
    let answer: Answer = runtime.block_on(async {
        let door = match inside_agent() {
            true => Door::Wire { token: None },
            false => Door::Here(door_of_an_agent(&asked.agent_id, context).await?),
        };
        door.ask(request, &injections, MOST_OF_AN_ANSWER).await
    })?;
    match &answer.failure {
        Some(failure) => Ok((bridge::failed(failure.what()), ExitCode::from(failure.exit() as u8))),
        None if answer.is_cut => {
            let what = format!("the answer is larger than {} MiB", MOST_OF_AN_ANSWER >> 20);
            Err(Failure::new(Exit::Failure, what))
        }
        None => Ok((bridge::answered(&answer, &context.environment), ExitCode::SUCCESS)),
    }
}

/// The way out for one request of the program that started us, as the entry `agent` if the policy has it.
pub(super) async fn door_of_an_agent(agent: &str, context: &Context) -> Result<Here, Failure> {
    let policy = policy(context)?;
    let named = agent.parse().ok().filter(|name| policy.agent(name).is_some());
    let live = Arc::new(Live::fixed(policy.narrowed(&context.scope.narrow)));
    let whose = (&context.project, &context.environment);
    let stages = Stages::of(&context.home, whose, live, Arc::new(open_store(context)?))?;
    Ok(Here::once(&stages, context.caller_as(named).await))
}

/// The policy as it is now.
pub(super) fn policy(context: &Context) -> Result<Policy, Failure> {
    Policy::load(&context.home.policy()).map_err(|error| {
        Failure::new(Exit::Failure, format!("the policy is not valid: {error}"))
            .hint("agentsecrets policy check")
    })
}
