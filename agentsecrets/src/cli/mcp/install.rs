//! `agentsecrets mcp install` and `uninstall`: which files, and how the server is started from them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{eprintln, println};

use super::Clients;
use crate::cli::{Context, Exit, Failure};
use crate::mcp::install::{self, Change, Client, Done, Entry, Folders, Kept, System, Target};
use crate::types::name::AgentName;

/// Variables that lead to our files, and that a client which was started elsewhere does not have. None holds a
/// secret.
const OURS: &[&str] = &["AGENTSECRETS_HOME", "AGENTSECRETS_VAULT_KEY_FILE", "AGENTSECRETS_UPSTREAM_CA"];

/// Adds our entry.
pub(super) fn install(
    clients: &Clients,
    agent: Option<&AgentName>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let folders = folders()?;
    let targets = targets(clients, &folders, |client| client.is_here(&folders))?;
    let kept = Kept::at(context.home.mcp());
    let install = |target: &Target| {
        let entry = entry(target, agent, context)?;
        install::install(target, &entry, &kept, clients.dry_run)
    };
    let ended = report(&targets, install, clients.dry_run, context);
    if !clients.dry_run && ended.is_ok() {
        eprintln!("start the client anew; what it may do is up to {}", context.home.policy().display());
    }
    ended
}

/// Takes our entry out.
pub(super) fn uninstall(clients: &Clients, context: &Context) -> Result<ExitCode, Failure> {
    let folders = folders()?;
    let kept = Kept::at(context.home.mcp());
    let all = Client::ALL.into_iter().filter_map(|client| target(client, clients, &folders));
    let there: Vec<Client> =
        all.filter(|target| install::is_installed(target, &kept)).map(|target| target.client).collect();
    if there.is_empty() && clients.clients.is_empty() {
        eprintln!("there is nothing to take out");
        return Ok(ExitCode::SUCCESS);
    }
    let targets = targets(clients, &folders, |client| there.contains(&client))?;
    report(&targets, |target| install::uninstall(target, &kept, clients.dry_run), clients.dry_run, context)
}

/// Does `act` with every one of `targets`, and says what came of it. One that fails keeps no other from it.
fn report(
    targets: &[Target],
    act: impl Fn(&Target) -> Result<Change, Failure>,
    is_dry: bool,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let (mut changes, mut failures) = (Vec::new(), Vec::new());
    for target in targets {
        match act(target) {
            Ok(change) => changes.push(change),
            Err(failure) => failures.push(failure),
        }
    }
    if context.json {
        println!("{}", serde_json::to_string(&changes).map_err(|error| Failure::new(Exit::Failure, error))?);
    } else {
        changes.iter().for_each(|change| println!("{}", line(change, is_dry)));
    }
    let last = failures.pop();
    for failure in &failures {
        failure.report();
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn line(change: &Change, is_dry: bool) -> String {
    let (name, file) = (change.client.name(), change.file.display());
    let would = if is_dry { "would be " } else { "" };
    let mut line = match change.done {
        Done::Added => format!("{name}: {would}added to {file}"),
        Done::Updated => format!("{name}: {would}brought up to date in {file}"),
        Done::Unchanged => format!("{name}: nothing to do in {file}"),
        Done::Removed => format!("{name}: {would}taken out of {file}"),
        Done::Restored => {
            format!("{name}: {file} {}", if is_dry { "would be what it was" } else { "is what it was" })
        }
    };
    if let Some(before) = &change.before {
        line += &format!("; what it was is kept in {}", before.display());
    }
    line
}

/// The files that `clients` mean: of those that are named, else of those that `is_meant` says.
fn targets(
    clients: &Clients,
    folders: &Folders,
    is_meant: impl Fn(Client) -> bool,
) -> Result<Vec<Target>, Failure> {
    let named = !clients.clients.is_empty();
    let chosen = Client::ALL.into_iter().filter(|client| match named {
        true => clients.clients.contains(client),
        // Any client may come to a project.
        false => clients.project_dir.is_some() || is_meant(*client),
    });
    let mut targets = Vec::new();
    for client in chosen {
        match target(client, clients, folders) {
            Some(target) => targets.push(target),
            None if named => {
                let what = format!("{} has no configuration of a project's own", client.name());
                return Err(Failure::new(Exit::Usage, what).hint("leave out --project-dir"));
            }
            None => {}
        }
    }
    if targets.is_empty() {
        let names: Vec<&str> = Client::ALL.iter().map(|client| client.name()).collect();
        let what = format!("none of {} is found here", names.join(", "));
        return Err(
            Failure::new(Exit::NotFound, what).hint("name the client: agentsecrets mcp install cursor")
        );
    }
    Ok(targets)
}

fn target(client: Client, clients: &Clients, folders: &Folders) -> Option<Target> {
    match &clients.project_dir {
        Some(folder) => client.of_a_project(&std::path::absolute(folder).unwrap_or_else(|_| folder.clone())),
        None => Some(client.of_the_person(folders)),
    }
}

fn folders() -> Result<Folders, Failure> {
    let home = etcetera::home_dir().map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok(Folders::of(&home, System::here(), |name| env::var_os(name).map(PathBuf::from)))
}

/// How the server is started from `target`.
fn entry(target: &Target, agent: Option<&AgentName>, context: &Context) -> Result<Entry, Failure> {
    let mut args = Vec::new();
    let (project, environment) = (context.scope.project.of_a_flag(), context.scope.environment.of_a_flag());
    for (flag, value) in [
        ("--project", project.map(|project| project.to_string())),
        ("--environment", environment.map(|environment| environment.to_string())),
    ] {
        args.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    args.extend(["mcp".to_owned(), "serve".to_owned()]);
    args.extend(agent.into_iter().flat_map(|agent| ["--agent".to_owned(), agent.to_string()]));
    if target.is_shared {
        // Where others have the program and its files is theirs to know.
        let command = "agentsecrets".to_owned();
        return Ok(Entry { has_type: target.client.has_type(), command, args, env: Vec::new() });
    }
    let variable =
        |name: &&str| Some(((*name).to_owned(), env::var(name).ok().filter(|value| !value.is_empty())?));
    let env = OURS.iter().filter_map(variable).collect();
    Ok(Entry { has_type: target.client.has_type(), command: ourselves()?, args, env })
}

/// This program's path: the one on `PATH`, if that leads here, since it stays when a new version comes.
fn ourselves() -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("the path of this program cannot be written down: {why}"))
    };
    let own = env::current_exe().map_err(|error| failed(&error))?;
    let real = |path: &Path| path.canonicalize().ok();
    let name = own.file_name().unwrap_or_default();
    let folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let on_path = folders.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    let found = on_path.into_iter().find(|path| real(path).is_some() && real(path) == real(&own));
    found.unwrap_or(own).into_os_string().into_string().map_err(|_| failed(&"it is no text"))
}
