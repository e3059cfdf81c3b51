//! `agentsecrets status`: the configuration and its protection on one screen.

use std::process::ExitCode;

use anstream::println;
use anstyle::Style;
use serde::Serialize;

use super::stores;
use crate::cli::context::Context;
use crate::policy::Policy;
use crate::store::StoreConfig;
use crate::types::failure::Failure;

/// The protection of our files from agents.
const SANDBOX_STATE: &str = if cfg!(target_os = "linux") {
    "closed: inside `run`, vault, key, sockets and kernel objects are out of reach"
} else {
    "none: `run` needs Linux; the explicit proxy serves programs that use it, and stops nobody else"
};

/// Show the configuration and its protection on one screen
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets status --json")]
pub(super) struct Args {}

#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    project: String,
    project_origin: String,
    environment: String,
    environment_origin: String,
    policy: PolicyStatus,
    stores: Vec<StoreStatus>,
    sessions: usize,
    #[serde(rename = "person_door")]
    outside_protection: &'static str,
    #[serde(rename = "agents_door")]
    sandbox_protection: &'static str,
}

#[derive(Debug, Serialize)]
struct PolicyStatus {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    agents: Vec<AgentStatus>,
}

#[derive(Debug, Serialize)]
struct StoreStatus {
    name: &'static str,
    state: String,
    optional: bool,
}

#[derive(Debug, Serialize)]
struct AgentStatus {
    name: String,
    rules: usize,
    secrets: Vec<String>,
}

pub(super) fn run(_args: Args, context: &Context) -> Result<ExitCode, Failure> {
    if crate::launch::is_inside_agent() {
        return print_inside_agent(context);
    }
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        project: context.project.to_string(),
        project_origin: context.scope.project.origin.to_string(),
        environment: context.environment.to_string(),
        environment_origin: context.scope.environment.origin.to_string(),
        policy: policy_status(context),
        stores: stores::store_choices(context)?.iter().map(|choice| store_status(choice, context)).collect(),
        sessions: super::session::count_live(context)?,
        outside_protection: privsep_state(context),
        sandbox_protection: SANDBOX_STATE,
    };
    if context.json {
        let text = serde_json::to_string_pretty(&status).map_err(Failure::from_error)?;
        println!("{text}");
    } else {
        status.print();
    }
    Ok(ExitCode::SUCCESS)
}

/// The protection of stored secrets from programs other than the person's.
fn privsep_state(context: &Context) -> &'static str {
    #[cfg(target_os = "linux")]
    if context.invocation.is_some() {
        return "closed: files of the daemon's own user; values and rights take your presence or a trusted program";
    }
    let _ = context;
    "unguarded: a program of the same user, outside `run`, can read what you can"
}

/// Prints the only fact that an agent may know: that it is one.
fn print_inside_agent(context: &Context) -> Result<ExitCode, Failure> {
    if context.json {
        println!("{}", serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "inside_agent": true }));
    } else {
        println!(
            "inside an agent: AgentSecrets intercepts its connections, and its secrets are stored elsewhere"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn policy_status(context: &Context) -> PolicyStatus {
    let path = context.home.policy();
    let shown = path.display().to_string();
    match Policy::load(&path) {
        Err(error) => PolicyStatus { path: shown, error: Some(error.to_string()), agents: Vec::new() },
        Ok(policy) => {
            let policy = policy.restricted_to(&context.scope.restriction);
            let agents = policy.agents().iter().map(|agent| AgentStatus {
                name: agent.name().to_string(),
                rules: agent.rule_count(),
                secrets: agent.secrets().map(ToString::to_string).collect(),
            });
            PolicyStatus { path: shown, error: None, agents: agents.collect() }
        }
    }
}

fn store_status(config: &StoreConfig, context: &Context) -> StoreStatus {
    let (name, state) = (config.kind.name(), config.kind.state(&context.home));
    StoreStatus { name, state, optional: config.optional }
}

impl Status {
    fn print(&self) {
        let bold = Style::new().bold();
        let row = |name: &str, text: &str| println!("{bold}{name:<12}{bold:#} {text}");
        println!("{bold}AgentSecrets{bold:#} {}", self.version);
        row("project", &format!("{} ({})", self.project, self.project_origin));
        row("environment", &format!("{} ({})", self.environment, self.environment_origin));
        for (number, store) in self.stores.iter().enumerate() {
            let optional = if store.optional { ", optional" } else { "" };
            let name = if number == 0 { "stores" } else { "" };
            row(name, &format!("{}. {}: {}{optional}", number + 1, store.name, store.state));
        }
        row("policy", &self.policy.path);
        if let Some(error) = &self.policy.error {
            row("", &format!("not valid: {error}"));
        } else if self.policy.agents.is_empty() {
            row("", "no agent may do anything");
        }
        for agent in &self.policy.agents {
            let secrets =
                if agent.secrets.is_empty() { "no secret".to_owned() } else { agent.secrets.join(", ") };
            row("", &format!("{}: {} rules, may spend {secrets}", agent.name, agent.rules));
        }
        row("sessions", &format!("{} live", self.sessions));
        row("agents", self.sandbox_protection);
        row("outside", self.outside_protection);
    }
}
