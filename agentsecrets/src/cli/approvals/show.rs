//! A held request as a person sees it. What the agent said of it cannot deceive: control, direction and
//! invisible characters are written out, and no line of a body looks like one of ours.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::approval::entry::{Question, Spent, seconds};
use crate::audit::visible;

/// On a few lines.
pub(super) fn text(question: &Question, whole: bool) -> String {
    let url = if whole { question.url.clone() } else { masked(&question.url) };
    let left = question.waits_until - seconds();
    let state = match left {
        1.. => format!("waits {left} s"),
        _ => "was told to come again".to_owned(),
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
        secrets(&question.secrets),
        body(question),
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

/// The same for programs.
pub(super) fn json(question: &Question, whole: bool) -> Value {
    let mut value = json!({
        "id": question.id,
        "method": question.method,
        "url": if whole { question.url.clone() } else { masked(&question.url) },
        "agent": question.agent,
        "session": question.session,
        "program": question.program,
        "secrets": question.secrets,
        "rule": question.rule,
        "websocket": question.websocket,
        "body_bytes": question.body_bytes,
        "digest": question.digest,
        "asked": question.asked,
        "waits_seconds": (question.waits_until - seconds()).max(0),
        "session_covers": question.same,
    });
    if let Some(object) = value.as_object_mut().filter(|_| whole) {
        object.insert("headers".to_owned(), json!(question.headers));
        object.insert("body".to_owned(), json!(question.body));
        object.insert("body_is_partial".to_owned(), json!(question.body_is_partial));
    }
    value
}

/// A URL without what stands behind its question mark's equal signs.
pub(super) fn masked(url: &str) -> String {
    let Some((url, query)) = url.split_once('?') else { return url.to_owned() };
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=…"),
        None => "…".to_owned(),
    });
    format!("{url}?{}", masked.collect::<Vec<_>>().join("&"))
}

/// Which secrets it would spend.
pub(super) fn secrets(secrets: &[Spent]) -> String {
    let one = |spent: &Spent| match spent.place.as_str() {
        "" => spent.name.to_string(),
        place => format!("{} ({place})", spent.name),
    };
    match secrets {
        [] => "spends no secret".to_owned(),
        secrets => format!("spends {}", secrets.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

fn body(question: &Question) -> String {
    match (question.websocket, question.body_bytes) {
        (true, _) => "opens a WebSocket, whose messages you are not asked about".to_owned(),
        (false, 0) => "no body".to_owned(),
        (false, bytes) => format!("a body of {bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_shown_by_its_names() {
        assert_eq!(masked("https://a.net/x?k=v&l=m=n&bare"), "https://a.net/x?k=…&l=…&…");
        assert_eq!(masked("https://a.net/x"), "https://a.net/x");
    }
}
