//! `agentsecrets secrets`: what a person does with the store. Values go in by a hidden prompt, a pipe
//! or a file; they come out at a terminal alone, when asked for by name, and that is recorded.

pub(super) mod dotenv;
mod import;
mod set;
mod stores;
mod vault;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstream::{eprintln, println};
use zeroize::Zeroizing;

use crate::audit::visible;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::cli::workspace;
use crate::store::{Entry, Key, Store};
use crate::types::name::SecretName;

pub(crate) use stores::{choices, open_store, open_store_to_write, store_failure};

/// Store, list and delete secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets secrets set STRIPE_KEY                   asks for the value
  pass stripe | agentsecrets secrets set STRIPE_KEY     takes it from the pipe
  agentsecrets --environment production secrets list")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Store a value: from a hidden prompt, or from standard input when it is piped
    #[command(after_help = "Example: printf %s \"$TOKEN\" | agentsecrets secrets set GITHUB_TOKEN")]
    Set(set::Args),
    /// List the names of the secrets
    #[command(after_help = "Example: agentsecrets secrets list --json")]
    List,
    /// Show what is known of a secret, without its value
    #[command(after_help = "Example: agentsecrets secrets get STRIPE_KEY")]
    Get {
        /// Its name
        name: SecretName,
        /// Show the value too: at a terminal only, and recorded
        #[arg(long)]
        reveal: bool,
    },
    /// Delete a secret
    #[command(after_help = "Example: agentsecrets secrets delete STRIPE_KEY")]
    Delete {
        /// Its name
        name: SecretName,
    },
    /// Store every value of a .env file (in the vault, all of them or none), and offer to remove it
    #[command(
        after_help = "Examples:\n  agentsecrets secrets import .env --dry-run\n  agentsecrets secrets import .env --remove"
    )]
    Import(import::Args),
    /// Share with a team: there is no exchange with one yet
    #[command(hide = true)]
    Push(Shared),
    /// The same from a team
    #[command(hide = true)]
    Pull(Shared),
    /// What differs from a team's
    #[command(hide = true)]
    Diff,
    /// Change what opens the vault, back it up, put a backup back
    Vault(vault::Args),
}

/// What other programs say to `push` and `pull`.
#[derive(Debug, clap::Args)]
struct Shared {
    /// Without asking
    #[arg(long)]
    force: bool,
}

impl Args {
    /// The secrets that are named.
    pub(super) fn names(&self) -> Vec<SecretName> {
        match &self.verb {
            Verb::Set(args) => args.name().into_iter().collect(),
            Verb::Get { name, .. } | Verb::Delete { name } => vec![name.clone()],
            _ => Vec::new(),
        }
    }

