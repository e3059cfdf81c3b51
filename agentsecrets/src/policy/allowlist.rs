//! The hosts that the policy names, as one list that can be shown and changed: a view on the file, whose
//! comments and order stay. An edit is made in the text, and what then stands there is read and compared with
//! what was meant; where the two differ, nothing is written and a person is told the line.

use std::path::Path;

use serde_json::Value;

use super::edit::{Draft, NotEdited};
use super::load::LoadError;
use super::matching::{HostPattern, Naming};
use super::rules::Policy;
use crate::policy::schema;
use crate::types::host::Host;
use crate::types::name::AgentName;

/// The agent entry that is made where the policy has none.
const FIRST_AGENT: &str = "default";

/// A rule, as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Listed {
    /// What stands behind `host:`.
    pub host: String,
    /// The agent entry that it is for.
    pub agent: String,
    /// Its line.
    pub line: u64,
    /// The secrets that it names.
    pub secrets: Vec<String>,
    /// Whether it says nothing but the host, so that it may be taken out.
    pub bare: bool,
}

/// What became of a host that was to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It is a new rule for this agent, at this line.
    New(String, u64),
    /// A rule of this agent names it already.
    There(String),
}

/// Why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The policy as it is has mistakes.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What was given is no host.
    #[error("{0}")]
    Host(String),
    /// Which entry is meant is open.
    #[error("{file} has several agent entries: {names}")]
    SeveralAgents {
        /// The file.
        file: String,
        /// What they are called.
        names: String,
    },
    /// There is no such entry.
    #[error("{file} has no agent entry '{name}'")]
    NoAgent {
        /// The file.
        file: String,
        /// What was asked for.
        name: AgentName,
    },
    /// Nothing names the host.
    #[error("no rule of {file} names the host '{host}'")]
    NotListed {
        /// The file.
        file: String,
        /// The host.
        host: String,
    },
    /// The rule says more than the host.
    #[error("{file}:{line}: this rule says more than its host, so that taking it out is yours to do")]
    NotBare {
        /// The file.
        file: String,
        /// The rule's line.
        line: u64,
    },
    /// The file is written in a way that the edit does not fit.
    #[error("{file}:{line}: the list is written in a way that only its author can change")]
    Shape {
        /// The file.
        file: String,
        /// Where the list is.
        line: u64,
    },
    /// It could not be put in force.
    #[error(transparent)]
    Save(#[from] NotEdited),
}

/// The list: a policy that is about to be changed, seen so.
pub type Allowlist = Draft;

impl Draft {
    /// Every rule, in the order of the file.
    pub fn rules(&self) -> Result<Vec<Listed>, LoadError> {
        let (file, value) = (self.parsed()?, self.value()?);
        let agents = file.agents.iter().enumerate();
        let rules = agents.flat_map(|(at, agent)| {
            let agent = &agent.value;
            agent.allow.iter().enumerate().map(move |(number, rule)| (at, number, agent, rule))
        });
        let listed = rules.map(|(at, number, agent, rule)| Listed {
            host: rule.value.host.value.clone(),
            agent: agent.name.value.clone(),
            line: rule.referenced.line(),
            secrets: rule.value.secrets.iter().map(|secret| secret.value.clone()).collect(),
            bare: value["agents"][at]["allow"][number].as_object().is_some_and(|keys| keys.len() == 1),
        });
        Ok(listed.collect())
    }

