//! `.agentsecrets/project.json`, in the working folder or above it. It selects a project and an environment,
//! and restricts the policy. It may come from a foreign repository, so a key that would grant anything is an
//! error.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::policy::project_restriction::ProjectRestriction;
use crate::sys::files;
use crate::types::failure::{Exit, Failure};
use crate::types::name::{AgentName, Environment, Project, SecretName};

const RELATIVE_PATH: &str = ".agentsecrets/project.json";
const MAX_BYTES: u64 = 64 * 1024;

/// A parsed project file.
#[derive(Debug)]
pub(crate) struct ProjectFile {
    pub(crate) path: PathBuf,
    pub(crate) project: Option<Project>,
    pub(crate) environment: Option<Environment>,
    restriction: ProjectRestriction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectFileJson {
    #[serde(default, alias = "project_name", deserialize_with = "non_empty_name")]
    project: Option<Project>,
    #[serde(default, deserialize_with = "non_empty_name")]
    environment: Option<Environment>,
    agents: Option<Vec<AgentName>>,
    secrets: Option<Vec<SecretName>>,
    hosts: Option<Vec<String>>,
    // Keys of other programs, which have no effect.
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    #[serde(rename = "project_id")]
    _project_id: Option<IgnoredAny>,
    #[serde(rename = "workspace_id")]
    _workspace_id: Option<IgnoredAny>,
    #[serde(rename = "workspace_name")]
    _workspace_name: Option<IgnoredAny>,
    #[serde(rename = "storage_mode")]
    _storage_mode: Option<IgnoredAny>,
    #[serde(rename = "last_pull")]
    _last_pull: Option<IgnoredAny>,
    #[serde(rename = "last_push")]
    _last_push: Option<IgnoredAny>,
}

/// Deserializes a name; an empty one counts as missing.
fn non_empty_name<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

impl ProjectFile {
    /// Reads the nearest file, in `working` or a folder above it.
    pub(crate) fn find(working: &Path) -> Result<Option<Self>, Failure> {
        Self::locate(working).map(|path| Self::read(&path)).transpose()
    }

    /// The path of the nearest file.
    pub(crate) fn locate(working: &Path) -> Option<PathBuf> {
        let path = working.ancestors().map(|folder| folder.join(RELATIVE_PATH));
        path.into_iter().find(|path| fs::symlink_metadata(path).is_ok())
    }

    /// The restriction that it puts on the policy.
    pub(crate) fn restriction(&self) -> ProjectRestriction {
        self.restriction.clone()
    }

    /// Creates the file in `folder`, or changes keys of the existing one.
    pub(crate) fn write(
        path: Option<&Path>,
        folder: &Path,
        changes: &[(&str, &str)],
    ) -> Result<PathBuf, Failure> {
        let new = folder.join(RELATIVE_PATH);
        let path = path.unwrap_or(&new);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Exit::Failure, format!("{} cannot be written: {error}", path.display()))
        };
        let mut map: Map<String, Value> = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(failed(&error)),
        };
        for (key, value) in changes {
            if *key == "project" {
                map.remove("project_name");
            }
            map.insert((*key).to_owned(), Value::from(*value));
        }
        let mut bytes = serde_json::to_vec_pretty(&map).map_err(|error| failed(&error))?;
        bytes.push(b'\n');
        files::replace(path, &bytes).map_err(|error| failed(&error))?;
        Ok(path.to_path_buf())
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let path_text = path.display();
        let invalid = |reason: String| Failure::new(Exit::Failure, format!("{path_text} {reason}"));
        let unreadable = |error: std::io::Error| invalid(format!("cannot be read: {error}"));
        // A symbolic link or a pipe is refused.
        if !fs::symlink_metadata(path).map_err(unreadable)?.is_file() {
            return Err(invalid("is no regular file: remove it".into()));
        }
        let file = File::open(path).map_err(unreadable)?;
        #[cfg(unix)]
        check_owner(&file.metadata().map_err(unreadable)?).map_err(invalid)?;
        Self::read_to_end(path, file)
    }

    /// Reads `file`, which user `uid` opened at `path`.
    #[cfg(unix)]
    pub(crate) fn read_open(path: &Path, file: File, uid: u32) -> Result<Self, Failure> {
        use std::os::unix::fs::MetadataExt;
        let invalid = |reason: &str| Failure::new(Exit::Failure, format!("{} {reason}", path.display()));
        let metadata = file.metadata().map_err(|error| invalid(&format!("cannot be read: {error}")))?;
        if !metadata.is_file() {
            return Err(invalid("is no regular file: remove it"));
        }
        if ![0, uid].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
            return Err(invalid("must belong to you, and nobody else may change it: chmod go-w it"));
        }
        Self::read_to_end(path, file)
    }

    fn read_to_end(path: &Path, file: File) -> Result<Self, Failure> {
        let path_text = path.display();
        let invalid = |reason: String| Failure::new(Exit::Failure, format!("{path_text} {reason}"));
        let unreadable = |error: std::io::Error| invalid(format!("cannot be read: {error}"));
        let mut text = String::new();
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(invalid("is larger than 64 KiB".into()));
        }
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let invalid = |line: usize, reason: &str| {
            let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Failure::new(Exit::Failure, format!("{}:{line}: {reason}", path.display())).hint(
                "a project file selects `project` and `environment`, and restricts `agents`, `secrets` and \
                 `hosts`; permissions are written in policy.yaml alone",
            )
        };
        let written: ProjectFileJson = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            invalid(error.line(), message.split_once(" at line ").map_or(&*message, |(before, _)| before))
        })?;
        let ProjectFileJson { project, environment, agents, secrets, hosts, .. } = written;
        let restriction = ProjectRestriction { file: path.display().to_string(), agents, secrets, hosts };
        restriction.validate().map_err(|reason| invalid(1, &reason))?;
        Ok(Self { path: path.to_path_buf(), project, environment, restriction })
    }
}

