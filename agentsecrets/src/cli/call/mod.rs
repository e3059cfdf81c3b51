//! `agentsecrets call`: one authenticated request for a person or a script, without a daemon. It passes
//! through the same pipeline as an agent's request. Inside an agent it is that agent's own request.

mod answer;
mod flags;
mod person;

use std::process::ExitCode;
use std::time::Instant;

use flags::Output;

use crate::call::{CallResponse, Sender};
use crate::cli::context::Context;
use crate::types::failure::{Exit, Failure};
pub(super) use flags::Args;

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let answer = match send(&args, context) {
        Ok(answer) => answer,
        Err(failure) => CallResponse::from_failure(failure),
    };
    answer::print(answer, args.output == Output::Json || context.json, started.elapsed())
}

fn send(args: &Args, context: &Context) -> Result<CallResponse, Failure> {
    let injections = flags::injections(args)?;
    let request = flags::request_spec(args).build(&injections);
    let request = request.map_err(|wrong| Failure::new(Exit::Usage, format!("--{wrong}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::from_error)?;
    let token =
        args.token.clone().or_else(|| std::env::var("AS_AGENT_TOKEN").ok().filter(|own| !own.is_empty()));
    runtime.block_on(async {
        let sender = match token {
            token if crate::launch::is_inside_agent() => Sender::Remote { token },
            Some(token) => Sender::Local(person::agent_sender(&token, context).await?),
            None => Sender::Local(person::person_sender(&injections, context).await?),
        };
        sender.send(request, &injections, usize::MAX).await
    })
}
