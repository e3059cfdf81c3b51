//! `config.yaml`: settings of AgentSecrets itself. Like the policy it is accepted whole or not at all; errors
//! name their line, and no process starts with an invalid configuration.

mod stores;

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_yaml::Spanned;

use crate::policy::parse_duration;
use crate::policy::{LoadError, Problem, read_file, yaml_error_message};
use crate::store::{StoreConfig, required_value};
use crate::types::timeouts::Timeouts;

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Time limits for clients and upstream servers.
    pub timeouts: Timeouts,
    /// Secret stores, in the order in which they are searched.
    pub stores: Vec<StoreConfig>,
    /// Whether only the daemon shows values or gives rights.
    pub strict: bool,
    /// Whether only trusted programs may use secrets.
    pub require_trust: bool,
}

/// The file's own structure.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default, deserialize_with = "required_value")]
    timeouts: Option<WrittenTimeouts>,
    #[serde(default, deserialize_with = "required_value")]
    stores: Option<Spanned<Vec<Spanned<stores::StoreItem>>>>,
    #[serde(default, deserialize_with = "required_value")]
    strict: Option<bool>,
    #[serde(default)]
    require_trust: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTimeouts {
    #[serde(default, deserialize_with = "required_value")]
    handshake: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_value")]
    head: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_value")]
    idle: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_value")]
    connect: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_value")]
    answer: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_value")]
    body_idle: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "required_value")]
    drain: Option<Spanned<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            stores: StoreConfig::default_order(),
            strict: false,
            require_trust: false,
        }
    }
}

impl Config {
    /// Reads the configuration at `path`. Defaults apply if the file is missing or empty.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        match read_file(path)? {
            Some(text) => Self::parse(&text, path),
            None => Ok(Self::default()),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, LoadError> {
        let invalid = |problems| LoadError::Invalid { path: path.to_path_buf(), problems };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
        let file: ConfigFile = serde_yaml::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            invalid(vec![Problem { line, message: yaml_error_message(&error.to_string()) }])
        })?;
        let mut config = Self { require_trust: file.require_trust, ..Self::default() };
        let mut problems = Vec::new();
        let timeouts = &mut config.timeouts;
        let written = file.timeouts.unwrap_or_default();
        for (written, timeout) in [
            (written.handshake, &mut timeouts.handshake),
            (written.head, &mut timeouts.head),
            (written.idle, &mut timeouts.idle),
            (written.connect, &mut timeouts.connect),
            (written.answer, &mut timeouts.answer),
            (written.body_idle, &mut timeouts.body_idle),
            (written.drain, &mut timeouts.drain),
        ] {
            parse_timeout(timeout, written, &mut problems);
        }
        config.strict = file.strict.unwrap_or(false);
        if let Some(written) = file.stores {
            config.stores = stores::parse_stores(written, &mut problems);
        }
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(config) } else { Err(invalid(problems)) }
    }
}

fn parse_timeout(timeout: &mut Duration, written: Option<Spanned<String>>, problems: &mut Vec<Problem>) {
    let Some(written) = written else { return };
    match parse_duration(&written.value) {
        Ok(duration) => *timeout = duration,
        Err(message) => problems.push(Problem { line: written.referenced.line(), message }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/home/config.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn missing_keys_have_defaults() {
        for text in ["", "# nothing\n\n", "timeouts: {}"] {
            assert_eq!(parsed(text).unwrap(), Config::default(), "{text:?}");
        }
        let config = parsed("timeouts:\n  head: 5s\n  answer: 2m\n").unwrap();
        assert_eq!(config.timeouts.head, Duration::from_secs(5));
        assert_eq!(config.timeouts.answer, Duration::from_secs(120));
        assert_eq!(config.timeouts.idle, Timeouts::default().idle);
        assert!(!config.require_trust && parsed("require_trust: true\n").unwrap().require_trust);
        assert!(parsed("require_trust: yes\n").is_err() && parsed("require_trust:\n").is_err());
    }

    #[test]
    fn errors_name_their_line() {
        for (text, expected) in [
            ("timeouts:\n  haed: 5s\n", "/home/config.yaml:2: unknown field"),
            ("timeouts:\n  head: 5s\n  head: 6s\n", "the key 'head' stands twice"),
            ("timeouts:\n  head: soon\n  idle: 0s\n", "/home/config.yaml:2: 'soon' is not a time"),
            ("timeouts:\n  head: soon\n  idle: 0s\n", "/home/config.yaml:3: '0s' is not a time"),
            ("timeouts:\n  head:\n", "/home/config.yaml:2"),
            ("ports: 5\n", "/home/config.yaml:1: unknown field"),
            ("timeouts: 5\n", "/home/config.yaml:1"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gives {error}");
        }
    }
}