/// The file must belong to us, to root or to the caller of sudo, and must not be writable for everybody.
#[cfg(unix)]
fn check_owner(metadata: &fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let trusted = [Some(0), Some(nix::unistd::geteuid().as_raw()), crate::launch::sudo_caller_uid()];
    let trusted: Vec<u32> = trusted.into_iter().flatten().collect();
    if !trusted.contains(&metadata.uid()) {
        return Err(format!(
            "belongs to another user ({}): remove it, or take it over with chown",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err("can be changed by everybody: chmod o-w it".into());
    }
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<ProjectFile, String> {
        let parsed = ProjectFile::parse(text, Path::new("/repo/.agentsecrets/project.json"));
        parsed.map_err(|failure| format!("{} {}", failure.message(), failure.advice().unwrap_or_default()))
    }

    #[test]
    fn project_file_selects_and_restricts() {
        let file = parsed(
            r#"{"project": "shop", "environment": "staging", "secrets": ["A"], "hosts": ["*.example.com"]}"#,
        )
        .unwrap();
        assert_eq!(file.project.unwrap().as_str(), "shop");
        assert_eq!(file.environment.unwrap().as_str(), "staging");
        assert_eq!((file.restriction.agents, file.restriction.secrets.unwrap().len()), (None, 1));
        // As another program writes it.
        let theirs = r#"{"project_id": "1", "project_name": "shop", "description": "", "environment": "", "workspace_id": "2",
            "workspace_name": "w", "last_pull": "", "last_push": "", "storage_mode": 1}"#;
        let file = parsed(theirs).unwrap();
        assert_eq!((file.project.unwrap().as_str(), file.environment), ("shop", None));
        assert!(file.restriction.is_empty());
    }

    #[test]
    fn granting_key_is_refused_with_its_line() {
        for (text, expected) in [
            ("{\n\"allow\": [{\"host\": \"evil.net\"}]}", "project.json:2: unknown field `allow`"),
            ("{\"policy\": \"/tmp/p.yaml\"}", "unknown field `policy`"),
            ("{\"stores\": [\"vault\"]}", "unknown field `stores`"),
            ("{\"hosts\": [\"*\"]}", "host '*'"),
            ("{\"hosts\": \"*.x.com\"}", "invalid type"),
            ("{\"environment\": \"../x\"}", "is not a valid environment"),
            ("{\"project\": \"a\", \"project\": \"b\"}", "duplicate field"),
            ("[]", "invalid"),
            ("", "EOF"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(
                error.contains(expected) && error.contains("policy.yaml alone"),
                "{text:?} gives {error}"
            );
        }
    }

    #[test]
    fn nearest_private_regular_file_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        let write = |at: &Path, project: &str| ProjectFile::write(None, at, &[("project", project)]).unwrap();
        write(folder.path(), "outer");
        let inner = write(&folder.path().join("a"), "inner");
        let found = || ProjectFile::find(&deep).map(|file| file.unwrap().project.unwrap().to_string());
        assert_eq!(found().unwrap(), "inner");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(found().unwrap_err().message().contains("chmod o-w"));
        fs::remove_file(&inner).unwrap();
        assert_eq!(found().unwrap(), "outer");
        symlink("/etc/passwd", &inner).unwrap();
        assert!(found().unwrap_err().message().contains("no regular file"));
    }

    #[test]
    fn write_keeps_other_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path =
            ProjectFile::write(None, folder.path(), &[("project_name", "old"), ("environment", "staging")])
                .unwrap();
        ProjectFile::write(Some(&path), folder.path(), &[("project", "new")]).unwrap();
        let file = ProjectFile::find(folder.path()).unwrap().unwrap();
        assert_eq!((file.project.unwrap().as_str(), file.environment.unwrap().as_str()), ("new", "staging"));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in r#"[{}\[\]":,a-z* \n]{0,60}"#) {
            let _ = parsed(&text);
        }
    }
}
