//! Which project and environment apply, and who said so: a flag before a variable, before the project file
//! of the working folder, before what the person chose for everywhere, before the default.

pub(super) mod project_file;
pub(super) mod user;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::cli::{Exit, Failure};
use crate::policy::project_restriction::Narrow;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};

use project_file::ProjectFile;
use user::User;

/// The environments that everybody has.
pub(super) const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];

/// What applies.
#[derive(Debug, Default)]
pub struct Scope {
    /// The project.
    pub project: Chosen<Project>,
    /// The environment.
    pub environment: Chosen<Environment>,
    /// What the project file leaves of the policy.
    pub narrow: Narrow,
    /// The project file, if there is one.
    pub file: Option<PathBuf>,
}

/// A value and who chose it.
#[derive(Debug, Default)]
pub struct Chosen<T> {
    /// The value.
    pub value: T,
    /// Who chose it.
    pub origin: Origin,
}

/// Who chose a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(&'static str),
    /// A variable.
    Variable(&'static str),
    /// The project file.
    File(PathBuf),
    /// The person, for everywhere.
    User(PathBuf),
    /// Nobody.
    #[default]
    Default,
}

impl<T: Clone> Chosen<T> {
    /// The value, if the command line chose it.
    pub(super) fn of_a_flag(&self) -> Option<T> {
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
    /// Finds what applies for the person of `home`, whom the flags come from, with the project `file` of the
    /// working folder.
    pub(super) fn find(
        project: Option<Project>,
        environment: Option<Environment>,
        home: &Home,
        file: Option<ProjectFile>,
    ) -> Result<Self, Failure> {
        let user = User::load(home)?;
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
            narrow: file.as_ref().map(ProjectFile::narrow).unwrap_or_default(),
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