    /// The files that are read.
    pub(super) fn files(&self) -> Vec<std::path::PathBuf> {
        match &self.verb {
            Verb::Set(args) => args.file().into_iter().collect(),
            Verb::Import(args) => vec![args.file()],
            _ => Vec::new(),
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Set(args) => set::set(args, context),
        Verb::List => list(context),
        Verb::Get { name, reveal } => get(&name, reveal, context),
        Verb::Delete { name } => delete(&name, context),
        Verb::Import(args) => import::import(&args, context),
        Verb::Push(Shared { force: _ }) => Err(workspace::needs_a_team("secrets push")),
        Verb::Pull(Shared { force: _ }) => Err(workspace::needs_a_team("secrets pull")),
        Verb::Diff => Err(workspace::needs_a_team("secrets diff")),
        Verb::Vault(args) => vault::run(args, context),
    }
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let entries = open_store(context)?.list(&context.project, &context.environment).map_err(store_failure)?;
    if context.json {
        return json(&entries);
    }
    if entries.is_empty() {
        eprintln!(
            "no secrets in {}/{}; to store one, run: agentsecrets secrets set NAME",
            context.project, context.environment
        );
        return Ok(ExitCode::SUCCESS);
    }
    let row = |entry: &Entry| {
        [
            entry.name.to_string(),
            entry.environment.to_string(),
            entry.updated.clone().unwrap_or_default(),
            placeholder(entry),
            entry.store.to_owned(),
        ]
    };
    // The first word is what other tools look for.
    let head = ["Key", "Environment", "Updated", "Placeholder", "Store"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(entries.iter().map(row)).collect();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    let text: String = rows.iter().map(line).collect();
    show(text.as_bytes())
}

fn get(name: &SecretName, reveal: bool, context: &Context) -> Result<ExitCode, Failure> {
    if reveal && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::new(
            Exit::Denied,
            "a value is revealed at a terminal only, never into a pipe or a file",
        )
        .hint("a program spends it without seeing it under: agentsecrets run -- COMMAND"));
    }
    let stores = open_store(context)?;
    let entries = stores.list(&context.project, &context.environment).map_err(store_failure)?;
    let entry = match entries.into_iter().find(|entry| entry.name == *name) {
        Some(entry) => entry,
        // Not every store can list what it holds.
        None => {
            let store = stores.answering(&key(name, context)).map_err(store_failure)?;
            let store = store.ok_or_else(|| not_found(name, context))?;
            let (name, environment) = (name.clone(), context.environment.clone());
            Entry { name, environment, updated: None, placeholder: None, store }
        }
    };
    if reveal {
        admin_record::record(context, "secrets get", None, std::slice::from_ref(name), Vec::new())?;
        let value = stores.get(&key(name, context)).map_err(store_failure)?;
        let value = value.ok_or_else(|| not_found(name, context))?;
        // At a terminal, so a value must not be able to move the cursor.
        let text = Zeroizing::new(match std::str::from_utf8(value.expose()) {
            Ok(text) => visible(text),
            Err(_) => value.expose().escape_ascii().to_string(),
        });
        println!("{}", *text);
        return Ok(ExitCode::SUCCESS);
    }
    if context.json {
        return json(&entry);
    }
    let text = format!(
        "name         {}\nproject      {}\nenvironment  {}\nstore        {}\nupdated      {}\nplaceholder  {}\n",
        entry.name,
        context.project,
        entry.environment,
        entry.store,
        entry.updated.as_deref().unwrap_or("unknown"),
        placeholder(&entry)
    );
    show(text.as_bytes())
}

fn delete(name: &SecretName, context: &Context) -> Result<ExitCode, Failure> {
    let stores = open_store(context)?;
    stores.answering(&key(name, context)).map_err(store_failure)?.ok_or_else(|| not_found(name, context))?;
    admin_record::record(context, "secrets delete", None, std::slice::from_ref(name), Vec::new())?;
    let from = stores.remove(&key(name, context)).map_err(store_failure)?;
    let from = from.ok_or_else(|| not_found(name, context))?;
    eprintln!("deleted {name} from {}/{} ({from})", context.project, context.environment);
    if let Ok(Some(other)) = stores.answering(&key(name, context)) {
        warn(&format!("the {other} store holds {name} too, and answers from now on"));
    }
    Ok(ExitCode::SUCCESS)
}

fn key(name: &SecretName, context: &Context) -> Key {
    Key { project: context.project.clone(), environment: context.environment.clone(), name: name.clone() }
}

fn placeholder(entry: &Entry) -> String {
    entry.placeholder.as_deref().map_or_else(|| format!("AS_SECRET_{}", entry.name), visible)
}

fn not_found(name: &SecretName, context: &Context) -> Failure {
    Failure::new(
        Exit::NotFound,
        format!("there is no secret {name} in {}/{}", context.project, context.environment),
    )
    .hint("agentsecrets secrets list")
}

pub(super) fn warn(what: &str) {
    let yellow = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    eprintln!("{yellow}warning:{yellow:#} {what}");
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<ExitCode, Failure> {
    let mut text = serde_json::to_vec(value).map_err(|error| Failure::new(Exit::Failure, error))?;
    text.push(b'\n');
    show(&text)
}

/// To standard output; a reader that has seen enough is no failure.
pub(super) fn show(text: &[u8]) -> Result<ExitCode, Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Failure, error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
