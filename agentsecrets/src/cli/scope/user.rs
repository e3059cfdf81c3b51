//! The user's choice of project, environment and workspace, and the list of those they created. Commands
//! write this file.

use anstream::eprintln;
use serde::{Deserialize, Serialize};

use crate::sys::files;
use crate::sys::home::Home;
use crate::types::failure::{ErrorContext, Exit, Failure};
use crate::types::name::{Environment, Project, Workspace};

const BUILT_IN_ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];

/// The content of the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserScope {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<Project>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<Environment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<Workspace>,
    #[serde(default)]
    pub(crate) projects: Vec<ProjectEntry>,
    #[serde(default)]
    pub(crate) environments: Vec<Environment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) workspaces: Vec<Workspace>,
}

/// A project that the user created.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectEntry {
    pub(crate) name: Project,
    #[serde(default)]
    pub(crate) description: String,
}

impl UserScope {
    /// Reads the file; a missing one is empty.
    pub(crate) fn load(home: &Home) -> Result<Self, Failure> {
        let path = home.scope();
        let bad = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failure, format!("{} cannot be read: {error}", path.display()))
                .hint("correct it, or remove it: it holds your choice of project and environment, no secret")
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| bad(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            // The file of another user, for example inside an agent, which has no choice of its own.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(Self::default()),
            Err(error) => Err(bad(&error)),
        }
    }

    pub(crate) fn save(&self, home: &Home) -> Result<(), Failure> {
        let path = home.scope();
        let bytes = serde_json::to_vec_pretty(self).map_err(Failure::from_error)?;
        files::replace(&path, &bytes).context(format!("{} cannot be written", path.display()))
    }

    /// The built-in environments and the user's own.
    pub(crate) fn all_environments(&self) -> Vec<Environment> {
        let mut all: Vec<Environment> =
            BUILT_IN_ENVIRONMENTS.iter().filter_map(|name| name.parse().ok()).collect();
        all.extend(self.environments.iter().cloned());
        all
    }

    /// The default workspace and the user's own.
    pub(crate) fn all_workspaces(&self) -> Vec<Workspace> {
        std::iter::once(Workspace::default()).chain(self.workspaces.iter().cloned()).collect()
    }

    /// Adds an environment, and reports a new one, since its name may be a typo.
    pub(crate) fn add_environment(&mut self, environment: &Environment) {
        if !self.all_environments().contains(environment) {
            eprintln!("{environment} is a new environment of your own");
            self.environments.push(environment.clone());
        }
    }

    /// The project named `name`, if the user created it.
    pub(crate) fn project_mut(&mut self, name: &Project) -> Option<&mut ProjectEntry> {
        self.projects.iter_mut().find(|project| project.name == *name)
    }
}
