//! `.agentsecrets/project.json`, in the working folder or above it. It may have come with somebody's
//! repository: it chooses a project and an environment, and it narrows what the policy allows. It can widen
//! nothing, and a key that would is refused.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::cli::{Exit, Failure};
use crate::policy::project_restriction::Narrow;
use crate::sys::files;
use crate::types::name::{AgentName, Environment, Project, SecretName};

/// Where it is, below a folder.
const PLACE: &str = ".agentsecrets/project.json";
/// The largest one, in bytes.
const LARGEST: u64 = 64 * 1024;

/// A project file that was read.
#[derive(Debug)]
pub(crate) struct ProjectFile {
    pub(crate) path: PathBuf,
    pub(crate) project: Option<Project>,
    pub(crate) environment: Option<Environment>,
    narrow: Narrow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, alias = "project_name", deserialize_with = "named")]
    project: Option<Project>,
    #[serde(default, deserialize_with = "named")]
    environment: Option<Environment>,
    agents: Option<Vec<AgentName>>,
    secrets: Option<Vec<SecretName>>,
    hosts: Option<Vec<String>>,
    // What other programs keep there: it chooses nothing.
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

/// A name; an empty one is none.
fn named<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

impl ProjectFile {
    /// The nearest one, in `working` or a folder above it.
    pub(crate) fn find(working: &Path) -> Result<Option<Self>, Failure> {
        Self::locate(working).map(|path| Self::read(&path)).transpose()
    }

    /// Where that is.
    pub(crate) fn locate(working: &Path) -> Option<PathBuf> {
        let path = working.ancestors().map(|folder| folder.join(PLACE));
        path.into_iter().find(|path| fs::symlink_metadata(path).is_ok())
    }

    /// What it leaves of the policy.
    pub(crate) fn narrow(&self) -> Narrow {
        self.narrow.clone()
    }

    /// Makes one in `folder`, or changes the one that is there: what else stands in it stays.
    pub(crate) fn write(
        path: Option<&Path>,
        folder: &Path,
        changes: &[(&str, &str)],
    ) -> Result<PathBuf, Failure> {
        let new = folder.join(PLACE);
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
        let shown = path.display();
        let refused = |why: String| Failure::new(Exit::Failure, format!("{shown} {why}"));
        let unreadable = |error: std::io::Error| refused(format!("cannot be read: {error}"));
        // Neither a link into somebody's files nor a pipe that hangs.
        if !fs::symlink_metadata(path).map_err(unreadable)?.is_file() {
            return Err(refused("is no regular file: remove it".into()));
        }
        let file = File::open(path).map_err(unreadable)?;
        #[cfg(unix)]
        check_owner(&file.metadata().map_err(unreadable)?).map_err(refused)?;
        Self::read_to_end(path, file)
    }

    /// Reads the `file` that the person `uid` opened at `path`.
    #[cfg(unix)]
    pub(crate) fn read_open(path: &Path, file: File, uid: u32) -> Result<Self, Failure> {
        use std::os::unix::fs::MetadataExt;
        let refused = |why: &str| Failure::new(Exit::Failure, format!("{} {why}", path.display()));
        let metadata = file.metadata().map_err(|error| refused(&format!("cannot be read: {error}")))?;
        if !metadata.is_file() {
            return Err(refused("is no regular file: remove it"));
        }
        if ![0, uid].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
            return Err(refused("must be yours, and nobody else's to change: chmod go-w it"));
        }
        Self::read_to_end(path, file)
    }

    fn read_to_end(path: &Path, file: File) -> Result<Self, Failure> {
        let shown = path.display();
        let refused = |why: String| Failure::new(Exit::Failure, format!("{shown} {why}"));
        let unreadable = |error: std::io::Error| refused(format!("cannot be read: {error}"));
        let mut text = String::new();
        file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > LARGEST {
            return Err(refused("is larger than 64 KiB".into()));
        }
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let refused = |line: usize, why: &str| {
            let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            Failure::new(Exit::Failure, format!("{}:{line}: {why}", path.display())).hint(
                "a project file chooses `project` and `environment`, and narrows by `agents`, `secrets` and \
                 `hosts`; what is allowed is written in policy.yaml alone",
            )
        };
        let written: Written = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            refused(error.line(), message.split_once(" at line ").map_or(&*message, |(before, _)| before))
        })?;
        let Written { project, environment, agents, secrets, hosts, .. } = written;
        let narrow = Narrow { file: path.display().to_string(), agents, secrets, hosts };
        narrow.check().map_err(|why| refused(1, &why))?;
        Ok(Self { path: path.to_path_buf(), project, environment, narrow })
    }
}

/// It must be ours, or root's, or of who called sudo, and nobody else's to change.
#[cfg(unix)]
fn check_owner(metadata: &fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let trusted = [Some(0), Some(nix::unistd::geteuid().as_raw()), crate::launch::uid_of_who_called_sudo()];
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
        parsed.map_err(|failure| format!("{} {}", failure.what(), failure.advice().unwrap_or_default()))
    }

    #[test]
    fn it_chooses_and_narrows() {
        let file = parsed(
            r#"{"project": "shop", "environment": "staging", "secrets": ["A"], "hosts": ["*.example.com"]}"#,
        )
        .unwrap();
        assert_eq!(file.project.unwrap().as_str(), "shop");
        assert_eq!(file.environment.unwrap().as_str(), "staging");
        assert_eq!((file.narrow.agents, file.narrow.secrets.unwrap().len()), (None, 1));
        // As another program writes it.
        let theirs = r#"{"project_id": "1", "project_name": "shop", "description": "", "environment": "", "workspace_id": "2",
            "workspace_name": "w", "last_pull": "", "last_push": "", "storage_mode": 1}"#;
        let file = parsed(theirs).unwrap();
        assert_eq!((file.project.unwrap().as_str(), file.environment), ("shop", None));
        assert!(file.narrow.is_empty());
    }

    #[test]
    fn what_would_widen_is_refused_by_its_line() {
        for (text, told) in [
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
            assert!(error.contains(told) && error.contains("policy.yaml alone"), "{text:?} gives {error}");
        }
    }

    #[test]
    fn the_nearest_one_is_found_and_it_must_be_a_file_that_nobody_else_can_change() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        let write = |at: &Path, project: &str| ProjectFile::write(None, at, &[("project", project)]).unwrap();
        write(folder.path(), "outer");
        let inner = write(&folder.path().join("a"), "inner");
        let found = || ProjectFile::find(&deep).map(|file| file.unwrap().project.unwrap().to_string());
        assert_eq!(found().unwrap(), "inner");
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(found().unwrap_err().what().contains("chmod o-w"));
        fs::remove_file(&inner).unwrap();
        assert_eq!(found().unwrap(), "outer");
        symlink("/etc/passwd", &inner).unwrap();
        assert!(found().unwrap_err().what().contains("no regular file"));
    }

    #[test]
    fn a_change_leaves_the_rest_of_it() {
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
        fn any_text_is_read_or_refused(text in r#"[{}\[\]":,a-z* \n]{0,60}"#) {
            let _ = parsed(&text);
        }
    }
}
