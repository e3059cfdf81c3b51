//! The host list view of a policy file (`workspace allowlist`). Edits are made in the text, so that comments
//! and order stay. The edited text is parsed and compared with the intended result; if they differ, nothing
//! is written and the error names the line.

use std::path::Path;

use serde_json::Value;

use super::compile::schema;
use super::edit::{EditError, PolicyDraft};
use super::host_patterns::{HostMatch, HostPattern};
use super::load_error::LoadError;
use super::rules::Policy;
use crate::types::host::Host;
use crate::types::name::AgentName;

/// The agent entry that is created if the policy has none.
const FIRST_AGENT: &str = "default";

/// One rule in the list.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct AllowlistEntry {
    /// The host pattern.
    pub host: String,
    /// The agent entry of the rule.
    pub agent: String,
    /// The line in the file.
    pub line: u64,
    /// The secrets of the rule.
    pub secrets: Vec<String>,
    /// Whether it has no other key than the host, so that it may be removed.
    #[serde(rename = "bare")]
    pub has_only_host: bool,
}

/// The outcome of adding a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AddOutcome {
    /// A new rule for this agent, at this line.
    Added(String, u64),
    /// A rule of this agent covers it already.
    AlreadyListed(String),
}

/// The reason why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllowlistError {
    /// The policy is invalid.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The host is invalid.
    #[error("{0}")]
    Host(String),
    /// There are several agent entries and none was named.
    #[error("{file} has several agent entries: {names}")]
    SeveralAgents {
        /// The file.
        file: String,
        /// The names of the entries.
        names: String,
    },
    /// There is no such agent entry.
    #[error("{file} has no agent entry '{name}'")]
    NoAgent {
        /// The file.
        file: String,
        /// The requested name.
        name: AgentName,
    },
    /// No rule names the host.
    #[error("no rule of {file} names the host '{host}'")]
    NotListed {
        /// The file.
        file: String,
        /// The host.
        host: String,
    },
    /// The rule has other keys than the host.
    #[error("{file}:{line}: this rule says more than its host, so that taking it out is yours to do")]
    HasOtherKeys {
        /// The file.
        file: String,
        /// The rule's line.
        line: u64,
    },
    /// The layout of the file does not allow the edit.
    #[error("{file}:{line}: the list is written in a way that only its author can change")]
    UnsupportedLayout {
        /// The file.
        file: String,
        /// The line of the list.
        line: u64,
    },
    /// The file was not saved.
    #[error(transparent)]
    Save(#[from] EditError),
}

/// An edit of the host list.
pub(crate) type Allowlist = PolicyDraft;

impl PolicyDraft {
    /// Every rule, in the order of the file.
    pub(crate) fn rules(&self) -> Result<Vec<AllowlistEntry>, LoadError> {
        let (file, value) = (self.parse_file()?, self.value()?);
        let agents = file.agents.iter().enumerate();
        let rules = agents.flat_map(|(at, agent)| {
            let agent = &agent.value;
            agent.allow.iter().enumerate().map(move |(number, rule)| (at, number, agent, rule))
        });
        let entries = rules.map(|(at, number, agent, rule)| AllowlistEntry {
            host: rule.value.host.value.clone(),
            agent: agent.name.value.clone(),
            line: rule.referenced.line(),
            secrets: rule.value.secrets.iter().map(|secret| secret.value.clone()).collect(),
            has_only_host: value["agents"][at]["allow"][number]
                .as_object()
                .is_some_and(|keys| keys.len() == 1),
        });
        Ok(entries.collect())
    }

    /// Adds a rule for `host` to `agent`, or to the only agent entry.
    pub(crate) fn add(
        &mut self,
        host: &str,
        agent: Option<&AgentName>,
    ) -> Result<AddOutcome, AllowlistError> {
        let pattern = HostPattern::parse(host).map_err(AllowlistError::Host)?;
        let mut intended = self.value()?;
        let file = self.parse_file()?;
        if file.agents.is_empty() {
            return self.create_agent(host, agent, intended);
        }
        let at = match agent {
            Some(name) => file.agents.iter().position(|entry| entry.value.name.value == name.as_str()),
            None if file.agents.len() > 1 => {
                let names: Vec<&str> = file.agents.iter().map(|entry| &*entry.value.name.value).collect();
                return Err(AllowlistError::SeveralAgents {
                    file: self.file_name(),
                    names: names.join(", "),
                });
            }
            None => Some(0),
        };
        let entry = at.and_then(|at| Some((at, file.agents.get(at)?)));
        let Some((at, entry)) = entry else {
            let name = agent.cloned().ok_or_else(|| self.unsupported_layout(1))?;
            return Err(AllowlistError::NoAgent { file: self.file_name(), name });
        };
        let name = entry.value.name.value.clone();
        if self.is_listed(&name, &pattern, host)? {
            return Ok(AddOutcome::AlreadyListed(name));
        }
        let until = file.agents.get(at + 1).map(|next| next.referenced.line());
        let (text, line) = insert_rule(&self.text, &entry.value, entry.referenced.line(), until, host)
            .ok_or_else(|| self.unsupported_layout(entry.referenced.line()))?;
        let rule = serde_json::json!({ "host": host });
        match intended["agents"][at]["allow"].as_array_mut() {
            Some(rules) => rules.push(rule),
            None => intended["agents"][at]["allow"] = Value::Array(vec![rule]),
        }
        self.accept(text, &intended, line)?;
        Ok(AddOutcome::Added(name, line))
    }

