//! `agentsecrets environment`: which environment applies, and secrets from one to another.

use std::process::ExitCode;

use anstream::eprintln;

use super::scope::project_file::ProjectFile;
use super::scope::user::User;
use super::scope::{Origin, Scope};
use super::secrets::{json, open_store_to_write, show, store_failure};
use super::table::table;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::store::{Entry, Key, Store, StoreError, Stores};
use crate::types::name::{Environment, SecretName};

/// Choose, copy and merge environments.
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
    /// Make an environment the one that applies: in the project file, where there is one, else everywhere
    #[command(after_help = "Example: agentsecrets environment switch production")]
    Switch {
        /// Its name
        #[arg(id = "switched", value_name = "ENVIRONMENT")]
        environment: Environment,
    },
    /// Copy secrets into an environment that has none of these names
    #[command(after_help = "Example: agentsecrets environment copy development staging --only STRIPE_KEY")]
    Copy(Transfer),
    /// Add to an environment what it lacks of another
    #[command(after_help = "Example: agentsecrets environment merge staging production --dry-run")]
    Merge(Transfer),
}

#[derive(Debug, clap::Args)]
struct Transfer {
    /// Where the secrets are
    from: Environment,
    /// Where they go
    to: Environment,
    /// Only these
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<SecretName>,
    /// Replace what is there under the same names
    #[arg(long)]
    overwrite: bool,
    /// Say what would be stored, and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the verb.
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
    let mut all = User::load(&context.home)?.all_environments();
    if !all.contains(&environment.value) {
        all.push(environment.value.clone());
    }
    let origin = |name: &Environment| (*name == environment.value).then(|| environment.origin.to_string());
    if context.json {
        let entry = |name: &Environment| {
            let origin = origin(name);
            serde_json::json!({ "name": name, "active": origin.is_some(), "origin": origin })
        };
        return json(&all.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |name: &Environment| {
        let active = origin(name).map(|origin| format!("active ({origin})"));
        [name.to_string(), active.unwrap_or_default()]
    };
    show(table(["Environment", "Active"], &all.iter().map(row).collect::<Vec<_>>()).as_bytes())
}

fn switch(environment: &Environment, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
    user.remember(environment);
    match &context.scope.file {
        Some(file) => {
            context.may_write_project_file()?;
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
        eprintln!("warning: {name} comes first, and says {}", context.environment);
    }
    Ok(ExitCode::SUCCESS)
}

fn transfer_all(transfer: &Transfer, merge: bool, context: &Context) -> Result<ExitCode, Failure> {
    let Transfer { from, to, only, overwrite, dry_run } = transfer;
    if from == to {
        return Err(Failure::new(Exit::Usage, format!("{from} is both where from and where to")));
    }
    let stores = open_store_to_write(context)?;
    let listed =
        |environment: &Environment| stores.list(&context.project, environment).map_err(store_failure);
    let (mut theirs, there) = (listed(from)?, listed(to)?);
    if let Some(missing) = only.iter().find(|name| !theirs.iter().any(|entry| entry.name == **name)) {
        let what = format!("there is no secret {missing} in {}/{from}", context.project);
        return Err(Failure::new(Exit::NotFound, what));
    }
    theirs.retain(|entry| only.is_empty() || only.contains(&entry.name));
    let twice = |entry: &Entry| there.iter().any(|other| other.name == entry.name);
    let conflicts: Vec<&str> =
        theirs.iter().filter(|entry| twice(entry)).map(|entry| entry.name.as_str()).collect();
    if !conflicts.is_empty() && !overwrite && !merge {
        let what =
            format!("{}/{to} has {} already; nothing was copied", context.project, conflicts.join(", "));
        return Err(Failure::new(Exit::Failure, what)
            .hint("--overwrite replaces them; `environment merge` leaves them as they are"));
    }
    if !overwrite {
        theirs.retain(|entry| !twice(entry));
    }
    if *dry_run {
        eprintln!("these would be stored in {}/{to}:", context.project);
        let names: String = theirs.iter().map(|entry| format!("{}\n", entry.name)).collect();
        return show(names.as_bytes());
    }
    let act = if merge { "environment merge" } else { "environment copy" };
    let names: Vec<SecretName> = theirs.iter().map(|entry| entry.name.clone()).collect();
    admin_record::record(context, act, None, &names, vec![format!("{from} to {to}")])?;
    let keys = |entry: &Entry| {
        let key = |environment: &Environment| Key {
            project: context.project.clone(),
            environment: environment.clone(),
            name: entry.name.clone(),
        };
        (key(from), key(to), entry.placeholder.clone())
    };
    let count = copy(&stores, theirs.iter().map(keys)).map_err(store_failure)?;
    let mut user = User::load(&context.home)?;
    user.remember(to);
    user.save(&context.home)?;
    eprintln!("stored {count} secrets of {}/{from} in {}/{to}", context.project, context.project);
    Ok(ExitCode::SUCCESS)
}

/// Stores what is at the first keys at the second ones, and says how many that were.
pub(super) fn copy(
    stores: &Stores,
    keys: impl Iterator<Item = (Key, Key, Option<String>)>,
) -> Result<usize, StoreError> {
    let mut count = 0;
    for (from, to, placeholder) in keys {
        // Listed a moment ago; who removed it since meant it.
        let Some(value) = stores.get(&from)? else { continue };
        stores.put(&to, value, placeholder.as_deref())?;
        count += 1;
    }
    Ok(count)
}
