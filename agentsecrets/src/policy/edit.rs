//! A policy file changed by a command, as text: what a person wrote stays as they wrote it, comments too. What
//! was made is read again before it is believed, and whatever is not exactly what was meant is refused.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use serde_yaml::Spanned;

use super::load::LoadError;
use super::rules::Policy;
use crate::sys::files;

/// What an inserted rule says of itself.
const ORIGIN: &str = "# by `agentsecrets approve --always`";
/// What a person is told where their file is not understood well enough.
const BY_HAND: &str = "the file is written in a way that this command does not change: add the rule by hand";

/// Why a file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum NotEdited {
    /// It is no policy.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The rule is not there any longer.
    #[error("the policy changed since the request was held: rule {0} is not in it")]
    Gone(String),
    /// The new text would not say what was meant.
    #[error("{0}")]
    ByHand(&'static str),
    /// It could not be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A policy that is about to be changed.
pub struct Draft {
    pub(super) path: PathBuf,
    /// As it was read; none where there is no file.
    pub(super) original: Option<String>,
    pub(super) text: String,
}

impl Draft {
    /// The policy at `path`, as it is.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let original = super::load::read(path)?;
        if let Some(text) = &original {
            Policy::parse(text, path)?;
        }
        Ok(Self { path: path.to_path_buf(), text: original.clone().unwrap_or_default(), original })
    }

    /// From now on no person need approve `method` at `request_path` under the rule with this `id`: another
    /// rule stands before it, which is the same but for that.
    pub fn always(&mut self, id: &str, method: &str, request_path: &str) -> Result<(), NotEdited> {
        self.text = always(&self.text, &self.path, id, method, request_path)?;
        Ok(())
    }

    /// Puts it in force, whole or not at all, where it is still what was read.
    pub fn save(&self) -> Result<(), NotEdited> {
        let failed = |source| NotEdited::Write { path: self.path.clone(), source };
        if super::load::read(&self.path)? != self.original {
            return Err(failed(io::Error::other("somebody else changed it just now; try again")));
        }
        write(&self.path, &self.text).map_err(failed)
    }
}

/// Writes the policy at `path` in one step: whose it is and who may read it stays, and so does a link to it.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    match path.exists() {
        true => files::rewrite(path, text.as_bytes()),
        false => files::replace(path, text.as_bytes()),
    }
}

/// The file as far as it must be understood: untyped, so that nothing of a rule is lost.
#[derive(Deserialize)]
struct File {
    agents: Vec<Agent>,
}

#[derive(Deserialize)]
struct Agent {
    name: String,
    #[serde(default)]
    allow: Vec<Spanned<Map<String, Value>>>,
}

fn always(text: &str, path: &Path, id: &str, method: &str, request_path: &str) -> Result<String, NotEdited> {
    let policy = Policy::parse(text, path)?;
    let gone = || NotEdited::Gone(id.to_owned());
    let place = |agent: &super::Agent| agent.rules.iter().position(|rule| &*rule.id == id);
    let (agent, at) =
        policy.agents().iter().find_map(|agent| Some((agent.name(), place(agent)?))).ok_or_else(gone)?;
    let before = read(text)?;
    let entry = before.agents.iter().find(|entry| entry.name == agent.as_str()).ok_or_else(gone)?;
    let rule = entry.allow.get(at).ok_or_else(gone)?;
    if request_path.contains(['%', '{', '}', '[', ']', '*', '?', '\\', '!']) {
        return Err(NotEdited::ByHand(
            "the path holds characters that mean something in a pattern: add the rule by hand",
        ));
    }
    let mut new = rule.value.clone();
    new.remove("approve");
    new.insert("methods".to_owned(), json!([method]));
    new.insert("paths".to_owned(), json!([request_path]));
    let location = &rule.referenced;
    let edited = insert(text, location.line(), location.column(), &one_line(&new))
        .ok_or(NotEdited::ByHand(BY_HAND))?;
    // What is there now must be what was there before, and the new rule.
    Policy::parse(&edited, path)?;
    let after = read(&edited)?;
    let said = |file: &File, without: Option<usize>| -> Vec<(String, Vec<Map<String, Value>>)> {
        let rules = |entry: &Agent| {
            let own = entry.name == agent.as_str();
            let kept = entry.allow.iter().enumerate().filter(|(number, _)| !own || Some(*number) != without);
            kept.map(|(_, rule)| rule.value.clone()).collect()
        };
        file.agents.iter().map(|entry| (entry.name.clone(), rules(entry))).collect()
    };
    let inserted = after.agents.iter().find(|entry| entry.name == agent.as_str());
    let inserted = inserted.and_then(|entry| entry.allow.get(at)).map(|rule| &rule.value);
    if said(&before, None) != said(&after, Some(at)) || inserted != Some(&new) {
        return Err(NotEdited::ByHand(BY_HAND));
    }
    Ok(edited)
}

fn read(text: &str) -> Result<File, NotEdited> {
    let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|_| NotEdited::ByHand(BY_HAND))
}

