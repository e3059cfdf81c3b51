//! Tool results for the model: the response as text, and after a rejection advice, so that the model neither
//! repeats the request in vain nor looks for a way around the policy.

use http::header::{CONTENT_TYPE, ETAG, HeaderName, LINK, LOCATION, RETRY_AFTER};
use rmcp::model::{CallToolResult, ContentBlock};

use crate::call::CallResponse;
use crate::types::failure::Failure;
use crate::types::rejection::{ErrorCode, Rejection};

/// Response headers that a model may need.
const USEFUL: [HeaderName; 5] = [CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER];

/// The result of a response.
pub(super) fn response(answer: &CallResponse) -> CallToolResult {
    if answer.status == 0 {
        return answer.failure.as_ref().map_or_else(|| failed("there is no response"), failure);
    }
    let text = format!("HTTP {}\n\n{}", answer.status, body(answer));
    if let Some(rejection) = &answer.rejection {
        return CallToolResult::error(texts([text, advice(rejection).to_owned()]));
    }
    let after = notes(answer);
    match &answer.failure {
        Some(failure) => CallToolResult::error(texts([text, failure.message().to_owned(), after])),
        None => CallToolResult::success(texts([text, after])),
    }
}

/// The result for invalid arguments.
pub(super) fn bad_request(reason: &str) -> CallToolResult {
    failed(&format!("{}: {reason}", ErrorCode::BadRequest.as_str()))
}

/// The result for a failure without a response.
pub(super) fn failure(failure: &Failure) -> CallToolResult {
    let hint = failure.advice().map(str::to_owned).unwrap_or_default();
    CallToolResult::error(texts([failure.message().to_owned(), hint]))
}

fn failed(what: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(what)])
}

fn texts<const N: usize>(texts: [String; N]) -> Vec<ContentBlock> {
    texts.into_iter().filter(|text| !text.is_empty()).map(ContentBlock::text).collect()
}

/// The body, if it is text.
fn body(answer: &CallResponse) -> String {
    match std::str::from_utf8(&answer.body) {
        Ok(text) => text.to_owned(),
        // Only the last character was cut.
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(&answer.body).into_owned(),
        Err(_) => format!("[{} bytes that are not text]", answer.body.len()),
    }
}

fn notes(answer: &CallResponse) -> String {
    let mut lines: Vec<String> = Vec::new();
    for name in &USEFUL {
        for value in answer.headers.get_all(name) {
            lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    if answer.is_truncated {
        let length = answer.body.len();
        lines.push(format!(
            "The response is longer and was cut off after {length} bytes: request less, such as one page."
        ));
    }
    if answer.is_redacted() {
        lines
            .push("[REDACTED_BY_AGENTSECRETS] marks a secret that was removed from the response.".to_owned());
    }
    lines.join("\n")
}

/// The advice after a rejection.
fn advice(rejection: &Rejection) -> &'static str {
    match rejection.code {
        code if code.retryable() => {
            "AgentSecrets has no answer from the server. The same request may succeed later: wait, then repeat it \
             once. If it fails again, tell the user."
        }
        ErrorCode::BadRequest | ErrorCode::TargetMismatch | ErrorCode::BodyTooLarge => {
            "AgentSecrets cannot send this request as it is; nothing was sent. Correct what the message names."
        }
        ErrorCode::SecretMissing => {
            "Nothing was sent. The user must store this secret with `agentsecrets secrets set NAME`; never ask \
             them for its value."
        }
        code if code.status() == 403 => {
            "AgentSecrets refused this request and sent nothing. It will be refused again: do not repeat it, do \
             not look for another way to the same end, and do not ask for the secret's value. Tell the user what \
             was refused and why; only they can change the policy."
        }
        _ => "AgentSecrets cannot answer this now. Tell the user; `agentsecrets doctor` says what to do.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: &CallToolResult) -> (bool, Vec<String>) {
        let value = serde_json::to_value(result).unwrap();
        let texts = value["content"].as_array().unwrap().iter();
        let texts = texts.map(|block| block["text"].as_str().unwrap().to_owned()).collect();
        (value["isError"].as_bool().unwrap(), texts)
    }

    #[test]
    fn response_has_useful_headers() {
        let mut reply = CallResponse { status: 201, body: b"{}".to_vec(), ..CallResponse::default() };
        reply.headers.insert(LOCATION, "/next".parse().unwrap());
        reply.headers.insert("set-cookie", "sid=1".parse().unwrap());
        assert_eq!(text(&response(&reply)), (false, vec!["HTTP 201\n\n{}".into(), "location: /next".into()]));
        reply.body = vec![0x89, b'P', b'N', b'G'];
        assert_eq!(text(&response(&reply)).1[0], "HTTP 201\n\n[4 bytes that are not text]");
        (reply.body, reply.is_truncated) = ("aé".as_bytes()[..2].to_vec(), true);
        let (_, texts) = text(&response(&reply));
        assert!(texts[0].starts_with("HTTP 201\n\na") && texts[1].contains("cut off after 2 bytes"));
    }

    #[test]
    fn rejection_says_whether_to_retry() {
        for (code, what) in [
            (ErrorCode::PolicyDenied, "do not repeat it"),
            (ErrorCode::RateLimited, "may succeed later"),
            (ErrorCode::UpstreamUnavailable, "may succeed later"),
            (ErrorCode::BadRequest, "Correct what"),
            (ErrorCode::SecretMissing, "secrets set NAME"),
            (ErrorCode::StoreUnavailable, "agentsecrets doctor"),
        ] {
            let rejection = Rejection::new(code, "why").with_domain("api.test");
            let (status, rejection) = (code.status(), Some(rejection));
            let (is_error, texts) =
                text(&response(&CallResponse { status, rejection, ..CallResponse::default() }));
            assert!(is_error && texts[0].starts_with("HTTP ") && texts[1].contains(what), "{texts:?}");
        }
    }
}
