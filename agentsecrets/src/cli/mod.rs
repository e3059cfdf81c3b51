//! The command line: one module per verb. A verb resolves its arguments, acts, and returns an exit code.

mod agent;
mod approvals;
mod args;
mod audit;
mod call;
mod completions;
mod context;
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
mod output;
mod policy;
#[cfg(target_os = "linux")]
mod presence;
#[cfg(target_os = "linux")]
mod privsep;
mod project;
mod proxy;
mod records;
mod run;
mod scope;
mod secrets;
#[cfg(target_os = "linux")]
mod service_trust;
mod session;
#[cfg(target_os = "linux")]
mod sidecar;
mod status;
mod stores;
mod trust;
#[cfg(target_os = "linux")]
mod whoami;
mod workspace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

#[cfg(target_os = "linux")]
use crate::operator::authorizer::Requirement;
use crate::types::failure::{Exit, Failure};

use args::Verb;
use context::Context;

pub use args::Cli;

/// Parses the command line, runs the verb and returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    if cli.verb.is_administrative() && crate::launch::is_inside_agent() {
        return Err(Failure::new(Exit::Denied, "this command is not for agents")
            .hint("a person runs it, in a terminal outside `agentsecrets run`"));
    }
    let runs = matches!(cli.verb, Verb::Run(_) | Verb::Env(_));
    // `run` and `env` return the command's own exit code, so our failures need a code of their own.
    let of_ours = |failure: Failure| {
        if runs && failure.exit() == Exit::Failure { failure.with_exit(Exit::OwnFailure) } else { failure }
    };
    #[cfg(target_os = "linux")]
    let invocation = match &cli.verb {
        Verb::Interceptor(_) | Verb::Daemon(_) => None,
        _ => crate::operator::invocation::take_inherited().map_err(of_ours)?,
    };
    #[cfg(target_os = "linux")]
    if invocation.is_none()
        && !crate::launch::is_inside_agent()
        && let Some(exit) = privsep::forward_to_daemon(&cli).map_err(of_ours)?
    {
        return Ok(ExitCode::from(exit));
    }
    let (ignores_folder, as_sudo_caller) =
        (cli.verb.ignores_project_file(), matches!(cli.verb, Verb::Run(_)));
    #[cfg(target_os = "linux")]
    let context = Context::new(cli.global, ignores_folder, as_sudo_caller, invocation);
    #[cfg(not(target_os = "linux"))]
    let context = Context::new(cli.global, ignores_folder, as_sudo_caller);
    let context =
        context.map_err(|failure| if runs { failure.with_exit(Exit::OwnFailure) } else { failure })?;
    require_daemon_if_strict(&context, &cli.verb)?;
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
        Verb::Daemon(args) => daemon::run(args, &privsep::COMMAND_POLICY),
        #[cfg(target_os = "linux")]
        Verb::Kubernetes(args) => kubernetes::run(args, &context),
        Verb::Completions(args) => completions::run(args, &mut Cli::command()),
        #[cfg(target_os = "linux")]
        Verb::Interceptor(args) => interceptor::run(args, &context),
    }
}

/// Fails if the person's own configuration is strict, the verb needs a confirmation and no daemon enforces
/// it: one process of a user can bypass every check that another process of that user makes.
#[cfg(target_os = "linux")]
fn require_daemon_if_strict(context: &Context, verb: &Verb) -> Result<(), Failure> {
    let needs_presence = privsep::required_proof(verb) == Requirement::Confirmation;
    if context.invocation.is_some() || !needs_presence || crate::launch::is_inside_agent() {
        return Ok(());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    if !context.is_strict()? {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Denied,
        "the configuration is strict, and there is no daemon to prove your presence to",
    )
    .hint("sudo agentsecrets daemon install"))
}

/// Fails if the configuration is strict, since only Linux has the daemon that enforces it.
#[cfg(not(target_os = "linux"))]
fn require_daemon_if_strict(context: &Context, verb: &Verb) -> Result<(), Failure> {
    if matches!(verb, Verb::Status(_) | Verb::Doctor(_) | Verb::Completions(_)) {
        return Ok(());
    }
    if !context.is_strict()? {
        return Ok(());
    }
    Err(Failure::new(Exit::Denied, "the configuration is strict, and only Linux has the daemon for that").hint(
        "take `strict: true` out of config.yaml, and know that any program of yours can then ask as you can",
    ))
}
