//! `config.yaml`: what a person sets about the interceptor itself. Like the policy it is taken whole or not
//! at all; a mistake is told with its line, and an interceptor does not start on half of a configuration.

mod stores;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_yaml::Spanned;

use crate::policy::load::{LoadError, Problem, plainly, read};
use crate::policy::units::wait;
use crate::store::Choice;
use crate::types::timeouts::Timeouts;

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long peers may take.
    pub timeouts: Timeouts,
    /// Where secrets rest, in the order in which they are looked for.
    pub stores: Vec<Choice>,
    /// Whether nothing shows a value or gives a right but through the daemon.
    pub strict: bool,
    /// Whether nothing is spent by programs that are not trusted.
    pub require_trust: bool,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "given")]
    timeouts: Option<Written>,
    #[serde(default, deserialize_with = "given")]
    stores: Option<Spanned<Vec<Spanned<stores::Written>>>>,
    #[serde(default, deserialize_with = "given")]
    strict: Option<bool>,
    #[serde(default)]
    require_trust: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, deserialize_with = "given")]
    handshake: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    head: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    idle: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    connect: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    answer: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    body_idle: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    drain: Option<Spanned<String>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            stores: Choice::default_order(),
            strict: false,
            require_trust: false,
        }
    }
}

impl Config {
    /// Reads the configuration at `path`. Where there is no file, or nothing in it, the defaults hold.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        match read(path)? {
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
        let file: File = serde_yaml::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            invalid(vec![Problem { line, message: plainly(&error.to_string()) }])
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
            read_into(timeout, written, &mut problems);
        }
        config.strict = file.strict.unwrap_or(false);
        if let Some(written) = file.stores {
            config.stores = stores::read(written, &mut problems);
        }
        problems.sort_by_key(|problem| problem.line);
        if problems.is_empty() { Ok(config) } else { Err(invalid(problems)) }
    }
}

fn read_into(timeout: &mut Duration, written: Option<Spanned<String>>, problems: &mut Vec<Problem>) {
    let Some(written) = written else { return };
    match wait(&written.value) {
        Ok(duration) => *timeout = duration,
        Err(message) => problems.push(Problem { line: written.referenced.line(), message }),
    }
}

/// Reads a key that may be left out but, where it stands, has a value.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/home/config.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
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
    fn every_mistake_is_told_with_its_line() {
        for (text, told) in [
            ("timeouts:\n  haed: 5s\n", "/home/config.yaml:2: unknown field"),
            ("timeouts:\n  head: 5s\n  head: 6s\n", "the key 'head' stands twice"),
            ("timeouts:\n  head: soon\n  idle: 0s\n", "/home/config.yaml:2: 'soon' is not a time"),
            ("timeouts:\n  head: soon\n  idle: 0s\n", "/home/config.yaml:3: '0s' is not a time"),
            ("timeouts:\n  head:\n", "/home/config.yaml:2"),
            ("ports: 5\n", "/home/config.yaml:1: unknown field"),
            ("timeouts: 5\n", "/home/config.yaml:1"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(told), "{text:?} gives {error}");
        }
    }
}
