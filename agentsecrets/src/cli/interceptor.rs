//! `agentsecrets interceptor`: the process that `run` starts next to the agent.

use std::process::ExitCode;

use crate::cli::context::Context;
use crate::server::interceptor;
use crate::types::failure::Failure;

/// Handle agents' traffic; `run` starts this process and controls it over standard input
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, _context: &Context) -> Result<ExitCode, Failure> {
    interceptor::serve()?;
    Ok(ExitCode::SUCCESS)
}
