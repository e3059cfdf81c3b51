//! The options of `agentsecrets call`: a request, and the secrets to inject into it.

use crate::call::{Injection, RequestSpec};
use crate::types::failure::{Exit, Failure};

/// Make one authenticated request: name the secrets, and they are injected on the way
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets call --url https://api.stripe.com/v1/balance --bearer STRIPE_KEY
  agentsecrets call --url https://api.example.com/v1/token --method POST \\
      --body '{\"grant_type\":\"client_credentials\"}' --body-field client_secret=CLIENT_SECRET
  agentsecrets call --url https://api.example.com/v1/me --header X-Api-Key=API_KEY --output json

Any stored secret can be used for any host that a rule of the policy allows. With --token, the rules
of that agent apply. Redirects are not followed. The output is `HTTP <code>`, an empty line and the body.")]
pub(in crate::cli) struct Args {
    /// URL of the request
    #[arg(long, value_name = "URL")]
    pub(super) url: String,
    /// HTTP method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub(super) method: String,
    /// Request body; sent as JSON if it is valid JSON, otherwise as a form
    #[arg(long, value_name = "BODY", allow_hyphen_values = true)]
    pub(super) body: Option<String>,
    /// Send this secret as a bearer token
    #[arg(long, value_name = "K")]
    pub(super) bearer: Option<String>,
    /// Send this secret (`user:password`) with Basic authentication
    #[arg(long, value_name = "K")]
    pub(super) basic: Option<String>,
    /// Send a secret as a header
    #[arg(long, value_name = "NAME=K", value_parser = parse_pair)]
    pub(super) header: Vec<(String, String)>,
    /// Send a secret as a query parameter
    #[arg(long, value_name = "PARAMETER=K", value_parser = parse_pair)]
    pub(super) query: Vec<(String, String)>,
    /// Insert a secret into the JSON body
    #[arg(long, value_name = "a.b=K", value_parser = parse_pair)]
    pub(super) body_field: Vec<(String, String)>,
    /// Insert a secret into the form body
    #[arg(long, value_name = "FIELD=K", value_parser = parse_pair)]
    pub(super) form_field: Vec<(String, String)>,
    /// Agent token: makes this a request of that agent. The variable hides it from other programs
    /// [env: AS_AGENT_TOKEN]
    #[arg(long, value_name = "T")]
    pub(super) token: Option<String>,
    /// Output format; `json` is also used for failures
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Output {
    /// The status, an empty line, the body.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl Args {
    /// The secrets that the options name.
    #[cfg(target_os = "linux")]
    pub(in crate::cli) fn secret_names(&self) -> Vec<crate::types::name::SecretName> {
        let injections = injections(self).unwrap_or_default();
        injections.into_iter().map(|injection| injection.reference.name).collect()
    }
}

/// Parses `NAME=K`. NAME may contain `=`, a secret's name cannot.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, key) = text.rsplit_once('=').ok_or("it is written as NAME=SECRET_NAME")?;
    Ok((name.to_owned(), key.to_owned()))
}

/// The injections that `args` describe.
pub(super) fn injections(args: &Args) -> Result<Vec<Injection>, Failure> {
    let mut found = Vec::new();
    let mut add = |flag: &str, kind: &str, about: Option<&str>, key: &str| {
        let injection = Injection::new(kind, about, key);
        found.push(injection.map_err(|reason| Failure::new(Exit::Usage, format!("--{flag}: {reason}")))?);
        Ok::<_, Failure>(())
    };
    if let Some(key) = &args.bearer {
        add("bearer", "bearer", None, key)?;
    }
    if let Some(key) = &args.basic {
        add("basic", "basic", None, key)?;
    }
    for (flag, kind, pairs) in [
        ("header", "header", &args.header),
        ("query", "query", &args.query),
        ("body-field", "body", &args.body_field),
        ("form-field", "form", &args.form_field),
    ] {
        for (about, key) in pairs {
            add(flag, kind, Some(about), key)?;
        }
    }
    Ok(found)
}

/// The request that `args` describe.
pub(super) fn request_spec(args: &Args) -> RequestSpec {
    RequestSpec {
        url: args.url.clone(),
        method: args.method.clone(),
        headers: Vec::new(),
        body: args.body.clone(),
    }
}
