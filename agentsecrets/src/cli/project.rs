//! `agentsecrets project`: secrets of one undertaking, apart from those of others.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anstream::eprintln;

use super::environment::copy;
use super::scope::Origin;
use super::scope::project_file::ProjectFile;
use super::scope::user::{Known, User};
use super::secrets::{json, open_store_to_write, show, store_failure};
use super::table::table;
use crate::audit::visible;
use crate::cli::Context;
use crate::cli::Exit;
use crate::cli::Failure;
use crate::cli::admin_record;
use crate::store::{Key, Store, Stores};
use crate::types::name::{Project, SecretName};

/// Make, choose and delete projects.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentsecrets project create shop
  agentsecrets project use shop --here")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a project, and use it
    #[command(after_help = "Example: agentsecrets project create shop --description 'The web shop'")]
    Create {
        /// Its name
        name: Project,
        /// What it is
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Bind the working folder to it, by a project file
        #[arg(long)]
        here: bool,
    },
    /// List the projects
    #[command(after_help = "Example: agentsecrets project list --json")]
    List,
    /// Make a project the one that applies: in the project file, where there is one, else everywhere
    #[command(after_help = "Example: agentsecrets project use shop")]
    Use {
        /// Its name
        name: Project,
        /// Bind the working folder to it, by a project file
        #[arg(long)]
        here: bool,
    },
    /// Change a project's name or description
    #[command(after_help = "Example: agentsecrets project update shop --name store")]
    Update {
        /// Its name
        name: Project,
        /// Its new name: its secrets move there
        #[arg(long = "name", value_name = "NEW")]
        new: Option<Project>,
        /// What it is
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a project
    #[command(after_help = "Example: agentsecrets project delete shop --force")]
    Delete {
        /// Its name
        name: Project,
        /// Delete its secrets, too, in every environment
        #[arg(long)]
        force: bool,
    },
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    match args.verb {
        Verb::Create { name, description, here } => create(name, description, here, context),
        Verb::List => list(context),
        Verb::Use { name, here } => use_project(&name, here, context),
        Verb::Update { name, new, description } => update(&name, new, description, context),
        Verb::Delete { name, force } => delete(&name, force, context),
    }
}

