//! The context that a verb acts in: the home, the project and environment that apply, and the calling
//! process.

use std::path::Path;
use std::sync::Arc;

use super::scope::Scope;
use super::scope::project_file::ProjectFile;
use crate::config::Config;
#[cfg(target_os = "linux")]
use crate::identity::parent_caller;
use crate::identity::{Caller, IdentityError, Process};
use crate::identity::{parent_process, parent_process_with};
#[cfg(target_os = "linux")]
use crate::operator::invocation::Invocation;
use crate::store::Key;
use crate::sys::home::Home;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{AgentName, Environment, Project, SecretName};

/// The global options.
#[derive(Debug, clap::Args)]
pub(super) struct GlobalArgs {
    /// Project of the secrets [env: AGENTSECRETS_PROJECT]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) project: Option<Project>,
    /// Environment of the secrets [env: AGENTSECRETS_ENV, AS_ENV]
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) environment: Option<Environment>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The context of one command.
#[derive(Debug)]
pub(crate) struct Context {
    /// The folders that hold policy, vault, log and sockets.
    pub(crate) home: Home,
    /// The active project.
    pub(crate) project: Project,
    /// The active environment.
    pub(crate) environment: Environment,
    /// The origin of both, and the restriction of the project file.
    pub(crate) scope: Scope,
    /// Whether output is JSON.
    pub(crate) json: bool,
    /// The caller as the daemon describes it, if the daemon started this process.
    #[cfg(target_os = "linux")]
    pub(crate) invocation: Option<Invocation>,
}

impl Context {
    /// Finds the home, project and environment that apply. `ignores_folder`: a project file of the working
    /// folder does not count; `as_sudo_caller`: under sudo the home is that of the person who called it.
    pub(super) fn new(
        global: GlobalArgs,
        ignores_folder: bool,
        as_sudo_caller: bool,
        #[cfg(target_os = "linux")] mut invocation: Option<Invocation>,
    ) -> Result<Self, Failure> {
        // Under sudo the platform's folders would be root's, and the secrets are the person's.
        let person = as_sudo_caller.then(crate::launch::sudo_caller_home).flatten();
        let home = Home::find(person.as_deref()).map_err(Failure::from_error)?;
        // An agent's folder is not ours to look into.
        let ignores_folder = ignores_folder || crate::launch::is_inside_agent();
        #[cfg(target_os = "linux")]
        let ignores_folder = ignores_folder || invocation.is_some();
        let working: Option<std::path::PathBuf> = std::env::current_dir().ok().filter(|_| !ignores_folder);
        let file = working.as_deref().map(ProjectFile::find).transpose()?.flatten();
        #[cfg(target_os = "linux")]
        let file = match invocation.as_mut().and_then(Invocation::take_project_file) {
            Some((path, open, uid)) => Some(ProjectFile::read_open(&path, open, uid)?),
            None => file,
        };
        let scope = Scope::find(global.project, global.environment, &home, file)?;
        let (project, environment) = (scope.project.value.clone(), scope.environment.value.clone());
        Ok(Self {
            home,
            project,
            environment,
            scope,
            json: global.json,
            #[cfg(target_os = "linux")]
            invocation,
        })
    }

    /// Whether the person's own configuration is strict. An unreadable one is an error, since it may be.
    pub(super) fn is_strict(&self) -> Result<bool, Failure> {
        let config = Config::load(&self.home.config());
        let config = config.context("the configuration is not valid, and so may be strict");
        Ok(config.map_err(|failure| failure.hint("agentsecrets doctor"))?.strict)
    }

    /// The process that asked for this command, as the kernel reports it.
    #[cfg(target_os = "linux")]
    pub(crate) fn caller(&self) -> Option<Arc<Process>> {
        let process = match &self.invocation {
            Some(invocation) => Some(invocation.process.clone()),
            None => return calling_process(),
        };
        process.map(Arc::new)
    }

    /// The process that started this command, or the command that asked the daemon.
    #[cfg(target_os = "linux")]
    pub(crate) fn parent_process(&self) -> Option<Arc<Process>> {
        let asked = self.invocation.as_ref().and_then(|invocation| invocation.parent.clone());
        asked.map_or_else(|| self.caller(), |process| Some(Arc::new(process)))
    }

    /// The process that started this command.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn parent_process(&self) -> Option<Arc<Process>> {
        calling_process()
    }

    /// The process that asked for this command, as the system reports it.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn caller(&self) -> Option<Arc<Process>> {
        calling_process()
    }

    /// The process that started this command, as a caller that selects the policy entry `agent`. If the
    /// daemon runs this command, it is the parent of the process that asked.
    #[cfg(target_os = "linux")]
    pub(super) async fn caller_as_agent(&self, agent: Option<AgentName>) -> Result<Caller, IdentityError> {
        match &self.invocation {
            Some(invocation) => {
                let started_by = invocation.parent.clone().ok_or(IdentityError::Nobody)?;
                parent_caller(started_by, invocation.uid, agent)
            }
            None => parent_process_with(agent).await,
        }
    }

    /// The process that started this command, as a caller that selects the policy entry `agent`.
    #[cfg(not(target_os = "linux"))]
    pub(super) async fn caller_as_agent(&self, agent: Option<AgentName>) -> Result<Caller, IdentityError> {
        parent_process_with(agent).await
    }

    /// The store key of the secret `name` in this project and environment.
    pub(super) fn secret_key(&self, name: &SecretName) -> Key {
        Key { project: self.project.clone(), environment: self.environment.clone(), name: name.clone() }
    }

    /// Fails inside the daemon, which would write the file with its own rights instead of the caller's.
    pub(super) fn ensure_project_file_writable(&self) -> Result<(), Failure> {
        if !self.is_in_daemon() {
            return Ok(());
        }
        let what = "the daemon does not write your files, and so no project file";
        Err(Failure::new(Exit::Denied, what)
            .hint("edit .agentsecrets/project.json yourself, or run this outside a folder that has one"))
    }

    /// Whether the daemon runs this command for the caller.
    pub(super) fn is_in_daemon(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.invocation.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// The same context in the folder `working`: the options of the command line stay, a project file there
    /// counts.
    pub(super) fn in_folder(&self, working: &Path) -> Result<Self, Failure> {
        let (project, environment) = (self.scope.project.flag_value(), self.scope.environment.flag_value());
        let scope = Scope::find(project, environment, &self.home, ProjectFile::find(working)?)?;
        let (project, environment) = (scope.project.value.clone(), scope.environment.value.clone());
        Ok(Self {
            home: self.home.clone(),
            project,
            environment,
            scope,
            json: self.json,
            #[cfg(target_os = "linux")]
            invocation: None,
        })
    }
}

/// The process that started us, as the kernel reports it.
fn calling_process() -> Option<Arc<Process>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    runtime.block_on(parent_process()).ok().map(Arc::new)
}
