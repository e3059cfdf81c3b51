//! `agentsecrets interceptor`: the process that `run` starts beside the agent.

use std::process::ExitCode;

use super::{Context, Failure};
use crate::server::interceptor;

/// The process that handles agents' traffic; `run` starts it and talks to it on standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Runs the verb.
pub(super) fn run(_args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    interceptor::serve()?;
    Ok(ExitCode::SUCCESS)
}
