//! `agentsecrets secrets`: what a person does with the store. Values go in by a hidden prompt, a pipe
//! or a file; they come out at a terminal alone, when asked for by name, and that is recorded.

pub(super) mod dotenv;

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{eprintln, println};
use zeroize::{Zeroize, Zeroizing};

use super::{Context, Exit, Failure};
use crate::audit::{Log, visible};
use crate::base::name::SecretName;
use crate::base::secret::Secret;
use crate::store::vault::{self, LARGEST_VALUE, Vault};
use crate::store::{Entry, Key, Store, StoreError};

/// Values shorter than this stand in ordinary text by chance.
const SHORT: usize = 8;
/// A placeholder shorter than this would be found where nobody meant it.
const SHORTEST_PLACEHOLDER: usize = 8;

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
    Set(Set),
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
    /// Store every value of a .env file: all of them or none
    #[command(after_help = "Example: agentsecrets secrets import .env --dry-run")]
    Import {
        /// The file; its variables are not expanded
        file: PathBuf,
        /// Say what would be stored, and store nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(clap::Args)]
struct Set {
    /// Its name; NAME=value is possible too, but stays in the shell's history
    #[arg(value_name = "NAME")]
    name: String,
    /// Take the value from this file, less one final newline
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// What agents use in its place, for clients that check a key's shape [default: AS_SECRET_<NAME>]
    #[arg(long, value_name = "TEXT")]
    placeholder: Option<String>,
}

impl std::fmt::Debug for Set {
    /// The name may have the value behind it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").finish_non_exhaustive()
    }
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Set(args) => set(args, context),
        Verb::List => list(context),
        Verb::Get { name, reveal } => get(&name, reveal, context),
        Verb::Delete { name } => delete(&name, context),
        Verb::Import { file, dry_run } => import(&file, dry_run, context),
    }
}

/// The person's vault, which must be there, opened by the key file or a passphrase.
pub(crate) fn open_vault(context: &Context) -> Result<Vault, Failure> {
    let path = context.home.vault();
    let opened = if vault::exists(&path) {
        vault::unlock(&path).and_then(|unlock| Vault::open(&path, &unlock))
    } else {
        Err(StoreError::Locked(format!("there is no vault at {} yet", path.display())))
    };
    let made = "agentsecrets secrets set NAME";
    opened.map_err(|error| match error {
        StoreError::Locked(_) if !vault::exists(&path) => {
            store_failure(error).hint(format!("to make one, run: {made}"))
        }
        error => store_failure(error),
    })
}

/// The person's store, which must be there, for whoever reads values.
pub(super) fn open_store(context: &Context) -> Result<Box<dyn Store>, Failure> {
    Ok(Box::new(open_vault(context)?))
}

/// How a store's error ends a command.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::Locked(_) => Exit::Locked,
        StoreError::Refused(_) => Exit::Usage,
        StoreError::Damaged(_) | StoreError::Io(_) => Exit::Failure,
    };
    Failure::new(exit, error)
}

