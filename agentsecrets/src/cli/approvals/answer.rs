//! `approve` and `deny`: a person's answer. It is recorded before it takes effect.

use std::process::ExitCode;

use anstream::println;

use super::show::mask_query;
use crate::approval::Approver;
use crate::approval::files::{AnswerError, StoredRequest, Verdict, list_requests, write_answer};
use crate::audit::visible;
use crate::cli::context::Context;
use crate::cli::records;
use crate::policy::edit::{EditError, PolicyDraft};
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{AgentName, SecretName};

/// Approve a pending request
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets approve k3f7q
  agentsecrets approve k3f7q --session")]
pub(in crate::cli) struct Approve {
    /// Request id, as `agentsecrets approvals` shows it, or its first characters
    id: String,
    /// Approve this request only (the default)
    #[arg(long, group = "for_how_long")]
    once: bool,
    /// Approve equal requests too, for the agent's session
    #[arg(long, group = "for_how_long")]
    session: bool,
    /// Approve its method and path from now on: adds a rule to the policy
    #[arg(long, group = "for_how_long")]
    always: bool,
}

/// Deny a pending request
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  agentsecrets deny k3f7q --session")]
pub(in crate::cli) struct Deny {
    /// Request id, as `agentsecrets approvals` shows it, or its first characters
    id: String,
    /// Deny equal requests too, for the agent's session
    #[arg(long)]
    session: bool,
}

pub(in crate::cli) fn approve(args: &Approve, context: &Context) -> Result<ExitCode, Failure> {
    let (question, by) = (find(&args.id, context)?, answering_process(context));
    let scope = match (args.session, args.always) {
        (true, _) => "for the session",
        (_, true) => "always",
        _ => "once",
    };
    let verdict = if args.session { Verdict::Session } else { Verdict::Once };
    let edited = if args.always { Some(policy_with_rule(&question, context)?) } else { None };
    record("approve", scope, &question, by, context)?;
    if let Some(edited) = edited {
        edited.save().map_err(policy_unchanged)?;
    }
    answer(&question, verdict, by, context)?;
    print_result("approved", scope, &question, context);
    if args.session && !context.json {
        println!("  for this session it covers {}", visible(&question.scope));
    }
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) fn deny(args: &Deny, context: &Context) -> Result<ExitCode, Failure> {
    let (question, by) = (find(&args.id, context)?, answering_process(context));
    let (verdict, scope) =
        if args.session { (Verdict::DenySession, "for the session") } else { (Verdict::Deny, "once") };
    record("deny", scope, &question, by, context)?;
    answer(&question, verdict, by, context)?;
    print_result("denied", scope, &question, context);
    Ok(ExitCode::SUCCESS)
}

/// Finds the one pending request whose id starts with `id`.
fn find(id: &str, context: &Context) -> Result<StoredRequest, Failure> {
    let folder = context.home.approvals();
    let questions = list_requests(&folder).context(format!("{} cannot be read", folder.display()))?;
    let mut matches: Vec<StoredRequest> =
        questions.into_iter().filter(|question| !id.is_empty() && question.id.starts_with(id)).collect();
    let id_text = visible(id);
    match (matches.pop(), matches.is_empty()) {
        (Some(question), true) => Ok(question),
        (None, _) => Err(Failure::new(Exit::NotFound, format!("no request '{id_text}' waits for approval"))
            .hint("agentsecrets approvals shows those that do")),
        (Some(_), false) => {
            Err(Failure::new(Exit::Usage, format!("several requests begin with '{id_text}'"))
                .hint("give more of the id; see: agentsecrets approvals"))
        }
    }
}

fn record(
    act: &str,
    scope: &str,
    question: &StoredRequest,
    by: Approver,
    context: &Context,
) -> Result<(), Failure> {
    let secrets: Vec<SecretName> = question.secrets.iter().map(|spent| spent.name.clone()).collect();
    let agent: Option<AgentName> = question.agent.parse().ok();
    let notes = vec![
        format!("approval {} {scope}, by {by}, SHA-256 {}", question.id, question.digest),
        format!("{} {}", question.method, mask_query(&question.url)),
    ];
    records::record_act(context, act, agent.as_ref(), &secrets, notes)
}

/// The answering process: the caller of the daemon, otherwise this process.
fn answering_process(context: &Context) -> Approver {
    match context.caller() {
        Some(process) => Approver { uid: process.uid, pid: process.pid },
        None => Approver { uid: 0, pid: std::process::id() },
    }
}

fn answer(
    question: &StoredRequest,
    verdict: Verdict,
    by: Approver,
    context: &Context,
) -> Result<(), Failure> {
    write_answer(&context.home.approvals(), question, verdict, by).map_err(|error| match error {
        AnswerError::Already => Failure::new(Exit::NotFound, error),
        AnswerError::Io(_) => Failure::from_error(error),
    })
}

fn print_result(what: &str, scope: &str, question: &StoredRequest, context: &Context) {
    if context.json {
        let said = serde_json::json!({ "ok": true, "id": question.id, "answer": what, "scope": scope });
        return println!("{said}");
    }
    let url = visible(&mask_query(&question.url));
    println!("✓ {what} {scope}: {} {url} of agent '{}'", visible(&question.method), visible(&question.agent));
}

/// The policy with a rule that allows this request without approval.
fn policy_with_rule(question: &StoredRequest, context: &Context) -> Result<PolicyDraft, Failure> {
    let mut draft =
        PolicyDraft::load(&context.home.policy()).map_err(|error| policy_unchanged(error.into()))?;
    draft
        .allow_without_approval(&question.rule, &question.method, &question.path)
        .map_err(policy_unchanged)?;
    Ok(draft)
}

fn policy_unchanged(error: EditError) -> Failure {
    Failure::new(Exit::Failure, format!("the policy was not changed, and nothing was answered: {error}"))
}
