//! Prints a pending request. Text from the agent cannot deceive: control, bidirectional and invisible
//! characters are escaped, and every line of a body has a prefix.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::approval::files::{StoredRequest, StoredSecretUse, unix_seconds};
use crate::audit::visible;

/// The request as a few lines of text; `whole` adds query values, headers and body.
pub(super) fn text(question: &StoredRequest, whole: bool) -> String {
    let url = if whole { question.url.clone() } else { mask_query(&question.url) };
    let left = question.waits_until - unix_seconds();
    let state = match left {
        1.. => format!("waits {left} s"),
        _ => "timed out; the agent may repeat it".to_owned(),
    };
    let program = &question.program;
    let mut text = format!(
        "{}  {} {}\n    agent '{}': {} (process {}, uid {}, cgroup {}), session {}\n    {}; {}; {state}\n    held by {}",
        question.id,
        visible(&question.method),
        visible(&url),
        visible(&question.agent),
        visible(&program.exe),
        program.pid,
        program.uid,
        visible(&program.cgroup),
        visible(&question.session),
        secrets_summary(&question.secrets),
        body_summary(question),
        visible(&question.rule),
    );
    if whole {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n    SHA-256 {}", question.digest);
        for (name, value) in &question.headers {
            let _ = write!(text, "\n    > {}: {}", visible(name), visible(value));
        }
        for line in question.body.lines() {
            let _ = write!(text, "\n    | {}", visible(line));
        }
        if question.body_is_partial {
            text.push_str("\n    (this is not all of the body, or not its exact bytes)");
        }
    }
    text
}

/// The request as JSON; `whole` adds query values, headers and body.
pub(super) fn json(question: &StoredRequest, whole: bool) -> Value {
    let mut value = json!({
        "id": question.id,
        "method": question.method,
        "url": if whole { question.url.clone() } else { mask_query(&question.url) },
        "agent": question.agent,
        "session": question.session,
        "program": question.program,
        "secrets": question.secrets,
        "rule": question.rule,
        "websocket": question.websocket,
        "body_bytes": question.body_bytes,
        "digest": question.digest,
        "asked": question.created,
        "waits_seconds": (question.waits_until - unix_seconds()).max(0),
        "session_covers": question.scope,
    });
    if let Some(object) = value.as_object_mut().filter(|_| whole) {
        object.insert("headers".to_owned(), json!(question.headers));
        object.insert("body".to_owned(), json!(question.body));
        object.insert("body_is_partial".to_owned(), json!(question.body_is_partial));
    }
    value
}

/// `url` without the values of its query.
pub(super) fn mask_query(url: &str) -> String {
    let Some((url, query)) = url.split_once('?') else { return url.to_owned() };
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=…"),
        None => "…".to_owned(),
    });
    format!("{url}?{}", masked.collect::<Vec<_>>().join("&"))
}

/// The secrets that the request would use.
pub(super) fn secrets_summary(secrets: &[StoredSecretUse]) -> String {
    let one = |spent: &StoredSecretUse| match spent.place.as_str() {
        "" => spent.name.to_string(),
        place => format!("{} ({place})", spent.name),
    };
    match secrets {
        [] => "spends no secret".to_owned(),
        secrets => format!("spends {}", secrets.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

fn body_summary(question: &StoredRequest) -> String {
    match (question.websocket, question.body_bytes) {
        (true, _) => "opens a WebSocket, whose messages need no approval".to_owned(),
        (false, 0) => "no body".to_owned(),
        (false, bytes) => format!("a body of {bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_masked() {
        assert_eq!(mask_query("https://a.net/x?k=v&l=m=n&bare"), "https://a.net/x?k=…&l=…&…");
        assert_eq!(mask_query("https://a.net/x"), "https://a.net/x");
    }
}