    /// Removes every rule for `host`. If one has other keys, none is removed.
    pub(crate) fn remove(&mut self, host: &str) -> Result<usize, AllowlistError> {
        let same = |entry: &&AllowlistEntry| entry.host.eq_ignore_ascii_case(host);
        let rules: Vec<AllowlistEntry> = self.rules()?.iter().filter(same).cloned().collect();
        if rules.is_empty() {
            return Err(AllowlistError::NotListed { file: self.file_name(), host: host.to_owned() });
        }
        if let Some(rule) = rules.iter().find(|rule| !rule.has_only_host) {
            return Err(AllowlistError::HasOtherKeys { file: self.file_name(), line: rule.line });
        }
        let (mut intended, mut text) = (self.value()?, self.text.clone());
        // From the end, so that earlier line numbers stay valid.
        for rule in rules.iter().rev() {
            text = remove_rule(&text, rule.line).ok_or_else(|| self.unsupported_layout(rule.line))?;
        }
        for agent in intended["agents"].as_array_mut().into_iter().flatten() {
            let allow = agent.get_mut("allow").and_then(Value::as_array_mut);
            let Some(allow) = allow else { continue };
            allow.retain(|rule| !rule["host"].as_str().is_some_and(|text| text.eq_ignore_ascii_case(host)));
        }
        self.accept(text, &intended, rules.first().map_or(1, |rule| rule.line))?;
        Ok(rules.len())
    }

    /// Creates the first agent entry.
    fn create_agent(
        &mut self,
        host: &str,
        agent: Option<&AgentName>,
        mut intended: Value,
    ) -> Result<AddOutcome, AllowlistError> {
        let name = agent.map_or(FIRST_AGENT, AgentName::as_str);
        let mut text = match &self.original {
            Some(text) => text.clone(),
            None => "version: 1\n".to_owned(),
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let empty = |line: &&str| without_comment(line) == "agents: []";
        if let Some(line) = text.lines().find(empty).map(str::to_owned) {
            text = text.replacen(&format!("{line}\n"), "", 1);
        }
        text += &format!("agents:\n  - name: {name}\n    allow:\n      - host: {}\n", scalar(host));
        if intended.is_null() {
            intended = serde_json::json!({ "version": 1 });
        }
        intended["agents"] = serde_json::json!([{ "name": name, "allow": [{ "host": host }] }]);
        let line = text.lines().count() as u64;
        self.accept(text, &intended, line)?;
        Ok(AddOutcome::Added(name.to_owned(), line))
    }

    /// Accepts `text` if it is a valid policy and equals `intended`.
    fn accept(&mut self, text: String, intended: &Value, line: u64) -> Result<(), AllowlistError> {
        if value(&text, &self.path).ok().as_ref() != Some(intended) {
            return Err(self.unsupported_layout(line));
        }
        Policy::parse(&text, &self.path)?;
        self.text = text;
        Ok(())
    }

    /// Whether a rule of `agent` covers the host already.
    fn is_listed(&self, agent: &str, pattern: &HostPattern, host: &str) -> Result<bool, LoadError> {
        let policy = Policy::parse(&self.text, &self.path)?;
        let covered = |host: &Host| {
            let name = agent.parse().ok();
            name.is_some_and(|name| policy.host_match(Some(&name), host) != HostMatch::None)
        };
        let is_same = |entry: &AllowlistEntry| entry.agent == agent && entry.host.eq_ignore_ascii_case(host);
        Ok(match pattern {
            HostPattern::Exact(host) => covered(host),
            HostPattern::Wildcard(_) => self.rules()?.iter().any(is_same),
        })
    }

    fn parse_file(&self) -> Result<schema::File, LoadError> {
        let text = if self.is_absent() { "version: 1" } else { &self.text };
        Policy::parse_yaml(text, &self.path)
    }

    fn value(&self) -> Result<Value, LoadError> {
        if self.is_absent() { Ok(Value::Null) } else { value(&self.text, &self.path) }
    }

    fn is_absent(&self) -> bool {
        self.original.is_none() && self.text.is_empty()
    }

    fn file_name(&self) -> String {
        self.path.display().to_string()
    }

    fn unsupported_layout(&self, line: u64) -> AllowlistError {
        AllowlistError::UnsupportedLayout { file: self.file_name(), line }
    }
}

/// The file as an untyped value.
fn value(text: &str, path: &Path) -> Result<Value, LoadError> {
    Policy::parse_yaml(text, path)
}

/// The text with a rule for `host` after the other rules of the agent entry from `line` to before `until`,
/// and the line of the new rule.
fn insert_rule(
    text: &str,
    agent: &schema::Agent,
    line: u64,
    until: Option<u64>,
    host: &str,
) -> Option<(String, u64)> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
        last.push('\n');
    }
    let rule = |indent: usize| format!("{}- host: {}\n", " ".repeat(indent), scalar(host));
    if let Some(last) = agent.allow.last() {
        let start = item_start(&lines, last.referenced.line())?;
        let at = item_end(&lines, start);
        lines.insert(at, rule(indent(lines.get(start)?)));
        return Some((lines.concat(), at as u64 + 1));
    }
    let start = item_start(&lines, line)?;
    let stop = until.map_or(lines.len(), |line| usize::try_from(line).unwrap_or(0).saturating_sub(1));
    let empty = (start..stop.min(lines.len()))
        .find(|at| lines.get(*at).is_some_and(|line| without_comment(line).trim() == "allow: []"));
    let at = match empty {
        Some(at) => {
            let line = lines.get_mut(at)?;
            *line = line.replacen("allow: []", "allow:", 1);
            at
        }
        None => {
            let keys = indent(lines.get(start)?) + 2;
            let at = item_end(&lines, start);
            lines.insert(at, format!("{}allow:\n", " ".repeat(keys)));
            at
        }
    };
    lines.insert(at + 1, rule(indent(lines.get(at)?) + 2));
    Some((lines.concat(), at as u64 + 2))
}