fn set(mut args: Set, context: &Context) -> Result<ExitCode, Failure> {
    let (name, inline) = match args.name.split_once('=') {
        Some((name, value)) => (name, Some(Secret::new(value.as_bytes().to_vec()))),
        None => (&*args.name, None),
    };
    let name: SecretName = name.parse().map_err(|error| Failure::new(Exit::Usage, error))?;
    args.name.zeroize();
    let value = match (inline, &args.from_file) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(Exit::Usage, "a value was given twice: inline and by --from-file"));
        }
        (Some(value), None) => {
            warn("the value is in your shell's history now, and was in the list of processes");
            value
        }
        (None, Some(file)) => read_file(file)?,
        (None, None) if io::stdin().is_terminal() => prompt(&name)?,
        (None, None) => read_value(io::stdin().lock(), "standard input")?,
    };
    if value.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("the value of {name} is empty; nothing was stored")));
    }
    warn_if_short(&name, &value);
    if let Some(placeholder) = &args.placeholder {
        check_placeholder(placeholder, &value)?;
    }

    let path = context.home.vault();
    let unlock = vault::unlock(&path).map_err(store_failure)?;
    let vault = Vault::open_or_create(&path, &unlock).map_err(store_failure)?;
    let entries = vault.list(&context.project, &context.environment).map_err(store_failure)?;
    let taken = |entry: &&Entry| entry.name != name && entry.placeholder == args.placeholder;
    if let Some(other) = args.placeholder.as_ref().and_then(|_| entries.iter().find(taken)) {
        return Err(Failure::new(Exit::Usage, format!("{} has this placeholder already", other.name)));
    }
    // A new value under an old name keeps the placeholder that clients were given.
    let before = entries.into_iter().find(|entry| entry.name == name);
    let replaced = before.is_some();
    let placeholder = args.placeholder.or(before.and_then(|entry| entry.placeholder));
    vault.set(&key(&name, context), value, placeholder.as_deref()).map_err(store_failure)?;
    let done = if replaced { "replaced" } else { "stored" };
    eprintln!("{done} {name} in {}/{}", context.project, context.environment);
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let entries = open_vault(context)?.list(&context.project, &context.environment).map_err(store_failure)?;
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
    let width = |head: &str, column: fn(&Entry) -> &str| {
        entries.iter().map(|entry| column(entry).len()).max().unwrap_or(0).max(head.len())
    };
    let name = width("NAME", |entry| entry.name.as_str());
    let environment = width("ENVIRONMENT", |entry| entry.environment.as_str());
    let lines = std::iter::once(("NAME", "ENVIRONMENT", "UPDATED", "PLACEHOLDER".to_string()));
    let lines =
        lines.chain(entries.iter().map(|entry| {
            (entry.name.as_str(), entry.environment.as_str(), &*entry.updated, placeholder(entry))
        }));
    let text: String =
        lines.map(|(a, b, c, d)| format!("{a:name$}  {b:environment$}  {c:20}  {d}\n")).collect();
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
    let vault = open_vault(context)?;
    let entries = vault.list(&context.project, &context.environment).map_err(store_failure)?;
    let entry =
        entries.into_iter().find(|entry| entry.name == *name).ok_or_else(|| not_found(name, context))?;
    if reveal {
        let refused = |error| Failure::new(Exit::Failure, format!("nothing was revealed: {error}"));
        let log = Log::open(&context.home.audit()).map_err(refused)?;
        log.administrative(&context.environment, "REVEAL", name).map_err(refused)?;
        let value = vault.get(&key(name, context)).map_err(store_failure)?;
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
        "name         {}\nproject      {}\nenvironment  {}\nupdated      {}\nplaceholder  {}\n",
        entry.name,
        context.project,
        entry.environment,
        entry.updated,
        placeholder(&entry)
    );
    show(text.as_bytes())
}

fn delete(name: &SecretName, context: &Context) -> Result<ExitCode, Failure> {
    if !open_vault(context)?.delete(&key(name, context)).map_err(store_failure)? {
        return Err(not_found(name, context));
    }
    eprintln!("deleted {name} from {}/{}", context.project, context.environment);
    Ok(ExitCode::SUCCESS)
}

fn import(file: &Path, dry_run: bool, context: &Context) -> Result<ExitCode, Failure> {
    let shown = file.display();
    let unreadable =
        |error: io::Error| Failure::new(Exit::Failure, format!("{shown} cannot be read: {error}"));
    let text = Zeroizing::new(std::fs::read_to_string(file).map_err(unreadable)?);
    let found = dotenv::parse(&text).map_err(|bad| Failure::new(Exit::Failure, format!("{shown}, {bad}")))?;
    let mut values = Vec::new();
    for (name, value) in found {
        if value.is_empty() {
            warn(&format!("{name} is empty in {shown} and is left out"));
            continue;
        }
        let value = Secret::new(value.as_bytes().to_vec());
        warn_if_short(&name, &value);
        values.push((key(&name, context), value));
    }
    if dry_run {
        eprintln!("these would be stored in {}/{}:", context.project, context.environment);
        let names: String = values.iter().map(|(key, _)| format!("{}\n", key.name)).collect();
        return show(names.as_bytes());
    }
    let path = context.home.vault();
    let unlock = vault::unlock(&path).map_err(store_failure)?;
    let vault = Vault::open_or_create(&path, &unlock).map_err(store_failure)?;
    vault.set_all(&values).map_err(store_failure)?;
    eprintln!("stored {} secrets in {}/{}", values.len(), context.project, context.environment);
    eprintln!("{shown} still holds the values: delete it, or move it out of agents' reach");
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

fn prompt(name: &SecretName) -> Result<Secret, Failure> {
    let typed = rpassword::prompt_password(format!("Value of {name} (not shown): "));
    let typed = typed.map(Zeroizing::new).map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok(Secret::new(typed.as_bytes().to_vec()))
}

fn read_file(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|error| Failure::new(Exit::Failure, format!("{shown} cannot be read: {error}")))?;
    read_value(file, &shown.to_string())
}

