//! `agentsecrets env`: a person's own program with the real values in its environment. They go from the
//! store into the new process and nowhere else: no file, no argument, no environment of ours.

mod agent;
mod child;
mod variables;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::audit::Status;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::value_export;
use crate::redact::mask::Values;
use crate::sys;
use crate::sys::files;
use crate::types::name::SecretName;
use child::{Flags, Signals, as_who_asked};
use variables::Variable;

/// Start a command with the real values in its environment: every secret under its own name, or those that
/// are chosen.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets env -- npm start
  agentsecrets env --only STRIPE_KEY,DATABASE_URL -- ./deploy.sh
  agentsecrets env --env-file app.env -- npm start

A line of the file may name secrets in the place of their values:
  DATABASE_URL=postgres://app:AS_SECRET_DB_PASSWORD@db.internal/app
  STRIPE_KEY=agentsecrets://STRIPE_KEY

The exit code is the command's own, or 128 and the number of the signal that ended it; 125 is a
failure of ours, 126 a command that cannot be executed, 127 one that does not exist. The command
holds the values, and so does whatever it starts: what must not see them belongs under
`agentsecrets run`. An agent is refused, unless its entry in the policy says `env: true`.")]
pub(super) struct Args {
    /// These secrets only
    #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
    only: Vec<SecretName>,
    /// The variables of this .env file, with the secrets that it names, instead of every secret
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    #[command(flatten)]
    output: Flags,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Args {
    /// The secrets that are named.
    pub(super) fn names(&self) -> Vec<SecretName> {
        self.only.clone()
    }

    /// The files that are read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.env_file.iter().cloned().collect()
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    // Whoever may trace us could read the values out of our memory.
    sys::protect_memory().map_err(|error| ours("cannot protect our memory", error))?;
    let signals = Signals::block().map_err(|error| ours("cannot take signals", error))?;
    if crate::launch::inside_agent() {
        // The interceptor has the record.
        let variables = agent::variables(&args)?;
        return start(&args, variables, signals, None);
    }
    let program = args.command.first().map(|word| word.to_string_lossy().into_owned());
    let failed = |what: &str, error: &dyn std::fmt::Display| ours(what, error);
    let mut pending = value_export::open("ENV", program.unwrap_or_default(), context, failed)?;
    let variables = match variables::of(&args, context) {
        Ok(variables) => variables,
        Err(failure) => {
            pending
                .finish(value_export::ended(Status::Error, failure.what()))
                .map_err(|error| ours("this is not recorded", error))?;
            return Err(failure);
        }
    };
    pending.handed_over(variables.iter().flat_map(|variable| &variable.secrets), "env_inject");
    pending.intent().map_err(|error| ours("nothing was started", error))?;
    let ended = start(&args, variables, signals, Some(context));
    let outcome = match &ended {
        Ok(_) => value_export::done(),
        Err(failure) => value_export::ended(Status::Error, failure.what()),
    };
    if let Err(error) = pending.finish(outcome) {
        anstream::eprintln!("agentsecrets: {error}");
    }
    ended
}

/// Runs the command with `variables` to its end.
fn start(
    args: &Args,
    variables: Vec<Variable>,
    signals: Signals,
    asked: Option<&Context>,
) -> Result<ExitCode, Failure> {
    let program = args.command.first().map_or(Default::default(), OsString::as_os_str);
    let mut command = Command::new(sys::runnable(program));
    command.args(args.command.iter().skip(1));
    let person = as_who_asked(&mut command, asked)?;
    command.envs(variables.iter().map(Variable::as_pair));
    let masked = args
        .output
        .mask()
        .then(|| Values::new(variables.into_iter().flat_map(Variable::into_values).collect()));
    signals.run(command, masked, person).map(ExitCode::from)
}

fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    let what = format!("{}: {error}", program.to_string_lossy());
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NoCommand, what),
        io::ErrorKind::PermissionDenied if !files::is_visible(program) => Failure::new(Exit::NoCommand, what),
        io::ErrorKind::ArgumentListTooLong => {
            Failure::new(Exit::Ours, what).hint("choose fewer secrets with --only")
        }
        io::ErrorKind::Interrupted | io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => {
            Failure::new(Exit::Ours, what)
        }
        _ => Failure::new(Exit::NotExecutable, what),
    }
}

fn ours(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Ours, format!("{what}: {error}"))
}
