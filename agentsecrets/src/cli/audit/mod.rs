//! `agentsecrets audit`: reads the audit log and verifies its hash chain.

mod stream;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{AutoStream, eprintln};
use anstyle::{AnsiColor, Style};

use crate::audit::query::{export, read, verify};
use crate::audit::tail::{Follower, POLL_INTERVAL};
use crate::audit::{AuditError, Record, Status};
use crate::cli::context::Context;
use crate::types::failure::Failure;
use crate::types::name::{AgentName, Environment, SecretName};

/// Read and verify the audit log
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets audit list --last 20
  agentsecrets audit list --json | jq 'select(.status != \"OK\")'
  agentsecrets audit verify")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List requests, oldest first, one per line
    #[command(after_help = "Example: agentsecrets audit list --agent coder --last 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Show only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Show the newest requests, and with -f each new one when it ends
    #[command(after_help = "Example: agentsecrets audit tail -f")]
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// Number of requests to start with
        #[arg(long, value_name = "N", default_value_t = 10)]
        last: usize,
        /// Keep running until interrupted
        #[arg(long, short)]
        follow: bool,
    },
    /// Verify that no line was changed, removed, added or moved; exit code 1 if one was
    #[command(after_help = "Example: agentsecrets audit verify")]
    Verify,
    /// Write every line as it is on disk, including intents, and verify the log
    #[command(after_help = "Example: agentsecrets audit export --output audit.jsonl")]
    Export {
        /// Write to this file instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    Stream(stream::Args),
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Show only requests of this agent
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// Show administrative acts instead of agents' requests
    #[arg(long)]
    admin: bool,
    /// Show only requests that involve this secret
    #[arg(long, value_name = "NAME")]
    secret: Option<SecretName>,
    #[arg(skip)]
    environment: Option<Environment>,
}

impl Args {
    /// Whether the command writes a file or connects to the network.
    #[cfg(target_os = "linux")]
    pub(super) fn has_outside_effects(&self) -> bool {
        match &self.verb {
            Verb::Export { output } => output.is_some(),
            Verb::Stream(args) => args.has_outside_effects(),
            _ => false,
        }
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let folder = context.home.audit();
    exit_code(execute(args.verb, &folder, context), &folder)
}

/// Lists requests for `proxy logs`: as JSON unless standard output is a terminal.
pub(super) fn list_requests(
    last: Option<usize>,
    secret: Option<SecretName>,
    environment: Option<Environment>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let folder = context.home.audit();
    let filter = Filter { agent: None, admin: false, secret, environment };
    let json = context.json || !io::stdout().is_terminal();
    exit_code(list(&folder, &filter, last.unwrap_or(usize::MAX), json), &folder)
}

fn execute(verb: Verb, folder: &Path, context: &Context) -> Result<(), AuditCommandError> {
    match verb {
        Verb::Stream(args) => Ok(stream::run(args, context)?),
        Verb::List { filter, last } => list(folder, &filter, last.unwrap_or(usize::MAX), context.json),
        Verb::Tail { filter, last, follow: false } => list(folder, &filter, last, context.json),
        Verb::Tail { filter, last, follow: true } => tail(folder, &filter, last, context.json),
        Verb::Verify => verify_log(folder, context),
        Verb::Export { output } => export_log(folder, output.as_deref()),
    }
}

fn exit_code(done: Result<(), AuditCommandError>, folder: &Path) -> Result<ExitCode, Failure> {
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // The reader closed the pipe.
        Err(AuditCommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(AuditCommandError::Output(error)) => Err(Failure::from_error(error)),
        Err(AuditCommandError::Log(error)) => Err(log_failure(&error, folder)),
        Err(AuditCommandError::Command(failure)) => Err(failure),
    }
}

/// An error while the log is shown.
#[derive(Debug, thiserror::Error)]
enum AuditCommandError {
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] AuditError),
    #[error("{}", .0.message())]
    Command(Failure),
}

impl From<Failure> for AuditCommandError {
    fn from(failure: Failure) -> Self {
        Self::Command(failure)
    }
}

fn list(folder: &Path, filter: &Filter, last: usize, json: bool) -> Result<(), AuditCommandError> {
    let contents = read(folder)?;
    if let Some(fault) = &contents.fault {
        eprintln!("{}warning:{:#} {fault}; run: agentsecrets audit verify", WARNING, WARNING);
    }
    let records: Vec<_> = contents.records.into_iter().filter(|record| filter.matches(record)).collect();
    if records.is_empty() {
        eprintln!("no records yet");
    }
    let newest = records.get(records.len().saturating_sub(last)..).unwrap_or_default();
    print(newest, json)
}

