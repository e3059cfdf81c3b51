//! Authorises a command: for root, the daemon's own user, a trusted program, or a person who confirms it with
//! a passphrase at a terminal or through polkit. The authorizer runs as the daemon's user, and records every
//! act that needs more than nothing.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::unistd::{Uid, isatty};

use super::peer::Peer;
use super::polkit::{self, PolkitOutcome};
use crate::audit::{AdminAct, Log, Status, visible};
use crate::identity::Process;
use crate::operator::system_config::{ConfirmationMethod, SystemConfig};
use crate::operator::user_home;
use crate::privsep::confirmation::{ConfirmationError, Passphrase};
use crate::sys::home::Home;
use crate::sys::prompt::hidden_at;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, SecretName};
use crate::types::shell_quote::quoted;

const PASSPHRASE_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_ATTEMPTS: u32 = 3;
/// Maximum length of the command line that a person is shown, in characters.
const MAX_COMMAND_LINE_LENGTH: usize = 1000;

/// The confirmation that a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// It shows no value and gives no right.
    Nothing,
    /// It shows a value, gives a right, or changes one.
    Confirmation,
}

/// The user and privileges of a command's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunAs {
    DaemonUser,
    /// The privileges of the launcher, for `run`.
    Launcher,
    /// The daemon's user with the right to start a command as the person, for `env`.
    CommandStarter,
}

/// A command line as the authorizer understands it.
#[derive(Debug)]
pub(crate) struct ParsedCommand {
    pub(crate) requirement: Requirement,
    pub(crate) run_as: RunAs,
    /// Its subcommands, such as `secrets set`.
    pub(crate) words: String,
    pub(crate) environment: Environment,
    /// The secrets that it names.
    pub(crate) secrets: Vec<SecretName>,
}

/// The command line's rules, which are defined in a layer above.
#[derive(Clone, Copy)]
pub(crate) struct CommandPolicy {
    /// Parses a command line.
    pub(crate) parse: fn(&[OsString]) -> Result<ParsedCommand, Failure>,
    /// Whether a process is a program that the person trusts with these secrets.
    pub(crate) is_trusted: fn(&Home, &Process, &ParsedCommand) -> bool,
}

/// A command to authorise.
pub(crate) struct AuthorizationRequest<'a> {
    pub(crate) config: &'a SystemConfig,
    pub(crate) peer: &'a Peer,
    /// The person for whom it acts.
    pub(crate) user: Uid,
    pub(crate) arguments: &'a [OsString],
    /// Terminals at which the person can be asked.
    pub(crate) terminals: Vec<BorrowedFd<'a>>,
}

/// A granted authorisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub(crate) run_as: RunAs,
    /// Whether a trusted program requested it and nobody was asked.
    pub(crate) by_trusted_program: bool,
}

/// Authorises the command, and records the outcome.
pub(crate) fn authorize(
    request: &AuthorizationRequest<'_>,
    policy: &CommandPolicy,
) -> Result<Authorization, Failure> {
    let command = (policy.parse)(request.arguments)?;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, format!("the daemon: {error}"));
    user_home::create_key(request.user).map_err(|error| failed(&error))?;
    if command.requirement == Requirement::Nothing {
        return Ok(Authorization { run_as: command.run_as, by_trusted_program: false });
    }
    let home = Home::at(&user_home::path(request.user));
    let granted = check(request, &command, policy, &home);
    let log = Log::open(&home.audit()).map_err(|error| failed(&error))?;
    let (status, reason) = match &granted {
        Ok(_) => (Status::Ok, None),
        Err(failure) => (Status::Blocked, Some(failure.message().to_owned())),
    };
    let mut notes: Vec<String> = granted.iter().map(|ground| ground.description().to_owned()).collect();
    if let Some(parent) = &request.peer.parent {
        notes.push(format!(
            "started by {} (pid {}, sha256 {})",
            parent.exe.display(),
            parent.pid,
            parent.sha256
        ));
    }
    let act = AdminAct {
        environment: &command.environment,
        act: &command.words,
        agent: None,
        secrets: &command.secrets,
        process: Some((&request.peer.process).into()),
        status,
        reason,
        notes,
    };
    log.administrative(act).map_err(|error| failed(&error))?;
    granted.map(|ground| Authorization {
        run_as: command.run_as,
        by_trusted_program: ground == AuthorizedBy::TrustedProgram,
    })
}

/// The ground of an authorisation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AuthorizedBy {
    Root,
    TrustedProgram,
    User(ConfirmationMethod),
}

impl AuthorizedBy {
    fn description(self) -> &'static str {
        match self {
            Self::Root => "by root or the daemon's user",
            Self::TrustedProgram => "by a trusted program",
            Self::User(ConfirmationMethod::Passphrase) => "by the person, present",
            Self::User(ConfirmationMethod::Polkit) => "by the person, present (polkit)",
        }
    }
}