fn create(name: Project, description: String, here: bool, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
    if user.known(&name).is_some() || name == Project::default() {
        return Err(Failure::new(Exit::Failure, format!("there is a project {name} already"))
            .hint(format!("agentsecrets project use {name}")));
    }
    user.projects.push(Known { name: name.clone(), description });
    user.save(&context.home)?;
    eprintln!("made the project {name}");
    use_project(&name, here, context)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let User { mut projects, workspace, .. } = User::load(&context.home)?;
    let workspace = workspace.unwrap_or_default();
    for name in [&Project::default(), &context.project] {
        if !projects.iter().any(|known| known.name == *name) {
            projects.insert(0, Known { name: name.clone(), description: String::new() });
        }
    }
    let active = &context.scope.project;
    let origin = |known: &Known| (known.name == active.value).then(|| active.origin.to_string());
    if context.json {
        let entry = |known: &Known| {
            let origin = origin(known);
            serde_json::json!({
                "name": known.name, "description": known.description, "active": origin.is_some(), "origin": origin,
            })
        };
        return json(&projects.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |known: &Known| {
        let active = origin(known).map(|origin| format!("active ({origin})"));
        // Columns are told apart by this sign.
        let description = visible(&known.description).replace('│', "|");
        [known.name.to_string(), workspace.to_string(), description, active.unwrap_or_default()]
    };
    let rows: Vec<_> = projects.iter().map(row).collect();
    show(table(["Project", "Workspace", "Description", "Active"], &rows).as_bytes())
}

fn use_project(name: &Project, here: bool, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
    if user.known(name).is_none() && *name != Project::default() {
        return Err(Failure::new(Exit::NotFound, format!("there is no project {name}"))
            .hint(format!("to make it, run: agentsecrets project create {name}")));
    }
    let working = std::env::current_dir().map_err(|error| Failure::new(Exit::Failure, error))?;
    match &context.scope.file {
        file if here || file.is_some() => {
            context.may_write_project_file()?;
            let file = file.as_deref().filter(|file| !here || file.starts_with(&working));
            let written = ProjectFile::write(file, &working, &[("project", name.as_str())])?;
            eprintln!("{name} applies from now on, as {} says", written.display());
        }
        _ => {
            user.project = Some(name.clone());
            user.save(&context.home)?;
            eprintln!("{name} applies from now on");
        }
    }
    if let Origin::Flag(variable) | Origin::Variable(variable) = context.scope.project.origin {
        eprintln!("warning: {variable} comes first, and says {}", context.project);
    }
    Ok(ExitCode::SUCCESS)
}

fn update(
    name: &Project,
    new: Option<Project>,
    description: Option<String>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
    let taken = new.as_ref().is_some_and(|new| user.known(new).is_some() || *new == Project::default());
    let known = user.known(name).ok_or_else(|| not_found(name))?;
    if let Some(description) = description {
        known.description = description;
    }
    if let Some(new) = new {
        if taken {
            return Err(Failure::new(Exit::Failure, format!("there is a project {new} already")));
        }
        known.name = new.clone();
        let stores = open_store_to_write(context)?;
        let keys = keys(&stores, name, &user)?;
        admin_record::record(
            context,
            "project update",
            None,
            &names(&keys),
            vec![format!("{name} becomes {new}")],
        )?;
        let moved = keys.iter().map(|(key, placeholder)| {
            (key.clone(), Key { project: new.clone(), ..key.clone() }, placeholder.clone())
        });
        // All are there before the first is gone.
        copy(&stores, moved).map_err(store_failure)?;
        remove(&stores, &keys)?;
        if user.project.as_ref() == Some(name) {
            user.project = Some(new.clone());
        }
        eprintln!("{name} is {new} from now on; project files that name it are yours to change");
    }
    user.save(&context.home)?;
    Ok(ExitCode::SUCCESS)
}

fn delete(name: &Project, force: bool, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = User::load(&context.home)?;
    user.known(name).ok_or_else(|| not_found(name))?;
    let stores = open_store_to_write(context)?;
    let keys = keys(&stores, name, &user)?;
    if !keys.is_empty() && !force {
        let what = format!("{name} holds {} secrets; nothing was deleted", keys.len());
        return Err(Failure::new(Exit::Failure, what).hint("--force deletes them with it"));
    }
    admin_record::record(context, "project delete", None, &names(&keys), vec![format!("project {name}")])?;
    remove(&stores, &keys)?;
    user.projects.retain(|known| known.name != *name);
    if user.project.as_ref() == Some(name) {
        user.project = None;
    }
    user.save(&context.home)?;
    eprintln!("deleted the project {name} and {} secrets", keys.len());
    Ok(ExitCode::SUCCESS)
}

/// Every secret of a project, in all environments that are known, with its placeholder.
fn keys(stores: &Stores, project: &Project, user: &User) -> Result<Vec<(Key, Option<String>)>, Failure> {
    let mut keys = Vec::new();
    // What a container mounts or a program prints is not ours to move or to delete.
    let own: Vec<&str> = stores.writable().map(Store::name).collect();
    for environment in user.all_environments() {
        for entry in stores.list(project, &environment).map_err(store_failure)? {
            if !own.contains(&entry.store) {
                continue;
            }
            let (environment, name) = (environment.clone(), entry.name);
            keys.push((Key { project: project.clone(), environment, name }, entry.placeholder));
        }
    }
    Ok(keys)
}

/// What they are called, each once.
fn names(keys: &[(Key, Option<String>)]) -> Vec<SecretName> {
    let names: BTreeSet<&SecretName> = keys.iter().map(|(key, _)| &key.name).collect();
    names.into_iter().cloned().collect()
}

fn remove(stores: &Stores, keys: &[(Key, Option<String>)]) -> Result<(), Failure> {
    keys.iter().try_for_each(|(key, _)| stores.remove(key).map(drop).map_err(store_failure))
}

fn not_found(name: &Project) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no project {name} that could be changed"))
        .hint("agentsecrets project list")
}
