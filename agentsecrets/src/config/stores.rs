//! The `stores:` list of the configuration: each store's kind and settings.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

use crate::policy::Problem;
use crate::store::{StoreConfig, StoreKind, StoreSettings};

/// An entry of the list: a name, or a name with settings.
#[derive(Debug)]
pub(super) enum StoreItem {
    Name(String),
    Settings(Box<StoreSettings>),
}

impl<'de> Deserialize<'de> for StoreItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = StoreItem;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a store ({}), by its name or as {{ name: settings }}", StoreKind::NAMES.join(", "))
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
            StoreItem::Name(name) => StoreConfig::from_name(&name),
            StoreItem::Settings(settings) => settings.parse(&mut problem),
        };
        match choice {
            Err(message) => problem(line, message),
            Ok(choice) => {
                let is_duplicate = choices.iter().any(|other| choice.kind.conflicts_with(&other.kind));
                if is_duplicate {
                    problem(line, format!("the store '{}' stands twice", choice.kind.name()));
                }
                choices.push(choice);
            }
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

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
        assert_eq!(choices[0].kind.timeout(), Duration::from_secs(5));
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
