//! `agentsecrets agent`: registered agents, their tokens and their secret limits. A token identifies an agent
//! where the kernel cannot. It is printed once, when it is issued.

use std::process::ExitCode;
use std::time::Duration;

use anstream::eprintln;
use jiff::Timestamp;
use serde_json::json;

use crate::authz::agents::{Agents, Issued, Registered};
use crate::authz::{registry, token};
use crate::cli::context::Context;
use crate::cli::output::table;
use crate::cli::output::{print_bytes, print_json};
use crate::cli::records;
use crate::policy::Policy;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{AgentName, SecretName};
use crate::types::presented;

/// Register agents, and issue tokens to them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets agent register coder
  agentsecrets agent token issue --agent coder --ttl 8h --environment staging
  agentsecrets agent policy set --agent coder --allow STRIPE_KEY --deny AWS_KEY")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Register an agent
    #[command(after_help = "Example: agentsecrets agent register coder")]
    Register {
        /// Name of the agent's entry in the policy
        name: AgentName,
    },
    /// List the registered agents
    #[command(after_help = "Example: agentsecrets agent list --json")]
    List,
    /// Delete an agent and its tokens
    #[command(after_help = "Example: agentsecrets agent delete coder")]
    Delete {
        /// Name of the agent
        name: AgentName,
    },
    /// Issue, list and revoke an agent's tokens
    #[command(after_help = "Example: agentsecrets agent token issue --agent coder --ttl 8h")]
    Token {
        #[command(subcommand)]
        verb: TokenVerb,
    },
    /// Show or set an agent's secret limits, which restrict what its rules allow
    #[command(after_help = "Example: agentsecrets agent policy set --agent coder --allow STRIPE_KEY")]
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
}

#[derive(Debug, clap::Subcommand)]
enum TokenVerb {
    /// Issue a token and print it. It is shown only once
    #[command(
        after_help = "Example: agentsecrets agent token issue --agent coder --ttl 8h --project shop\n\n\
        The token is valid only for the project and environment in which it was issued. Send it to the proxy in\n\
        X-AS-Agent-Token or Proxy-Authorization, or give it to `agentsecrets call` in the variable AS_AGENT_TOKEN."
    )]
    Issue {
        /// Agent that owns the token
        #[arg(long, value_name = "NAME")]
        agent: AgentName,
        /// Lifetime, such as 8h or 30d [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = super::run::parse_duration)]
        ttl: Option<Duration>,
    },
    /// List tokens, without their secret part
    #[command(after_help = "Example: agentsecrets agent token list --agent coder --json")]
    List {
        /// Agent
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
    /// Revoke a token immediately
    #[command(after_help = "Examples:\n  agentsecrets agent token revoke 3f2a9c0d11e85b67\n  \
        agentsecrets agent token revoke --all --agent coder")]
    Revoke {
        /// Token id, as `agent token list` shows it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// Revoke every token of the agent
        #[arg(long, conflicts_with = "id", requires = "agent")]
        all: bool,
        /// Agent
        #[arg(long, value_name = "NAME")]
        agent: Option<AgentName>,
    },
}

#[derive(Debug, clap::Subcommand)]
enum PolicyVerb {
    /// Show an agent's secret limits
    #[command(after_help = "Example: agentsecrets agent policy get --agent coder --json")]
    Get {
        /// Agent
        #[arg(long, value_name = "NAME")]
        agent: AgentName,
    },
    /// Set an agent's secret limits; an option that is not given removes that limit
    #[command(after_help = "Example: agentsecrets agent policy set --agent coder --allow STRIPE_KEY,GITHUB \
        --deny AWS_KEY\n\nA secret that is in both lists is denied. Use the names of the agent's rules.")]
    Set {
        /// Agent
        #[arg(long, value_name = "NAME")]
        agent: AgentName,
        /// Allow only these secrets [default: all that its rules allow]
        #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
        allow: Option<Vec<SecretName>>,
        /// Deny these secrets
        #[arg(long, value_name = "K1,K2", value_delimiter = ',')]
        deny: Vec<SecretName>,
    },
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Register { name } => register(name, context),
        Verb::List => list(context),
        Verb::Delete { name } => delete(&name, context),
        Verb::Token { verb: TokenVerb::Issue { agent, ttl } } => issue(&agent, ttl, context),
        Verb::Token { verb: TokenVerb::List { agent } } => list_tokens(agent.as_ref(), context),
        Verb::Token { verb: TokenVerb::Revoke { id, all: _, agent } } => {
            revoke(id.as_deref(), agent.as_ref(), context)
        }
        Verb::Policy { verb: PolicyVerb::Get { agent } } => show_policy(&agent, context),
        Verb::Policy { verb: PolicyVerb::Set { agent, allow, deny } } => {
            set_policy(&agent, allow, deny, context)
        }
    }
}