fn check(
    request: &AuthorizationRequest<'_>,
    command: &ParsedCommand,
    policy: &CommandPolicy,
    home: &Home,
) -> Result<AuthorizedBy, Failure> {
    let peer = request.peer;
    if peer.uid.is_root() || peer.uid == request.config.uid {
        return Ok(AuthorizedBy::Root);
    }
    let callers = std::iter::once(&peer.process).chain(&peer.parent);
    if callers.into_iter().any(|process| (policy.is_trusted)(home, process, command)) {
        return Ok(AuthorizedBy::TrustedProgram);
    }
    confirm(request, command).map(AuthorizedBy::User)
}

/// Asks the person for a confirmation.
fn confirm(
    request: &AuthorizationRequest<'_>,
    command: &ParsedCommand,
) -> Result<ConfirmationMethod, Failure> {
    let summary = CommandSummary::new(request, command)?;
    match request.config.confirmation {
        ConfirmationMethod::Passphrase => confirm_by_passphrase(request, &summary, ""),
        // polkit writes the requesting command line into the system's log.
        ConfirmationMethod::Polkit if summary.contains_value => confirm_by_passphrase(
            request,
            &summary,
            " (not by polkit: it logs command lines, and this one holds a value)",
        ),
        ConfirmationMethod::Polkit => {
            match polkit::check_authorization(request.peer, &summary.to_line(), PASSPHRASE_TIMEOUT)? {
                PolkitOutcome::Confirmed => Ok(ConfirmationMethod::Polkit),
                PolkitOutcome::Unavailable(reason) => {
                    confirm_by_passphrase(request, &summary, &format!(" (not by polkit: {reason})"))
                }
            }
        }
    }
}

/// Asks for the passphrase. `besides` tells why polkit was not used.
fn confirm_by_passphrase(
    request: &AuthorizationRequest<'_>,
    summary: &CommandSummary,
    besides: &str,
) -> Result<ConfirmationMethod, Failure> {
    let denied = |what: &dyn std::fmt::Display| Failure::new(Exit::Denied, format!("{what}{besides}"));
    let terminal = request.terminals.iter().find(|terminal| isatty(**terminal).unwrap_or(false));
    let Some(terminal) = terminal else {
        return Err(denied(&"this needs your presence, and there is no terminal to ask at")
            .hint("run it at a terminal, or from a program that you trust"));
    };
    let passphrase = Passphrase::in_home(&user_home::path(request.user));
    let confirmation_failure = |error: ConfirmationError| {
        let failure = denied(&error);
        match error {
            ConfirmationError::NotSet => failure.hint("sudo agentsecrets presence set"),
            _ => failure,
        }
    };
    passphrase.check_throttle().map_err(confirmation_failure)?;
    let mut prompt = format!("{summary}Your passphrase for it: ");
    for remaining in (0..MAX_ATTEMPTS).rev() {
        let typed = hidden_at(*terminal, &prompt, Some(PASSPHRASE_TIMEOUT)).map_err(|error| {
            denied(&format!("no passphrase was typed: {error}")).hint("run it again, and type it in time")
        })?;
        match passphrase.verify(&typed) {
            Ok(()) => return Ok(ConfirmationMethod::Passphrase),
            Err(ConfirmationError::Wrong) if remaining > 0 => {
                passphrase.check_throttle().map_err(confirmation_failure)?;
                prompt = "That is not it. Your passphrase: ".into();
            }
            Err(error) => return Err(confirmation_failure(error)),
        }
    }
    Err(confirmation_failure(ConfirmationError::Wrong))
}

/// The complete act that the person confirms: a program that changed the command line on its way would be
/// seen here.
struct CommandSummary {
    line: String,
    by: Option<String>,
    /// Whether it holds an inline value, which is not shown.
    contains_value: bool,
}

impl CommandSummary {
    /// An act that is too long to be shown is refused.
    fn new(request: &AuthorizationRequest<'_>, command: &ParsedCommand) -> Result<Self, Failure> {
        let is_inline = command.words == "secrets set";
        let mut contains_value = false;
        let format_argument = |argument: &OsString| match argument.to_string_lossy().split_once('=') {
            Some((name, _)) if is_inline && !name.starts_with('-') => {
                contains_value = true;
                format!("{}=…", visible(name))
            }
            _ => visible(&quoted(argument)),
        };
        let line = request.arguments.iter().map(format_argument).collect::<Vec<_>>().join(" ");
        if line.chars().count() > MAX_COMMAND_LINE_LENGTH {
            let what = "this command line is too long to be shown to you whole, and so to be agreed to";
            return Err(Failure::new(Exit::Denied, what).hint("put what is long into a file"));
        }
        let by = request.peer.parent.as_ref().map(|parent| {
            format!("asked for by {} (pid {})", visible(&parent.exe.to_string_lossy()), parent.pid)
        });
        Ok(Self { line, by, contains_value })
    }

    /// The same as one line, for a dialog.
    fn to_line(&self) -> String {
        std::iter::once(&self.line).chain(&self.by).map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl std::fmt::Display for CommandSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "AgentSecrets is to do this for you:")?;
        std::iter::once(&self.line).chain(&self.by).try_for_each(|line| writeln!(f, "  {line}"))
    }
}
