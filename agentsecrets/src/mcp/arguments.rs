//! Parses the arguments of tools strictly, so that mistakes are reported and not guessed. Errors repeat only
//! names of fields and locations, never values.

use std::collections::BTreeMap;

use http::Request;
use rmcp::model::JsonObject;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::Injection;
use crate::call::RequestSpec;
use crate::call::describe_json_error;
use crate::types::body::Body;

const MAX_BODY_BYTES: usize = 8 << 20;

/// The arguments of `api_call`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiCall {
    url: String,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    injections: Option<BTreeMap<String, String>>,
}

impl ApiCall {
    /// Parses the arguments.
    pub(super) fn parse(arguments: Option<JsonObject>) -> Result<Self, String> {
        let given = arguments.unwrap_or_default();
        for (field, is_right, right) in [
            ("url", Value::is_string as fn(&Value) -> bool, "a string"),
            ("method", is_text, "a string"),
            ("headers", is_texts, "an object of strings"),
            ("injections", is_texts, "an object of strings"),
        ] {
            if given.get(field).is_some_and(|value| !is_right(value)) {
                return Err(format!("`{field}` must be {right}"));
            }
        }
        serde_json::from_value(Value::Object(given)).map_err(|error| describe_json_error(&error))
    }

    /// Builds the request, and parses its injections.
    pub(super) fn build(self) -> Result<(Request<Body>, Vec<Injection>), String> {
        let body = match self.body {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            // Models write a JSON body as JSON.
            Some(value) => Some(value.to_string()),
        };
        if body.as_ref().is_some_and(|body| body.len() > MAX_BODY_BYTES) {
            return Err(format!("`body` is larger than {} MiB", MAX_BODY_BYTES >> 20));
        }
        let spec = RequestSpec {
            url: self.url,
            method: self.method.unwrap_or_default(),
            headers: self.headers.unwrap_or_default().into_iter().collect(),
            body,
        };
        spec.build_with_injections(&self.injections.unwrap_or_default()).map_err(|error| error.to_string())
    }

    /// The JSON Schema of the arguments.
    pub(super) fn schema() -> JsonObject {
        let texts = |about: &str| json!({"type": "object", "additionalProperties": {"type": "string"}, "description": about});
        object(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["url"],
            "properties": {
                "url": {
                    "type": "string",
                    "description": "The whole URL, beginning with https://. It holds no credential.",
                },
                "method": {
                    "type": "string",
                    "default": "GET",
                    "description": "The HTTP method.",
                },
                "headers": texts(
                    "Headers that are no credentials. A value may hold the placeholder AS_SECRET_<NAME> where the \
                     policy lets one stand; Host, Content-Length and their kind are set for you.",
                ),
                "body": {
                    "type": "string",
                    "description": "The body. It is sent as JSON if it is JSON, else as a form, unless a \
                                    Content-Type says otherwise.",
                },
                "injections": texts(
                    "Where secrets go: an object from place to the NAME of a secret, never its value. Places: \
                     \"bearer\" and \"basic\" (the Authorization header), \"header:X-Api-Key\", \
                     \"query:api_key\", \"body:a.b\" (a path in the JSON body), \"form:field\". Example: \
                     {\"bearer\": \"STRIPE_KEY\"}. Names are those of list_secrets.",
                ),
            },
        }))
    }
}

fn is_text(value: &Value) -> bool {
    value.is_string() || value.is_null()
}

fn is_texts(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(|map| map.values().all(Value::is_string))
}

/// The object in `value`.
pub(super) fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<(Request<Body>, Vec<Injection>), String> {
        ApiCall::parse(Some(object(value)))?.build()
    }

    #[test]
    fn body_is_text_or_json() {
        for (body, length) in [(json!("a=b"), "3"), (json!({"a": 1}), "7"), (json!([1]), "3")] {
            let (request, _) =
                read(json!({"url": "https://api.test/", "method": "post", "body": body})).unwrap();
            assert_eq!(request.headers()["content-length"], length);
        }
        let (request, injections) = read(
            json!({"url": "https://api.test/", "body": null, "headers": null, "injections": {"bearer": "K"}}),
        )
        .unwrap();
        assert!(!request.headers().contains_key("content-length") && injections.len() == 1);
    }

    #[test]
    fn error_does_not_repeat_input() {
        let url = "https://api.test/";
        for (given, expected) in [
            (json!({}), "missing field `url`"),
            (json!({"url": 7}), "`url` must be a string"),
            (json!({"url": url, "method": ["sk_live"]}), "`method` must be a string"),
            (json!({"url": url, "headers": "sk_live"}), "`headers` must be an object of strings"),
            (json!({"url": url, "injections": {"bearer": {"sk_live": 1}}}), "`injections` must be"),
            (json!({"url": url, "injections": ["bearer"]}), "`injections` must be"),
            (
                json!({"url": url, "injections": {"bearer": "sk-live"}}),
                "injections: 'bearer': it must be given",
            ),
            (json!({"url": url, "injection": {"bearer": "K"}}), "unknown field `injection`"),
            (json!({"url": url, "body": "x".repeat(MAX_BODY_BYTES + 1)}), "`body` is larger than 8 MiB"),
        ] {
            let error = read(given).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("live"), "{error}");
        }
    }
}