fn change_agents<T>(
    context: &Context,
    change: impl FnOnce(&mut Agents) -> Result<T, Failure>,
) -> Result<T, Failure> {
    registry::change(&context.home.agents(), change)
}

fn read_agents(context: &Context) -> Result<Agents, Failure> {
    Ok(registry::read(&context.home.agents())?)
}

fn not_registered(name: &AgentName) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no agent '{name}'"))
        .hint(format!("agentsecrets agent register {name}"))
}

fn register(name: AgentName, context: &Context) -> Result<ExitCode, Failure> {
    change_agents(context, |agents| {
        if agents.agent(&name).is_some() {
            return Err(Failure::new(Exit::Failure, format!("the agent '{name}' is registered already")));
        }
        records::record_act(context, "agent register", Some(&name), &[], Vec::new())?;
        let registered = Timestamp::now();
        let name = name.clone();
        agents.agents.push(Registered {
            name,
            registered,
            allow: None,
            deny: Vec::new(),
            tokens: Vec::new(),
        });
        Ok(())
    })?;
    eprintln!("registered {name}");
    let policy = Policy::load(&context.home.policy());
    if policy.is_ok_and(|policy| policy.agent(&name).is_none()) {
        eprintln!(
            "warning: {} has no entry '{name}': every request of this agent is denied",
            context.home.policy().display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let agents = read_agents(context)?.agents;
    let live = |agent: &Registered| agent.tokens.iter().filter(|token| token_state(token) == "live").count();
    if context.json {
        let entry = |agent: &Registered| {
            json!({
                "name": agent.name, "registered": agent.registered, "live_tokens": live(agent),
                "allow": agent.allow, "deny": agent.deny,
            })
        };
        return print_json(&agents.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |agent: &Registered| {
        let allow =
            agent.allow.as_ref().map_or("what its rules allow".to_owned(), |allow| joined_names(allow));
        let deny = joined_names(&agent.deny);
        [agent.name.to_string(), format!("{:.0}", agent.registered), live(agent).to_string(), allow, deny]
    };
    let rows: Vec<_> = agents.iter().map(row).collect();
    print_bytes(table(["Agent", "Registered", "Live tokens", "Allowed", "Denied"], &rows).as_bytes())
}

fn delete(name: &AgentName, context: &Context) -> Result<ExitCode, Failure> {
    let bounded = change_agents(context, |agents| {
        let agent = agents.agent(name).ok_or_else(|| not_registered(name))?;
        let bounded = agent.allow.is_some() || !agent.deny.is_empty();
        records::record_act(context, "agent delete", Some(name), &[], Vec::new())?;
        agents.agents.retain(|agent| agent.name != *name);
        Ok(bounded)
    })?;
    eprintln!("deleted {name} and its tokens");
    if bounded {
        eprintln!("warning: its secret limits are deleted too; its rules in the policy stay");
    }
    Ok(ExitCode::SUCCESS)
}

fn issue(name: &AgentName, ttl: Option<Duration>, context: &Context) -> Result<ExitCode, Failure> {
    let minted = token::mint(presented::AGENT).map_err(Failure::from_error)?;
    let (project, environment) = (Some(context.project.clone()), Some(context.environment.clone()));
    let issued = Timestamp::now();
    let expires = ttl.map(|ttl| issued.saturating_add(ttl).unwrap_or(Timestamp::MAX));
    change_agents(context, |agents| {
        let agent = agents.agent(name).ok_or_else(|| not_registered(name))?;
        records::record_act(
            context,
            "agent token issue",
            Some(name),
            &[],
            vec![format!("token {}", minted.id)],
        )?;
        let (id, sha256) = (minted.id.clone(), minted.digest.clone());
        agent.tokens.push(Issued { id, sha256, issued, expires, project, environment, revoked: None });
        Ok(())
    })?;
    let until = expires.map_or("until it is revoked".to_owned(), |end| format!("until {end:.0}"));
    eprintln!(
        "token {} of {name} for {}/{}, {until}: store it now, it is not shown again",
        minted.id, context.project, context.environment
    );
    match context.json {
        true => print_json(&json!({
            "id": minted.id, "agent": name, "token": minted.text.as_str(), "expires": expires,
        })),
        false => print_bytes(zeroize::Zeroizing::new(format!("{}\n", minted.text.as_str())).as_bytes()),
    }
}

fn list_tokens(of: Option<&AgentName>, context: &Context) -> Result<ExitCode, Failure> {
    let mut agents = read_agents(context)?;
    if let Some(name) = of {
        agents.agent(name).ok_or_else(|| not_registered(name))?;
        agents.agents.retain(|agent| agent.name == *name);
    }
    let all = || agents.agents.iter().flat_map(|agent| agent.tokens.iter().map(move |token| (agent, token)));
    if context.json {
        let entry = |(agent, token): (&Registered, &Issued)| {
            json!({
                "id": token.id, "agent": agent.name, "state": token_state(token), "issued": token.issued,
                "expires": token.expires, "revoked": token.revoked, "project": token.project,
                "environment": token.environment,
            })
        };
        return print_json(&all().map(entry).collect::<Vec<_>>());
    }
    let row = |(agent, token): (&Registered, &Issued)| {
        let scope = |name: Option<String>| name.unwrap_or_else(|| "any".to_owned());
        let expires = token.expires.map_or("never".to_owned(), |end| format!("{end:.0}"));
        let project = scope(token.project.as_ref().map(ToString::to_string));
        let environment = scope(token.environment.as_ref().map(ToString::to_string));
        [
            token.id.clone(),
            agent.name.to_string(),
            token_state(token).to_owned(),
            expires,
            project,
            environment,
        ]
    };
    let rows: Vec<_> = all().map(row).collect();
    print_bytes(table(["Token", "Agent", "State", "Expires", "Project", "Environment"], &rows).as_bytes())
}

fn revoke(id: Option<&str>, of: Option<&AgentName>, context: &Context) -> Result<ExitCode, Failure> {
    let what = id.map_or("every token".to_owned(), |id| format!("token {id}"));
    let count = change_agents(context, |agents| {
        if let Some(name) = of {
            agents.agent(name).ok_or_else(|| not_registered(name))?;
        }
        let agents = agents.agents.iter_mut().filter(|agent| of.is_none_or(|name| agent.name == *name));
        let tokens = agents.flat_map(|agent| &mut agent.tokens);
        let tokens: Vec<&mut Issued> = tokens.filter(|token| id.is_none_or(|id| token.id == id)).collect();
        if let Some(id) = id.filter(|_| tokens.is_empty()) {
            return Err(Failure::new(Exit::NotFound, format!("there is no token {id}"))
                .hint("agentsecrets agent token list"));
        }
        records::record_act(context, "agent token revoke", of, &[], vec![what])?;
        let mut count = 0;
        for token in tokens {
            count += usize::from(token.revoked.is_none());
            token.revoked.get_or_insert_with(Timestamp::now);
        }
        Ok(count)
    })?;
    eprintln!("revoked {count}: requests with it are refused from now on, and those in flight are cancelled");
    Ok(ExitCode::SUCCESS)
}

fn show_policy(name: &AgentName, context: &Context) -> Result<ExitCode, Failure> {
    let mut agents = read_agents(context)?;
    let agent = agents.agent(name).ok_or_else(|| not_registered(name))?;
    if context.json {
        return print_json(&json!({ "agent": agent.name, "allow": agent.allow, "deny": agent.deny }));
    }
    let allow = agent.allow.as_ref().map_or("what its rules allow".to_owned(), |allow| joined_names(allow));
    let deny = joined_names(&agent.deny);
    print_bytes(table(["Agent", "Allowed", "Denied"], &[[name.to_string(), allow, deny]]).as_bytes())
}

fn set_policy(
    name: &AgentName,
    allow: Option<Vec<SecretName>>,
    deny: Vec<SecretName>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let allowed = allow.as_ref().map_or("what its rules allow".to_owned(), |allow| joined_names(allow));
    let what = format!("allow {allowed}; deny {}", joined_names(&deny));
    let secrets: Vec<SecretName> = allow.iter().flatten().chain(&deny).cloned().collect();
    change_agents(context, |agents| {
        let agent = agents.agent(name).ok_or_else(|| not_registered(name))?;
        records::record_act(context, "agent policy set", Some(name), &secrets, vec![what])?;
        (agent.allow, agent.deny) = (allow, deny);
        Ok(())
    })?;
    eprintln!("set the limits of {name}; they apply at once");
    Ok(ExitCode::SUCCESS)
}

fn joined_names(secrets: &[SecretName]) -> String {
    let names: Vec<&str> = secrets.iter().map(SecretName::as_str).collect();
    names.join(", ")
}

fn token_state(token: &Issued) -> &'static str {
    match token {
        Issued { revoked: Some(_), .. } => "revoked",
        Issued { expires: Some(end), .. } if *end <= Timestamp::now() => "expired",
        _ => "live",
    }
}
