//! The configured stores and their order: the checked contents of `stores` in `config.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::types::name::{Environment, Project, SecretName};

use crate::types::store::Key;

/// Time limit for reading a file: it may be on a network file system.
pub(super) const FILE_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// One store of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The kind.
    pub kind: StoreKind,
    /// Whether the next store answers where this one is absent or locked.
    pub optional: bool,
}

/// A kind of store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreKind {
    /// The operating system's keychain.
    Keychain(KeychainConfig),
    /// Our encrypted file.
    Vault,
    /// A folder of files.
    Mounted(FileConfig),
    /// A program that prints one value.
    Command(CommandConfig),
}

/// Settings of the keychain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeychainConfig {
    /// Time limit for an answer; a person may have to type a password.
    pub timeout: Duration,
    /// Answers are cached for this time.
    pub cache: Duration,
}

/// A folder of files, one a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileConfig {
    /// The folder; `{project}` and `{environment}` in it are filled in.
    pub path: String,
    /// The only project that it is for.
    pub project: Option<Project>,
    /// The only environment that it is for.
    pub environment: Option<Environment>,
}

/// A program that prints one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandConfig {
    /// The program and its arguments for any name; `{name}`, `{project}` and `{environment}` are filled in.
    pub run: Vec<String>,
    /// Another program for some names.
    pub names: BTreeMap<SecretName, Vec<String>>,
    /// Time limit of the program.
    pub timeout: Duration,
    /// Output is cached for this time.
    pub cache: Duration,
    /// Exit codes that say that there is no such secret.
    pub missing: Vec<i32>,
    /// Variables that it gets besides the few that every program needs.
    pub env: Vec<String>,
}

impl StoreKind {
    /// Its name in messages.
    pub fn name(&self) -> &'static str {
        match self {
            StoreKind::Keychain(_) => "keychain",
            StoreKind::Vault => "vault",
            StoreKind::Mounted(_) => "mounted",
            StoreKind::Command(_) => "command",
        }
    }

    /// The folder whose files are its secrets, with everything below it.
    pub fn folder(&self) -> Option<PathBuf> {
        let StoreKind::Mounted(mounted) = self else { return None };
        let parts = Path::new(&mounted.path).components();
        Some(parts.take_while(|part| !part.as_os_str().as_encoded_bytes().contains(&b'{')).collect())
    }

    /// Time limit for an answer.
    pub fn patience(&self) -> Duration {
        match self {
            StoreKind::Keychain(keychain) => keychain.timeout,
            StoreKind::Command(command) => command.timeout,
            StoreKind::Vault | StoreKind::Mounted(_) => FILE_READ_TIMEOUT,
        }
    }
}

impl StoreConfig {
    /// The order without a configuration.
    pub fn default_order() -> Vec<Self> {
        vec![Self { kind: StoreKind::Vault, optional: false }]
    }
}

impl Default for KeychainConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), cache: Duration::from_secs(60) }
    }
}

impl FileConfig {
    /// The folder for a project and environment, if it is for them.
    pub(super) fn folder(&self, project: &Project, environment: &Environment) -> Option<PathBuf> {
        let others = self.project.as_ref().is_some_and(|only| only != project)
            || self.environment.as_ref().is_some_and(|only| only != environment);
        let filled = self.path.replace("{project}", project.as_str());
        (!others).then(|| Path::new(&filled.replace("{environment}", environment.as_str())).to_path_buf())
    }
}

impl CommandConfig {
    /// The words of the program for `key`, if there is one.
    pub(super) fn words(&self, key: &Key) -> Option<Vec<String>> {
        let words = self.names.get(&key.name).unwrap_or(&self.run);
        let filled = words.iter().map(|word| {
            word.replace("{name}", key.name.as_str())
                .replace("{project}", key.project.as_str())
                .replace("{environment}", key.environment.as_str())
        });
        (!words.is_empty()).then(|| filled.collect())
    }
}
