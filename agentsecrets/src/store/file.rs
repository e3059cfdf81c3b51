//! Mounted secrets: a folder with a file for each, as Kubernetes and Docker give them to a container. A
//! file's name is the secret's; names that cannot be one (`..data`, `README.txt`) are none of ours. It is
//! only read, and read again when a file or a link on the way to it changes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::kinds::{FILE_READ_TIMEOUT, Kind, StoreCheck};
use super::read_only::read_only;
use super::settings::{ReportProblem, SpannedText, parse_optional_name, required_value};
use super::timeout::TimeoutStore;
use crate::sys::home::Home;
use crate::types::name::{Environment, Project, SecretName};
use crate::types::secret::Secret;
use crate::types::store::{Entry, Key, MAX_VALUE_SIZE, Store, StoreError};
use crate::types::sync::MutexExt;

/// Folders of the system, which cannot be masked from an agent.
const SYSTEM_FOLDERS: &[&str] = &[
    "/", "/bin", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/proc", "/root", "/run",
    "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var",
];

/// A folder of files, one a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The folder; `{project}` and `{environment}` in it are filled in.
    pub(super) path: String,
    /// The only project that it is for.
    pub(super) project: Option<Project>,
    /// The only environment that it is for.
    pub(super) environment: Option<Environment>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileSettings {
    path: SpannedText,
    #[serde(default, deserialize_with = "required_value")]
    project: Option<SpannedText>,
    #[serde(default, deserialize_with = "required_value")]
    environment: Option<SpannedText>,
    #[serde(default)]
    optional: bool,
}

impl FileConfig {
    /// The folder for a project and environment, if it is for them.
    fn folder_for(&self, project: &Project, environment: &Environment) -> Option<PathBuf> {
        let others = self.project.as_ref().is_some_and(|only| only != project)
            || self.environment.as_ref().is_some_and(|only| only != environment);
        let filled = self.path.replace("{project}", project.as_str());
        (!others).then(|| Path::new(&filled.replace("{environment}", environment.as_str())).to_path_buf())
    }

    /// The part of the path that is the same for every project and environment.
    fn fixed_folder(&self) -> PathBuf {
        let parts = Path::new(&self.path).components();
        parts.take_while(|part| !part.as_os_str().as_encoded_bytes().contains(&b'{')).collect()
    }
}

impl Kind for FileConfig {
    type Settings = FileSettings;

    fn without_settings() -> Result<Self, String> {
        Err("'mounted' needs a folder: { mounted: { path: /run/secrets } }".into())
    }

    fn parse(settings: FileSettings, report: ReportProblem<'_>) -> Result<(Self, bool), String> {
        let line = settings.path.referenced.line();
        if !settings.path.value.starts_with('/') {
            report(line, "the path of a mounted folder begins with '/'".into());
        }
        let project = parse_optional_name(settings.project, report);
        let environment = parse_optional_name(settings.environment, report);
        let config = Self { path: settings.path.value, project, environment };
        let folder = config.fixed_folder();
        if SYSTEM_FOLDERS.iter().any(|shared| folder == Path::new(shared)) {
            let shown = folder.display();
            report(
                line,
                format!("{shown} is no folder of secrets alone: agents do not see what lies in one"),
            );
        }
        Ok((config, settings.optional))
    }

    fn may_repeat(&self) -> bool {
        true
    }

    fn open(&self, _: &Home) -> Arc<dyn Store> {
        let advice = "look whether its file system answers: ls the folder";
        Arc::new(TimeoutStore::new(FileStore::new(self.clone()), FILE_READ_TIMEOUT, advice))
    }

    fn timeout(&self) -> Duration {
        FILE_READ_TIMEOUT
    }

    fn folder(&self) -> Option<PathBuf> {
        Some(self.fixed_folder())
    }

    fn state(&self, _: &Home) -> String {
        format!("the files in {}", self.path)
    }

    fn check(&self, home: &Home, (project, environment): (&Project, &Environment)) -> StoreCheck {
        let listed = self.open(home).list(project, environment);
        let count = listed.as_ref().map_or(0, Vec::len);
        StoreCheck::from_result(listed.map(drop), format!("{count} secrets are mounted at {}", self.path))
    }
}

