//! `agentsecrets env`: runs a person's own program with the real values in its environment. Values go from
//! the store into the new process only: never into a file, an argument or our own environment.

mod agent;
mod args;
mod child;
mod variables;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::audit::Status;
use crate::cli::context::Context;
use crate::cli::records;
use crate::redact::mask::MaskedValues;
use crate::sys;
use crate::types::failure::{ErrorContext, Exit, Failure};
pub(super) use args::Args;

use child::{Signals, run_as_caller};
use variables::Variable;

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    // A process that may trace us could read the values from our memory.
    sys::protect_memory().context_with_exit(Exit::OwnFailure, "cannot protect our memory")?;
    let signals = Signals::block().context_with_exit(Exit::OwnFailure, "cannot handle signals")?;
    if crate::launch::is_inside_agent() {
        // The interceptor writes the record.
        let variables = agent::variables(&args)?;
        return start(&args, variables, signals, None);
    }
    let program = args.command.first().map(|word| word.to_string_lossy().into_owned());
    let mut pending = records::begin_export("ENV", program.unwrap_or_default(), context, Exit::OwnFailure)?;
    let variables = match variables::from_stores(&args, context) {
        Ok(variables) => variables,
        Err(failure) => {
            pending
                .finish(records::export_failed(Status::Error, failure.message()))
                .context_with_exit(Exit::OwnFailure, "this is not recorded")?;
            return Err(failure);
        }
    };
    pending.exports(variables.iter().flat_map(|variable| &variable.secrets), "env_inject");
    pending.intent().context_with_exit(Exit::OwnFailure, "nothing was started")?;
    let ended = start(&args, variables, signals, Some(context));
    let outcome = match &ended {
        Ok(_) => records::export_done(),
        Err(failure) => records::export_failed(Status::Error, failure.message()),
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
    caller: Option<&Context>,
) -> Result<ExitCode, Failure> {
    let program = args.command.first().map_or(Default::default(), OsString::as_os_str);
    let mut command = Command::new(sys::runnable(program));
    command.args(args.command.iter().skip(1));
    let person = run_as_caller(&mut command, caller)?;
    command.envs(variables.iter().map(Variable::as_pair));
    let masked = args
        .output
        .mask()
        .then(|| MaskedValues::new(variables.into_iter().flat_map(Variable::into_values).collect()));
    signals.run(command, masked, person).map(ExitCode::from)
}
