//! Partial responses: a secret fetched byte by byte is never seen as a whole.

use super::*;

/// A server that supports `Range` under any name, for a resource that echoes the credential; `/part/N` sends
/// one byte without a range request.
fn serve(received: &ReceivedRequest) -> Option<Response<Body>> {
    let resource = format!("the key is {}, keep it", secret_of(received));
    let part = |at: usize| {
        let byte = resource.as_bytes().get(at..at + 1).unwrap_or_default().to_vec();
        let mut answer = full_response("text/plain", byte);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {at}-{at}/{}", resource.len());
        answer.headers_mut().insert("content-range", range.parse().unwrap());
        answer
    };
    if let Some(at) = received.path.strip_prefix("/part/") {
        return Some(part(at.parse().ok()?));
    }
    let requested = ["range", "request-range", "x-ms-range"].map(|name| received.header(name));
    let requested =
        requested.iter().find_map(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let mut answer = requested.map_or_else(|| full_response("text/plain", resource.clone()), part);
    answer.headers_mut().insert("accept-ranges", HeaderValue::from_static("bytes"));
    answer.headers_mut().insert("etag", HeaderValue::from_static("\"one\""));
    Some(answer)
}

#[test]
fn range_requests_get_full_redacted_response() {
    let fixture = fixture(serve);
    let script = r#"for header in "Range: bytes=" "Request-Range: bytes=" "x-ms-range: bytes="; do
        for at in 0 11 12 13 14; do
            curl -sS -i -H "Authorization: Bearer $API_KEY" -H "$header$at-$at" -H 'If-Range: "one"' "$0" || exit 1
        done
        curl -sS -H "Authorization: Bearer $API_KEY" -H "${header}0-5,11-20" "$0" || exit 1
    done"#;
    let url = fixture.url("/resource");
    let answer = run(&mut fixture.home.run_agent(["sh", "-c", script, &url])).ok();
    assert_clean(answer.as_bytes(), "parts");
    assert_eq!(answer.matches(&format!("the key is {MARKER}, keep it")).count(), 18, "{answer}");
    assert!(!answer.to_lowercase().contains("accept-ranges"), "nobody is led to ask for parts: {answer}");
    for received in fixture.api.received() {
        for name in ["range", "request-range", "x-ms-range", "if-range"] {
            assert_eq!(received.header(name), "", "{name} was passed on");
        }
    }
}

#[test]
fn unrequested_partial_content_is_refused() {
    let fixture = fixture(serve);
    let (code, rejection) = fixture.rejected(&[], &fixture.url("/part/11"));
    assert_eq!((code.as_str(), &rejection["error"]), ("502", &"unreadable_answer".into()));
    assert_eq!(fixture.home.audit()[0]["reason"], "unreadable_answer");
}

#[test]
fn head_response_matches_get() {
    let fixture = fixture(|received| {
        let mut answer = full_response("text/plain", "");
        answer.headers_mut().insert("x-echo", secret_of(received).parse().unwrap());
        Some(answer)
    });
    let answer = fixture.curl(&["--head"], "/head").ok();
    assert_clean(answer.as_bytes(), "head");
    assert!(answer.contains(MARKER) && answer.to_lowercase().contains("x-as-redacted: true"), "{answer}");
}
