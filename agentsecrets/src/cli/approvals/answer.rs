//! `approve` and `deny`: a person's answer, which is recorded before it is given.

use std::process::ExitCode;

use anstream::println;

use super::show::masked;
use super::unreadable;
use crate::approval::By;
use crate::approval::entry::{NotAnswered, Question, Verdict, answer, list};
use crate::audit::visible;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::policy::edit::{Draft, NotEdited};
use crate::types::name::{AgentName, SecretName};

/// Let a request of an agent leave that waits for you.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets approve k3f7q
  agentsecrets approve k3f7q --session")]
pub(in crate::cli) struct Approve {
    /// The request, as `agentsecrets approvals` shows it; its beginning is enough
    id: String,
    /// This request alone (as without any of these)
    #[arg(long, group = "for_how_long")]
    once: bool,
    /// And all that are the same, for the agent's session
    #[arg(long, group = "for_how_long")]
    session: bool,
    /// And its method and path from now on: a rule is written into the policy
    #[arg(long, group = "for_how_long")]
    always: bool,
}

/// Refuse a request of an agent that waits for you.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets deny k3f7q --session")]
pub(in crate::cli) struct Deny {
    /// The request, as `agentsecrets approvals` shows it; its beginning is enough
    id: String,
    /// And all that are the same, for the agent's session
    #[arg(long)]
    session: bool,
}

/// Runs `approve`.
pub(in crate::cli) fn approve(args: &Approve, context: &Context) -> Result<ExitCode, Failure> {
    let (question, by) = (find(&args.id, context)?, who(context));
    let scope = match (args.session, args.always) {
        (true, _) => "for the session",
        (_, true) => "always",
        _ => "once",
    };
    let verdict = if args.session { Verdict::Session } else { Verdict::Once };
    let edited = if args.always { Some(edited(&question, context)?) } else { None };
    record("approve", scope, &question, by, context)?;
    if let Some(edited) = edited {
        edited.save().map_err(unchanged)?;
    }
    give(&question, verdict, by, context)?;
    say("approved", scope, &question, context);
    if args.session && !context.json {
        println!("  for this session it covers {}", visible(&question.same));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `deny`.
pub(in crate::cli) fn deny(args: &Deny, context: &Context) -> Result<ExitCode, Failure> {
    let (question, by) = (find(&args.id, context)?, who(context));
    let (verdict, scope) =
        if args.session { (Verdict::DenySession, "for the session") } else { (Verdict::Deny, "once") };
    record("deny", scope, &question, by, context)?;
    give(&question, verdict, by, context)?;
    say("denied", scope, &question, context);
    Ok(ExitCode::SUCCESS)
}

/// The one question whose id begins so.
fn find(id: &str, context: &Context) -> Result<Question, Failure> {
    let questions = list(&context.home.approvals()).map_err(|error| unreadable(context, &error))?;
    let mut found: Vec<Question> =
        questions.into_iter().filter(|question| !id.is_empty() && question.id.starts_with(id)).collect();
    let shown = visible(id);
    match (found.pop(), found.is_empty()) {
        (Some(question), true) => Ok(question),
        (None, _) => Err(Failure::new(Exit::NotFound, format!("no request '{shown}' waits for you"))
            .hint("agentsecrets approvals shows those that do")),
        (Some(_), false) => Err(Failure::new(Exit::Usage, format!("several requests begin with '{shown}'"))
            .hint("give more of the id; see: agentsecrets approvals")),
    }
}

fn record(act: &str, scope: &str, question: &Question, by: By, context: &Context) -> Result<(), Failure> {
    let secrets: Vec<SecretName> = question.secrets.iter().map(|spent| spent.name.clone()).collect();
    let agent: Option<AgentName> = question.agent.parse().ok();
    let notes = vec![
        format!("approval {} {scope}, by {by}, SHA-256 {}", question.id, question.digest),
        format!("{} {}", question.method, masked(&question.url)),
    ];
    admin_record::record(context, act, agent.as_ref(), &secrets, notes)
}

/// Who answers: the one who asked for it where the daemon acts, else this very process.
fn who(context: &Context) -> By {
    match context.caller() {
        Some(process) => By { uid: process.uid, pid: process.pid },
        None => By { uid: 0, pid: std::process::id() },
    }
}

fn give(question: &Question, verdict: Verdict, by: By, context: &Context) -> Result<(), Failure> {
    answer(&context.home.approvals(), question, verdict, by).map_err(|error| match error {
        NotAnswered::Already => Failure::new(Exit::NotFound, error),
        NotAnswered::Io(_) => Failure::new(Exit::Failure, error),
    })
}

fn say(what: &str, scope: &str, question: &Question, context: &Context) {
    if context.json {
        let said = serde_json::json!({ "ok": true, "id": question.id, "answer": what, "scope": scope });
        return println!("{said}");
    }
    let url = visible(&masked(&question.url));
    println!("✓ {what} {scope}: {} {url} of agent '{}'", visible(&question.method), visible(&question.agent));
}

/// The policy in which nobody need approve this from now on.
fn edited(question: &Question, context: &Context) -> Result<Draft, Failure> {
    let mut draft = Draft::load(&context.home.policy()).map_err(|error| unchanged(error.into()))?;
    draft.always(&question.rule, &question.method, &question.path).map_err(unchanged)?;
    Ok(draft)
}

fn unchanged(error: NotEdited) -> Failure {
    Failure::new(Exit::Failure, format!("the policy was not changed, and nothing was answered: {error}"))
}