/// Reads a value to its end, less one final newline.
fn read_value(from: impl Read, source: &str) -> Result<Secret, Failure> {
    // Reserved in full, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_VALUE + 4));
    from.take(LARGEST_VALUE as u64 + 3)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(Exit::Failure, format!("{source} cannot be read: {error}")))?;
    let value = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(&bytes);
    if value.len() > LARGEST_VALUE {
        return Err(Failure::new(Exit::Usage, format!("what {source} holds is larger than 1 MiB")));
    }
    Ok(Secret::new(value.to_vec()))
}

fn check_placeholder(placeholder: &str, value: &Secret) -> Result<(), Failure> {
    let bad = |what| Err(Failure::new(Exit::Usage, what));
    if placeholder.len() < SHORTEST_PLACEHOLDER || !placeholder.bytes().all(|b| b.is_ascii_graphic()) {
        return bad("a placeholder has at least 8 characters, all of them visible ASCII");
    }
    let holds = |long: &[u8], short: &[u8]| long.windows(short.len()).any(|window| window == short);
    if holds(placeholder.as_bytes(), value.expose()) || holds(value.expose(), placeholder.as_bytes()) {
        return bad("the placeholder and the value must not hold one another: agents see the placeholder");
    }
    Ok(())
}

fn warn_if_short(name: &SecretName, value: &Secret) {
    if value.len() < SHORT {
        warn(&format!(
            "{name} is shorter than {SHORT} bytes: such text also stands in answers by chance, \
             where redacting it would mangle them"
        ));
    }
}

fn warn(what: &str) {
    let yellow = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Yellow.into()));
    eprintln!("{yellow}warning:{yellow:#} {what}");
}

fn json(value: &impl serde::Serialize) -> Result<ExitCode, Failure> {
    let mut text = serde_json::to_vec(value).map_err(|error| Failure::new(Exit::Failure, error))?;
    text.push(b'\n');
    show(&text)
}

/// To standard output; a reader that has seen enough is no failure.
fn show(text: &[u8]) -> Result<ExitCode, Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Failure, error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: &[u8]) -> Vec<u8> {
        read_value(bytes, "standard input").unwrap().expose().to_vec()
    }

    #[test]
    fn one_final_newline_is_not_part_of_a_value() {
        assert_eq!(value(b"token\n"), b"token");
        assert_eq!(value(b"token\r\n"), b"token");
        assert_eq!(value(b" to ken \n\n"), b" to ken \n");
        assert_eq!(value(&[0, 255, 10, 0]), [0, 255, 10, 0]);
    }

    #[test]
    fn a_value_of_a_mebibyte_is_the_largest() {
        assert_eq!(value(&vec![b'x'; LARGEST_VALUE]).len(), LARGEST_VALUE);
        let larger = read_value(&*vec![b'x'; LARGEST_VALUE + 1], "standard input");
        assert_eq!(larger.err().unwrap().exit(), Exit::Usage);
    }

    #[test]
    fn a_placeholder_is_plain_long_enough_and_gives_nothing_away() {
        let value = Secret::new(b"sk-proj-real".to_vec());
        assert!(check_placeholder("sk-proj-0000", &value).is_ok());
        for bad in ["short", "sk-proj 0000", "sk-proj-\u{e9}\u{e9}", "sk-proj-", "xx-sk-proj-real"] {
            assert!(check_placeholder(bad, &value).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_prints_what_was_typed_behind_a_name() {
        let typed = Set { name: "KEY=s3cret-value".into(), from_file: None, placeholder: None };
        assert!(!format!("{typed:?}").contains("s3cret"));
    }
}
