//! The endpoint's `X-AS-Inject-…` headers on intercepted requests.

use super::*;
use crate::end_to_end::SECRET;
use crate::support::endpoints::ReceivedRequest;

/// Whether the server got the expected request.
type Check = fn(&ReceivedRequest) -> bool;

#[test]
fn inject_headers_are_applied_and_stripped() {
    let cases: &[(&[&str], Check)] = &[
        (&["X-AS-Inject-Bearer: API_KEY"], |got| got.header("authorization") == format!("Bearer {SECRET}")),
        (&["X-AS-Inject-Basic: PAIR"], |got| got.header("authorization") == "Basic Ym9iOmh1bnRlcjJodW50ZXIy"),
        (&["X-AS-Inject-Header-X-Api-Key: API_KEY"], |got| got.header("x-api-key") == SECRET),
        (&["X-AS-Inject-Query-apiKey: API_KEY"], |got| got.path == format!("/echo?a=b&apiKey={SECRET}")),
        (&["X-AS-Inject-Body-auth-clientSecret: API_KEY", JSON_HEADER], |got| {
            got.body == format!(r#"{{"x":1,"auth":{{"clientSecret":"{SECRET}"}}}}"#)
        }),
        (
            &["X-AS-Inject-Form-Client_Secret: API_KEY", "Content-Type: application/x-www-form-urlencoded"],
            |got| got.body == format!(r#"{{"x":1}}&Client_Secret={SECRET}"#),
        ),
        (&["X-AS-Agent-ID: me"], |got| got.body == r#"{"x":1}"#),
    ];
    let fixture = fixture("secrets: [API_KEY, PAIR]\nplaces: [auth, query, json, form]");
    for (headers, check) in cases {
        let mut arguments = vec!["--http1.1", "-d", r#"{"x":1}"#];
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        let shown = curl(&fixture, &arguments, "/echo?a=b").ok();
        let got = fixture.api.received().pop().unwrap();
        assert!(check(&got), "{headers:?}: {got:#?}");
        assert!(!got.headers.keys().any(|name| name.starts_with("x-as-")), "{got:#?}");
        assert_no_value(&fixture, &shown);
    }
    // HTTP/2 does not carry the case.
    curl(&fixture, &["--http2", "-H", "X-AS-Inject-Query-apiKey: API_KEY"], "/echo").ok();
    assert_eq!(fixture.api.received().pop().unwrap().path, format!("/echo?apikey={SECRET}"));
}

#[test]
fn inject_header_beyond_rule_is_refused() {
    let fixture = fixture("secrets: [API_KEY]\nplaces: [auth, 'json:a.b']");
    for (header, code, message) in [
        ("X-AS-Inject-Bearer: PAIR", "403", "may not spend 'PAIR'"),
        ("X-AS-Inject-Query-k: API_KEY", "403", "X-AS-Inject in query"),
        ("X-AS-Inject-Body-a: API_KEY", "403", "X-AS-Inject in json"),
        ("X-AS-Inject-Header-X-Note: API_KEY", "403", "X-AS-Inject in header"),
        ("X-AS-Inject-Header-Host: API_KEY", "400", "cannot carry a secret"),
        ("X-AS-Agent-Token: t", "403", "token"),
        ("X-AS-Inject-Token: API_KEY", "400", "there is no such style"),
        ("X-AS-Inject-Bearer: sk_live-pasted-by-mistake", "400", "must be the name of a secret"),
    ] {
        let (status, sentence) =
            curl_rejected(&fixture, &["-H", JSON_HEADER, "-d", "{}", "-H", header], "/echo");
        assert!(status == code && sentence.contains(message), "{header}: {status} {sentence}");
        assert!(!sentence.contains("mistake"), "{sentence}");
    }
    let two = ["-H", "X-AS-Inject-Bearer: API_KEY", "-H", "X-AS-Inject-Basic: API_KEY"];
    assert!(curl_rejected(&fixture, &two, "/echo").1.contains("two secrets"));
}

#[test]
fn header_case_is_kept_per_request() {
    let fixture = fixture("secrets: [API_KEY]\nplaces: [query]");
    let (first, second, third) = (fixture.url("/echo?1"), fixture.url("/echo?2"), fixture.url("/echo?3"));
    let (one, two) = ("X-AS-Inject-Query-One: API_KEY", "X-AS-Inject-Query-tWo: API_KEY");
    let arguments = [
        "curl",
        "-sS",
        "--http1.1",
        "-H",
        one,
        &first,
        "--next",
        "-sS",
        &second,
        "--next",
        "-sS",
        "-H",
        two,
        &third,
    ];
    run(&mut fixture.home.run_agent(arguments)).ok();
    let paths: Vec<String> = fixture.api.received().into_iter().map(|got| got.path).collect();
    assert_eq!(
        paths,
        [format!("/echo?1&One={SECRET}"), "/echo?2".to_owned(), format!("/echo?3&tWo={SECRET}")]
    );
}
