//! Privilege separation for the verbs: the confirmation that each one requires, and how a command line is
//! forwarded to the daemon.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches};

use super::args::{Cli, Verb};
use super::context::GlobalArgs;
use super::scope::project_file::ProjectFile;
use super::service_trust::is_service;
use crate::identity::Process;
use crate::operator::authorizer::{self, CommandPolicy, Requirement, RunAs};
use crate::operator::client::{ForwardedCommand, forward};
use crate::operator::system_config::{ConfirmationMethod, SystemConfig};
use crate::sys;
use crate::sys::home::Home;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, Project, SecretName};

/// The rules of the verbs, for the daemon.
pub(super) const COMMAND_POLICY: CommandPolicy = CommandPolicy { parse, is_trusted };

/// Forwards the command line to the daemon on a strict machine and returns its exit code. `None`: run it
/// here.
pub(super) fn forward_to_daemon(cli: &Cli) -> Result<Option<u8>, Failure> {
    if is_local(&cli.verb) {
        return Ok(None);
    }
    let Some(system) = SystemConfig::load()? else { return Ok(None) };
    if nix::unistd::geteuid() == system.uid {
        return Ok(None);
    }
    let mut arguments = match &cli.verb {
        Verb::Mcp(args) if args.acts_for_agent() => run_command_line(args, &cli.global)?,
        _ => std::env::args_os().skip(1).collect(),
    };
    // These variables count like options. No other variable of the caller is used.
    let variable =
        |names: [&str; 2]| names.into_iter().filter_map(std::env::var_os).find(|it| !it.is_empty());
    if let Some(project) = variable(["AGENTSECRETS_PROJECT"; 2]).filter(|_| cli.global.project.is_none()) {
        arguments.splice(0..0, ["--project".into(), project]);
    }
    if let Some(environment) =
        variable(["AGENTSECRETS_ENV", "AS_ENV"]).filter(|_| cli.global.environment.is_none())
    {
        arguments.splice(0..0, ["--environment".into(), environment]);
    }
    let folder = std::env::current_dir().ok();
    let passed = ForwardedCommand {
        arguments,
        files: input_files(&cli.verb),
        located_paths: match &cli.verb {
            Verb::Trust(args) => args.named_files(),
            _ => Vec::new(),
        },
        project_file: folder.and_then(|folder| ProjectFile::locate(&folder)),
        starts_command: run_as(&cli.verb) != RunAs::DaemonUser
            || matches!(&cli.verb, Verb::Mcp(args) if args.acts_for_agent()),
        // Root needs no confirmation.
        needs_polkit_agent: system.confirmation == ConfirmationMethod::Polkit
            && required_proof(&cli.verb) == Requirement::Confirmation
            && !nix::unistd::geteuid().is_root(),
    };
    forward(passed).map(Some)
}

/// The command line that starts a verb which acts for an agent inside `run`: outside of `run` the program
/// that started it is proven only for a moment, and `run` needs no confirmation.
fn run_command_line(args: &super::mcp::Args, global: &GlobalArgs) -> Result<Vec<OsString>, Failure> {
    let program = sys::own_program().map_err(|error| Failure::new(Exit::OwnFailure, error))?;
    let mut line: Vec<OsString> = vec!["run".into()];
    line.extend(args.agent().into_iter().flat_map(|agent| ["--agent".into(), agent.as_str().into()]));
    line.extend(["--".into(), program.into()]);
    line.extend(std::env::args_os().skip(1));
    let chosen = [
        ("--project", global.project.as_ref().map(Project::as_str)),
        ("--environment", global.environment.as_ref().map(Environment::as_str)),
    ];
    let chosen = chosen.into_iter().filter_map(|(flag, value)| Some([flag.into(), value?.into()]));
    Ok(chosen.flatten().chain(line).collect())
}

/// Whether a verb never goes to the daemon: services and their parts, and verbs that concern only the
/// caller's own files or identity.
fn is_local(verb: &Verb) -> bool {
    match verb {
        Verb::Daemon(_) | Verb::Interceptor(_) | Verb::Sidecar(_) | Verb::Health(_) | Verb::Kubernetes(_) => {
            true
        }
        Verb::Completions(_) | Verb::Whoami(_) => true,
        Verb::Policy(args) => args.checks_own_file(),
        Verb::Mcp(args) => args.edits_client_files(),
        _ => false,
    }
}

