//! The `stores` of the configuration: which ones, in which order, and what each needs to know.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

use super::given;
use crate::policy::load::Problem;
use crate::policy::units::wait;
use crate::store::config::{Choice, Command, Keychain, Kind, Mounted};

/// Folders of the system, which cannot be hidden from an agent.
const SHARED: &[&str] = &[
    "/", "/bin", "/dev", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/proc", "/root", "/run",
    "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var",
];

type Text = Spanned<String>;

/// An entry as it is written: a name, or a name with settings.
#[derive(Debug)]
pub(super) enum Written {
    Name(String),
    Settings(Box<Settings>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(default, deserialize_with = "given")]
    keychain: Option<WrittenKeychain>,
    #[serde(default, deserialize_with = "given")]
    vault: Option<WrittenVault>,
    #[serde(default, deserialize_with = "given")]
    mounted: Option<WrittenMounted>,
    #[serde(default, deserialize_with = "given")]
    command: Option<WrittenCommand>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKeychain {
    #[serde(default, deserialize_with = "given")]
    timeout: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    cache: Option<Text>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenVault {
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMounted {
    path: Text,
    #[serde(default, deserialize_with = "given")]
    project: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    environment: Option<Text>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCommand {
    #[serde(default)]
    run: Vec<String>,
    #[serde(default)]
    names: BTreeMap<String, Spanned<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    timeout: Option<Text>,
    #[serde(default, deserialize_with = "given")]
    cache: Option<Text>,
    #[serde(default)]
    missing: Vec<Spanned<i32>>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    optional: bool,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a store: keychain, vault, { mounted: … } or { command: … }")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Written, E> {
                Ok(Written::Name(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                Settings::deserialize(MapAccessDeserializer::new(map))
                    .map(|it| Written::Settings(Box::new(it)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// The order that `written` asks for; its mistakes go to `problems`.
pub(super) fn read(written: Spanned<Vec<Spanned<Written>>>, problems: &mut Vec<Problem>) -> Vec<Choice> {
    let mut problem = |line, message: String| problems.push(Problem { line, message });
    if written.value.is_empty() {
        problem(
            written.referenced.line(),
            "the list is empty: name at least one store, such as vault".into(),
        );
    }
    let mut choices: Vec<Choice> = Vec::new();
    for entry in written.value {
        let line = entry.referenced.line();
        let chosen = match entry.value {
            Written::Name(name) => by_name(&name),
            Written::Settings(settings) => by_settings(*settings, &mut problem),
        };
        match chosen {
            Err(message) => problem(line, message),
            Ok(choice) => {
                let twice = choices.iter().any(|other| {
                    other.kind == choice.kind
                        || (other.kind.name() == choice.kind.name()
                            && matches!(choice.kind, Kind::Vault | Kind::Keychain(_)))
                });
                if twice {
                    problem(line, format!("the store '{}' stands twice", choice.kind.name()));
                }
                choices.push(choice);
            }
        }
    }
    choices
}

fn by_name(name: &str) -> Result<Choice, String> {
    let kind = match name {
        "keychain" => Kind::Keychain(Keychain::default()),
        "vault" => Kind::Vault,
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
    Ok(Choice { kind, optional: false })
}

fn by_settings(settings: Settings, problem: &mut impl FnMut(u64, String)) -> Result<Choice, String> {
    let Settings { keychain, vault, mounted, command } = settings;
    match (keychain, vault, mounted, command) {
        (Some(it), None, None, None) => {
            let usual = Keychain::default();
            let timeout = time(it.timeout, usual.timeout, problem);
            let cache = time(it.cache, usual.cache, problem);
            Ok(Choice { kind: Kind::Keychain(Keychain { timeout, cache }), optional: it.optional })
        }
        (None, Some(it), None, None) => Ok(Choice { kind: Kind::Vault, optional: it.optional }),
        (None, None, Some(it), None) => {
            if !it.path.value.starts_with('/') {
                problem(it.path.referenced.line(), "the path of a mounted folder begins with '/'".into());
            }
            let line = it.path.referenced.line();
            let project = name(it.project, problem);
            let environment = name(it.environment, problem);
            let kind = Kind::Mounted(Mounted { path: it.path.value, project, environment });
            if let Some(folder) =
                kind.folder().filter(|folder| SHARED.iter().any(|shared| folder == Path::new(shared)))
            {
                let what = format!(
                    "{} is no folder of secrets alone: agents do not see what lies in one",
                    folder.display()
                );
                problem(line, what);
            }
            Ok(Choice { kind, optional: it.optional })
        }
        (None, None, None, Some(it)) => {
            let optional = it.optional;
            self::command(it, problem).map(|command| Choice { kind: Kind::Command(command), optional })
        }
        _ => Err("an entry names one store, such as { mounted: { path: /run/secrets } }".into()),
    }
}

fn command(written: WrittenCommand, problem: &mut impl FnMut(u64, String)) -> Result<Command, String> {
    let mut names = BTreeMap::new();
    for (name, words) in written.names {
        let line = words.referenced.line();
        match name.parse() {
            Err(error) => problem(line, format!("{error}")),
            Ok(_) if words.value.first().is_none_or(String::is_empty) => {
                problem(line, format!("{name} has no program"));
            }
            Ok(name) => drop(names.insert(name, words.value)),
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
    Ok(Command {
        run: written.run,
        names,
        timeout: time(written.timeout, Duration::from_secs(10), problem),
        cache: time(written.cache, Duration::from_secs(300), problem),
        missing: written.missing.into_iter().map(|code| code.value).collect(),
        env: written.env,
    })
}

fn time(written: Option<Text>, usual: Duration, problem: &mut impl FnMut(u64, String)) -> Duration {
    let Some(written) = written else { return usual };
    wait(&written.value).unwrap_or_else(|message| {
        problem(written.referenced.line(), message);
        usual
    })
}

fn name<T: std::str::FromStr<Err: fmt::Display>>(
    written: Option<Text>,
    problem: &mut impl FnMut(u64, String),
) -> Option<T> {
    let written = written?;
    written.value.parse().map_err(|error: T::Err| problem(written.referenced.line(), error.to_string())).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Choice>, String> {
        let config = Config::parse(text, Path::new("/home/config.yaml"));
        config.map(|config| config.stores).map_err(|error| error.to_string())
    }

    #[test]
    fn the_vault_alone_is_asked_where_nothing_is_said() {
        assert_eq!(parsed("timeouts: {}\n").unwrap(), Choice::default_order());
        assert_eq!(parsed("").unwrap(), Choice::default_order());
    }

    #[test]
    fn stores_stand_in_the_order_in_which_they_are_asked() {
        let text = "stores:\n  - keychain: { optional: true, timeout: 5s }\n  - vault\n  - mounted:\n      path: \
                    /run/secrets/{environment}\n      project: shop\n  - command:\n      run: [op, read, \
                    \"op://dev/{name}\"]\n      names:\n        TOKEN: [gh, auth, token]\n      missing: [1]\n      \
                    cache: 2m\n";
        let choices = parsed(text).unwrap();
        let names: Vec<_> = choices.iter().map(|choice| (choice.kind.name(), choice.optional)).collect();
        assert_eq!(names, [("keychain", true), ("vault", false), ("mounted", false), ("command", false)]);
        assert_eq!(choices[0].kind.patience(), Duration::from_secs(5));
        let Kind::Command(command) = &choices[3].kind else { panic!() };
        assert_eq!(
            (&*command.run[2], command.cache, &*command.missing),
            ("op://dev/{name}", Duration::from_secs(120), &[1][..])
        );
        assert_eq!(command.names.len(), 1);
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        for (text, told) in [
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
            assert!(error.contains(told), "{text:?} gives {error}");
        }
    }
}