    /// Lets an agent reach `host`: the one that is named, else the only one there is.
    pub fn add(&mut self, host: &str, agent: Option<&AgentName>) -> Result<Added, EditError> {
        let pattern = HostPattern::read(host).map_err(EditError::Host)?;
        let mut meant = self.value()?;
        let file = self.parsed()?;
        if file.agents.is_empty() {
            return self.begin(host, agent, meant);
        }
        let at = match agent {
            Some(name) => file.agents.iter().position(|entry| entry.value.name.value == name.as_str()),
            None if file.agents.len() > 1 => {
                let names: Vec<&str> = file.agents.iter().map(|entry| &*entry.value.name.value).collect();
                return Err(EditError::SeveralAgents { file: self.shown(), names: names.join(", ") });
            }
            None => Some(0),
        };
        let entry = at.and_then(|at| Some((at, file.agents.get(at)?)));
        let Some((at, entry)) = entry else {
            let name = agent.cloned().ok_or_else(|| self.shape(1))?;
            return Err(EditError::NoAgent { file: self.shown(), name });
        };
        let name = entry.value.name.value.clone();
        if self.is_named(&name, &pattern, host)? {
            return Ok(Added::There(name));
        }
        let until = file.agents.get(at + 1).map(|next| next.referenced.line());
        let (text, line) = insert(&self.text, &entry.value, entry.referenced.line(), until, host)
            .ok_or_else(|| self.shape(entry.referenced.line()))?;
        let rule = serde_json::json!({ "host": host });
        match meant["agents"][at]["allow"].as_array_mut() {
            Some(rules) => rules.push(rule),
            None => meant["agents"][at]["allow"] = Value::Array(vec![rule]),
        }
        self.take(text, &meant, line)?;
        Ok(Added::New(name, line))
    }

    /// Takes out every rule that says `host` and nothing else; if one says more, none is taken out.
    pub fn remove(&mut self, host: &str) -> Result<usize, EditError> {
        let same = |listed: &&Listed| listed.host.eq_ignore_ascii_case(host);
        let rules: Vec<Listed> = self.rules()?.iter().filter(same).cloned().collect();
        if rules.is_empty() {
            return Err(EditError::NotListed { file: self.shown(), host: host.to_owned() });
        }
        if let Some(rule) = rules.iter().find(|rule| !rule.bare) {
            return Err(EditError::NotBare { file: self.shown(), line: rule.line });
        }
        let (mut meant, mut text) = (self.value()?, self.text.clone());
        // From the end, so that the lines before it stay where they are.
        for rule in rules.iter().rev() {
            text = take_out(&text, rule.line).ok_or_else(|| self.shape(rule.line))?;
        }
        for agent in meant["agents"].as_array_mut().into_iter().flatten() {
            let allow = agent.get_mut("allow").and_then(Value::as_array_mut);
            let Some(allow) = allow else { continue };
            allow.retain(|rule| !rule["host"].as_str().is_some_and(|text| text.eq_ignore_ascii_case(host)));
        }
        self.take(text, &meant, rules.first().map_or(1, |rule| rule.line))?;
        Ok(rules.len())
    }

    /// The first entry of a policy that has none.
    fn begin(&mut self, host: &str, agent: Option<&AgentName>, mut meant: Value) -> Result<Added, EditError> {
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
        if meant.is_null() {
            meant = serde_json::json!({ "version": 1 });
        }
        meant["agents"] = serde_json::json!([{ "name": name, "allow": [{ "host": host }] }]);
        let line = text.lines().count() as u64;
        self.take(text, &meant, line)?;
        Ok(Added::New(name.to_owned(), line))
    }

    /// Takes `text` over if it says what is `meant`, and nothing that is refused.
    fn take(&mut self, text: String, meant: &Value, line: u64) -> Result<(), EditError> {
        if value(&text, &self.path).ok().as_ref() != Some(meant) {
            return Err(self.shape(line));
        }
        Policy::parse(&text, &self.path)?;
        self.text = text;
        Ok(())
    }

    /// Whether a rule of the agent covers the host already.
    fn is_named(&self, agent: &str, pattern: &HostPattern, host: &str) -> Result<bool, LoadError> {
        let policy = Policy::parse(&self.text, &self.path)?;
        let covered = |host: &Host| {
            let name = agent.parse().ok();
            name.is_some_and(|name| policy.naming(Some(&name), host) != Naming::Nowhere)
        };
        let is_it = |listed: &Listed| listed.agent == agent && listed.host.eq_ignore_ascii_case(host);
        Ok(match pattern {
            HostPattern::Exact(host) => covered(host),
            HostPattern::Below(_) => self.rules()?.iter().any(is_it),
        })
    }

