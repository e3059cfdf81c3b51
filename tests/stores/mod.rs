//! The stores that hold secrets, each real: what a person stores is what an agent spends, and a store that
//! is locked, absent, slow or wrong is told with its fix.

mod keychain;
mod order;
mod vault;

use crate::spine::World;
use crate::support::process::{Outcome, finish};

/// What the agent's request carried, where it got through.
pub(crate) const URL: &str = "/echo";

/// Runs curl as an agent of `world`, started by what `started` makes of the command.
#[track_caller]
fn curl(world: &World, started: impl FnOnce(std::process::Command) -> std::process::Command) -> Outcome {
    let arguments = ["curl", "-sS", "-w", "\n%{http_code}", "-H", "Authorization: Bearer AS_SECRET_API_KEY"];
    let mut curl = started(world.home.run_agent(arguments));
    finish(curl.arg(world.url(URL)))
}