/// A rule on one line, its host first.
fn one_line(rule: &Map<String, Value>) -> String {
    let key = |key: &str| rule.get(key).map(|value| format!("{key}: {value}"));
    let first = ["host", "ports", "methods", "paths"];
    let others = rule.keys().map(String::as_str).filter(|name| !first.contains(name));
    let pairs: Vec<String> = first.into_iter().chain(others).filter_map(key).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// `text` with `rule` before the item of a list that begins at this line and column, both from 1.
fn insert(text: &str, line: u64, column: u64, rule: &str) -> Option<String> {
    let (line, column) =
        (usize::try_from(line).ok()?.checked_sub(1)?, usize::try_from(column).ok()?.checked_sub(1)?);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let own = lines.get(line)?;
    let cut = own.char_indices().nth(column).map(|(at, _)| at)?;
    let (before, after) = own.split_at(cut);
    let indent: String = before.chars().take_while(|c| *c == ' ').collect();
    let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    if before.trim_end() == format!("{indent}-") {
        // Above what is said of the old rule.
        let is_comment = |line: &&&str| line.trim_start().starts_with('#');
        let above = lines.get(..line)?.iter().rev().take_while(is_comment).count();
        edited.insert(line - above, format!("{indent}- {rule}  {ORIGIN}\n"));
    } else if before.trim_end().ends_with(['[', ',']) {
        *edited.get_mut(line)? = format!("{before}{rule}, {after}");
    } else {
        return None;
    }
    Some(edited.concat())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::policy::access_request::Ask;
    use crate::policy::evaluate::judge;
    use crate::policy::grant::Decision;
    use crate::types::target::{Scheme, Target};

    const POLICY: &str = "# ours
version: 1
agents:
  - name: other
    allow: [ { host: b.net } ]
  - name: coder   # the one
    allow:
      - host: a.net
        ports: [443]
      # money
      - host: pay.net
        paths: [\"/v1/**\"]   # all of it
        secrets: [KEY]
        approve: { wait: 5s }
        rate: 60/m
";

    fn edited(text: &str, id: &str) -> Result<String, NotEdited> {
        always(text, Path::new("policy.yaml"), id, "POST", "/v1/charges")
    }

    fn is_held(text: &str, method: &str, path: &str) -> bool {
        let policy = Policy::parse(text, Path::new("policy.yaml")).unwrap();
        let target = Target { scheme: Scheme::Https, host: "pay.net".parse().unwrap(), port: 443 };
        let method: Method = method.parse().unwrap();
        let ask = Ask { target: &target, method: &method, path, websocket: false, references: &[] };
        let agent = policy.agent(&"coder".parse().unwrap()).unwrap();
        match judge(&policy, agent, &ask, std::time::Instant::now(), |_| None) {
            Decision::Hold(_) => true,
            Decision::Allow(_) => false,
            Decision::Deny(refusal) => panic!("{refusal:?}"),
        }
    }

    #[test]
    fn a_rule_is_added_before_the_one_that_holds_and_everything_else_stays() {
        let new = edited(POLICY, "coder/2 (policy.yaml:11)").unwrap();
        let added: Vec<&str> = new.lines().filter(|line| !POLICY.lines().any(|old| old == *line)).collect();
        assert_eq!(
            added,
            [
                "      - { host: \"pay.net\", methods: [\"POST\"], paths: [\"/v1/charges\"], rate: \"60/m\", secrets: \
              [\"KEY\"] }  # by `agentsecrets approve --always`"
            ]
        );
        assert_eq!(new.replace(&format!("{}\n", added[0]), ""), POLICY);
        assert!(new.find("approve --always").unwrap() < new.find("# money").unwrap());
        assert!(is_held(POLICY, "POST", "/v1/charges") && !is_held(&new, "POST", "/v1/charges"));
        assert!(is_held(&new, "GET", "/v1/charges") && is_held(&new, "POST", "/v1/charges/1"));
    }

    #[test]
    fn rules_in_brackets_are_changed_too() {
        let text = "version: 1\nagents:\n  - { name: coder, allow: [{ host: a.net }, { host: pay.net, approve: true }] }\n";
        let new = edited(text, "coder/2 (policy.yaml:3)").unwrap();
        assert!(!is_held(&new, "POST", "/v1/charges") && is_held(&new, "GET", "/v1/charges"), "{new}");
    }

    #[test]
    fn what_is_not_understood_or_not_there_is_left_alone() {
        assert!(matches!(edited(POLICY, "coder/2 (policy.yaml:12)"), Err(NotEdited::Gone(_))));
        assert!(matches!(edited("version: 2\nagents: []\n", "x"), Err(NotEdited::Load(_))));
        let apart = POLICY.replace("- host: pay.net", "-\n        host: pay.net");
        let error = edited(&apart, "coder/2 (policy.yaml:12)").unwrap_err();
        assert!(error.to_string().contains("by hand"), "{error}");
        let wild = always(POLICY, Path::new("policy.yaml"), "coder/2 (policy.yaml:11)", "POST", "/v1/*");
        assert!(matches!(wild, Err(NotEdited::ByHand(_))));
    }
}