fn tail(folder: &Path, filter: &Filter, last: usize, json: bool) -> Result<(), AuditCommandError> {
    // Opened before the list is read, so that no record is missed; one may be shown twice instead.
    let mut follower = Follower::at_end(folder)?;
    list(folder, filter, last, json)?;
    loop {
        let records: Vec<_> =
            follower.outcomes()?.into_iter().filter(|record| filter.matches(record)).collect();
        print(&records, json)?;
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn verify_log(folder: &Path, context: &Context) -> Result<(), AuditCommandError> {
    let lines = verify(folder)?;
    let text = match context.json {
        true => format!("{{\"ok\":true,\"lines\":{lines}}}\n"),
        false => format!("{lines} lines, unchanged and in order\n"),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn export_log(folder: &Path, output: Option<&Path>) -> Result<(), AuditCommandError> {
    let lines = match output {
        None => export(folder, &mut io::BufWriter::new(io::stdout().lock()))?,
        Some(path) => {
            let mut file = io::BufWriter::new(File::create(path)?);
            let lines = export(folder, &mut file)?;
            file.flush()?;
            lines
        }
    }?;
    eprintln!("{lines} lines, verified");
    Ok(())
}

impl Filter {
    fn matches(&self, record: &Record) -> bool {
        let agent =
            self.agent.as_ref().is_none_or(|agent| record.agent_id.as_deref() == Some(agent.as_str()));
        let is_about = |secret: &SecretName| record.secret_keys.iter().any(|key| key == secret.as_str());
        let meant = |environment: &Environment| record.environment == environment.as_str();
        agent
            && record.is_administrative() == self.admin
            && self.secret.as_ref().is_none_or(is_about)
            && self.environment.as_ref().is_none_or(meant)
    }
}

fn print(records: &[Record], json: bool) -> Result<(), AuditCommandError> {
    if records.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    if json {
        for record in records {
            text += &serde_json::to_string(record).map_err(io::Error::from)?;
            text.push('\n');
        }
    } else {
        format_table(&mut text, records);
    }
    // Removes colours if standard output is no terminal.
    let mut out = AutoStream::auto(io::stdout().lock());
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

const WARNING: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// Writes one aligned line per record: time, agent, status, code, method, target, secrets, reason.
fn format_table(text: &mut String, records: &[Record]) {
    let rows: Vec<_> = records.iter().map(cells).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for (record, row) in records.iter().zip(&rows) {
        let colour = Style::new().fg_color(Some(colour(record.status).into()));
        let [time, agent, status, code, method, target, rest] = row;
        let [time_width, agent_width, status_width, code_width, method_width, target_width] = widths;
        let line = format!(
            "{time:time_width$}  {agent:agent_width$}  {colour}{status:status_width$}{colour:#}  \
             {code:code_width$}  {method:method_width$}  {target:target_width$}  {rest}"
        );
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn cells(record: &Record) -> [String; 7] {
    let or_dash = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let code = record.status_code.map_or_else(|| "-".into(), |code| code.to_string());
    let mut rest = record.secret_keys.join(",");
    if let Some(reason) = &record.reason {
        rest = format!("{}  {reason}", or_dash(&rest));
    }
    [
        record.timestamp.clone(),
        record.agent_id.as_deref().map_or_else(|| "-".into(), or_dash),
        record.status.as_str().into(),
        code,
        or_dash(&record.method),
        or_dash(if record.target_url.is_empty() { &record.domain } else { &record.target_url }),
        rest,
    ]
}

fn colour(status: Status) -> AnsiColor {
    match status {
        Status::Ok => AnsiColor::Green,
        Status::Intent | Status::Pending => AnsiColor::Cyan,
        Status::Blocked => AnsiColor::Yellow,
        Status::Error | Status::Aborted => AnsiColor::Red,
    }
}

fn log_failure(error: &AuditError, folder: &Path) -> Failure {
    let failure = Failure::from_error(error);
    match error {
        AuditError::Line { .. } | AuditError::Missing(_) => failure.hint(format!(
            "no secret is used until this is settled; keep the log as evidence: move {0}, {0}.key and {0}.head \
             to another place, and a new log is created",
            folder.display()
        )),
        AuditError::Io { .. } | AuditError::Busy | AuditError::Random => failure,
    }
}
