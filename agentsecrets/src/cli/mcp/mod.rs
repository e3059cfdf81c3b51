//! `agentsecrets mcp`: the MCP server and the bridge for frameworks. Their requests are those of an agent:
//! inside `run` of that agent, outside of the program that started them, as the kernel identifies it.

mod install;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{CallResponse, LocalSender, Sender};
use crate::cli::context::Context;
use crate::cli::stores::{open_store, store_choices};
use crate::identity::process_details;
use crate::launch::is_inside_agent;
use crate::mcp::{self, bridge};
use crate::policy::{Policy, PolicyWatcher};
use crate::server::builder::PipelineBuilder;
use crate::sys;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::AgentName;
use install::Clients;

const MAX_REQUEST_BYTES: u64 = 16 << 20;
const MAX_RESPONSE_BYTES: usize = 64 << 20;
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serve AI models over MCP, and frameworks through the bridge
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
    /// Run the MCP server on standard input and output; an MCP client starts it
    #[command(after_help = "Example: agentsecrets mcp serve --agent coder

The tools are list_secrets and api_call. The policy decides every request as an agent's: it uses the
entry that --agent names if its `match` accepts the program that started this one, otherwise the first
entry that does. Inside `agentsecrets run` it is a request of that agent.")]
    Serve {
        /// Agent entry of the policy
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Add the server to the configuration of Claude Desktop, Claude Code, Cursor, VS Code and Windsurf
    #[command(after_help = "Examples:
  agentsecrets mcp install --dry-run
  agentsecrets mcp install cursor vscode --agent coder
  agentsecrets mcp install claude-code --project-dir .

The rest of each file stays unchanged, and the original is saved: `agentsecrets mcp uninstall`
restores it.")]
    Install {
        #[command(flatten)]
        clients: Clients,
        /// Agent entry for which the clients start the server
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Remove the server from those files
    #[command(after_help = "Example: agentsecrets mcp uninstall cursor")]
    Uninstall {
        #[command(flatten)]
        clients: Clients,
    },
    /// Answer one request of a framework's plugin: JSON on standard input and output
    #[command(after_help = "Example: echo '{}' | agentsecrets mcp bridge status")]
    Bridge {
        /// Method of the request
        #[arg(value_enum)]
        what: BridgeMethod,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum BridgeMethod {
    /// Send one request
    #[value(name = "proxy.call")]
    Call,
    /// Report the active environment
    Status,
}

impl Args {
    /// Whether it edits configuration files of the person's programs, which needs that person's rights.
    pub(super) fn edits_client_files(&self) -> bool {
        matches!(self.verb, Verb::Install { .. } | Verb::Uninstall { .. })
    }

    /// Whether its requests are those of an agent.
    #[cfg(target_os = "linux")]
    pub(super) fn acts_for_agent(&self) -> bool {
        matches!(self.verb, Verb::Serve { .. } | Verb::Bridge { what: BridgeMethod::Call })
    }

    /// Whether it only reports the active environment.
    #[cfg(target_os = "linux")]
    pub(super) fn is_status_query(&self) -> bool {
        matches!(self.verb, Verb::Bridge { what: BridgeMethod::Status })
    }

    /// Agent entry of the policy.
    #[cfg(target_os = "linux")]
    pub(super) fn agent(&self) -> Option<&AgentName> {
        match &self.verb {
            Verb::Serve { agent } => agent.as_ref(),
            _ => None,
        }
    }

    /// Whether only a person may run it; agents may not.
    pub(super) fn is_administrative(&self) -> bool {
        match self.verb {
            Verb::Install { .. } | Verb::Uninstall { .. } => true,
            Verb::Serve { .. } | Verb::Bridge { .. } => false,
        }
    }
}

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
    sys::conceal().map_err(Failure::from_error)?;
    let builder = match is_inside_agent() {
        true => None,
        false => {
            require_unattended_vault(context)?;
            let scope = (&context.project, &context.environment);
            Some(PipelineBuilder::for_process(
                &context.home,
                scope,
                &context.scope.restriction,
                process_details(),
                || Ok(()),
            )?)
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(Failure::from_error)?;
    let served = runtime.block_on(async {
        let sender = match &builder {
            Some(builder) => {
                Sender::Local(LocalSender::long_lived(builder, context.caller_as_agent(agent).await))
            }
            None => Sender::Remote { token: None },
        };
        mcp::serve(sender).await
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    served.map(|()| ExitCode::SUCCESS)
}

/// Fails if the vault needs a passphrase: the terminal belongs to the MCP client, so there is no prompt.
fn require_unattended_vault(context: &Context) -> Result<(), Failure> {
    if !store_choices(context)?.iter().any(|choice| choice.kind.needs_terminal(&context.home)) {
        return Ok(());
    }
    let path = context.home.vault();
    let what =
        format!("the vault at {} needs a passphrase, and there is no prompt for it here", path.display());
    Err(Failure::new(Exit::Locked, what).hint(
        "use a key file (agentsecrets secrets vault key), and set AGENTSECRETS_VAULT_KEY_FILE to it in the client's \
         configuration",
    ))
}

/// Answers the plugin in every case, also after a failure.
fn bridge(what: BridgeMethod, context: &Context) -> ExitCode {
    let answered = match what {
        BridgeMethod::Call => call(context),
        BridgeMethod::Status => Ok((bridge::status(&context.environment), ExitCode::SUCCESS)),
    };
    let (answer, code) = answered
        .unwrap_or_else(|failure| (bridge::failure(failure.message()), ExitCode::from(failure.exit() as u8)));
    match writeln!(io::stdout(), "{answer}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn call(context: &Context) -> Result<(serde_json::Value, ExitCode), Failure> {
    let usage = |reason: String| Failure::new(Exit::Usage, reason);
    let mut text = Vec::new();
    let read = io::stdin().lock().take(MAX_REQUEST_BYTES + 1).read_to_end(&mut text);
    read.map_err(Failure::from_error)?;
    if text.len() as u64 > MAX_REQUEST_BYTES {
        return Err(usage(format!("the request is larger than {} MiB", MAX_REQUEST_BYTES >> 20)));
    }
    let bridge_request = bridge::BridgeRequest::parse(&text).map_err(usage)?;
    let there =
        bridge_request.path.as_deref().filter(|_| !is_inside_agent()).map(|path| context.in_folder(path));
    let there = there.transpose()?;
    let context = there.as_ref().unwrap_or(context);
    if let Some(expected) =
        bridge_request.environment.as_ref().filter(|expected| **expected != context.environment)
    {
        let active = &context.environment;
        return Err(usage(format!("environment '{expected}' was requested, but '{active}' is active")));
    }
    let (request, injections) = bridge_request.build().map_err(usage)?;
    if !is_inside_agent() {
        require_unattended_vault(context)?;
    }
    sys::conceal().map_err(Failure::from_error)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::from_error)?;
    let answer: CallResponse = runtime.block_on(async {
        let sender = match is_inside_agent() {
            true => Sender::Remote { token: None },
            false => Sender::Local(agent_sender(&bridge_request.agent_id, context).await?),
        };
        sender.send(request, &injections, MAX_RESPONSE_BYTES).await
    })?;
    match &answer.failure {
        Some(failure) => Ok((bridge::failure(failure.message()), ExitCode::from(failure.exit() as u8))),
        None if answer.is_truncated => {
            let what = format!("the response is larger than {} MiB", MAX_RESPONSE_BYTES >> 20);
            Err(Failure::new(Exit::Failure, what))
        }
        None => Ok((bridge::response(&answer, &context.environment), ExitCode::SUCCESS)),
    }
}

/// The sender for one request of the calling program, with the agent entry `agent` if the policy has it.
pub(super) async fn agent_sender(agent: &str, context: &Context) -> Result<LocalSender, Failure> {
    let policy = load_policy(context)?;
    let named = agent.parse().ok().filter(|name| policy.agent(name).is_some());
    let live = Arc::new(PolicyWatcher::fixed(policy.restricted_to(&context.scope.restriction)));
    let scope = (&context.project, &context.environment);
    let builder =
        PipelineBuilder::with_policy_and_store(&context.home, scope, live, Arc::new(open_store(context)?))?;
    Ok(LocalSender::for_one_request(&builder, context.caller_as_agent(named).await))
}

/// Loads the current policy.
pub(super) fn load_policy(context: &Context) -> Result<Policy, Failure> {
    Policy::load(&context.home.policy())
        .context("the policy is not valid")
        .map_err(|failure| failure.hint("agentsecrets policy check"))
}
