//! `agentsecrets health`: the health check of a sidecar container.

use std::process::ExitCode;

use anstream::println;

use crate::cli::context::Context;
use crate::server::health;
use crate::types::failure::{Exit, Failure};

/// Report whether this container's service is healthy (for container health checks)
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example, in compose.yaml:\n  healthcheck:\n    test: [CMD, /agentsecrets, health]\n\n\
    It runs in the service's own container and tests an agent's traffic: a datagram must be blocked, and\n\
    a connection must reach the interceptor. The exit code is 0 if both tests pass, otherwise 6."
)]
pub(super) struct Args {}

pub(super) fn run(_args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let checked = health::check();
    if context.json {
        let error = checked.as_ref().err().map(ToString::to_string);
        println!("{}", serde_json::json!({ "held_and_served": checked.is_ok(), "error": error }));
    } else if checked.is_ok() {
        println!("agents are held and served");
    }
    checked.map(|()| ExitCode::SUCCESS).map_err(|error| {
        Failure::new(Exit::Unreachable, error)
            .hint("run it in the service's own container; the log of the service says more")
    })
}
