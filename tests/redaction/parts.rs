//! Answers in parts: a secret that comes byte by byte is never seen whole.

use super::*;

/// A server that keeps to `Range`, whatever it is called, over a resource that repeats the credential; `/part/N` gives
/// one byte although nobody asked for a part.
fn serve(received: &Received) -> Option<Response<Body>> {
    let resource = format!("the key is {}, keep it", secret_of(received));
    let part = |at: usize| {
        let byte = resource.as_bytes().get(at..at + 1).unwrap_or_default().to_vec();
        let mut answer = whole("text/plain", byte);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {at}-{at}/{}", resource.len());
        answer.headers_mut().insert("content-range", range.parse().unwrap());
        answer
    };
    if let Some(at) = received.path.strip_prefix("/part/") {
        return Some(part(at.parse().ok()?));
    }
    let asked = ["range", "request-range", "x-ms-range"].map(|name| received.header(name));
    let asked = asked.iter().find_map(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let mut answer = asked.map_or_else(|| whole("text/plain", resource.clone()), part);
    answer.headers_mut().insert("accept-ranges", HeaderValue::from_static("bytes"));
    answer.headers_mut().insert("etag", HeaderValue::from_static("\"one\""));
    Some(answer)
}

#[test]
fn a_resource_that_is_fetched_byte_by_byte_comes_whole_and_clean_each_time() {
    let world = world(serve);
    let script = r#"for header in "Range: bytes=" "Request-Range: bytes=" "x-ms-range: bytes="; do
        for at in 0 11 12 13 14; do
            curl -sS -i -H "Authorization: Bearer $API_KEY" -H "$header$at-$at" -H 'If-Range: "one"' "$0" || exit 1
        done
        curl -sS -H "Authorization: Bearer $API_KEY" -H "${header}0-5,11-20" "$0" || exit 1
    done"#;
    let url = world.url("/resource");
    let answer = finish(&mut world.home.run_agent(["sh", "-c", script, &url])).ok();
    is_clean(answer.as_bytes(), "parts");
    assert_eq!(answer.matches(&format!("the key is {MARKER}, keep it")).count(), 18, "{answer}");
    assert!(!answer.to_lowercase().contains("accept-ranges"), "nobody is led to ask for parts: {answer}");
    for received in world.api.received() {
        for name in ["range", "request-range", "x-ms-range", "if-range"] {
            assert_eq!(received.header(name), "", "{name} was passed on");
        }
    }
}

#[test]
fn a_part_that_nobody_asked_for_is_refused() {
    let world = world(serve);
    let (code, refusal) = world.refused(&[], &world.url("/part/11"));
    assert_eq!((code.as_str(), &refusal["error"]), ("502", &"unreadable_answer".into()));
    assert_eq!(world.home.audit()[0]["reason"], "unreadable_answer");
}

#[test]
fn a_head_says_no_more_than_the_answer_would() {
    let world = world(|received| {
        let mut answer = whole("text/plain", "");
        answer.headers_mut().insert("x-echo", secret_of(received).parse().unwrap());
        Some(answer)
    });
    let answer = world.curl(&["--head"], "/head").ok();
    is_clean(answer.as_bytes(), "head");
    assert!(answer.contains(MARKER) && answer.to_lowercase().contains("x-as-redacted: true"), "{answer}");
}
