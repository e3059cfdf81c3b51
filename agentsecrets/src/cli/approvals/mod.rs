//! `agentsecrets approvals`, `approve` and `deny`: pending requests of agents. The verbs read and write files
//! in the home, which no agent can see; the interceptor reads the answer there.

mod answer;
#[cfg(target_os = "linux")]
mod notify;
mod show;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use anstream::{eprintln, println};

use crate::approval::files::{StoredRequest, list_requests};
use crate::cli::context::Context;
use crate::types::failure::{ErrorContext, Failure};

pub(super) use answer::{Approve, Deny, approve, deny};

const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// List the requests that wait for your approval
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets approvals --show-body
  agentsecrets approvals --watch --notify")]
pub(super) struct Args {
    /// Show query, headers and body too
    #[arg(long)]
    show_body: bool,
    /// Keep running, and show each new request
    #[arg(long)]
    watch: bool,
    /// Show a desktop notification for each new request
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "watch")]
    notify: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let folder = context.home.approvals();
    let look = || list_requests(&folder).context(format!("{} cannot be read", folder.display()));
    let questions = look()?;
    if !args.watch {
        print_pending(&questions, &args, context)?;
        return Ok(ExitCode::SUCCESS);
    }
    #[cfg(target_os = "linux")]
    let desktop = args.notify.then(notify::Desktop::connect).transpose()?;
    let mut printed = HashSet::new();
    let mut now = questions;
    loop {
        // A request that the agent repeats after a timeout is new again.
        let key = |question: &StoredRequest| (question.id.clone(), question.waits_until);
        let new: Vec<StoredRequest> =
            now.iter().filter(|question| printed.insert(key(question))).cloned().collect();
        for question in &new {
            if context.json {
                println!("{}", show::json(question, args.show_body));
            } else {
                println!("{}", show::text(question, args.show_body));
            }
            #[cfg(target_os = "linux")]
            if let Some(desktop) = &desktop {
                desktop.notify(question);
            }
        }
        printed.retain(|key| {
            now.iter().any(|question| (question.id.as_str(), question.waits_until) == (&key.0, key.1))
        });
        std::thread::sleep(POLL_INTERVAL);
        now = look()?;
    }
}

fn print_pending(questions: &[StoredRequest], args: &Args, context: &Context) -> Result<(), Failure> {
    if context.json {
        let all: Vec<_> = questions.iter().map(|question| show::json(question, args.show_body)).collect();
        let text = serde_json::to_string_pretty(&all).map_err(Failure::from_error)?;
        println!("{text}");
        return Ok(());
    }
    if questions.is_empty() {
        eprintln!("no request waits for approval");
    }
    for question in questions {
        println!("{}", show::text(question, args.show_body));
    }
    if !questions.is_empty() {
        eprintln!("answer with: agentsecrets approve ID, or: agentsecrets deny ID");
    }
    Ok(())
}
