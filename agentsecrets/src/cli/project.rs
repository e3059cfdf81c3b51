//! `agentsecrets project`: creates, selects, renames and deletes projects. A project separates its secrets
//! from others.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anstream::eprintln;

use super::environment::copy;
use super::scope::Origin;
use super::scope::project_file::ProjectFile;
use super::scope::user::{ProjectEntry, UserScope};
use crate::audit::visible;
use crate::cli::context::Context;
use crate::cli::output::table;
use crate::cli::output::{print_bytes, print_json};
use crate::cli::records;
use crate::cli::stores::open_store_to_write;
use crate::store::{ChainedStore, Key, Store};
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Project, SecretName};

/// Create, select and delete projects
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
    /// Create a project, and select it
    #[command(after_help = "Example: agentsecrets project create shop --description 'The web shop'")]
    Create {
        /// Name of the project
        name: Project,
        /// Description
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Select it for the working folder only, with a project file
        #[arg(long)]
        here: bool,
    },
    /// List the projects
    #[command(after_help = "Example: agentsecrets project list --json")]
    List,
    /// Select the active project: in the project file if there is one, otherwise for the user
    #[command(after_help = "Example: agentsecrets project use shop")]
    Use {
        /// Name of the project
        name: Project,
        /// Select it for the working folder only, with a project file
        #[arg(long)]
        here: bool,
    },
    /// Change a project's name or description
    #[command(after_help = "Example: agentsecrets project update shop --name store")]
    Update {
        /// Name of the project
        name: Project,
        /// New name; the secrets move with it
        #[arg(long = "name", value_name = "NEW")]
        new: Option<Project>,
        /// Description
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a project
    #[command(after_help = "Example: agentsecrets project delete shop --force")]
    Delete {
        /// Name of the project
        name: Project,
        /// Delete its secrets too, in every environment
        #[arg(long)]
        force: bool,
    },
}

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
    let mut user = UserScope::load(&context.home)?;
    if user.project_mut(&name).is_some() || name == Project::default() {
        return Err(Failure::new(Exit::Failure, format!("there is a project {name} already"))
            .hint(format!("agentsecrets project use {name}")));
    }
    user.projects.push(ProjectEntry { name: name.clone(), description });
    user.save(&context.home)?;
    eprintln!("created the project {name}");
    use_project(&name, here, context)
}

fn list(context: &Context) -> Result<ExitCode, Failure> {
    let UserScope { mut projects, workspace, .. } = UserScope::load(&context.home)?;
    let workspace = workspace.unwrap_or_default();
    for name in [&Project::default(), &context.project] {
        if !projects.iter().any(|item| item.name == *name) {
            projects.insert(0, ProjectEntry { name: name.clone(), description: String::new() });
        }
    }
    let active = &context.scope.project;
    let origin = |item: &ProjectEntry| (item.name == active.value).then(|| active.origin.to_string());
    if context.json {
        let entry = |item: &ProjectEntry| {
            let origin = origin(item);
            serde_json::json!({
                "name": item.name, "description": item.description, "active": origin.is_some(), "origin": origin,
            })
        };
        return print_json(&projects.iter().map(entry).collect::<Vec<_>>());
    }
    let row = |item: &ProjectEntry| {
        let active = origin(item).map(|origin| format!("active ({origin})"));
        // This character separates columns.
        let description = visible(&item.description).replace('│', "|");
        [item.name.to_string(), workspace.to_string(), description, active.unwrap_or_default()]
    };
    let rows: Vec<_> = projects.iter().map(row).collect();
    print_bytes(table(["Project", "Workspace", "Description", "Active"], &rows).as_bytes())
}

