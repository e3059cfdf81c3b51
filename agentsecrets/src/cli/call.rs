//! `agentsecrets call`: one authenticated request, for a person or a script of theirs, without a daemon. It
//! goes through the same stages as an agent's. Inside an agent it is that agent's own request.

mod answer;
mod flags;
mod person;

use std::process::ExitCode;
use std::time::Instant;

use super::{Context, Exit, Failure};
use crate::call::{Answer, Door};

/// Make one authenticated request: the secrets are named, and put in on the way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets call --url https://api.stripe.com/v1/balance --bearer STRIPE_KEY
  agentsecrets call --url https://api.example.com/v1/token --method POST \\
      --body '{\"grant_type\":\"client_credentials\"}' --body-field client_secret=CLIENT_SECRET
  agentsecrets call --url https://api.example.com/v1/me --header X-Api-Key=API_KEY --output json

Any stored secret can be spent, toward any host that some rule of the policy allows; with a token
what the policy allows that agent. Redirects are not followed. Printed are `HTTP <code>`, an empty line and the body.")]
pub(super) struct Args {
    /// Where to
    #[arg(long, value_name = "URL")]
    url: String,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The body, sent as JSON if it is JSON, else as a form
    #[arg(long, value_name = "BODY", allow_hyphen_values = true)]
    body: Option<String>,
    /// Send this secret as a bearer token
    #[arg(long, value_name = "K")]
    bearer: Option<String>,
    /// Send this secret, which is `user:password`, by Basic authentication
    #[arg(long, value_name = "K")]
    basic: Option<String>,
    /// Send a secret as a header
    #[arg(long, value_name = "NAME=K", value_parser = flags::pair)]
    header: Vec<(String, String)>,
    /// Send a secret as a query parameter
    #[arg(long, value_name = "PARAMETER=K", value_parser = flags::pair)]
    query: Vec<(String, String)>,
    /// Put a secret into the JSON body
    #[arg(long, value_name = "a.b=K", value_parser = flags::pair)]
    body_field: Vec<(String, String)>,
    /// Put a secret into the form in the body
    #[arg(long, value_name = "FIELD=K", value_parser = flags::pair)]
    form_field: Vec<(String, String)>,
    /// The token of the agent that asks: it is that agent's request then [env: AS_AGENT_TOKEN, which no other
    /// program sees]
    #[arg(long, value_name = "T")]
    token: Option<String>,
    /// How to print the answer; `json` also when it failed
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Output,
}

/// How the answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Output {
    /// The status, an empty line, the body.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Args {
    /// The secrets that are named.
    #[cfg(target_os = "linux")]
    pub(super) fn names(&self) -> Vec<crate::types::name::SecretName> {
        let injections = flags::injections(self).unwrap_or_default();
        injections.into_iter().map(|injection| injection.reference.name).collect()
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let answer = match answer(&args, context) {
        Ok(answer) => answer,
        Err(failure) => Answer::failed(failure),
    };
    answer::print(answer, args.output == Output::Json || context.json, started.elapsed())
}

fn answer(args: &Args, context: &Context) -> Result<Answer, Failure> {
    let injections = flags::injections(args)?;
    let request = flags::wanted(args).request(&injections);
    let request = request.map_err(|wrong| Failure::new(Exit::Usage, format!("--{wrong}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failure, error))?;
    let token =
        args.token.clone().or_else(|| std::env::var("AS_AGENT_TOKEN").ok().filter(|own| !own.is_empty()));
    runtime.block_on(async {
        let door = match token {
            token if crate::launch::inside_agent() => Door::Wire { token },
            Some(token) => Door::Here(person::door_of_an_agent(&token, context).await?),
            None => Door::Here(person::door(&injections, context).await?),
        };
        door.ask(request, &injections, usize::MAX).await
    })
}
