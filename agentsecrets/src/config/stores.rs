//! The `stores:` list of the configuration: each store's kind and settings.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

use crate::policy::Problem;
use crate::policy::parse_duration;
use crate::store::config::{CommandConfig, FileConfig, KeychainConfig, StoreConfig, StoreKind};

/// Folders of the system, which cannot be masked from an agent.
const SYSTEM_FOLDERS: &[&str] = &[
    "/", "/bin", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/proc", "/root", "/run",
    "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var",
];

type SpannedText = Spanned<String>;

/// An entry of the list: a name, or a name with settings.
#[derive(Debug)]
pub(super) enum StoreItem {
    Name(String),
    Settings(Box<StoreSettings>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreSettings {
    #[serde(default, deserialize_with = "required_value")]
    keychain: Option<KeychainSettings>,
    #[serde(default, deserialize_with = "required_value")]
    vault: Option<VaultSettings>,
    #[serde(default, deserialize_with = "required_value")]
    mounted: Option<MountedSettings>,
    #[serde(default, deserialize_with = "required_value")]
    command: Option<CommandSettings>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeychainSettings {
    #[serde(default, deserialize_with = "required_value")]
    timeout: Option<SpannedText>,
    #[serde(default, deserialize_with = "required_value")]
    cache: Option<SpannedText>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultSettings {
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MountedSettings {
    path: SpannedText,
    #[serde(default, deserialize_with = "required_value")]
    project: Option<SpannedText>,
    #[serde(default, deserialize_with = "required_value")]
    environment: Option<SpannedText>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandSettings {
    #[serde(default)]
    run: Vec<String>,
    #[serde(default)]
    names: BTreeMap<String, Spanned<Vec<String>>>,
    #[serde(default, deserialize_with = "required_value")]
    timeout: Option<SpannedText>,
    #[serde(default, deserialize_with = "required_value")]
    cache: Option<SpannedText>,
    #[serde(default)]
    missing: Vec<Spanned<i32>>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    optional: bool,
}

impl<'de> Deserialize<'de> for StoreItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = StoreItem;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a store: keychain, vault, { mounted: … } or { command: … }")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<StoreItem, E> {
                Ok(StoreItem::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StoreItem, A::Error> {
                StoreSettings::deserialize(MapAccessDeserializer::new(map))
                    .map(|it| StoreItem::Settings(Box::new(it)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Converts `written` into store settings; errors go to `problems`.
pub(super) fn parse_stores(
    written: Spanned<Vec<Spanned<StoreItem>>>,
    problems: &mut Vec<Problem>,
) -> Vec<StoreConfig> {
    let mut problem = |line, message: String| problems.push(Problem { line, message });
    if written.value.is_empty() {
        problem(
            written.referenced.line(),
            "the list is empty: name at least one store, such as vault".into(),
        );
    }
    let mut choices: Vec<StoreConfig> = Vec::new();
    for entry in written.value {
        let line = entry.referenced.line();
        let choice = match entry.value {
            StoreItem::Name(name) => parse_name(&name),
            StoreItem::Settings(settings) => parse_settings(*settings, &mut problem),
        };
        match choice {
            Err(message) => problem(line, message),
            Ok(choice) => {
                let is_duplicate = choices.iter().any(|other| {
                    other.kind == choice.kind
                        || (other.kind.name() == choice.kind.name()
                            && matches!(choice.kind, StoreKind::Vault | StoreKind::Keychain(_)))
                });
                if is_duplicate {
                    problem(line, format!("the store '{}' stands twice", choice.kind.name()));
                }
                choices.push(choice);
            }
        }
    }
    choices
}

fn parse_name(name: &str) -> Result<StoreConfig, String> {
    let kind = match name {
        "keychain" => StoreKind::Keychain(KeychainConfig::default()),
        "vault" => StoreKind::Vault,
        "mounted" => return Err("'mounted' needs a folder: { mounted: { path: /run/secrets } }".into()),
        "command" => {
            return Err(
                "'command' needs a program: { command: { run: [op, read, \"op://dev/{name}\"] } }".into()
            );
        }
        other => {
            let shown: String = other.chars().take(40).flat_map(char::escape_default).collect();
            return Err(format!("'{shown}' is no store: keychain, vault, mounted and command are"));
        }
    };
    Ok(StoreConfig { kind, optional: false })
}

fn parse_settings(
    settings: StoreSettings,
    problem: &mut impl FnMut(u64, String),
) -> Result<StoreConfig, String> {
    let StoreSettings { keychain, vault, mounted, command } = settings;
    match (keychain, vault, mounted, command) {
        (Some(it), None, None, None) => {
            let default = KeychainConfig::default();
            let timeout = duration_or_default(it.timeout, default.timeout, problem);
            let cache = duration_or_default(it.cache, default.cache, problem);
            Ok(StoreConfig {
                kind: StoreKind::Keychain(KeychainConfig { timeout, cache }),
                optional: it.optional,
            })
        }
        (None, Some(it), None, None) => Ok(StoreConfig { kind: StoreKind::Vault, optional: it.optional }),
        (None, None, Some(it), None) => {
            if !it.path.value.starts_with('/') {
                problem(it.path.referenced.line(), "the path of a mounted folder begins with '/'".into());
            }
            let line = it.path.referenced.line();
            let project = parse_optional_name(it.project, problem);
            let environment = parse_optional_name(it.environment, problem);
            let kind = StoreKind::Mounted(FileConfig { path: it.path.value, project, environment });
            if let Some(folder) =
                kind.folder().filter(|folder| SYSTEM_FOLDERS.iter().any(|shared| folder == Path::new(shared)))
            {
                let what = format!(
                    "{} is no folder of secrets alone: agents do not see what lies in one",
                    folder.display()
                );
                problem(line, what);
            }
            Ok(StoreConfig { kind, optional: it.optional })
        }
        (None, None, None, Some(it)) => {
            let optional = it.optional;
            self::parse_command(it, problem)
                .map(|command| StoreConfig { kind: StoreKind::Command(command), optional })
        }
        _ => Err("an entry names one store, such as { mounted: { path: /run/secrets } }".into()),
    }
}

fn parse_command(
    written: CommandSettings,
    problem: &mut impl FnMut(u64, String),
) -> Result<CommandConfig, String> {
    let mut names = BTreeMap::new();
    for (name, arguments) in written.names {
        let line = arguments.referenced.line();
        match name.parse() {
            Err(error) => problem(line, format!("{error}")),
            Ok(_) if arguments.value.first().is_none_or(String::is_empty) => {
                problem(line, format!("{name} has no program"));
            }
            Ok(name) => drop(names.insert(name, arguments.value)),
        }
    }
    if written.run.first().map_or(names.is_empty(), String::is_empty) {
        return Err("'command' needs `run` or `names`: lists of a program and its arguments".into());
    }
    for code in &written.missing {
        if !(1..=255).contains(&code.value) {
            problem(code.referenced.line(), "an exit code that means 'missing' is from 1 to 255".into());
        }
    }
    if let Some(ours) = written.env.iter().find(|name| name.starts_with("AGENTSECRETS_")) {
        return Err(format!("{ours} leads to our own stores, and is passed to no program"));
    }
    Ok(CommandConfig {
        run: written.run,
        names,
        timeout: duration_or_default(written.timeout, Duration::from_secs(10), problem),
        cache: duration_or_default(written.cache, Duration::from_secs(300), problem),
        missing: written.missing.into_iter().map(|code| code.value).collect(),
        env: written.env,
    })
}

fn duration_or_default(
    written: Option<SpannedText>,
    default: Duration,
    problem: &mut impl FnMut(u64, String),
) -> Duration {
    let Some(written) = written else { return default };
    parse_duration(&written.value).unwrap_or_else(|message| {
        problem(written.referenced.line(), message);
        default
    })
}

fn parse_optional_name<T: std::str::FromStr<Err: fmt::Display>>(
    written: Option<SpannedText>,
    problem: &mut impl FnMut(u64, String),
) -> Option<T> {
    let written = written?;
    written.value.parse().map_err(|error: T::Err| problem(written.referenced.line(), error.to_string())).ok()
}

/// Deserialises a key that may be absent but, if present, must have a value.
pub(super) fn required_value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parsed(text: &str) -> Result<Vec<StoreConfig>, String> {
        let config = Config::parse(text, Path::new("/home/config.yaml"));
        config.map(|config| config.stores).map_err(|error| error.to_string())
    }

    #[test]
    fn vault_is_the_default_store() {
        assert_eq!(parsed("timeouts: {}\n").unwrap(), StoreConfig::default_order());
        assert_eq!(parsed("").unwrap(), StoreConfig::default_order());
    }

    #[test]
    fn store_order_is_kept() {
        let text = "stores:\n  - keychain: { optional: true, timeout: 5s }\n  - vault\n  - mounted:\n      path: \
                    /run/secrets/{environment}\n      project: shop\n  - command:\n      run: [op, read, \
                    \"op://dev/{name}\"]\n      names:\n        TOKEN: [gh, auth, token]\n      missing: [1]\n      \
                    cache: 2m\n";
        let choices = parsed(text).unwrap();
        let names: Vec<_> = choices.iter().map(|choice| (choice.kind.name(), choice.optional)).collect();
        assert_eq!(names, [("keychain", true), ("vault", false), ("mounted", false), ("command", false)]);
        assert_eq!(choices[0].kind.patience(), Duration::from_secs(5));
        let StoreKind::Command(command) = &choices[3].kind else { panic!() };
        assert_eq!(
            (&*command.run[2], command.cache, &*command.missing),
            ("op://dev/{name}", Duration::from_secs(120), &[1][..])
        );
        assert_eq!(command.names.len(), 1);
    }

    #[test]
    fn errors_name_their_line() {
        for (text, expected) in [
            ("stores: []\n", "/home/config.yaml:1: the list is empty"),
            ("stores: vault\n", "/home/config.yaml:1: a list belongs here"),
            ("stores:\n  - valut\n", "/home/config.yaml:2: 'valut' is no store"),
            ("stores:\n  - vault\n  - vault\n", "/home/config.yaml:3: the store 'vault' stands twice"),
            (
                "stores:\n  - keychain\n  - keychain: { optional: true }\n",
                "/home/config.yaml:3: the store 'keychain' stands",
            ),
            ("stores:\n  - mounted\n", "/home/config.yaml:2: 'mounted' needs a folder"),
            (
                "stores:\n  - mounted: { path: secrets }\n",
                "/home/config.yaml:2: the path of a mounted folder begins",
            ),
            (
                "stores:\n  - mounted: { path: /etc/ }\n",
                "/home/config.yaml:2: /etc is no folder of secrets alone",
            ),
            (
                "stores:\n  - mounted: { path: \"/etc/{project}\" }\n",
                "/home/config.yaml:2: /etc is no folder of secrets alone",
            ),
            ("stores:\n  - mounted: { pth: /x }\n", "/home/config.yaml:2: unknown field"),
            (
                "stores:\n  - mounted: { path: /x, environment: \"a/b\" }\n",
                "/home/config.yaml:2: 'a/b' is not a valid environment",
            ),
            ("stores:\n  - keychain: { timeout: soon }\n", "/home/config.yaml:2: 'soon' is not a time"),
            ("stores:\n  - keychain:\n", "/home/config.yaml:2"),
            ("stores:\n  - { vault: {}, keychain: {} }\n", "/home/config.yaml:2: an entry names one store"),
            ("stores:\n  - command: {}\n", "/home/config.yaml:2: 'command' needs `run`"),
            ("stores:\n  - command: { run: \"op read x\" }\n", "/home/config.yaml:2: a list belongs here"),
            (
                "stores:\n  - command: { run: [op], missing: [0] }\n",
                "/home/config.yaml:2: an exit code that means",
            ),
            (
                "stores:\n  - command: { run: [op], env: [AGENTSECRETS_VAULT_KEY_FILE] }\n",
                "/home/config.yaml:2: AGENTSECRETS_VAULT_KEY_FILE leads",
            ),
            (
                "stores:\n  - command:\n      names:\n        A-B: [op]\n",
                "/home/config.yaml:4: 'A-B' is not a valid secret name",
            ),
            ("stores:\n  - vault\nstores:\n  - vault\n", "the key 'stores' stands twice"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gives {error}");
        }
    }
}
