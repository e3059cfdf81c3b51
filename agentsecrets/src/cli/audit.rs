//! `agentsecrets audit`: reading the record of what agents did, and proving that nobody changed it.

mod stream;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{AutoStream, eprintln};
use anstyle::{AnsiColor, Style};

use super::{Context, Exit, Failure};
use crate::audit::query::{export, read, verify};
use crate::audit::tail::{Follower, LOOK_EVERY};
use crate::audit::{AuditError, Record, Status};
use crate::types::name::{AgentName, Environment, SecretName};

/// Read and verify the audit log.
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
    /// List requests, oldest first, one a line
    #[command(after_help = "Example: agentsecrets audit list --agent coder --last 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Only the newest N
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// Show the newest requests, and with -f each one as it ends
    #[command(after_help = "Example: agentsecrets audit tail -f")]
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// How many to begin with
        #[arg(long, value_name = "N", default_value_t = 10)]
        last: usize,
        /// Keep on until interrupted
        #[arg(long, short)]
        follow: bool,
    },
    /// Prove that no line was changed, removed, added or moved; exit code 1 if one was
    #[command(after_help = "Example: agentsecrets audit verify")]
    Verify,
    /// Write every line as it is on disk, intents too, and verify them
    #[command(after_help = "Example: agentsecrets audit export --output audit.jsonl")]
    Export {
        /// To this file, instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    Stream(stream::Args),
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Only this agent's requests
    #[arg(long, value_name = "NAME")]
    agent: Option<AgentName>,
    /// What people did, instead of agents' requests
    #[arg(long)]
    admin: bool,
    /// Only those that were about this secret
    #[arg(long, value_name = "NAME")]
    secret: Option<SecretName>,
    /// Only those that meant this environment
    #[arg(skip)]
    environment: Option<Environment>,
}

impl Args {
    /// Whether it writes a file, or to the network.
    #[cfg(target_os = "linux")]
    pub(super) fn reaches_out(&self) -> bool {
        match &self.verb {
            Verb::Export { output } => output.is_some(),
            Verb::Stream(args) => args.reaches_out(),
            _ => false,
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    let folder = context.home.audit();
    ended(act(args.verb, &folder, context), &folder)
}

/// Lists requests for whoever asks the proxy for its log: as JSON where a program reads it.
pub(super) fn requests(
    last: Option<usize>,
    secret: Option<SecretName>,
    environment: Option<Environment>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let folder = context.home.audit();
    let filter = Filter { agent: None, admin: false, secret, environment };
    let json = context.json || !io::stdout().is_terminal();
    ended(list(&folder, &filter, last.unwrap_or(usize::MAX), json), &folder)
}

fn act(verb: Verb, folder: &Path, context: &Context) -> Result<(), Stop> {
    match verb {
        Verb::Stream(args) => Ok(stream::run(args, context)?),
        Verb::List { filter, last } => list(folder, &filter, last.unwrap_or(usize::MAX), context.json),
        Verb::Tail { filter, last, follow: false } => list(folder, &filter, last, context.json),
        Verb::Tail { filter, last, follow: true } => tail(folder, &filter, last, context.json),
        Verb::Verify => prove(folder, context),
        Verb::Export { output } => write_out(folder, output.as_deref()),
    }
}

fn ended(done: Result<(), Stop>, folder: &Path) -> Result<ExitCode, Failure> {
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads us has seen enough.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(Stop::Output(error)) => Err(Failure::new(Exit::Failure, error)),
        Err(Stop::Log(error)) => Err(failure(&error, folder)),
        Err(Stop::Told(failure)) => Err(failure),
    }
}

/// Why showing the log ended early.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error(transparent)]
    Log(#[from] AuditError),
    #[error("what went wrong is told already")]
    Told(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Told(failure)
    }
}

fn list(folder: &Path, filter: &Filter, last: usize, json: bool) -> Result<(), Stop> {
    let contents = read(folder)?;
    if let Some(fault) = &contents.fault {
        eprintln!("{}warning:{:#} {fault}; run: agentsecrets audit verify", WARNING, WARNING);
    }
    let records: Vec<_> = contents.records.into_iter().filter(|record| filter.holds(record)).collect();
    if records.is_empty() {
        eprintln!("no records yet");
    }
    let newest = records.get(records.len().saturating_sub(last)..).unwrap_or_default();
    print(newest, json)
}

fn tail(folder: &Path, filter: &Filter, last: usize, json: bool) -> Result<(), Stop> {
    // Before the list, so that nothing falls between the two; a record may be shown twice instead.
    let mut follower = Follower::at_end(folder)?;
    list(folder, filter, last, json)?;
    loop {
        let records: Vec<_> =
            follower.outcomes()?.into_iter().filter(|record| filter.holds(record)).collect();
        print(&records, json)?;
        std::thread::sleep(LOOK_EVERY);
    }
}

fn prove(folder: &Path, context: &Context) -> Result<(), Stop> {
    let lines = verify(folder)?;
    let text = match context.json {
        true => format!("{{\"ok\":true,\"lines\":{lines}}}\n"),
        false => format!("{lines} lines, each as it was written and where it was written\n"),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn write_out(folder: &Path, output: Option<&Path>) -> Result<(), Stop> {
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
    fn holds(&self, record: &Record) -> bool {
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

fn print(records: &[Record], json: bool) -> Result<(), Stop> {
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
        table(&mut text, records);
    }
    // Colours are taken out where there is no terminal.
    let mut out = AutoStream::auto(io::stdout().lock());
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

const WARNING: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// One aligned line a record: time, agent, status, code, method, target, secrets, reason.
fn table(text: &mut String, records: &[Record]) {
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

fn failure(error: &AuditError, folder: &Path) -> Failure {
    let failure = Failure::new(Exit::Failure, error);
    match error {
        AuditError::Line { .. } | AuditError::Missing(_) => failure.hint(format!(
            "nothing is spent until this is settled; keep the log as evidence: move {0}, {0}.key and {0}.head \
             aside, and a new log begins",
            folder.display()
        )),
        AuditError::Io { .. } | AuditError::Busy | AuditError::Random => failure,
    }
}
