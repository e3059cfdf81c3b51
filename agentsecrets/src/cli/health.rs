//! `agentsecrets health`: for the health check of a container.

use std::process::ExitCode;

use anstream::println;

use super::{Context, Exit, Failure};
use crate::server::health;

/// Say whether agents beside this service are held and served.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example, in compose.yaml:\n  healthcheck:\n    test: [CMD, /agentsecrets, health]\n\n\
    It asks from the service's own container what would become of an agent's traffic: a datagram must be\n\
    refused, and a connection must come to the interceptor. The exit code is 0 if both hold, else 6."
)]
pub(super) struct Args {}

/// Runs the verb.
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
            .hint("run it in the service's own container; what the service says of itself is in its log")
    })
}