    fn parsed(&self) -> Result<schema::File, LoadError> {
        let text = if self.is_absent() { "version: 1" } else { &self.text };
        Policy::written(text, &self.path)
    }

    fn value(&self) -> Result<Value, LoadError> {
        if self.is_absent() { Ok(Value::Null) } else { value(&self.text, &self.path) }
    }

    fn is_absent(&self) -> bool {
        self.original.is_none() && self.text.is_empty()
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn shape(&self, line: u64) -> EditError {
        EditError::Shape { file: self.shown(), line }
    }
}

/// All that a file says, whatever it means.
fn value(text: &str, path: &Path) -> Result<Value, LoadError> {
    Policy::written(text, path)
}

/// The text with a rule for `host` after those of the agent entry that begins at `line` and ends before
/// `until`, and the line of the new rule.
fn insert(
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
        let start = item(&lines, last.referenced.line())?;
        let at = end(&lines, start);
        lines.insert(at, rule(indent(lines.get(start)?)));
        return Some((lines.concat(), at as u64 + 1));
    }
    let start = item(&lines, line)?;
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
            let at = end(&lines, start);
            lines.insert(at, format!("{}allow:\n", " ".repeat(keys)));
            at
        }
    };
    lines.insert(at + 1, rule(indent(lines.get(at)?) + 2));
    Some((lines.concat(), at as u64 + 2))
}

/// The text without the rule that begins at `line`; a list that is empty then says so.
fn take_out(text: &str, line: u64) -> Option<String> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let start = item(&lines, line)?;
    let own = indent(lines.get(start)?);
    lines.drain(start..end(&lines, start));
    let matters = |line: &&String| !without_comment(line).trim().is_empty();
    let is_sibling = |line: &String| indent(line) == own && line.trim_start().starts_with('-');
    let after = lines.iter().skip(start).find(matters).is_some_and(is_sibling);
    let before = (0..start).rev().find(|at| lines.get(*at).is_some_and(|line| matters(&line)))?;
    let line = lines.get_mut(before)?;
    if !after && without_comment(line).trim_start_matches([' ', '-']) == "allow:" {
        *line = line.replacen("allow:", "allow: []", 1);
    }
    Some(lines.concat())
}

/// Where the item of a block list begins whose first key stands at `line`, counted from 1.
fn item(lines: &[String], line: u64) -> Option<usize> {
    let at = usize::try_from(line).ok()?.checked_sub(1)?;
    let begins = |at: usize| lines.get(at).is_some_and(|line| line.trim_start().starts_with('-'));
    let alone = |at: &usize| lines.get(*at).is_some_and(|line| without_comment(line).trim() == "-");
    if begins(at) { Some(at) } else { at.checked_sub(1).filter(alone) }
}

/// Where the item that begins at `start` ends: what stands deeper belongs to it, but for blank lines and
/// comments at its end.
fn end(lines: &[String], start: usize) -> usize {
    let own = lines.get(start).map_or(0, |line| indent(line));
    let mut end = start + 1;
    for (at, line) in lines.iter().enumerate().skip(start + 1) {
        let matters = !without_comment(line).trim().is_empty();
        if matters && indent(line) <= own {
            break;
        }
        if matters {
            end = at + 1;
        }
    }
    end
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// What stands before a comment that has a line to itself, or follows a key.
fn without_comment(line: &str) -> &str {
    let line = line.trim_end();
    if line.trim_start().starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(before, _)| before).trim_end()
}

/// A host as YAML reads it.
fn scalar(host: &str) -> String {
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    if plain { host.to_owned() } else { format!("\"{host}\"") }
}

#[cfg(test)]
#[path = "allowlist_tests.rs"]
mod tests;
