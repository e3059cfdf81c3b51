//! The bridge for frameworks' plugins: one request as JSON, one answer as JSON, and never an exit without one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::Answer;
use crate::call::Injection;
use crate::call::Wanted;
use crate::call::describe_json_error;
use crate::types::body::Body;
use crate::types::name::Environment;

/// What a plugin asks for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    url: String,
    #[serde(default)]
    method: String,
    /// As which agent entry it speaks, if the policy has it.
    #[serde(default)]
    pub agent_id: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    /// The environment that it expects.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// The folder of its project.
    #[serde(default)]
    pub path: Option<PathBuf>,
    #[serde(default)]
    injections: BTreeMap<String, String>,
}

/// How it is answered.
#[derive(Debug, Serialize)]
struct Answered<'a> {
    status_code: u16,
    headers: BTreeMap<&'a str, String>,
    body: String,
    environment: &'a str,
}

impl Asked {
    /// Reads a request.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text)
            .map_err(|error| format!("the request cannot be understood: {}", describe_json_error(&error)))
    }

    /// The request that it describes, and the secrets that are to go into it.
    pub fn request(&self) -> Result<(Request<Body>, Vec<Injection>), String> {
        let wanted = Wanted {
            url: self.url.clone(),
            method: self.method.clone(),
            headers: self.headers.clone().into_iter().collect(),
            body: self.body.clone(),
        };
        wanted.spending(&self.injections).map_err(|wrong| wrong.to_string())
    }
}

/// What `answer` is told as.
pub fn answered(answer: &Answer, environment: &Environment) -> Value {
    let mut headers = BTreeMap::<&str, String>::new();
    for (name, value) in &answer.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|before| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    let data = Answered {
        status_code: answer.status,
        headers,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        environment: environment.as_str(),
    };
    json!({ "ok": true, "data": data })
}

/// What a failure is told as.
pub fn failed(why: &str) -> Value {
    json!({ "ok": false, "error": why })
}

/// What the state of things is told as.
pub fn status(environment: &Environment) -> Value {
    json!({ "ok": true, "data": { "environment": { "active": environment } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_doubled_or_of_another_kind_is_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"url": 7}"#,
            r#"{"url": "https://a.test", "url": "https://b.test"}"#,
            r#"{"url": "https://a.test", "token": "x"}"#,
            r#"{"url": "https://a.test", "headers": ["x"]}"#,
            r#"{"url": "https://a.test", "environment": "no such/thing"}"#,
        ] {
            assert!(Asked::read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told_without_what_was_given() {
        for text in [
            r#""sk_live""#,
            r#"{"url": "https://a.test", "headers": "sk_live"}"#,
            r#"{"url": "https://a.test", "injections": {"bearer": ["sk_live"]}, "body": 7}"#,
            r#"{"url": "https://a.test", "environment": "sk_live/x"}"#,
        ] {
            let wrong = Asked::read(text.as_bytes()).unwrap_err();
            assert!(!wrong.contains("live"), "{wrong}");
        }
    }

    #[test]
    fn headers_that_come_twice_are_joined() {
        let mut answer = Answer { status: 200, ..Answer::default() };
        answer.headers.append("x-a", "1".parse().unwrap());
        answer.headers.append("x-a", "2".parse().unwrap());
        let told = answered(&answer, &Environment::default());
        assert_eq!((&told["ok"], &told["data"]["headers"]["x-a"]), (&json!(true), &json!("1, 2")));
    }
}
