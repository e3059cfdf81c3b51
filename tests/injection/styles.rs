//! Headers, cookies, query and path: inject rules and placeholders.

use super::*;
use crate::end_to_end::SECRET;
use crate::support::endpoints::ReceivedRequest;

/// Whether the server got the expected request.
type Check = fn(&ReceivedRequest) -> bool;

#[test]
fn inject_rules_reach_their_locations() {
    let cases: &[(&str, &str, &[&str], &str, Check)] = &[
        ("bearer", "{ bearer: API_KEY }", &[], "/echo", |got| {
            got.header("authorization") == format!("Bearer {SECRET}")
        }),
        ("basic", "{ basic: PAIR }", &[], "/echo", |got| {
            got.header("authorization") == "Basic Ym9iOmh1bnRlcjJodW50ZXIy"
        }),
        ("header", "{ header: { X-Odd: ODD } }", &["-H", "X-Odd: mine"], "/echo", |got| {
            got.headers["x-odd"] == [ODD_VALUE]
        }),
        ("query", "{ query: { key: ODD } }", &[], "/echo?a=b", |got| {
            got.path == "/echo?a=b&key=p%22a%5Cs%2Bw%26r%3Dd%2541%3Bx"
        }),
        ("cookie", "{ cookie: { session: API_KEY } }", &["-b", "a=1; session=old; b=2"], "/echo", |got| {
            got.header("cookie") == format!("a=1; b=2; session={SECRET}")
        }),
        ("path", "{ path: { '{token}': PAIR } }", &["--globoff"], "/bot{token}/send?x={token}", |got| {
            got.path == "/botbob%3Ahunter2hunter2/send?x={token}"
        }),
        (
            "json",
            "{ json: { auth.key: ODD } }",
            &["-H", JSON_HEADER, "-d", "{\"auth\":{\"id\":7}}"],
            "/echo",
            |got| {
                let body: serde_json::Value = serde_json::from_str(&got.body).unwrap();
                body == serde_json::json!({ "auth": { "id": 7, "key": ODD_VALUE } })
            },
        ),
        ("form", "{ form: { client_secret: ODD } }", &["-d", "grant=x"], "/echo", |got| {
            got.body == "grant=x&client_secret=p%22a%5Cs%2Bw%26r%3Dd%2541%3Bx"
        }),
        ("json into nothing", "{ json: { key: API_KEY } }", &["-X", "POST"], "/echo", |got| {
            got.body == format!("{{\"key\":\"{SECRET}\"}}")
                && got.header("content-type") == "application/json"
        }),
    ];
    let fixture = fixture("");
    for (what, inject, arguments, path, check) in cases {
        fixture.rule(&format!("inject: {inject}"));
        let shown = curl(&fixture, arguments, path).ok();
        let received = fixture.api.received();
        let got = received.last().unwrap();
        assert!(check(got), "{what}: {got:#?}");
        assert_no_value(&fixture, &shown);
    }
    let styles: Vec<String> = fixture
        .home
        .audit()
        .iter()
        .map(|record| record["auth_styles"][0].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(styles, ["bearer", "basic", "header", "query", "cookie", "path", "json", "form", "json"]);
}

#[test]
fn placeholder_is_filled_only_at_exact_location() {
    let fixture = fixture("secrets: [API_KEY]\nplaces: ['header:X-Name', 'cookie:c', 'query:p']");
    let arguments = [
        "-H",
        "X-Name: AS_SECRET_API_KEY",
        "-H",
        "X-Other: {{API_KEY}}",
        "-b",
        "c=AS_SECRET_API_KEY; d=AS_SECRET_API_KEY",
    ];
    curl(&fixture, &arguments, "/echo?p=AS_SECRET_API_KEY&q=AS_SECRET_API_KEY").ok();
    let got = fixture.api.received().remove(0);
    assert_eq!((got.header("x-name"), got.header("x-other")), (SECRET, "{{API_KEY}}"));
    assert_eq!(got.header("cookie"), format!("c={SECRET}; d=AS_SECRET_API_KEY"));
    assert_eq!(got.path, format!("/echo?p={SECRET}&q=AS_SECRET_API_KEY"));
    let record = fixture.home.audit().remove(0);
    let mut notes: Vec<&str> =
        record["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    notes.sort_unstable();
    assert_eq!(notes, ["quoted API_KEY in cookie", "quoted API_KEY in header", "quoted API_KEY in query"]);
}

#[test]
fn path_placeholder_cannot_change_path() {
    let fixture = fixture("secrets: [API_KEY, PAIR, ODD, UP, SLASH]\nplaces: [path]\npaths: ['/bot*/send']");
    fixture.home.set_secret("UP", "..");
    fixture.home.set_secret("SLASH", "a/../admin");
    let shown = curl(&fixture, &[], "/botAS_SECRET_PAIR/send").ok()
        + &curl(&fixture, &["-g"], "/bot{{PAIR}}/send").ok();
    let paths: Vec<String> = fixture.api.received().into_iter().map(|got| got.path).collect();
    assert_eq!(paths, ["/botbob%3Ahunter2hunter2/send", "/botbob%3Ahunter2hunter2/send"]);
    assert_no_value(&fixture, &shown);
    for (path, message) in [
        ("/botAS_SECRET_SLASH/send", "secret 'SLASH' holds bytes that a path cannot carry"),
        ("/botAS_SECRET_ODD/send", "secret 'ODD' holds bytes that a path cannot carry"),
        ("/botAS_SECRET_OTHER/send", "may not spend 'OTHER'"),
    ] {
        let (code, sentence) = curl_rejected(&fixture, &[], path);
        assert!(sentence.contains(message), "{code} {sentence}");
    }
    fixture.rule("secrets: [UP]\nplaces: [path]");
    assert_eq!(curl_rejected(&fixture, &[], "/a/AS_SECRET_UP/send").0, "400");
    fixture.rule("inject: { path: { '{token}': API_KEY } }");
    let (code, sentence) = curl_rejected(&fixture, &[], "/send");
    assert!(code == "400" && sentence.contains("'{token}'"), "{sentence}");
}
