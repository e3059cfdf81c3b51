//! The stores of secrets, each a real one: an agent uses what the operator stored, and a locked, absent, slow
//! or wrong store is reported with advice.

mod chained;
mod keychain;
mod vault;

use crate::end_to_end::Fixture;
use crate::support::process::{Outcome, run};

pub(crate) const PATH: &str = "/echo";

/// Runs curl as an agent of `fixture`; `started` may wrap the command.
#[track_caller]
fn curl(fixture: &Fixture, started: impl FnOnce(std::process::Command) -> std::process::Command) -> Outcome {
    let arguments = ["curl", "-sS", "-w", "\n%{http_code}", "-H", "Authorization: Bearer AS_SECRET_API_KEY"];
    let mut curl = started(fixture.home.run_agent(arguments));
    run(curl.arg(fixture.url(PATH)))
}
