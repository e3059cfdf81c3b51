//! Edits a policy file as text, so that its author's formatting and comments stay. The edited text is parsed
//! again, and an edit with any other effect than the intended one is refused.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use serde_yaml::Spanned;

use super::load_error::LoadError;
use super::rules::Policy;
use crate::sys::files;

/// The comment on an inserted rule.
const RULE_COMMENT: &str = "# by `agentsecrets approve --always`";
const UNSUPPORTED_LAYOUT: &str =
    "the file is written in a way that this command does not change: add the rule by hand";

/// The reason why a file was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    /// The policy is invalid.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The rule does not exist any longer.
    #[error("the policy changed since the request was held: rule {0} is not in it")]
    RuleGone(String),
    /// The layout of the file does not allow the edit.
    #[error("{0}")]
    ByHand(&'static str),
    /// The file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// An edit of a policy file.
pub(crate) struct PolicyDraft {
    pub(super) path: PathBuf,
    /// The text as read, or `None` if there is no file.
    pub(super) original: Option<String>,
    pub(super) text: String,
}

impl PolicyDraft {
    /// Reads the policy at `path`, which must be valid.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let original = super::compile::read_file(path)?;
        if let Some(text) = &original {
            Policy::parse(text, path)?;
        }
        Ok(Self { path: path.to_path_buf(), text: original.clone().unwrap_or_default(), original })
    }

    /// Inserts a copy of the rule `id` before it that needs no approval for `method` at `request_path`.
    pub(crate) fn allow_without_approval(
        &mut self,
        id: &str,
        method: &str,
        request_path: &str,
    ) -> Result<(), EditError> {
        self.text = insert_rule_without_approval(&self.text, &self.path, id, method, request_path)?;
        Ok(())
    }

    /// Writes the file atomically. It fails if the file changed since it was read.
    pub(crate) fn save(&self) -> Result<(), EditError> {
        let failed = |source| EditError::Write { path: self.path.clone(), source };
        if super::compile::read_file(&self.path)? != self.original {
            return Err(failed(io::Error::other("somebody else changed it just now; try again")));
        }
        write(&self.path, &self.text).map_err(failed)
    }
}

/// Writes the policy at `path` atomically. Owner, permissions and links to it stay.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    match path.exists() {
        true => files::rewrite(path, text.as_bytes()),
        false => files::replace(path, text.as_bytes()),
    }
}

/// The parts of the file that an edit needs. Rules stay untyped, so that no key is lost.
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

fn insert_rule_without_approval(
    text: &str,
    path: &Path,
    id: &str,
    method: &str,
    request_path: &str,
) -> Result<String, EditError> {
    let policy = Policy::parse(text, path)?;
    let gone = || EditError::RuleGone(id.to_owned());
    let position = |agent: &super::Agent| agent.rules.iter().position(|rule| &*rule.id == id);
    let (agent, at) =
        policy.agents().iter().find_map(|agent| Some((agent.name(), position(agent)?))).ok_or_else(gone)?;
    let before = parse_file(text)?;
    let entry = before.agents.iter().find(|entry| entry.name == agent.as_str()).ok_or_else(gone)?;
    let rule = entry.allow.get(at).ok_or_else(gone)?;
    if request_path.contains(['%', '{', '}', '[', ']', '*', '?', '\\', '!']) {
        return Err(EditError::ByHand(
            "the path holds characters that mean something in a pattern: add the rule by hand",
        ));
    }
    let mut new = rule.value.clone();
    new.remove("approve");
    new.insert("methods".to_owned(), json!([method]));
    new.insert("paths".to_owned(), json!([request_path]));
    let location = &rule.referenced;
    let edited = insert(text, location.line(), location.column(), &to_flow_style(&new))
        .ok_or(EditError::ByHand(UNSUPPORTED_LAYOUT))?;
    // The result must be the previous rules and the new one.
    Policy::parse(&edited, path)?;
    let after = parse_file(&edited)?;
    let rules_of = |file: &File, without: Option<usize>| -> Vec<(String, Vec<Map<String, Value>>)> {
        let rules = |entry: &Agent| {
            let own = entry.name == agent.as_str();
            let others =
                entry.allow.iter().enumerate().filter(|(number, _)| !own || Some(*number) != without);
            others.map(|(_, rule)| rule.value.clone()).collect()
        };
        file.agents.iter().map(|entry| (entry.name.clone(), rules(entry))).collect()
    };
    let inserted = after.agents.iter().find(|entry| entry.name == agent.as_str());
    let inserted = inserted.and_then(|entry| entry.allow.get(at)).map(|rule| &rule.value);
    if rules_of(&before, None) != rules_of(&after, Some(at)) || inserted != Some(&new) {
        return Err(EditError::ByHand(UNSUPPORTED_LAYOUT));
    }
    Ok(edited)
}

