//! `agentsecrets secrets`: manages stored secrets. Values are read from a hidden prompt, a pipe or a file. A
//! value is shown only at a terminal with `--reveal`, and that is recorded.

pub(super) mod dotenv;
mod import;
mod set;
mod vault;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anstream::{eprintln, println};
use zeroize::Zeroizing;

use crate::audit::visible;
use crate::cli::context::Context;
use crate::cli::output::{print_bytes, print_json, team_sync_unsupported, warn};
use crate::cli::records;
use crate::cli::stores::open_store;
use crate::store::{Entry, Store};
use crate::types::failure::{Exit, Failure};
use crate::types::name::SecretName;

/// Store, list and delete secrets
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets secrets set STRIPE_KEY                   prompts for the value
  pass stripe | agentsecrets secrets set STRIPE_KEY     reads it from the pipe
  agentsecrets --environment production secrets list")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Store a secret; reads the value from a hidden prompt, or from standard input if that is a pipe
    #[command(after_help = "Example: printf %s \"$TOKEN\" | agentsecrets secrets set GITHUB_TOKEN")]
    Set(set::Args),
    /// List the names of the secrets
    #[command(after_help = "Example: agentsecrets secrets list --json")]
    List,
    /// Show the metadata of a secret, without its value
    #[command(after_help = "Example: agentsecrets secrets get STRIPE_KEY")]
    Get {
        /// Name of the secret
        name: SecretName,
        /// Show the value too; works only at a terminal, and is recorded
        #[arg(long)]
        reveal: bool,
    },
    /// Delete a secret
    #[command(after_help = "Example: agentsecrets secrets delete STRIPE_KEY")]
    Delete {
        /// Name of the secret
        name: SecretName,
    },
    /// Store every value of a .env file (the vault stores all or none), and offer to remove the file
    #[command(
        after_help = "Examples:\n  agentsecrets secrets import .env --dry-run\n  agentsecrets secrets import .env --remove"
    )]
    Import(import::Args),
    /// Send secrets to a team (not supported yet)
    #[command(hide = true)]
    Push(TeamSyncArgs),
    /// Receive secrets from a team (not supported yet)
    #[command(hide = true)]
    Pull(TeamSyncArgs),
    /// Compare secrets with a team's (not supported yet)
    #[command(hide = true)]
    Diff,
    /// Change the vault's passphrase or key file, and back up or restore it
    Vault(vault::Args),
}

/// Options that other programs pass to `push` and `pull`.
#[derive(Debug, clap::Args)]
struct TeamSyncArgs {
    /// Do not ask for confirmation
    #[arg(long)]
    force: bool,
}

impl Args {
    /// The secrets that the options name.
    pub(super) fn secret_names(&self) -> Vec<SecretName> {
        match &self.verb {
            Verb::Set(args) => args.name().into_iter().collect(),
            Verb::Get { name, .. } | Verb::Delete { name } => vec![name.clone()],
            _ => Vec::new(),
        }
    }

    /// The input files.
    pub(super) fn input_files(&self) -> Vec<std::path::PathBuf> {
        match &self.verb {
            Verb::Set(args) => args.file().into_iter().collect(),
            Verb::Import(args) => vec![args.file()],
            _ => Vec::new(),
        }
    }
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Set(args) => set::set(args, context),
        Verb::List => list(context),
        Verb::Get { name, reveal } => get(&name, reveal, context),
        Verb::Delete { name } => delete(&name, context),
        Verb::Import(args) => import::import(&args, context),
        Verb::Push(TeamSyncArgs { force: _ }) => Err(team_sync_unsupported("secrets push")),
        Verb::Pull(TeamSyncArgs { force: _ }) => Err(team_sync_unsupported("secrets pull")),
        Verb::Diff => Err(team_sync_unsupported("secrets diff")),
        Verb::Vault(args) => vault::run(args, context),
    }
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let entries = open_store(context)?.list(&context.project, &context.environment)?;
    if context.json {
        return print_json(&entries);
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
    // Other tools look for the first word.
    let head = ["Key", "Environment", "Updated", "Placeholder", "Store"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(entries.iter().map(row)).collect();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    let text: String = rows.iter().map(line).collect();
    print_bytes(text.as_bytes())
}

fn get(name: &SecretName, reveal: bool, context: &Context) -> Result<ExitCode, Failure> {
    if reveal && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::new(
            Exit::Denied,
            "a value is revealed at a terminal only, never into a pipe or a file",
        )
        .hint("a program can use it without seeing it with: agentsecrets run -- COMMAND"));
    }
    let stores = open_store(context)?;
    let entries = stores.list(&context.project, &context.environment)?;
    let entry = match entries.into_iter().find(|entry| entry.name == *name) {
        Some(entry) => entry,
        // Some stores cannot list their secrets.
        None => {
            let store = stores.answering(&context.secret_key(name))?;
            let store = store.ok_or_else(|| not_found(name, context))?;
            let (name, environment) = (name.clone(), context.environment.clone());
            Entry { name, environment, updated: None, placeholder: None, store }
        }
    };
    if reveal {
        records::record_act(context, "secrets get", None, std::slice::from_ref(name), Vec::new())?;
        let value = stores.get(&context.secret_key(name))?;
        let value = value.ok_or_else(|| not_found(name, context))?;
        // Control characters are escaped, since they could move the cursor of the terminal.
        let text = Zeroizing::new(match std::str::from_utf8(value.expose()) {
            Ok(text) => visible(text),
            Err(_) => value.expose().escape_ascii().to_string(),
        });
        println!("{}", *text);
        return Ok(ExitCode::SUCCESS);
    }
    if context.json {
        return print_json(&entry);
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
    print_bytes(text.as_bytes())
}

fn delete(name: &SecretName, context: &Context) -> Result<ExitCode, Failure> {
    let stores = open_store(context)?;
    stores.answering(&context.secret_key(name))?.ok_or_else(|| not_found(name, context))?;
    records::record_act(context, "secrets delete", None, std::slice::from_ref(name), Vec::new())?;
    let from = stores.remove(&context.secret_key(name))?;
    let from = from.ok_or_else(|| not_found(name, context))?;
    eprintln!("deleted {name} from {}/{} ({from})", context.project, context.environment);
    if let Ok(Some(other)) = stores.answering(&context.secret_key(name)) {
        warn(&format!("the {other} store holds {name} too, and answers from now on"));
    }
    Ok(ExitCode::SUCCESS)
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
