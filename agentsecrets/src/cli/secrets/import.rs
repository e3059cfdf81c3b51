//! `agentsecrets secrets import`: stores every value of a .env file, and offers to remove the file, which
//! agents could still read.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use zeroize::Zeroizing;

use super::dotenv;
use super::set::warn_if_guessable;
use crate::cli::context::Context;
use crate::cli::output::{print_bytes, warn};
use crate::cli::records;
use crate::cli::stores::open_store_to_write;
use crate::sys::files;
use crate::types::failure::{Exit, Failure};
use crate::types::name::SecretName;
use crate::types::secret::Secret;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File to import; variables in it are not expanded
    file: PathBuf,
    /// Show what would be stored, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the file after everything is stored [default: ask at a terminal, otherwise keep it]
    #[arg(long, conflicts_with = "dry_run")]
    remove: bool,
}

impl Args {
    /// The input file.
    pub(super) fn file(&self) -> PathBuf {
        self.file.clone()
    }
}

pub(super) fn import(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let file = &args.file;
    let path = file.display();
    let unreadable =
        |error: io::Error| Failure::new(Exit::Failure, format!("{path} cannot be read: {error}"));
    let text = Zeroizing::new(read(file).map_err(unreadable)?);
    let found = dotenv::parse(&text).map_err(|bad| Failure::new(Exit::Failure, format!("{path}, {bad}")))?;
    let mut values = Vec::new();
    for (name, value) in found {
        if value.is_empty() {
            warn(&format!("{name} is empty in {path} and is skipped"));
            continue;
        }
        let value = Secret::new(value.as_bytes().to_vec());
        warn_if_guessable(&name, &value);
        values.push((context.secret_key(&name), value));
    }
    if args.dry_run {
        eprintln!("these would be stored in {}/{}:", context.project, context.environment);
        let names: String = values.iter().map(|(key, _)| format!("{}\n", key.name)).collect();
        return print_bytes(names.as_bytes());
    }
    if values.is_empty() {
        return Err(Failure::new(Exit::Failure, format!("{path} holds no value; nothing was stored")));
    }
    let count = values.len();
    let stores = open_store_to_write(context)?;
    let names: Vec<SecretName> = values.iter().map(|(key, _)| key.name.clone()).collect();
    records::record_act(context, "secrets import", None, &names, vec![path.to_string()])?;
    let store = stores.set_all_in_first(values)?;
    eprintln!("stored {count} secrets in {}/{} ({store})", context.project, context.environment);
    if args.remove || confirm_removal(file)? {
        remove(file, &text)?;
    } else {
        eprintln!("{path} still holds the values: delete it, or move it out of agents' reach");
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> io::Result<String> {
    io::read_to_string(files::open(file)?)
}

/// Asks the person at the terminal whether to remove the file; without a terminal the answer is no.
fn confirm_removal(file: &Path) -> Result<bool, Failure> {
    // An inherited descriptor cannot be removed.
    let handed = file.starts_with("/dev/fd");
    if handed || !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "Remove {}, now that its values are stored? [y/N] ", file.display())
        .map_err(Failure::from_error)?;
    stderr.flush().map_err(Failure::from_error)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::from_error)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes the file unless it was changed after it was read.
fn remove(file: &Path, read: &str) -> Result<(), Failure> {
    let path = file.display();
    let not_removed = |reason: String| {
        Err(Failure::new(Exit::Failure, format!("everything is stored, but {path} {reason}")))
    };
    if file.is_symlink() {
        return not_removed("is a link and was kept: remove its target".into());
    }
    match std::fs::read_to_string(file).map(Zeroizing::new) {
        Ok(now) if *now == read => {}
        _ => return not_removed("was changed meanwhile and was kept: import it again".into()),
    }
    if let Err(error) = std::fs::remove_file(file) {
        return not_removed(format!("cannot be removed: {error}"));
    }
    eprintln!("removed {path}; copies of it, in backups and in version control, still hold the values");
    Ok(())
}