fn parse_file(text: &str) -> Result<File, EditError> {
    let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
    serde_yaml::from_str_with_options(text, options).map_err(|_| EditError::ByHand(UNSUPPORTED_LAYOUT))
}

/// A rule as one line of YAML, the host first.
fn to_flow_style(rule: &Map<String, Value>) -> String {
    let key = |key: &str| rule.get(key).map(|value| format!("{key}: {value}"));
    let first = ["host", "ports", "methods", "paths"];
    let others = rule.keys().map(String::as_str).filter(|name| !first.contains(name));
    let pairs: Vec<String> = first.into_iter().chain(others).filter_map(key).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// `text` with `rule` inserted before the list item at this line and column, both from 1.
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
        // Above the comments of the old rule.
        let is_comment = |line: &&&str| line.trim_start().starts_with('#');
        let above = lines.get(..line)?.iter().rev().take_while(is_comment).count();
        edited.insert(line - above, format!("{indent}- {rule}  {RULE_COMMENT}\n"));
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
    use crate::policy::access_request::AccessRequest;
    use crate::policy::evaluate::Decision;
    use crate::policy::evaluate::decide;
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

    fn edited(text: &str, id: &str) -> Result<String, EditError> {
        insert_rule_without_approval(text, Path::new("policy.yaml"), id, "POST", "/v1/charges")
    }

    fn needs_approval(text: &str, method: &str, path: &str) -> bool {
        let policy = Policy::parse(text, Path::new("policy.yaml")).unwrap();
        let target = Target { scheme: Scheme::Https, host: "pay.net".parse().unwrap(), port: 443 };
        let method: Method = method.parse().unwrap();
        let ask = AccessRequest { target: &target, method: &method, path, websocket: false, references: &[] };
        let agent = policy.agent(&"coder".parse().unwrap()).unwrap();
        match decide(&policy, agent, &ask, std::time::Instant::now(), |_| None) {
            Decision::NeedsApproval(_) => true,
            Decision::Allow(_) => false,
            Decision::Deny(rejection) => panic!("{rejection:?}"),
        }
    }

    #[test]
    fn rule_is_inserted_and_the_rest_stays() {
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
        assert!(
            needs_approval(POLICY, "POST", "/v1/charges") && !needs_approval(&new, "POST", "/v1/charges")
        );
        assert!(needs_approval(&new, "GET", "/v1/charges") && needs_approval(&new, "POST", "/v1/charges/1"));
    }

    #[test]
    fn flow_style_rules_are_edited() {
        let text = "version: 1\nagents:\n  - { name: coder, allow: [{ host: a.net }, { host: pay.net, approve: true }] }\n";
        let new = edited(text, "coder/2 (policy.yaml:3)").unwrap();
        assert!(
            !needs_approval(&new, "POST", "/v1/charges") && needs_approval(&new, "GET", "/v1/charges"),
            "{new}"
        );
    }

    #[test]
    fn unsupported_layout_or_missing_rule_is_refused() {
        assert!(matches!(edited(POLICY, "coder/2 (policy.yaml:12)"), Err(EditError::RuleGone(_))));
        assert!(matches!(edited("version: 2\nagents: []\n", "x"), Err(EditError::Load(_))));
        let apart = POLICY.replace("- host: pay.net", "-\n        host: pay.net");
        let error = edited(&apart, "coder/2 (policy.yaml:12)").unwrap_err();
        assert!(error.to_string().contains("by hand"), "{error}");
        let wild = insert_rule_without_approval(
            POLICY,
            Path::new("policy.yaml"),
            "coder/2 (policy.yaml:11)",
            "POST",
            "/v1/*",
        );
        assert!(matches!(wild, Err(EditError::ByHand(_))));
    }
}
