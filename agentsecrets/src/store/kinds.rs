//! The one list of store kinds (`store_kinds!` below), and the trait that each of them implements in its own
//! file. A new kind is a file in this folder and a line in that list.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::settings::{ReportProblem, required_value};
use super::{Store, StoreError};
use crate::sys::home::Home;
use crate::types::name::{Environment, Project};

/// Time limit for reading a file: it may be on a network file system.
pub(super) const FILE_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes [`StoreKind`] and [`StoreSettings`] of a list of kinds: the name in `config.yaml`, the variant, and the
/// type that implements [`Kind`].
macro_rules! store_kinds {
    ($($name:ident: $variant:ident($config:ty)),+ $(,)?) => {
        /// A kind of store, with its settings.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum StoreKind {
            $(#[doc = concat!("`", stringify!($name), "` in `config.yaml`.")] $variant($config)),+
        }

        /// An entry of `stores` with settings: the name of a kind, and the settings of that kind.
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct StoreSettings {
            $(#[serde(default, deserialize_with = "required_value")]
            $name: Option<<$config as Kind>::Settings>),+
        }

        impl StoreKind {
            /// The names of all kinds.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// The name in `config.yaml` and in messages.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($name)),+
                }
            }

            fn kind(&self) -> &dyn Kind {
                match self {
                    $(Self::$variant(kind) => kind),+
                }
            }

            fn from_name(name: &str) -> Result<Self, String> {
                $(if name == stringify!($name) {
                    return <$config as Kind>::without_settings().map(Self::$variant);
                })+
                let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
                Err(format!("'{shown}' is no store: {} are", all_names()))
            }
        }

        impl StoreSettings {
            /// Checks the settings. An error concerns the whole entry; `report` is called for errors at a line
            /// of their own.
            pub(crate) fn parse(self, report: ReportProblem<'_>) -> Result<StoreConfig, String> {
                let mut parsed = Vec::new();
                $(if let Some(settings) = self.$name {
                    let kind = <$config as Kind>::parse(settings, &mut *report);
                    parsed.push(kind.map(|(kind, optional)| {
                        StoreConfig { kind: StoreKind::$variant(kind), optional }
                    }));
                })+
                match (parsed.pop(), parsed.is_empty()) {
                    (Some(parsed), true) => parsed,
                    _ => Err("an entry names one store, such as { mounted: { path: /run/secrets } }".into()),
                }
            }
        }
    };
}

store_kinds! {
    keychain: Keychain(super::keychain::KeychainConfig),
    vault: Vault(super::vault::VaultConfig),
    mounted: Mounted(super::file::FileConfig),
    command: Command(super::command::CommandConfig),
}

/// One store of the configuration. Stores are asked in the order in which they stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The kind with its settings.
    pub kind: StoreKind,
    /// Whether the next store answers where this one is absent or locked.
    pub optional: bool,
}

/// A kind of store, with its settings.
pub(super) trait Kind: Debug {
    /// The form of its settings in `config.yaml`.
    type Settings: DeserializeOwned
    where
        Self: Sized;

    /// The store as its bare name configures it; an error says which settings it needs.
    fn without_settings() -> Result<Self, String>
    where
        Self: Sized;

