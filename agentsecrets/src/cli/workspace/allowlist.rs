//! `agentsecrets workspace allowlist`: the hosts that the policy names, and those that were refused.

use std::process::ExitCode;

use anstream::eprintln;

use crate::audit::query::read;
use crate::audit::{Record, Status};
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::cli::secrets::{json, show};
use crate::cli::table::table;
use crate::policy::allowlist::{Added, Allowlist, EditError, Listed};
use crate::types::name::AgentName;
use crate::types::rejection::ErrorCode;

/// The hosts that agents may reach.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets workspace allowlist add api.stripe.com '*.example.com'
  agentsecrets workspace allowlist log --last 20

A host on the list may be reached. An agent spends a secret there once a rule of the policy names it:
  - host: api.stripe.com
    secrets: [STRIPE_KEY]")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Let agents reach hosts: each becomes a rule of the policy
    #[command(after_help = "Example: agentsecrets workspace allowlist add api.stripe.com --agent coder")]
    Add {
        /// The hosts: api.example.com, or *.example.com for all below it
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
        /// The agent entry [default: the only one]
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Take a host out, where its rule says nothing else
    #[command(after_help = "Example: agentsecrets workspace allowlist remove api.stripe.com")]
    Remove {
        /// The host, as the list shows it
        #[arg(value_name = "HOST")]
        host: String,
    },
    /// List the hosts, where they stand, and the secrets that may be spent there
    #[command(after_help = "Example: agentsecrets workspace allowlist list --json")]
    List,
    /// Show the requests that were refused because no rule names their host, oldest first
    #[command(after_help = "Example: agentsecrets workspace allowlist log --last 20")]
    Log {
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Add { hosts, agent } => add(&hosts, agent.as_ref(), context),
        Verb::Remove { host } => remove(&host, context),
        Verb::List => list(context),
        Verb::Log { last } => log(last.unwrap_or(usize::MAX), context),
    }
}

fn add(hosts: &[String], agent: Option<&AgentName>, context: &Context) -> Result<ExitCode, Failure> {
    let path = context.home.policy();
    let mut allowlist = Allowlist::load(&path).map_err(|error| refused(error.into()))?;
    let mut new = Vec::new();
    for host in hosts {
        match allowlist.add(host, agent).map_err(refused)? {
            Added::New(agent, line) => new.push((host, agent, line)),
            Added::There(agent) => eprintln!("agent '{agent}' may reach {host} already"),
        }
    }
    if new.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    // All are of one entry.
    let agent: Option<AgentName> = new.first().and_then(|(_, agent, _)| agent.parse().ok());
    let added = new.iter().map(|(host, ..)| (*host).clone()).collect();
    admin_record::record(context, "workspace allowlist add", agent.as_ref(), &[], added)?;
    allowlist.save().map_err(|error| refused(error.into()))?;
    for (host, agent, line) in new {
        eprintln!("agent '{agent}' may reach {host}, as {}:{line} says", path.display());
    }
    eprintln!("it spends no secret there until that rule names one, such as: secrets: [NAME]");
    Ok(ExitCode::SUCCESS)
}

fn remove(host: &str, context: &Context) -> Result<ExitCode, Failure> {
    let mut allowlist = Allowlist::load(&context.home.policy()).map_err(|error| refused(error.into()))?;
    let rules = allowlist.remove(host).map_err(refused)?;
    admin_record::record(context, "workspace allowlist remove", None, &[], vec![host.to_owned()])?;
    allowlist.save().map_err(|error| refused(error.into()))?;
    eprintln!("took out {host} ({rules} {})", if rules == 1 { "rule" } else { "rules" });
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let path = context.home.policy();
    let allowlist = Allowlist::load(&path).map_err(|error| refused(error.into()))?;
    let rules = allowlist.rules().map_err(|error| refused(error.into()))?;
    if context.json {
        return json(&rules);
    }
    if rules.is_empty() {
        eprintln!("no host is allowed; to allow one, run: agentsecrets workspace allowlist add HOST");
    }
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let row = |host: &str| {
        let rules: Vec<&Listed> = rules.iter().filter(|rule| rule.host == host).collect();
        let places: Vec<String> = rules.iter().map(|rule| format!("{file}:{}", rule.line)).collect();
        [
            host.to_owned(),
            places.join(", "),
            // No file says when a line was written.
            String::new(),
            each(rules.iter().map(|rule| &rule.agent)),
            each(rules.iter().flat_map(|rule| &rule.secrets)),
        ]
    };
    let mut hosts: Vec<&str> = Vec::new();
    for rule in &rules {
        if !hosts.contains(&&*rule.host) {
            hosts.push(&rule.host);
        }
    }
    let rows: Vec<_> = hosts.into_iter().map(row).collect();
    // The first three columns are what other programs read.
    show(table(["Domain", "Added By", "Added At", "Agents", "Secrets"], &rows).as_bytes())
}

/// Each once.
fn each<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let mut seen: Vec<&str> = texts.map(String::as_str).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.join(", ")
}

fn log(last: usize, context: &Context) -> Result<ExitCode, Failure> {
    let contents = read(&context.home.audit()).map_err(|error| Failure::new(Exit::Failure, error))?;
    if let Some(fault) = &contents.fault {
        eprintln!("warning: {fault}; run: agentsecrets audit verify");
    }
    let unlisted = [ErrorCode::DomainNotInAllowlist, ErrorCode::EmptyAllowlist].map(ErrorCode::as_str);
    let is_refusal = |record: &&Record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.status == Status::Blocked && unlisted.iter().any(|slug| reason.starts_with(slug))
    };
    let refused: Vec<&Record> = contents.records.iter().filter(is_refusal).collect();
    let newest = refused.get(refused.len().saturating_sub(last)..).unwrap_or_default();
    if context.json {
        let lines = newest.iter().map(|record| {
            serde_json::json!({
                "timestamp": record.timestamp, "action": "blocked", "domain": record.domain,
                "agent": record.agent_id, "exe": record.process.as_ref().map(|process| &process.exe),
            })
        });
        return json(&lines.collect::<Vec<_>>());
    }
    let row = |record: &&Record| {
        [
            record.timestamp.clone(),
            "blocked".to_owned(),
            record.domain.replace('│', "|"),
            record.agent_id.clone().unwrap_or_default(),
            record.process.as_ref().map(|process| process.exe.replace('│', "|")).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = newest.iter().map(row).collect();
    show(table(["Timestamp", "Action", "Domain", "Agent", "Program"], &rows).as_bytes())
}

fn refused(error: EditError) -> Failure {
    let exit = match error {
        EditError::Host(_) | EditError::SeveralAgents { .. } => Exit::Usage,
        EditError::NoAgent { .. } | EditError::NotListed { .. } => Exit::NotFound,
        _ => Exit::Failure,
    };
    let hint = match &error {
        EditError::SeveralAgents { .. } => Some("say which one: --agent NAME"),
        EditError::NotListed { .. } => Some("agentsecrets workspace allowlist list"),
        EditError::NotBare { .. } | EditError::Shape { .. } => {
            Some("change it in an editor, then run: agentsecrets policy check")
        }
        EditError::Load(_) => Some("agentsecrets policy check"),
        _ => None,
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
