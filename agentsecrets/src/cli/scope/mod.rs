//! Resolves the active project and environment. Precedence: option, variable, project file of the working
//! folder, the user's choice, default.

pub(super) mod project_file;
pub(super) mod user;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::policy::project_restriction::ProjectRestriction;
use crate::sys::home::Home;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{Environment, Project};

use project_file::ProjectFile;
use user::UserScope;

/// The active project and environment.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    /// The active project.
    pub(crate) project: Chosen<Project>,
    /// The active environment.
    pub(crate) environment: Chosen<Environment>,
    /// The restriction that the project file puts on the policy.
    pub(crate) restriction: ProjectRestriction,
    /// The project file, if there is one.
    pub(crate) file: Option<PathBuf>,
}

/// A value with its origin.
#[derive(Debug, Default)]
pub(crate) struct Chosen<T> {
    pub(crate) value: T,
    /// The origin of the value.
    pub(crate) origin: Origin,
}

/// The origin of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An option of the command line.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// The project file.
    File(PathBuf),
    /// The user's choice for all folders.
    User(PathBuf),
    /// The built-in default.
    #[default]
    Default,
}

impl<T: Clone> Chosen<T> {
    /// The value, if an option set it.
    pub(super) fn flag_value(&self) -> Option<T> {
        matches!(self.origin, Origin::Flag(_)).then(|| self.value.clone())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) | Origin::Variable(name) => f.write_str(name),
            Origin::File(path) | Origin::User(path) => path.display().fmt(f),
            Origin::Default => f.write_str("default"),
        }
    }
}

impl Scope {
    /// Resolves the scope from the options, the user's choice in `home` and the project `file` of the working
    /// folder.
    pub(super) fn find(
        project: Option<Project>,
        environment: Option<Environment>,
        home: &Home,
        file: Option<ProjectFile>,
    ) -> Result<Self, Failure> {
        let user = UserScope::load(home)?;
        let users = || Origin::User(home.scope());
        let of_file = |file: &ProjectFile| Origin::File(file.path.clone());
        let (their_project, their_environment) = match &file {
            Some(file) => (
                file.project.clone().map(|project| (project, of_file(file))),
                file.environment.clone().map(|environment| (environment, of_file(file))),
            ),
            None => (None, None),
        };
        let project = match project {
            Some(project) => Some((project, Origin::Flag("--project"))),
            None => variable("AGENTSECRETS_PROJECT")?,
        };
        let environment = match environment {
            Some(environment) => Some((environment, Origin::Flag("--environment"))),
            None => {
                variable("AGENTSECRETS_ENV")?.map_or_else(|| variable("AS_ENV"), |found| Ok(Some(found)))?
            }
        };
        Ok(Self {
            project: chosen(project.or(their_project).or_else(|| user.project.map(|it| (it, users())))),
            environment: chosen(
                environment.or(their_environment).or_else(|| user.environment.map(|it| (it, users()))),
            ),
            restriction: file.as_ref().map(ProjectFile::restriction).unwrap_or_default(),
            file: file.map(|file| file.path),
        })
    }
}

fn chosen<T: Default>(found: Option<(T, Origin)>) -> Chosen<T> {
    found.map_or_else(Chosen::default, |(value, origin)| Chosen { value, origin })
}

fn variable<T: FromStr<Err: fmt::Display>>(name: &'static str) -> Result<Option<(T, Origin)>, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => match value.parse() {
            Ok(value) => Ok(Some((value, Origin::Variable(name)))),
            Err(error) => Err(Failure::new(Exit::Usage, format!("{name}: {error}"))),
        },
        _ => Ok(None),
    }
}
