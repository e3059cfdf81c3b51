//! `agentsecrets workspace allowlist`: the hosts that the policy names, and requests to other hosts.

use std::process::ExitCode;

use anstream::eprintln;

use crate::audit::query::read;
use crate::audit::{Record, Status};
use crate::cli::context::Context;
use crate::cli::output::table;
use crate::cli::output::{print_bytes, print_json};
use crate::cli::records;
use crate::policy::allowlist::{AddOutcome, Allowlist, AllowlistEntry, AllowlistError};
use crate::types::failure::{Exit, Failure};
use crate::types::name::AgentName;
use crate::types::rejection::ErrorCode;

/// Manage the hosts that agents may reach, a view of the policy
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets workspace allowlist add api.stripe.com '*.example.com'
  agentsecrets workspace allowlist log --last 20

Agents may reach the hosts on the list. To let them use a secret there, name it in the rule of the policy:
  - host: api.stripe.com
    secrets: [STRIPE_KEY]")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Add hosts: each becomes a rule of the policy
    #[command(after_help = "Example: agentsecrets workspace allowlist add api.stripe.com --agent coder")]
    Add {
        /// Hosts, such as api.example.com or *.example.com
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<String>,
        /// Agent entry of the policy [default: the only one]
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Remove a host, if its rule has no other keys
    #[command(after_help = "Example: agentsecrets workspace allowlist remove api.stripe.com")]
    Remove {
        /// Host, as the list shows it
        #[arg(value_name = "HOST")]
        host: String,
    },
    /// List the hosts, with their rules and secrets
    #[command(after_help = "Example: agentsecrets workspace allowlist list --json")]
    List,
    /// Show requests that were denied because no rule names their host, oldest first
    #[command(after_help = "Example: agentsecrets workspace allowlist log --last 20")]
    Log {
        /// Show only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
}

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
    let mut allowlist = Allowlist::load(&path).map_err(|error| edit_failure(error.into()))?;
    let mut new = Vec::new();
    for host in hosts {
        match allowlist.add(host, agent).map_err(edit_failure)? {
            AddOutcome::Added(agent, line) => new.push((host, agent, line)),
            AddOutcome::AlreadyListed(agent) => eprintln!("agent '{agent}' may reach {host} already"),
        }
    }
    if new.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    // All hosts were added to one entry.
    let agent: Option<AgentName> = new.first().and_then(|(_, agent, _)| agent.parse().ok());
    let added = new.iter().map(|(host, ..)| (*host).clone()).collect();
    records::record_act(context, "workspace allowlist add", agent.as_ref(), &[], added)?;
    allowlist.save().map_err(|error| edit_failure(error.into()))?;
    for (host, agent, line) in new {
        eprintln!("agent '{agent}' may reach {host}, as {}:{line} says", path.display());
    }
    eprintln!("to let it use a secret there, add to the rule: secrets: [NAME]");
    Ok(ExitCode::SUCCESS)
}

fn remove(host: &str, context: &Context) -> Result<ExitCode, Failure> {
    let mut allowlist =
        Allowlist::load(&context.home.policy()).map_err(|error| edit_failure(error.into()))?;
    let rules = allowlist.remove(host).map_err(edit_failure)?;
    records::record_act(context, "workspace allowlist remove", None, &[], vec![host.to_owned()])?;
    allowlist.save().map_err(|error| edit_failure(error.into()))?;
    eprintln!("removed {host} ({rules} {})", if rules == 1 { "rule" } else { "rules" });
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let path = context.home.policy();
    let allowlist = Allowlist::load(&path).map_err(|error| edit_failure(error.into()))?;
    let rules = allowlist.rules().map_err(|error| edit_failure(error.into()))?;
    if context.json {
        return print_json(&rules);
    }
    if rules.is_empty() {
        eprintln!("no host is allowed; to allow one, run: agentsecrets workspace allowlist add HOST");
    }
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let row = |host: &str| {
        let rules: Vec<&AllowlistEntry> = rules.iter().filter(|rule| rule.host == host).collect();
        let places: Vec<String> = rules.iter().map(|rule| format!("{file}:{}", rule.line)).collect();
        [
            host.to_owned(),
            places.join(", "),
            // The time of a line is not known.
            String::new(),
            sorted_unique(rules.iter().map(|rule| &rule.agent)),
            sorted_unique(rules.iter().flat_map(|rule| &rule.secrets)),
        ]
    };
    let mut hosts: Vec<&str> = Vec::new();
    for rule in &rules {
        if !hosts.contains(&&*rule.host) {
            hosts.push(&rule.host);
        }
    }
    let rows: Vec<_> = hosts.into_iter().map(row).collect();
    // Other programs read the first three columns.
    print_bytes(table(["Domain", "Added By", "Added At", "Agents", "Secrets"], &rows).as_bytes())
}

/// The distinct texts, sorted.
fn sorted_unique<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let mut seen: Vec<&str> = texts.map(String::as_str).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.join(", ")
}

fn log(last: usize, context: &Context) -> Result<ExitCode, Failure> {
    let contents = read(&context.home.audit()).map_err(Failure::from_error)?;
    if let Some(fault) = &contents.fault {
        eprintln!("warning: {fault}; run: agentsecrets audit verify");
    }
    let unlisted = [ErrorCode::DomainNotInAllowlist, ErrorCode::EmptyAllowlist].map(ErrorCode::as_str);
    let is_refusal = |record: &&Record| {
        let reason = record.reason.as_deref().unwrap_or_default();
        record.status == Status::Blocked && unlisted.iter().any(|code| reason.starts_with(code))
    };
    let denied: Vec<&Record> = contents.records.iter().filter(is_refusal).collect();
    let newest = denied.get(denied.len().saturating_sub(last)..).unwrap_or_default();
    if context.json {
        let lines = newest.iter().map(|record| {
            serde_json::json!({
                "timestamp": record.timestamp, "action": "blocked", "domain": record.domain,
                "agent": record.agent_id, "exe": record.process.as_ref().map(|process| &process.exe),
            })
        });
        return print_json(&lines.collect::<Vec<_>>());
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
    print_bytes(table(["Timestamp", "Action", "Domain", "Agent", "Program"], &rows).as_bytes())
}

fn edit_failure(error: AllowlistError) -> Failure {
    let exit = match error {
        AllowlistError::Host(_) | AllowlistError::SeveralAgents { .. } => Exit::Usage,
        AllowlistError::NoAgent { .. } | AllowlistError::NotListed { .. } => Exit::NotFound,
        _ => Exit::Failure,
    };
    let hint = match &error {
        AllowlistError::SeveralAgents { .. } => Some("say which one: --agent NAME"),
        AllowlistError::NotListed { .. } => Some("agentsecrets workspace allowlist list"),
        AllowlistError::HasOtherKeys { .. } | AllowlistError::UnsupportedLayout { .. } => {
            Some("change it in an editor, then run: agentsecrets policy check")
        }
        AllowlistError::Load(_) => Some("agentsecrets policy check"),
        _ => None,
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