/// The text without the rule at `line`. An empty list becomes `allow: []`.
fn remove_rule(text: &str, line: u64) -> Option<String> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let start = item_start(&lines, line)?;
    let own = indent(lines.get(start)?);
    lines.drain(start..item_end(&lines, start));
    let is_content = |line: &&String| !without_comment(line).trim().is_empty();
    let is_sibling = |line: &String| indent(line) == own && line.trim_start().starts_with('-');
    let after = lines.iter().skip(start).find(is_content).is_some_and(is_sibling);
    let before = (0..start).rev().find(|at| lines.get(*at).is_some_and(|line| is_content(&line)))?;
    let line = lines.get_mut(before)?;
    if !after && without_comment(line).trim_start_matches([' ', '-']) == "allow:" {
        *line = line.replacen("allow:", "allow: []", 1);
    }
    Some(lines.concat())
}

/// The index of the line on which a block list item begins, if its first key is at `line` (from 1).
fn item_start(lines: &[String], line: u64) -> Option<usize> {
    let at = usize::try_from(line).ok()?.checked_sub(1)?;
    let is_item = |at: usize| lines.get(at).is_some_and(|line| line.trim_start().starts_with('-'));
    let is_dash = |at: &usize| lines.get(*at).is_some_and(|line| without_comment(line).trim() == "-");
    if is_item(at) { Some(at) } else { at.checked_sub(1).filter(is_dash) }
}

/// The index after the last line of the item that begins at `start`: deeper lines belong to it, except
/// trailing blank lines and comments.
fn item_end(lines: &[String], start: usize) -> usize {
    let own = lines.get(start).map_or(0, |line| indent(line));
    let mut end = start + 1;
    for (at, line) in lines.iter().enumerate().skip(start + 1) {
        let is_content = !without_comment(line).trim().is_empty();
        if is_content && indent(line) <= own {
            break;
        }
        if is_content {
            end = at + 1;
        }
    }
    end
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The line without its comment.
fn without_comment(line: &str) -> &str {
    let line = line.trim_end();
    if line.trim_start().starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(before, _)| before).trim_end()
}

/// A host as a YAML scalar.
fn scalar(host: &str) -> String {
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    if plain { host.to_owned() } else { format!("\"{host}\"") }
}

#[cfg(test)]
#[path = "allowlist_tests.rs"]
mod tests;