/// The confirmation that a verb requires. A new verb requires presence unless there is a reason against it.
pub(super) fn required_proof(verb: &Verb) -> Requirement {
    match verb {
        local if is_local(local) => Requirement::Nothing,
        Verb::Status(_) | Verb::Doctor(_) | Verb::Completions(_) => Requirement::Nothing,
        Verb::Policy(args) => args.required_proof(),
        // It only reports the active environment.
        Verb::Mcp(args) if args.is_status_query() => Requirement::Nothing,
        // It grants an agent only what the policy allows; a rule may require a session with `match`.
        Verb::Run(_) => Requirement::Nothing,
        Verb::Interceptor(_) | Verb::Daemon(_) | Verb::Whoami(_) => Requirement::Nothing,
        Verb::Sidecar(_) | Verb::Health(_) | Verb::Kubernetes(_) => Requirement::Nothing,
        Verb::Approvals(_) | Verb::Approve(_) | Verb::Deny(_) => Requirement::Confirmation,
        Verb::Mcp(_) | Verb::Exec(_) | Verb::Trust(_) | Verb::Agent(_) | Verb::Session(_) => {
            Requirement::Confirmation
        }
        Verb::Call(_)
        | Verb::Env(_)
        | Verb::Proxy(_)
        | Verb::Secrets(_)
        | Verb::Environment(_)
        | Verb::Project(_)
        | Verb::Workspace(_)
        | Verb::Audit(_)
        | Verb::Presence(_) => Requirement::Confirmation,
    }
}

/// The user as whom the daemon starts the verb.
fn run_as(verb: &Verb) -> RunAs {
    match verb {
        Verb::Run(_) => RunAs::Launcher,
        Verb::Env(_) => RunAs::CommandStarter,
        _ => RunAs::DaemonUser,
    }
}

/// The caller's files that the verb reads.
fn input_files(verb: &Verb) -> Vec<PathBuf> {
    match verb {
        Verb::Secrets(args) => args.input_files(),
        Verb::Env(args) => args.input_files(),
        Verb::Policy(args) => args.input_files(),
        _ => Vec::new(),
    }
}

fn parse(arguments: &[OsString]) -> Result<authorizer::ParsedCommand, Failure> {
    let words = std::iter::once(OsString::from("agentsecrets")).chain(arguments.iter().cloned());
    let usage = |error: clap::Error| Failure::new(Exit::Usage, error.render());
    let matches = Cli::command().try_get_matches_from(words).map_err(usage)?;
    let mut named = Vec::new();
    let mut level = Some(&matches);
    while let Some((word, below)) = level.and_then(|matches| matches.subcommand()) {
        named.push(word);
        level = Some(below);
    }
    let words = named.join(" ");
    let cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    if is_local(&cli.verb) {
        return Err(Failure::new(Exit::Usage, format!("`{words}` never goes to the daemon")));
    }
    if let Some((what, instead)) = not_offered(&words, &cli.verb) {
        return Err(Failure::new(Exit::Denied, what).hint(instead));
    }
    let secrets: Vec<SecretName> = match &cli.verb {
        Verb::Secrets(args) => args.secret_names(),
        Verb::Call(args) => args.secret_names(),
        Verb::Env(args) => args.secret_names(),
        _ => Vec::new(),
    };
    let environment = cli.global.environment.clone().unwrap_or_default();
    Ok(authorizer::ParsedCommand {
        requirement: required_proof(&cli.verb),
        run_as: run_as(&cli.verb),
        words,
        environment,
        secrets,
    })
}

/// The reason why the daemon does not offer a verb, and the alternative.
fn not_offered(words: &str, verb: &Verb) -> Option<(&'static str, &'static str)> {
    match words {
        "secrets vault backup" | "secrets vault restore" => Some((
            "the vault of a strict machine and its key belong to the daemon and are stored together",
            "sudo cp -a /var/lib/agentsecrets/UID FOLDER, and back the same way",
        )),
        other if other.starts_with("secrets vault ") => Some((
            "the vault of a strict machine is opened by a key of the daemon, without a person",
            "to change your own passphrase, run: agentsecrets presence set",
        )),
        _ if matches!(verb, Verb::Proxy(_)) && !["proxy logs", "proxy status"].contains(&words) => Some((
            "a strict machine has no explicit proxy: it could identify only programs of its own user, the daemon's",
            "use agentsecrets run -- COMMAND, which needs neither a proxy nor your presence",
        )),
        "audit export" if matches!(verb, Verb::Audit(args) if args.has_outside_effects()) => {
            Some(("the daemon does not write your files", "agentsecrets audit export > FILE"))
        }
        "audit stream" if matches!(verb, Verb::Audit(args) if args.has_outside_effects()) => Some((
            "the daemon does not send your records anywhere, and does not write your files",
            "agentsecrets audit stream | COLLECTOR",
        )),
        _ if matches!(verb, Verb::Mcp(args) if args.acts_for_agent()) => {
            Some(("on a strict machine this runs as an agent", "agentsecrets run -- agentsecrets mcp serve"))
        }
        _ => None,
    }
}

/// Verbs that a trusted program may run without confirmation. `call` is not one of them: it would fill any
/// placeholder in the request.
const TRUSTED: &[&str] = &["env", "exec", "secrets get"];

/// Whether the person trusts the program of `process` with every secret that `verb` names. `exec` reads the
/// names later, and then checks each of them.
fn is_trusted(home: &Home, process: &Process, verb: &authorizer::ParsedCommand) -> bool {
    let named = if verb.words == "exec" { None } else { Some(&*verb.secrets) };
    TRUSTED.contains(&&*verb.words)
        && named.is_none_or(|secrets| !secrets.is_empty())
        && is_service(home, process, named.unwrap_or_default())
}
