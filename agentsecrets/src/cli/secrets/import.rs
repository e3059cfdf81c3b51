//! `agentsecrets secrets import`: every value of a .env file is stored, and the file, which still holds
//! them where agents can read it, is offered for removal.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::eprintln;
use zeroize::Zeroizing;

use super::set::warn_if_ordinary;
use super::stores::{open_store_to_write, store_failure};
use super::{dotenv, key, show, warn};
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::sys::files;
use crate::types::name::SecretName;
use crate::types::secret::Secret;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; its variables are not expanded
    file: PathBuf,
    /// Say what would be stored, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the file when everything is stored [default: ask at a terminal, else keep it]
    #[arg(long, conflicts_with = "dry_run")]
    remove: bool,
}

impl Args {
    /// The file that is read.
    pub(super) fn file(&self) -> PathBuf {
        self.file.clone()
    }
}

pub(super) fn import(args: &Args, context: &Context) -> Result<ExitCode, Failure> {
    let file = &args.file;
    let shown = file.display();
    let unreadable =
        |error: io::Error| Failure::new(Exit::Failure, format!("{shown} cannot be read: {error}"));
    let text = Zeroizing::new(read(file).map_err(unreadable)?);
    let found = dotenv::parse(&text).map_err(|bad| Failure::new(Exit::Failure, format!("{shown}, {bad}")))?;
    let mut values = Vec::new();
    for (name, value) in found {
        if value.is_empty() {
            warn(&format!("{name} is empty in {shown} and is left out"));
            continue;
        }
        let value = Secret::new(value.as_bytes().to_vec());
        warn_if_ordinary(&name, &value);
        values.push((key(&name, context), value));
    }
    if args.dry_run {
        eprintln!("these would be stored in {}/{}:", context.project, context.environment);
        let names: String = values.iter().map(|(key, _)| format!("{}\n", key.name)).collect();
        return show(names.as_bytes());
    }
    if values.is_empty() {
        return Err(Failure::new(Exit::Failure, format!("{shown} holds no value; nothing was stored")));
    }
    let count = values.len();
    let stores = open_store_to_write(context)?;
    let names: Vec<SecretName> = values.iter().map(|(key, _)| key.name.clone()).collect();
    admin_record::record(context, "secrets import", None, &names, vec![shown.to_string()])?;
    let store = stores.put_all(values).map_err(store_failure)?;
    eprintln!("stored {count} secrets in {}/{} ({store})", context.project, context.environment);
    if args.remove || asked(file)? {
        remove(file, &text)?;
    } else {
        eprintln!("{shown} still holds the values: delete it, or move it out of agents' reach");
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> io::Result<String> {
    io::read_to_string(files::open(file)?)
}

/// Whether the person says so, where there is one to ask.
fn asked(file: &Path) -> Result<bool, Failure> {
    // What was handed to us open is not ours to remove.
    let handed = file.starts_with("/dev/fd");
    if handed || !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    let failed = |error: io::Error| Failure::new(Exit::Failure, error);
    let mut stderr = io::stderr().lock();
    write!(stderr, "Remove {}, now that its values are stored? [y/N] ", file.display()).map_err(failed)?;
    stderr.flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Removes the file, if it is still what was read.
fn remove(file: &Path, read: &str) -> Result<(), Failure> {
    let shown = file.display();
    let kept =
        |why: String| Err(Failure::new(Exit::Failure, format!("everything is stored, but {shown} {why}")));
    if file.is_symlink() {
        return kept("is a link, and was left: remove what it leads to".into());
    }
    match std::fs::read_to_string(file).map(Zeroizing::new) {
        Ok(now) if *now == read => {}
        _ => return kept("was changed meanwhile, and was left: import it again".into()),
    }
    if let Err(error) = std::fs::remove_file(file) {
        return kept(format!("cannot be removed: {error}"));
    }
    eprintln!("removed {shown}; copies of it, in backups and in version control, still hold the values");
    Ok(())
}
