//! The bridge for frameworks' plugins: one JSON request, one JSON response, also after a failure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::CallResponse;
use crate::call::Injection;
use crate::call::RequestSpec;
use crate::call::describe_json_error;
use crate::types::body::Body;
use crate::types::name::Environment;

/// The request of a plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BridgeRequest {
    url: String,
    #[serde(default)]
    method: String,
    /// The agent entry, if the policy has it.
    #[serde(default)]
    pub(crate) agent_id: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    /// The environment that the plugin expects.
    #[serde(default)]
    pub(crate) environment: Option<Environment>,
    /// The folder of the plugin's project.
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
    #[serde(default)]
    injections: BTreeMap<String, String>,
}

/// The data of a successful response.
#[derive(Debug, Serialize)]
struct BridgeResponse<'a> {
    status_code: u16,
    headers: BTreeMap<&'a str, String>,
    body: String,
    environment: &'a str,
}

impl BridgeRequest {
    /// Parses a request.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text)
            .map_err(|error| format!("the request is not valid: {}", describe_json_error(&error)))
    }

    /// Builds the request, and parses its injections.
    pub(crate) fn build(&self) -> Result<(Request<Body>, Vec<Injection>), String> {
        let spec = RequestSpec {
            url: self.url.clone(),
            method: self.method.clone(),
            headers: self.headers.clone().into_iter().collect(),
            body: self.body.clone(),
        };
        spec.build_with_injections(&self.injections).map_err(|error| error.to_string())
    }
}

/// The JSON of a response.
pub(crate) fn response(answer: &CallResponse, environment: &Environment) -> Value {
    let mut headers = BTreeMap::<&str, String>::new();
    for (name, value) in &answer.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str())
            .and_modify(|before| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    let data = BridgeResponse {
        status_code: answer.status,
        headers,
        body: String::from_utf8_lossy(&answer.body).into_owned(),
        environment: environment.as_str(),
    };
    json!({ "ok": true, "data": data })
}

/// The JSON of a failure.
pub(crate) fn failure(reason: &str) -> Value {
    json!({ "ok": false, "error": reason })
}

/// The JSON of the status request.
pub(crate) fn status(environment: &Environment) -> Value {
    json!({ "ok": true, "data": { "environment": { "active": environment } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_request_is_refused() {
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
            assert!(BridgeRequest::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn error_does_not_repeat_input() {
        for text in [
            r#""sk_live""#,
            r#"{"url": "https://a.test", "headers": "sk_live"}"#,
            r#"{"url": "https://a.test", "injections": {"bearer": ["sk_live"]}, "body": 7}"#,
            r#"{"url": "https://a.test", "environment": "sk_live/x"}"#,
        ] {
            let error = BridgeRequest::parse(text.as_bytes()).unwrap_err();
            assert!(!error.contains("live"), "{error}");
        }
    }

    #[test]
    fn repeated_headers_are_joined() {
        let mut answer = CallResponse { status: 200, ..CallResponse::default() };
        answer.headers.append("x-a", "1".parse().unwrap());
        answer.headers.append("x-a", "2".parse().unwrap());
        let json = response(&answer, &Environment::default());
        assert_eq!((&json["ok"], &json["data"]["headers"]["x-a"]), (&json!(true), &json!("1, 2")));
    }
}