    /// The store as `settings` configure it, and whether it is optional. An error concerns the whole entry;
    /// `report` is called for errors at a line of their own.
    fn parse(settings: Self::Settings, report: ReportProblem<'_>) -> Result<(Self, bool), String>
    where
        Self: Sized;

    /// Whether a configuration may name several stores of this kind.
    fn may_repeat(&self) -> bool {
        false
    }

    /// Whether the process that serves agents opens the store itself. The store helper opens all others.
    fn is_in_process(&self) -> bool {
        false
    }

    /// Opens the store for a person's command, or in the store helper.
    fn open(&self, home: &Home) -> Arc<dyn Store>;

    /// Opens the store in a long-lived process, which has no terminal to ask at.
    fn open_unattended(&self, home: &Home) -> Result<Arc<dyn Store>, StoreError> {
        Ok(self.open(home))
    }

    /// Time limit for an answer.
    fn timeout(&self) -> Duration;

    /// The folder whose files are its secrets, with everything below it.
    fn folder(&self) -> Option<PathBuf> {
        None
    }

    /// Whether the store does not exist before the first secret is stored in it.
    fn is_missing(&self, _home: &Home) -> bool {
        false
    }

    /// Whether opening the store asks a person at the terminal.
    fn needs_terminal(&self, _home: &Home) -> bool {
        false
    }

    /// The state for `agentsecrets status`, found without unlocking the store or starting a program.
    fn state(&self, home: &Home) -> String;

    /// Checks for `agentsecrets doctor` that the store can be used.
    fn check(&self, home: &Home, scope: (&Project, &Environment)) -> StoreCheck;
}

/// The result of a check of one store.
pub enum StoreCheck {
    /// The store can be used.
    Good(String),
    /// The store can be used, but a person may want to change something.
    Warning {
        /// The finding.
        what: String,
        /// The command or the change that helps.
        fix: String,
    },
    /// The store cannot be used.
    Bad {
        /// The finding.
        what: String,
        /// The command or the change that helps.
        fix: String,
    },
}

impl StoreCheck {
    /// The check of a store that answered. The fix of an error stands after the last colon of its text.
    pub(super) fn from_result(result: Result<(), StoreError>, good: impl Into<String>) -> Self {
        let Err(error) = result else { return Self::Good(good.into()) };
        let text = error.to_string();
        let (what, fix) = text.rsplit_once(": ").unwrap_or((&text, "look at config.yaml's `stores`"));
        Self::Bad { what: what.to_owned(), fix: fix.to_owned() }
    }
}

impl StoreConfig {
    /// The order without a configuration.
    pub fn default_order() -> Vec<Self> {
        vec![Self { kind: StoreKind::Vault(super::vault::VaultConfig), optional: false }]
    }

    /// The store of this bare name.
    pub fn from_name(name: &str) -> Result<Self, String> {
        StoreKind::from_name(name).map(|kind| Self { kind, optional: false })
    }
}

impl StoreKind {
    /// Whether a configuration cannot have both: they are equal, or of a kind that there is only once.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self == other || (self.name() == other.name() && !self.kind().may_repeat())
    }

    /// Opens the store for a person's command, or in the store helper.
    pub(super) fn open(&self, home: &Home) -> Arc<dyn Store> {
        self.kind().open(home)
    }

    /// Opens the store in a long-lived process, if that process opens it itself.
    pub(super) fn open_in_process(&self, home: &Home) -> Option<Result<Arc<dyn Store>, StoreError>> {
        self.kind().is_in_process().then(|| self.kind().open_unattended(home))
    }

    /// Opens the store in a long-lived process.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn open_unattended(&self, home: &Home) -> Result<Arc<dyn Store>, StoreError> {
        self.kind().open_unattended(home)
    }

    /// Whether the store helper opens it.
    #[cfg(target_os = "linux")]
    pub(super) fn is_in_helper(&self) -> bool {
        !self.kind().is_in_process()
    }

    /// Time limit for an answer.
    pub fn timeout(&self) -> Duration {
        self.kind().timeout()
    }

    /// The folder whose files are its secrets, with everything below it.
    pub fn folder(&self) -> Option<PathBuf> {
        self.kind().folder()
    }

    /// Whether the store does not exist before the first secret is stored in it.
    pub fn is_missing(&self, home: &Home) -> bool {
        self.kind().is_missing(home)
    }

    /// Whether opening the store asks a person at the terminal.
    pub fn needs_terminal(&self, home: &Home) -> bool {
        self.kind().needs_terminal(home)
    }

    /// The state for `agentsecrets status`, found without unlocking the store or starting a program.
    pub fn state(&self, home: &Home) -> String {
        self.kind().state(home)
    }

    /// Checks for `agentsecrets doctor` that the store can be used.
    pub fn check(&self, home: &Home, scope: (&Project, &Environment)) -> StoreCheck {
        self.kind().check(home, scope)
    }
}

/// All names in a sentence: `keychain, vault, mounted and command`.
fn all_names() -> String {
    match StoreKind::NAMES.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}
