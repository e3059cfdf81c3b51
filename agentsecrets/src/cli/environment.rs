//! `agentsecrets environment`: selects the environment, and copies secrets between environments.

use std::process::ExitCode;

use anstream::eprintln;

use super::scope::project_file::ProjectFile;
use super::scope::user::UserScope;
use super::scope::{Origin, Scope};
use crate::cli::context::Context;
use crate::cli::output::table;
use crate::cli::output::{print_bytes, print_json};
use crate::cli::records;
use crate::cli::stores::open_store_to_write;
use crate::store::{ChainedStore, Entry, Key, Store, StoreError};
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, SecretName};

/// List, switch, copy and merge environments
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets environment switch staging
  agentsecrets environment copy development staging --dry-run")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the environments: development, staging, production and your own
    #[command(after_help = "Example: agentsecrets environment list --json")]
    List,
    /// Select the active environment: in the project file if there is one, otherwise for the user
    #[command(after_help = "Example: agentsecrets environment switch production")]
    Switch {
        /// Name of the environment
        #[arg(id = "switched", value_name = "ENVIRONMENT")]
        environment: Environment,
    },
    /// Copy secrets to an environment that has none of the names
    #[command(after_help = "Example: agentsecrets environment copy development staging --only STRIPE_KEY")]
    Copy(Transfer),
    /// Copy the secrets that the other environment lacks
    #[command(after_help = "Example: agentsecrets environment merge staging production --dry-run")]
    Merge(Transfer),
}

#[derive(Debug, clap::Args)]
struct Transfer {
    /// Source environment
    from: Environment,
    /// Target environment
    to: Environment,
    /// Copy only these secrets
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<SecretName>,
    /// Replace existing secrets of the same names
    #[arg(long)]
    overwrite: bool,
    /// Show what would be stored, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::List => list(context),
        Verb::Switch { environment } => switch(&environment, context),
        Verb::Copy(transfer) => transfer_all(&transfer, false, context),
        Verb::Merge(transfer) => transfer_all(&transfer, true, context),
    }
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let Scope { environment, .. } = &context.scope;
    let mut all = UserScope::load(&context.home)?.all_environments();
    if !all.contains(&environment.value) {
        all.push(environment.value.clone());
    }
    let origin = |name: &Environment| (*name == environment.value).then(|| environment.origin.to_string());
    if context.json {
        let entry = |name: &Environment| {
            let origin = origin(name);
            serde_json::json!({ "name": name, "active": origin.is_some(), "origin": origin })
        };
        return print_json(&all.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |name: &Environment| {
        let active = origin(name).map(|origin| format!("active ({origin})"));
        [name.to_string(), active.unwrap_or_default()]
    };
    print_bytes(table(["Environment", "Active"], &all.iter().map(row).collect::<Vec<_>>()).as_bytes())
}

fn switch(environment: &Environment, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = UserScope::load(&context.home)?;
    user.add_environment(environment);
    match &context.scope.file {
        Some(file) => {
            context.ensure_project_file_writable()?;
            ProjectFile::write(Some(file), file, &[("environment", environment.as_str())])?;
            user.save(&context.home)?;
            eprintln!("{environment} applies from now on, as {} says", file.display());
        }
        None => {
            user.environment = Some(environment.clone());
            user.save(&context.home)?;
            eprintln!("{environment} applies from now on");
        }
    }
    if let Origin::Flag(name) | Origin::Variable(name) = context.scope.environment.origin {
        eprintln!("warning: {name} has precedence and is set to {}", context.environment);
    }
    Ok(ExitCode::SUCCESS)
}

fn transfer_all(transfer: &Transfer, merge: bool, context: &Context) -> Result<ExitCode, Failure> {
    let Transfer { from, to, only, overwrite, dry_run } = transfer;
    if from == to {
        return Err(Failure::new(Exit::Usage, format!("source and target are both {from}")));
    }
    let stores = open_store_to_write(context)?;
    let listed =
        |environment: &Environment| stores.list(&context.project, environment).map_err(Failure::from);
    let (mut entries, there) = (listed(from)?, listed(to)?);
    if let Some(missing) = only.iter().find(|name| !entries.iter().any(|entry| entry.name == **name)) {
        let what = format!("there is no secret {missing} in {}/{from}", context.project);
        return Err(Failure::new(Exit::NotFound, what));
    }
    entries.retain(|entry| only.is_empty() || only.contains(&entry.name));
    let twice = |entry: &Entry| there.iter().any(|other| other.name == entry.name);
    let conflicts: Vec<&str> =
        entries.iter().filter(|entry| twice(entry)).map(|entry| entry.name.as_str()).collect();
    if !conflicts.is_empty() && !overwrite && !merge {
        let what =
            format!("{}/{to} has {} already; nothing was copied", context.project, conflicts.join(", "));
        return Err(Failure::new(Exit::Failure, what)
            .hint("--overwrite replaces them; `environment merge` leaves them as they are"));
    }
    if !overwrite {
        entries.retain(|entry| !twice(entry));
    }
    if *dry_run {
        eprintln!("these would be stored in {}/{to}:", context.project);
        let names: String = entries.iter().map(|entry| format!("{}\n", entry.name)).collect();
        return print_bytes(names.as_bytes());
    }
    let act = if merge { "environment merge" } else { "environment copy" };
    let names: Vec<SecretName> = entries.iter().map(|entry| entry.name.clone()).collect();
    records::record_act(context, act, None, &names, vec![format!("{from} to {to}")])?;
    let keys = |entry: &Entry| {
        let key = |environment: &Environment| Key {
            project: context.project.clone(),
            environment: environment.clone(),
            name: entry.name.clone(),
        };
        (key(from), key(to), entry.placeholder.clone())
    };
    let count = copy(&stores, entries.iter().map(keys))?;
    let mut user = UserScope::load(&context.home)?;
    user.add_environment(to);
    user.save(&context.home)?;
    eprintln!("stored {count} secrets of {}/{from} in {}/{to}", context.project, context.project);
    Ok(ExitCode::SUCCESS)
}

/// Copies each secret from its first key to its second, and returns their number.
pub(super) fn copy(
    stores: &ChainedStore,
    keys: impl Iterator<Item = (Key, Key, Option<String>)>,
) -> Result<usize, StoreError> {
    let mut count = 0;
    for (from, to, placeholder) in keys {
        // It was removed after it was listed.
        let Some(value) = stores.get(&from)? else { continue };
        stores.set_in_first(&to, value, placeholder.as_deref())?;
        count += 1;
    }
    Ok(count)
}