/// The folders of one entry of the configuration.
struct FileStore {
    settings: FileConfig,
    /// Those that were read from: what they hold now is the generation.
    read: Mutex<BTreeSet<PathBuf>>,
}

impl FileStore {
    /// Reads as `settings` say.
    fn new(settings: FileConfig) -> Self {
        Self { settings, read: Mutex::default() }
    }

    fn folder(&self, project: &Project, environment: &Environment) -> Option<PathBuf> {
        let folder = self.settings.folder_for(project, environment)?;
        self.read.lock_ignoring_poison().insert(folder.clone());
        Some(folder)
    }
}

impl Store for FileStore {
    fn name(&self) -> &'static str {
        "mounted"
    }

    fn get(&self, key: &Key) -> Result<Option<Secret>, StoreError> {
        let Some(folder) = self.folder(&key.project, &key.environment) else { return Ok(None) };
        let path = folder.join(key.name.as_str());
        let unreadable = |error: io::Error| {
            let shown = path.display();
            StoreError::Io(match error.kind() {
                io::ErrorKind::NotFound => format!("{shown} is a link that leads nowhere: mount it again"),
                io::ErrorKind::PermissionDenied => {
                    format!("{shown} may not be read by this user: chmod or chown it")
                }
                _ => format!("{shown} cannot be read: {error}"),
            })
        };
        match fs::symlink_metadata(&path) {
            // A folder that is not there holds no less than one that is not mounted yet: it is no answer.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return listed(&folder).map(|_| None),
            Err(error) => return Err(unreadable(error)),
            Ok(_) => {}
        }
        // A named pipe would hang the opening.
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(StoreError::Io(format!("{} is no file: a secret is one", path.display())));
        }
        // Reserved in full, so that growing leaves no copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_VALUE_SIZE + 3));
        let file = File::open(&path).map_err(unreadable)?;
        file.take(MAX_VALUE_SIZE as u64 + 2).read_to_end(&mut bytes).map_err(unreadable)?;
        let value = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if value.is_empty() || value.len() > MAX_VALUE_SIZE {
            let what = if value.is_empty() { "is empty" } else { "is larger than 1 MiB" };
            return Err(StoreError::Refused(format!("{} {what}: it is no secret", path.display())));
        }
        Ok(Some(Secret::new(value.to_vec())))
    }

    fn list(&self, project: &Project, environment: &Environment) -> Result<Vec<Entry>, StoreError> {
        let Some(folder) = self.folder(project, environment) else { return Ok(Vec::new()) };
        let entry = |(name, metadata): (SecretName, fs::Metadata)| Entry {
            name,
            environment: environment.clone(),
            updated: metadata
                .modified()
                .ok()
                .and_then(|time| jiff::Timestamp::try_from(time).ok().map(|time| format!("{time:.0}"))),
            placeholder: None,
            store: self.name(),
        };
        Ok(listed(&folder)?.into_iter().map(entry).collect())
    }

    fn set(&self, _: &Key, _: Secret, _: Option<&str>) -> Result<(), StoreError> {
        read_only(self.name())
    }

    fn version(&self) -> Result<u64, StoreError> {
        let folders = self.read.lock_ignoring_poison().clone();
        let mut hasher = DefaultHasher::new();
        for folder in folders {
            for (name, metadata) in listed(&folder)? {
                #[cfg(unix)]
                std::os::unix::fs::MetadataExt::ino(&metadata).hash(&mut hasher);
                (name, metadata.len(), metadata.modified().ok()).hash(&mut hasher);
            }
        }
        Ok(hasher.finish())
    }

    fn delete(&self, _: &Key) -> Result<bool, StoreError> {
        read_only(self.name())
    }

    fn is_writable(&self) -> bool {
        false
    }
}

