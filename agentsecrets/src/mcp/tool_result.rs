//! What a model is told: the answer as text, and after a refusal what to do, so that it neither tries again in
//! vain nor looks for a way around.

use http::header::{CONTENT_TYPE, ETAG, HeaderName, LINK, LOCATION, RETRY_AFTER};
use rmcp::model::{CallToolResult, ContentBlock};

use crate::call::Answer;
use crate::types::failure::Failure;
use crate::types::rejection::{ErrorCode, Rejection};

/// Headers that a model needs to go on.
const USEFUL: [HeaderName; 5] = [CONTENT_TYPE, ETAG, LINK, LOCATION, RETRY_AFTER];

/// What came of a request.
pub(super) fn answer(answer: &Answer) -> CallToolResult {
    if answer.status == 0 {
        return answer.failure.as_ref().map_or_else(|| failed("there is no answer"), failure);
    }
    let text = format!("HTTP {}\n\n{}", answer.status, body(answer));
    if let Some(refusal) = &answer.refusal {
        return CallToolResult::error(texts([text, advice(refusal).to_owned()]));
    }
    let after = notes(answer);
    match &answer.failure {
        Some(failure) => CallToolResult::error(texts([text, failure.what().to_owned(), after])),
        None => CallToolResult::success(texts([text, after])),
    }
}

/// What the caller gave cannot be used.
pub(super) fn wrong(why: &str) -> CallToolResult {
    failed(&format!("{}: {why}", ErrorCode::BadRequest.as_str()))
}

/// What went wrong before there was an answer.
pub(super) fn failure(failure: &Failure) -> CallToolResult {
    let hint = failure.advice().map(str::to_owned).unwrap_or_default();
    CallToolResult::error(texts([failure.what().to_owned(), hint]))
}

fn failed(what: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(what)])
}

fn texts<const N: usize>(texts: [String; N]) -> Vec<ContentBlock> {
    texts.into_iter().filter(|text| !text.is_empty()).map(ContentBlock::text).collect()
}

/// The body, if it is text.
fn body(answer: &Answer) -> String {
    match std::str::from_utf8(&answer.body) {
        Ok(text) => text.to_owned(),
        // Only its last character was cut.
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(&answer.body).into_owned(),
        Err(_) => format!("[{} bytes that are no text]", answer.body.len()),
    }
}

fn notes(answer: &Answer) -> String {
    let mut lines: Vec<String> = Vec::new();
    for name in &USEFUL {
        for value in answer.headers.get_all(name) {
            lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    if answer.is_cut {
        let length = answer.body.len();
        lines.push(format!(
            "The answer is longer and was broken off after {length} bytes: ask for less, such as one page."
        ));
    }
    if answer.is_redacted() {
        lines
            .push("[REDACTED_BY_AGENTSECRETS] stands where a secret was taken out of the answer.".to_owned());
    }
    lines.join("\n")
}

/// What to do about a refusal.
fn advice(refusal: &Rejection) -> &'static str {
    match refusal.code {
        slug if slug.retryable() => {
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
        slug if slug.status() == 403 => {
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
    fn an_answer_is_told_with_what_is_needed_to_go_on() {
        let mut said = Answer { status: 201, body: b"{}".to_vec(), ..Answer::default() };
        said.headers.insert(LOCATION, "/next".parse().unwrap());
        said.headers.insert("set-cookie", "sid=1".parse().unwrap());
        assert_eq!(text(&answer(&said)), (false, vec!["HTTP 201\n\n{}".into(), "location: /next".into()]));
        said.body = vec![0x89, b'P', b'N', b'G'];
        assert_eq!(text(&answer(&said)).1[0], "HTTP 201\n\n[4 bytes that are no text]");
        (said.body, said.is_cut) = ("aé".as_bytes()[..2].to_vec(), true);
        let (_, texts) = text(&answer(&said));
        assert!(texts[0].starts_with("HTTP 201\n\na") && texts[1].contains("broken off after 2 bytes"));
    }

    #[test]
    fn a_refusal_is_an_error_that_says_whether_to_try_again() {
        for (slug, what) in [
            (ErrorCode::PolicyDenied, "do not repeat it"),
            (ErrorCode::RateLimited, "may succeed later"),
            (ErrorCode::UpstreamUnavailable, "may succeed later"),
            (ErrorCode::BadRequest, "Correct what"),
            (ErrorCode::SecretMissing, "secrets set NAME"),
            (ErrorCode::StoreUnavailable, "agentsecrets doctor"),
        ] {
            let refusal = Rejection::new(slug, "api.test", "why");
            let (status, refusal) = (slug.status(), Some(refusal));
            let (is_error, texts) = text(&answer(&Answer { status, refusal, ..Answer::default() }));
            assert!(is_error && texts[0].starts_with("HTTP ") && texts[1].contains(what), "{texts:?}");
        }
    }
}
