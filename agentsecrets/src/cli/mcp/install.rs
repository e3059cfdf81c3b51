//! `agentsecrets mcp install` and `uninstall`: selects the configuration files, and builds the server entry
//! for them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::{eprintln, println};

use crate::cli::context::Context;
use crate::mcp::install::{self, Backups, Change, Client, ConfigFile, Folders, Outcome, ServerEntry, System};
use crate::types::failure::{Exit, Failure};
use crate::types::name::AgentName;

/// The options that select configuration files.
#[derive(Debug, clap::Args)]
pub(super) struct Clients {
    /// Clients to configure [default: those that are installed]
    #[arg(value_enum, value_name = "CLIENT")]
    clients: Vec<Client>,
    /// Edit the (shared) files of the project in this folder instead of your own
    #[arg(long, value_name = "DIR")]
    project_dir: Option<PathBuf>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Variables that point to our files, which a client may not inherit. None of them holds a secret.
const FORWARDED_VARIABLES: &[&str] =
    &["AGENTSECRETS_HOME", "AGENTSECRETS_VAULT_KEY_FILE", "AGENTSECRETS_UPSTREAM_CA"];

/// Adds our entry to the selected files.
pub(super) fn install(
    clients: &Clients,
    agent: Option<&AgentName>,
    context: &Context,
) -> Result<ExitCode, Failure> {
    let folders = folders()?;
    let targets = config_files(clients, &folders, |client| client.is_present(&folders))?;
    let backups = Backups::new(context.home.mcp());
    let install = |target: &ConfigFile| {
        let entry = server_entry(target, agent, context)?;
        install::install(target, &entry, &backups, clients.dry_run)
    };
    let ended = apply_and_report(&targets, install, clients.dry_run, context);
    if !clients.dry_run && ended.is_ok() {
        eprintln!("restart the client; its permissions are in {}", context.home.policy().display());
    }
    ended
}

/// Removes our entry from the selected files.
pub(super) fn uninstall(clients: &Clients, context: &Context) -> Result<ExitCode, Failure> {
    let folders = folders()?;
    let backups = Backups::new(context.home.mcp());
    let all = Client::ALL.into_iter().filter_map(|client| config_file(client, clients, &folders));
    let there: Vec<Client> =
        all.filter(|target| install::is_installed(target, &backups)).map(|target| target.client).collect();
    if there.is_empty() && clients.clients.is_empty() {
        eprintln!("there is nothing to remove");
        return Ok(ExitCode::SUCCESS);
    }
    let targets = config_files(clients, &folders, |client| there.contains(&client))?;
    apply_and_report(
        &targets,
        |target| install::uninstall(target, &backups, clients.dry_run),
        clients.dry_run,
        context,
    )
}

/// Applies `act` to every file and prints the results. A failure does not stop the others.
fn apply_and_report(
    targets: &[ConfigFile],
    act: impl Fn(&ConfigFile) -> Result<Change, Failure>,
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
        println!("{}", serde_json::to_string(&changes).map_err(Failure::from_error)?);
    } else {
        changes.iter().for_each(|change| println!("{}", describe_change(change, is_dry)));
    }
    let last = failures.pop();
    for failure in &failures {
        failure.report();
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn describe_change(change: &Change, is_dry: bool) -> String {
    let (name, file) = (change.client.name(), change.file.display());
    let would = if is_dry { "would be " } else { "" };
    let mut line = match change.done {
        Outcome::Added => format!("{name}: {would}added to {file}"),
        Outcome::Updated => format!("{name}: {would}updated in {file}"),
        Outcome::Unchanged => format!("{name}: unchanged in {file}"),
        Outcome::Removed => format!("{name}: {would}removed from {file}"),
        Outcome::Restored => {
            format!("{name}: {file} {}", if is_dry { "would be restored" } else { "is restored" })
        }
    };
    if let Some(before) = &change.before {
        line += &format!("; the original is saved in {}", before.display());
    }
    line
}

/// The configuration files of the named clients, or of those that `is_meant` accepts.
fn config_files(
    clients: &Clients,
    folders: &Folders,
    is_meant: impl Fn(Client) -> bool,
) -> Result<Vec<ConfigFile>, Failure> {
    let named = !clients.clients.is_empty();
    let chosen = Client::ALL.into_iter().filter(|client| match named {
        true => clients.clients.contains(client),
        // Any client may be used in a project.
        false => clients.project_dir.is_some() || is_meant(*client),
    });
    let mut targets = Vec::new();
    for client in chosen {
        match config_file(client, clients, folders) {
            Some(target) => targets.push(target),
            None if named => {
                let what = format!("{} has no configuration per project", client.name());
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

fn config_file(client: Client, clients: &Clients, folders: &Folders) -> Option<ConfigFile> {
    match &clients.project_dir {
        Some(folder) => {
            client.project_config(&std::path::absolute(folder).unwrap_or_else(|_| folder.clone()))
        }
        None => Some(client.user_config(folders)),
    }
}

fn folders() -> Result<Folders, Failure> {
    let home = etcetera::home_dir().map_err(Failure::from_error)?;
    Ok(Folders::new(&home, System::current(), |name| env::var_os(name).map(PathBuf::from)))
}

/// The server entry for `target`.
fn server_entry(
    target: &ConfigFile,
    agent: Option<&AgentName>,
    context: &Context,
) -> Result<ServerEntry, Failure> {
    let mut args = Vec::new();
    let (project, environment) = (context.scope.project.flag_value(), context.scope.environment.flag_value());
    for (flag, value) in [
        ("--project", project.map(|project| project.to_string())),
        ("--environment", environment.map(|environment| environment.to_string())),
    ] {
        args.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    args.extend(["mcp".to_owned(), "serve".to_owned()]);
    args.extend(agent.into_iter().flat_map(|agent| ["--agent".to_owned(), agent.to_string()]));
    if target.is_shared {
        // Other people have the program and its files at other paths.
        let command = "agentsecrets".to_owned();
        return Ok(ServerEntry { has_type: target.client.has_type(), command, args, env: Vec::new() });
    }
    let variable =
        |name: &&str| Some(((*name).to_owned(), env::var(name).ok().filter(|value| !value.is_empty())?));
    let env = FORWARDED_VARIABLES.iter().filter_map(variable).collect();
    Ok(ServerEntry { has_type: target.client.has_type(), command: own_program_path()?, args, env })
}

/// The path of this program: the one on `PATH` if that is this program, since an update keeps it.
fn own_program_path() -> Result<String, Failure> {
    let failed = |reason: &dyn std::fmt::Display| {
        Failure::new(Exit::Failure, format!("the path of this program cannot be used: {reason}"))
    };
    let own = env::current_exe().map_err(|error| failed(&error))?;
    let real = |path: &Path| path.canonicalize().ok();
    let name = own.file_name().unwrap_or_default();
    let folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let on_path = folders.iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    let on_disk = on_path.into_iter().find(|path| real(path).is_some() && real(path) == real(&own));
    on_disk.unwrap_or(own).into_os_string().into_string().map_err(|_| failed(&"it is not UTF-8"))
}