/// The files of `folder` whose names are those of secrets, in order, as they are where their links lead.
fn listed(folder: &Path) -> Result<Vec<(SecretName, fs::Metadata)>, StoreError> {
    let shown = folder.display();
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Absent(format!(
            "there is no folder {shown} with mounted secrets: mount it, or take it out of config.yaml's `stores`"
        )),
        io::ErrorKind::PermissionDenied => {
            StoreError::Locked(format!("the folder {shown} may not be read by this user: chmod or chown it"))
        }
        _ => StoreError::Io(format!("the folder {shown} cannot be read: {error}")),
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<SecretName>().ok()) else {
            continue;
        };
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_file() => found.push((name, metadata)),
            Ok(_) => {}
            // Taken away or switched since; or a link that leads nowhere, which asking for it tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn of(folder: &Path) -> FileStore {
        let path = folder.to_str().unwrap().to_owned();
        FileStore::new(FileConfig { path, project: None, environment: None })
    }

    fn key(name: &str) -> Key {
        Key { project: Project::default(), environment: Environment::default(), name: name.parse().unwrap() }
    }

    fn value(store: &FileStore, name: &str) -> Option<Vec<u8>> {
        store.get(&key(name)).unwrap().map(|value| value.expose().to_vec())
    }

    #[test]
    fn kubernetes_volume_is_read_again_after_link_switch() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("..v1", "one\n"), ("..v2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("TOKEN"), text).unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/TOKEN", at("TOKEN")).unwrap();
        fs::write(at("not-a-name.txt"), "x").unwrap();
        let store = of(folder.path());
        assert_eq!(value(&store, "TOKEN").unwrap(), b"one");
        let before = store.version().unwrap();
        assert_eq!(store.version().unwrap(), before);
        symlink("..v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_ne!(store.version().unwrap(), before);
        assert_eq!(value(&store, "TOKEN").unwrap(), b"two");
        let names: Vec<_> = store.list(&Project::default(), &Environment::default()).unwrap();
        assert_eq!(names.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["TOKEN"]);
    }

    #[test]
    fn any_bytes_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let store = of(folder.path());
        for (bytes, read) in [
            (&[0, 255, 10, 0][..], &[0, 255, 10, 0][..]),
            (b"a\n\n", b"a\n"),
            (&[b'x'; MAX_VALUE_SIZE], &[b'x'; MAX_VALUE_SIZE]),
        ] {
            fs::write(folder.path().join("A"), bytes).unwrap();
            assert_eq!(value(&store, "A").unwrap(), read);
        }
        fs::write(folder.path().join("A"), vec![b'x'; MAX_VALUE_SIZE + 1]).unwrap();
        assert!(store.get(&key("A")).is_err());
        fs::write(folder.path().join("A"), "\n").unwrap();
        assert!(store.get(&key("A")).is_err());
    }

    #[test]
    fn missing_absent_and_broken_differ() {
        let folder = tempfile::tempdir().unwrap();
        let store = of(folder.path());
        assert!(store.get(&key("A")).unwrap().is_none());
        symlink("nowhere", folder.path().join("B")).unwrap();
        assert!(matches!(store.get(&key("B")), Err(StoreError::Io(reason)) if reason.contains("nowhere")));
        fs::create_dir(folder.path().join("C")).unwrap();
        assert!(matches!(store.get(&key("C")), Err(StoreError::Io(reason)) if reason.contains("no file")));
        nix::unistd::mkfifo(&folder.path().join("D"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(store.get(&key("D")).is_err());
        assert!(matches!(
            store.set(&key("A"), Secret::new(b"x".to_vec()), None),
            Err(StoreError::Refused(_))
        ));
        let absent = of(&folder.path().join("absent"));
        assert!(
            matches!(absent.get(&key("A")), Err(StoreError::Absent(reason)) if reason.contains("mount it"))
        );
        assert!(absent.version().is_err(), "what was read before it went is not good");
    }

    #[test]
    fn folder_is_bound_to_project_and_environment() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("production")).unwrap();
        fs::write(folder.path().join("production/A"), "p").unwrap();
        let path = folder.path().join("{environment}").to_str().unwrap().to_owned();
        let project = Some("shop".parse().unwrap());
        let store = FileStore::new(FileConfig { path, project, environment: None });
        let key = |project: &str, environment: &str| Key {
            project: project.parse().unwrap(),
            environment: environment.parse().unwrap(),
            name: "A".parse().unwrap(),
        };
        assert_eq!(store.get(&key("shop", "production")).unwrap().unwrap().expose(), b"p");
        assert!(store.get(&key("other", "production")).unwrap().is_none());
        assert!(matches!(store.get(&key("shop", "staging")), Err(StoreError::Absent(_))));
    }
}
