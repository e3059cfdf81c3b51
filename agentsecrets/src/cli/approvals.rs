//! `agentsecrets approvals`, `approve` and `deny`: what agents ask that a person must answer. They act on files in
//! the home, which no agent sees; the process that serves the agent finds the answer there.

mod answer;
#[cfg(target_os = "linux")]
mod notify;
mod show;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use anstream::{eprintln, println};

use super::{Context, Exit, Failure};
use crate::approval::entry::{Question, list};

pub(super) use answer::{Approve, Deny, approve, deny};

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Show the requests that wait for you to approve them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets approvals --show-body
  agentsecrets approvals --watch --notify")]
pub(super) struct Args {
    /// Show each one's query, headers and body too
    #[arg(long)]
    show_body: bool,
    /// Go on, and show each new one
    #[arg(long)]
    watch: bool,
    /// Tell of each new one by a notification of the desktop
    #[cfg(target_os = "linux")]
    #[arg(long, requires = "watch")]
    notify: bool,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let folder = context.home.approvals();
    let look = || list(&folder).map_err(|error| unreadable(context, &error));
    let questions = look()?;
    if !args.watch {
        show(&questions, &args, context)?;
        return Ok(ExitCode::SUCCESS);
    }
    #[cfg(target_os = "linux")]
    let desktop = args.notify.then(notify::Desktop::find).transpose()?;
    let mut shown = HashSet::new();
    let mut now = questions;
    loop {
        // One that the agent asks again after it was told to is as new.
        let key = |question: &Question| (question.id.clone(), question.waits_until);
        let new: Vec<Question> = now.iter().filter(|question| shown.insert(key(question))).cloned().collect();
        for question in &new {
            if context.json {
                println!("{}", show::json(question, args.show_body));
            } else {
                println!("{}", show::text(question, args.show_body));
            }
            #[cfg(target_os = "linux")]
            if let Some(desktop) = &desktop {
                desktop.tell(question);
            }
        }
        shown.retain(|key| {
            now.iter().any(|question| (question.id.as_str(), question.waits_until) == (&key.0, key.1))
        });
        std::thread::sleep(LOOK_EVERY);
        now = look()?;
    }
}

fn show(questions: &[Question], args: &Args, context: &Context) -> Result<(), Failure> {
    if context.json {
        let all: Vec<_> = questions.iter().map(|question| show::json(question, args.show_body)).collect();
        let text = serde_json::to_string_pretty(&all).map_err(|error| Failure::new(Exit::Failure, error))?;
        println!("{text}");
        return Ok(());
    }
    if questions.is_empty() {
        eprintln!("nothing waits for you");
    }
    for question in questions {
        println!("{}", show::text(question, args.show_body));
    }
    if !questions.is_empty() {
        eprintln!("answer with: agentsecrets approve ID, or: agentsecrets deny ID");
    }
    Ok(())
}

fn unreadable(context: &Context, error: &std::io::Error) -> Failure {
    let folder = context.home.approvals();
    Failure::new(Exit::Failure, format!("{} cannot be read: {error}", folder.display()))
}
