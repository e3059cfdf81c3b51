//! `agentsecrets policy`: checks, shows and replaces the policy file, and explains the decision for one
//! request. It reads the file; it does not ask a running interceptor.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{eprintln, println};
use http::header::AUTHORIZATION;
use http::{Method, Uri};
use serde_json::{Value, json};

use crate::cli::context::Context;
use crate::policy::access_request::{AccessRequest, SecretReference};
use crate::policy::edit;
use crate::policy::explain::{Explanation, explain};
use crate::policy::injection::{InjectionStyle, SecretUse};
use crate::policy::location::InjectionPoint;
use crate::policy::read_file;
use crate::policy::{Agent, LoadError, Policy, Problem};
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::host::Host;
use crate::types::name::{AgentName, SecretName};
use crate::types::target::{Scheme, Target};

use crate::cli::records;

/// Check the policy and explain its decisions
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets policy explain GET https://api.stripe.com/v1/charges")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Check the policy file, and report every error with its line
    #[command(after_help = "Example: agentsecrets policy check ./policy.yaml")]
    Check {
        /// Policy file [default: the active one]
        file: Option<PathBuf>,
    },
    /// Print the active policy
    #[command(after_help = "Example: agentsecrets policy show > policy.yaml")]
    Show,
    /// Replace the policy by FILE if it is valid; on a strict machine this is the only way
    #[command(after_help = "Example: agentsecrets policy set ./policy.yaml")]
    Set {
        /// New policy file
        file: PathBuf,
    },
    /// Show which rule decides a request, and why; exit code 4 if it is denied
    #[command(
        after_help = "Example: agentsecrets policy explain GET https://api.stripe.com/v1/charges --agent coder"
    )]
    Explain {
        /// Method, such as GET
        method: String,
        /// URL; its query is ignored
        url: String,
        /// Agent entry [default: each one]
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
        /// Secret that the request uses in an authentication header; may be repeated
        #[arg(long, value_name = "NAME")]
        secret: Vec<SecretName>,
    },
}

impl Args {
    /// Whether it only checks a file of the caller.
    pub(super) fn checks_own_file(&self) -> bool {
        matches!(&self.verb, Verb::Check { file: Some(_) })
    }

    /// The confirmation that the daemon requires.
    #[cfg(target_os = "linux")]
    pub(super) fn required_proof(&self) -> crate::operator::authorizer::Requirement {
        match &self.verb {
            Verb::Check { .. } | Verb::Explain { .. } | Verb::Show => {
                crate::operator::authorizer::Requirement::Nothing
            }
            Verb::Set { .. } => crate::operator::authorizer::Requirement::Confirmation,
        }
    }

    /// The input files.
    pub(super) fn input_files(&self) -> Vec<PathBuf> {
        match &self.verb {
            Verb::Set { file } => vec![file.clone()],
            Verb::Check { .. } | Verb::Explain { .. } | Verb::Show => Vec::new(),
        }
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Check { file } => check(&file.unwrap_or_else(|| context.home.policy()), context.json),
        Verb::Show => show(&context.home.policy()),
        Verb::Set { file } => set(&file, context),
        Verb::Explain { method, url, agent, secret } => {
            let request = Request::new(&method, &url, secret)?;
            explain_all(context, agent.as_ref(), &request)
        }
    }
}

fn check(path: &Path, json: bool) -> Result<ExitCode, Failure> {
    if !path.exists() {
        let what = format!("there is no policy at {}, so everything is denied", path.display());
        return Err(Failure::new(Exit::NotFound, what)
            .hint("write it, beginning with 'version: 1', or name another file"));
    }
    let policy = match Policy::load(path) {
        Ok(policy) => policy,
        Err(error) if json => {
            let problems = match &error {
                LoadError::Invalid { problems, .. } => problems.clone(),
                LoadError::Unreadable { .. } => vec![Problem { line: 0, message: error.to_string() }],
            };
            println!("{}", json!({ "ok": false, "file": path, "errors": problems, "warnings": [] }));
            return Ok(ExitCode::from(Exit::Failure as u8));
        }
        Err(error) => return Err(unusable(&error)),
    };
    let agents = policy.agents().len();
    let rules: usize = policy.agents().iter().map(Agent::rule_count).sum();
    if json {
        println!(
            "{}",
            json!({
                "ok": true, "file": path, "agents": agents, "rules": rules,
                "errors": [], "warnings": policy.warnings(),
            })
        );
        return Ok(ExitCode::SUCCESS);
    }
    for Problem { line, message } in policy.warnings() {
        eprintln!("! {}:{line}: {message}", path.display());
    }
    println!("✓ {}: {}, {}", path.display(), count(agents, "agent"), count(rules, "rule"));
    Ok(ExitCode::SUCCESS)
}