fn use_project(name: &Project, here: bool, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = UserScope::load(&context.home)?;
    if user.project_mut(name).is_none() && *name != Project::default() {
        return Err(Failure::new(Exit::NotFound, format!("there is no project {name}"))
            .hint(format!("to create it, run: agentsecrets project create {name}")));
    }
    let working = std::env::current_dir().map_err(Failure::from_error)?;
    match &context.scope.file {
        file if here || file.is_some() => {
            context.ensure_project_file_writable()?;
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
        eprintln!("warning: {variable} has precedence and is set to {}", context.project);
    }
    Ok(ExitCode::SUCCESS)
}

fn update(
    name: &Project,
    new: Option<Project>,
    description: Option<String>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let mut user = UserScope::load(&context.home)?;
    let taken = new.as_ref().is_some_and(|new| user.project_mut(new).is_some() || *new == Project::default());
    let item = user.project_mut(name).ok_or_else(|| not_found(name))?;
    if let Some(description) = description {
        item.description = description;
    }
    if let Some(new) = new {
        if taken {
            return Err(Failure::new(Exit::Failure, format!("there is a project {new} already")));
        }
        item.name = new.clone();
        let stores = open_store_to_write(context)?;
        let keys = keys(&stores, name, &user)?;
        records::record_act(
            context,
            "project update",
            None,
            &names(&keys),
            vec![format!("{name} becomes {new}")],
        )?;
        let moved = keys.iter().map(|(key, placeholder)| {
            (key.clone(), Key { project: new.clone(), ..key.clone() }, placeholder.clone())
        });
        // All secrets are copied before the first is removed.
        copy(&stores, moved)?;
        remove(&stores, &keys)?;
        if user.project.as_ref() == Some(name) {
            user.project = Some(new.clone());
        }
        eprintln!("{name} is now {new}; change the project files that name it");
    }
    user.save(&context.home)?;
    Ok(ExitCode::SUCCESS)
}

fn delete(name: &Project, force: bool, context: &Context) -> Result<ExitCode, Failure> {
    let mut user = UserScope::load(&context.home)?;
    user.project_mut(name).ok_or_else(|| not_found(name))?;
    let stores = open_store_to_write(context)?;
    let keys = keys(&stores, name, &user)?;
    if !keys.is_empty() && !force {
        let what = format!("{name} holds {} secrets; nothing was deleted", keys.len());
        return Err(Failure::new(Exit::Failure, what).hint("--force deletes them with it"));
    }
    records::record_act(context, "project delete", None, &names(&keys), vec![format!("project {name}")])?;
    remove(&stores, &keys)?;
    user.projects.retain(|item| item.name != *name);
    if user.project.as_ref() == Some(name) {
        user.project = None;
    }
    user.save(&context.home)?;
    eprintln!("deleted the project {name} and {} secrets", keys.len());
    Ok(ExitCode::SUCCESS)
}

/// Every secret of a project in all known environments, with its placeholder.
fn keys(
    stores: &ChainedStore,
    project: &Project,
    user: &UserScope,
) -> Result<Vec<(Key, Option<String>)>, Failure> {
    let mut keys = Vec::new();
    // Mounted secrets and those of a command cannot be moved or deleted.
    let own: Vec<&str> = stores.writable().map(Store::name).collect();
    for environment in user.all_environments() {
        for entry in stores.list(project, &environment)? {
            if !own.contains(&entry.store) {
                continue;
            }
            let (environment, name) = (environment.clone(), entry.name);
            keys.push((Key { project: project.clone(), environment, name }, entry.placeholder));
        }
    }
    Ok(keys)
}

/// The distinct secret names.
fn names(keys: &[(Key, Option<String>)]) -> Vec<SecretName> {
    let names: BTreeSet<&SecretName> = keys.iter().map(|(key, _)| &key.name).collect();
    names.into_iter().cloned().collect()
}

fn remove(stores: &ChainedStore, keys: &[(Key, Option<String>)]) -> Result<(), Failure> {
    keys.iter().try_for_each(|(key, _)| stores.remove(key).map(drop).map_err(Failure::from))
}

fn not_found(name: &Project) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no project {name} that could be changed"))
        .hint("agentsecrets project list")
}
