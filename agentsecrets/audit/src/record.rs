//! The audit record. Its fields and their order are part of the interface. No field can hold a secret's
//! value: a URL is recorded without the values of its query.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::escape::tidy;
use agentsecrets_types::name::{AgentName, Environment};
use agentsecrets_types::process_facts::ProcessFacts;
use agentsecrets_types::target::Target;

/// The rule that an administrative act is recorded under; no agent's rule has this form.
pub(super) const ADMINISTRATIVE: &str = "administrative";
/// The longest URL kept, in bytes.
const MAX_URL_LEN: usize = 4096;
/// The longest other text kept, in bytes.
const MAX_TEXT_LEN: usize = 1024;

/// One line of the log, but for its hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique; in order of time.
    pub id: String,
    /// When the request came, in RFC 3339.
    pub timestamp: String,
    /// The environment whose secrets were meant.
    pub environment: String,
    /// The agent entry.
    pub agent_id: Option<String>,
    /// The proof of the caller's identity.
    pub identity_level: IdentityLevel,
    /// The names of the secrets spent, or asked for.
    pub secret_keys: Vec<String>,
    /// The method.
    pub method: String,
    /// Scheme, authority, path, and the names of query parameters.
    pub target_url: String,
    /// The host.
    pub domain: String,
    /// The injection styles, such as `bearer`.
    pub auth_styles: Vec<String>,
    /// The status that the agent was answered with.
    pub status_code: Option<u16>,
    /// The outcome.
    pub status: Status,
    /// Why, where it did not end well.
    pub reason: Option<String>,
    /// Whether a secret was taken out of the answer.
    pub redacted: bool,
    /// The duration in milliseconds.
    pub duration_ms: Option<u64>,
    /// The agent token used.
    pub token_id: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// The calling process, as the kernel proves it.
    pub process: Option<ProcessFacts>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Notes, such as placeholders that were quoted and left unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The hash of the line before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prev_hash: String,
    /// The keyed hash of this line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It is about to spend a secret: on disk only, until its outcome follows.
    Intent,
    /// It is under way, in a process that lives: in lists only.
    Pending,
    /// It was answered by the upstream.
    Ok,
    /// We refused it.
    Blocked,
    /// It failed.
    Error,
    /// It was broken off.
    Aborted,
}

impl Status {
    /// As records have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "INTENT",
            Self::Pending => "PENDING",
            Self::Ok => "OK",
            Self::Blocked => "BLOCKED",
            Self::Error => "ERROR",
            Self::Aborted => "ABORTED",
        }
    }
}

/// The proof of a caller's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityLevel {
    /// Not at all.
    #[default]
    Anonymous,
    /// By what it says.
    Declared,
    /// By a token.
    Issued,
    /// By the kernel.
    Kernel,
}

/// The facts that are known when a record opens; the rest is set as it becomes known.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The environment whose secrets are meant.
    pub environment: Environment,
    /// The agent entry, if it is known.
    pub agent_id: Option<AgentName>,
    /// The proof of the caller's identity.
    pub identity_level: IdentityLevel,
    /// The calling process.
    pub process: Option<ProcessFacts>,
    /// The session.
    pub session_id: Option<Arc<str>>,
    /// The agent token's id.
    pub token_id: Option<Arc<str>>,
    /// The method; empty where it never came to a request.
    pub method: String,
    /// As `target_url` makes it; empty where it never came to a request.
    pub target_url: String,
    /// The host; empty where none is known.
    pub domain: String,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `Ok`, `Blocked`, `Error` or `Aborted`.
    pub status: Status,
    /// The status that the agent was answered with.
    pub status_code: Option<u16>,
    /// A slug or a sentence, without values.
    pub reason: Option<String>,
    /// Whether a secret was taken out of the answer.
    pub redacted: bool,
}

/// The URL of a request as a record may keep it: `path_and_query` as the agent sent it, its query
/// reduced to the names of its parameters. What has no name is dropped, since it may be a value.
pub fn target_url(target: &Target, path_and_query: &str) -> String {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let path = path.split('#').next().unwrap_or_default();
    let mut url = format!("{target}{path}");
    let names = query.split(['&', ';']).filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
    for (n, name) in names.enumerate() {
        url.push(if n == 0 { '?' } else { '&' });
        url.push_str(name);
        url.push('=');
    }
    url
}

impl Record {
    /// A record that has just opened.
    pub(super) fn open(id: String, timestamp: String, opening: Opening) -> Self {
        Self {
            id,
            timestamp,
            environment: opening.environment.to_string(),
            agent_id: opening.agent_id.map(|agent| agent.to_string()),
            identity_level: opening.identity_level,
            secret_keys: Vec::new(),
            method: opening.method,
            target_url: opening.target_url,
            domain: opening.domain,
            auth_styles: Vec::new(),
            status_code: None,
            status: Status::Intent,
            reason: None,
            redacted: false,
            duration_ms: None,
            token_id: opening.token_id.map(|token| token.to_string()),
            session_id: opening.session_id.map(|session| session.to_string()),
            process: opening.process,
            rule: None,
            notes: Vec::new(),
            prev_hash: String::new(),
            hash: String::new(),
        }
    }

    /// Whether it records what a person did to us, not what an agent asked of a server.
    pub fn is_administrative(&self) -> bool {
        self.rule.as_deref() == Some(ADMINISTRATIVE)
    }

    /// Makes text from outside safe to keep and to show: bounded, and without characters that deceive.
    pub(super) fn clean(&mut self) {
        let texts =
            [&mut self.id, &mut self.timestamp, &mut self.environment, &mut self.method, &mut self.domain];
        let optional =
            [&mut self.agent_id, &mut self.reason, &mut self.token_id, &mut self.session_id, &mut self.rule];
        let lists = self.secret_keys.iter_mut().chain(&mut self.auth_styles).chain(&mut self.notes);
        for text in texts.into_iter().chain(optional.into_iter().flatten()).chain(lists) {
            tidy(text, MAX_TEXT_LEN);
        }
        tidy(&mut self.target_url, MAX_URL_LEN);
        if let Some(process) = &mut self.process {
            tidy(&mut process.exe, MAX_URL_LEN);
            tidy(&mut process.cgroup, MAX_URL_LEN);
            tidy(&mut process.sha256, MAX_TEXT_LEN);
            let (container, pod) = (&mut process.container, &mut process.pod);
            for text in [container, pod, &mut process.image, &mut process.image_id].into_iter().flatten() {
                tidy(text, MAX_TEXT_LEN);
            }
            process.spiffe.iter_mut().for_each(|id| tidy(id, MAX_URL_LEN));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentsecrets_types::target::Scheme;

    #[test]
    fn a_url_keeps_the_names_of_its_parameters_and_nothing_they_hold() {
        let target = Target { scheme: Scheme::Https, host: "api.example.com".parse().unwrap(), port: 8443 };
        let kept = |text| target_url(&target, text);
        assert_eq!(kept("/v1/a?key=s3cret&page=2"), "https://api.example.com:8443/v1/a?key=&page=");
        assert_eq!(kept("/v1?s3cret&a=1=2;b=3"), "https://api.example.com:8443/v1?a=&b=");
        assert_eq!(kept("/v1#s3cret"), "https://api.example.com:8443/v1");
    }
}