fn show(path: &Path) -> Result<ExitCode, Failure> {
    let none = || Failure::new(Exit::NotFound, format!("there is no policy at {}", path.display()));
    let text = read_file(path).map_err(|error| unusable(&error))?.ok_or_else(none)?;
    crate::cli::output::print_bytes(text.as_bytes())
}

/// Replaces the policy by `file`, which must be valid at the path of the old one.
fn set(file: &Path, context: &Context) -> Result<ExitCode, Failure> {
    let path = context.home.policy();
    let none = || Failure::new(Exit::NotFound, format!("there is no {}", file.display()));
    let text = read_file(file).map_err(|error| unusable(&error))?.ok_or_else(none)?;
    let policy = Policy::parse(&text, &path).map_err(|error| unusable(&error))?;
    let (agents, rules) = (policy.agents().len(), policy.agents().iter().map(Agent::rule_count).sum());
    let what = format!("{}, {}", count(agents, "agent"), count(rules, "rule"));
    records::record_act(context, "policy set", None, &[], vec![format!("{}: {what}", file.display())])?;
    edit::write(&path, &text).context(format!("{} cannot be written", path.display()))?;
    eprintln!("in force: {what}");
    Ok(ExitCode::SUCCESS)
}

/// A request as it was typed: `..` and encodings are kept, since the policy decides about them.
struct Request {
    method: Method,
    target: Target,
    path: String,
    references: Vec<SecretReference>,
}

impl Request {
    fn new(method: &str, url: &str, secrets: Vec<SecretName>) -> Result<Self, Failure> {
        let usage = |what: &str| {
            Failure::new(Exit::Usage, what)
                .hint("agentsecrets policy explain GET https://api.example.com/v1/items")
        };
        let method =
            method.to_ascii_uppercase().parse().map_err(|_| usage("the method is not an HTTP method"))?;
        // The error does not repeat the URL: its query may hold a secret.
        let url: Uri = url.parse().map_err(|_| usage("the URL is not well-formed"))?;
        let scheme = match url.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(usage("the URL must start with https:// or http://")),
        };
        let authority = url.authority().ok_or_else(|| usage("the URL names no host"))?;
        if authority.as_str().contains('@') {
            return Err(usage("the URL must not hold a user or password"));
        }
        let host: Host =
            authority.host().parse().map_err(|error| usage(&format!("the URL's host is {error}")))?;
        let port = url.port_u16().unwrap_or(scheme.default_port());
        let reference = |name| SecretReference::placeholder(name, InjectionPoint::header(&AUTHORIZATION));
        Ok(Self {
            method,
            target: Target { scheme, host, port },
            path: url.path().to_owned(),
            references: secrets.into_iter().map(reference).collect(),
        })
    }

    fn ask(&self) -> AccessRequest<'_> {
        AccessRequest {
            target: &self.target,
            method: &self.method,
            path: &self.path,
            websocket: false,
            references: &self.references,
        }
    }
}

fn explain_all(context: &Context, agent: Option<&AgentName>, request: &Request) -> Result<ExitCode, Failure> {
    let (path, json) = (&*context.home.policy(), context.json);
    let policy =
        Policy::load(path).map_err(|error| unusable(&error))?.restricted_to(&context.scope.restriction);
    let agents: Vec<&Agent> = match agent {
        Some(name) => vec![policy.agent(name).ok_or_else(|| {
            let what = format!("{} has no agent '{name}'", path.display());
            let names: Vec<&str> = policy.agents().iter().map(|agent| agent.name().as_str()).collect();
            Failure::new(Exit::NotFound, what).hint(format!("it has: {}", names.join(", ")))
        })?],
        None => policy.agents().iter().collect(),
    };
    if agents.is_empty() {
        return empty(path, request, json);
    }
    let mut allowed = false;
    let mut answers = Vec::new();
    for agent in agents {
        let explanation = explain(&policy, agent, &request.ask());
        allowed |= explanation.outcome.is_ok();
        if json {
            answers.push(as_json(agent, &explanation));
        } else {
            print(agent, request, &explanation);
        }
    }
    if json {
        println!("{}", json!({ "allowed": allowed, "agents": answers }));
    }
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(Exit::Denied as u8) })
}

fn empty(path: &Path, request: &Request, json: bool) -> Result<ExitCode, Failure> {
    let reason = if path.exists() {
        format!("{} has no agent", path.display())
    } else {
        format!("there is no {}", path.display())
    };
    if json {
        println!(
            "{}",
            json!({ "allowed": false, "error": "empty_allowlist", "message": reason, "agents": [] })
        );
    } else {
        println!("✗ {} {}: denied, empty_allowlist", request.method, request.target);
        println!("  {reason}, so every request is denied");
    }
    Ok(ExitCode::from(Exit::Denied as u8))
}

