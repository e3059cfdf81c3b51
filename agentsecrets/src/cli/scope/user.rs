//! What the person chose for everywhere, and the projects and environments of their own: a file of ours
//! that commands write.

use anstream::eprintln;
use serde::{Deserialize, Serialize};

use super::ENVIRONMENTS;
use crate::cli::{Exit, Failure};
use crate::sys::files;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project, Workspace};

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<Project>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<Environment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<Workspace>,
    #[serde(default)]
    pub(crate) projects: Vec<Known>,
    #[serde(default)]
    pub(crate) environments: Vec<Environment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) workspaces: Vec<Workspace>,
}

/// A project that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    pub(crate) name: Project,
    #[serde(default)]
    pub(crate) description: String,
}

impl User {
    /// Reads it; where there is no file, nothing was chosen.
    pub(crate) fn load(home: &Home) -> Result<Self, Failure> {
        let path = home.scope();
        let bad = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failure, format!("{} cannot be read: {error}", path.display()))
                .hint("correct it, or remove it: it holds your choice of project and environment, no secret")
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| bad(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            // Somebody else's: an agent's command, say, which has no choice of its own.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(Self::default()),
            Err(error) => Err(bad(&error)),
        }
    }

    /// Writes it.
    pub(crate) fn save(&self, home: &Home) -> Result<(), Failure> {
        let path = home.scope();
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| Failure::new(Exit::Failure, error))?;
        files::replace(&path, &bytes).map_err(|error| {
            Failure::new(Exit::Failure, format!("{} cannot be written: {error}", path.display()))
        })
    }

    /// Every environment that is known: those that everybody has, and the person's own.
    pub(crate) fn all_environments(&self) -> Vec<Environment> {
        let mut all: Vec<Environment> = ENVIRONMENTS.iter().filter_map(|name| name.parse().ok()).collect();
        all.extend(self.environments.iter().cloned());
        all
    }

    /// Every workspace that is known: the one that everybody has, and those that were made.
    pub(crate) fn all_workspaces(&self) -> Vec<Workspace> {
        std::iter::once(Workspace::default()).chain(self.workspaces.iter().cloned()).collect()
    }

    /// Remembers an environment; that it is new is said, since it may be a slip.
    pub(crate) fn remember(&mut self, environment: &Environment) {
        if !self.all_environments().contains(environment) {
            eprintln!("{environment} is a new environment of your own");
            self.environments.push(environment.clone());
        }
    }

    /// The project called `name`, if it was made.
    pub(crate) fn known(&mut self, name: &Project) -> Option<&mut Known> {
        self.projects.iter_mut().find(|project| project.name == *name)
    }
}