fn print(agent: &Agent, request: &Request, explanation: &Explanation) {
    let Request { method, target, path, .. } = request;
    match &explanation.outcome {
        Ok(allowed) => {
            println!("✓ {method} {target}{path}: allowed for agent '{}'", agent.name());
            println!("  decided by {}", allowed.rule);
            if let Some(wait) = allowed.approval_timeout {
                println!("  held until a person approves it: it waits {} seconds", wait.as_secs());
            }
            if allowed.is_passthrough {
                println!("  passed through unopened: no secret is injected, and the request is not checked");
            }
            for secret_use in &allowed.secret_uses {
                println!("  spends {} {}", secret_use.name, style(secret_use));
            }
        }
        Err(rejection) => {
            println!(
                "✗ {method} {target}{path}: denied for agent '{}', {}",
                agent.name(),
                rejection.code.as_str()
            );
            if let Some(rule) = &rejection.rule {
                println!("  decided by {rule}");
            }
            println!("  {}", rejection.message);
        }
    }
    if explanation.outcome.is_err() && explanation.rules.len() < 2 {
        return;
    }
    for rule in &explanation.rules {
        match &rule.mismatch {
            Some(objection) => println!("  {}: no, {objection}", rule.rule),
            None => println!("  {}: yes{}", rule.rule, spendable(rule)),
        }
    }
}

fn spendable(rule: &crate::policy::explain::RuleAssessment) -> String {
    if rule.secrets.is_empty() || rule.locations.is_empty() {
        return String::new();
    }
    let secrets: Vec<&str> = rule.secrets.iter().map(SecretName::as_str).collect();
    let places: Vec<String> = rule.locations.iter().map(ToString::to_string).collect();
    format!(", with {} in {}", secrets.join(", "), places.join(", "))
}

fn style(spend: &SecretUse) -> String {
    match &spend.style {
        InjectionStyle::Placeholder(spot) => {
            format!("in place of its placeholder ({})", spot.kind.as_str())
        }
        InjectionStyle::Bearer => "as Authorization: Bearer".to_owned(),
        InjectionStyle::Basic => "as Authorization: Basic".to_owned(),
        InjectionStyle::Header(name) => format!("as the header {name}"),
        InjectionStyle::Query(name) => format!("as the query parameter {name}"),
        InjectionStyle::Path(text) => format!("in place of {text} in the path"),
        InjectionStyle::Cookie(name) => format!("as the cookie {name}"),
        InjectionStyle::Json(path) => format!("as {path} of the JSON body"),
        InjectionStyle::Form(name) => format!("as the form field {name}"),
        InjectionStyle::ClientCertificate => {
            "as the client certificate, if the server asks for one".to_owned()
        }
        InjectionStyle::AwsSignature => "in the request's AWS signature".to_owned(),
        InjectionStyle::HmacSignature => "in the request's signature".to_owned(),
    }
}

fn as_json(agent: &Agent, explanation: &Explanation) -> Value {
    let considered: Vec<Value> = explanation
        .rules
        .iter()
        .map(|rule| {
            json!({
                "rule": &*rule.rule, "allows": rule.mismatch.is_none(), "objection": rule.mismatch,
                "secrets": rule.secrets,
                "places": rule.locations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    match &explanation.outcome {
        Ok(allowed) => {
            let spends =
                allowed.secret_uses.iter().map(|spend| json!({ "secret": spend.name, "how": style(spend) }));
            json!({
                "agent": agent.name(), "allowed": true, "rule": &*allowed.rule, "unopened": allowed.is_passthrough,
                "approve_wait_seconds": allowed.approval_timeout.map(|wait| wait.as_secs()),
                "spends": spends.collect::<Vec<_>>(), "considered": considered,
            })
        }
        Err(rejection) => json!({
            "agent": agent.name(), "allowed": false, "error": rejection.code.as_str(), "rule": rejection.rule,
            "message": rejection.message, "considered": considered,
        }),
    }
}

fn unusable(error: &LoadError) -> Failure {
    let failure = Failure::from_error(error);
    match error {
        LoadError::Invalid { .. } => failure.hint("a running policy stays in force until the file is sound"),
        LoadError::Unreadable { .. } => failure,
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_not_normalized() {
        let request = Request::new("get", "https://API.x.com:8443/v1/../%2e?k=v#f", Vec::new()).unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/v1/../%2e"));
        assert_eq!(request.target.to_string(), "https://api.x.com:8443");
    }

    #[test]
    fn invalid_url_is_not_repeated() {
        for url in [
            "x.com",
            "ftp://x.com",
            "https://u:hidden@x.com",
            "https://x.com/ ?hidden",
            "https://127.1/?hidden",
            "",
        ] {
            let failure = Request::new("GET", url, Vec::new()).err().unwrap();
            assert_eq!(failure.exit(), Exit::Usage, "{url}");
            assert!(!format!("{failure:?}").contains("hidden"), "{url}");
        }
    }
}
