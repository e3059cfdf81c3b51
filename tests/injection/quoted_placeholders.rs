//! A comment that quotes a placeholder must post the placeholder. If it were filled, an agent could read the
//! secret wherever comments are shown.

use std::sync::{Arc, Mutex};

use super::*;
use crate::end_to_end::SECRET;

#[test]
fn quoted_placeholder_stays_text() {
    let posted = Arc::new(Mutex::new(String::new()));
    let keep = posted.clone();
    let mut fixture = fixture_with(
        |options| {
            Upstream::start(options.with_handler(move |received| {
                *keep.lock().unwrap() = received.body.clone();
                None
            }))
        },
        "",
    );
    let shown = posted.clone();
    let web = Upstream::start(Options::https(&fixture.authority, &["web.test"]).with_handler(move |_| {
        let text = shown.lock().unwrap().clone();
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::Full::new(text.into()));
        Some(hyper::Response::new(body))
    }));
    fixture.home.add_host("web.test", web.address().ip());
    fixture.home.set_secret("GITHUB", "ghp_0123456789abcdefghijklmnopqrstuvwxyz");
    // One rule fills placeholders in other body locations, another fills none in bodies.
    for places in ["[auth]", "[auth, 'json:client_secret']"] {
        fixture.rules(&[
            ("api.test", fixture.api.port(), &format!("secrets: [GITHUB, API_KEY]\nplaces: {places}")),
            ("web.test", web.port(), ""),
        ]);
        let comment = r#"{"body":"Set the header to AS_SECRET_GITHUB, or {{GITHUB}}, as I do."}"#;
        let arguments = ["-H", "Authorization: token AS_SECRET_GITHUB", "-H", JSON_HEADER, "-d", comment];
        curl(&fixture, &arguments, "/repos/x/issues/1/comments").ok();
        let got = fixture.api.received().pop().unwrap();
        assert_eq!(got.header("authorization"), "token ghp_0123456789abcdefghijklmnopqrstuvwxyz");
        assert_eq!(got.body, comment);
        let url = format!("https://web.test:{}/x/issues/1", web.port());
        let read = run(fixture.home.run_agent(["curl", "-sS"]).arg(url)).ok();
        assert_eq!(read, comment);
        let audit = fixture.home.audit();
        let note = audit[audit.len() - 2]["notes"][0].as_str().unwrap().to_owned();
        assert!(note == "quoted GITHUB in body" || note == "quoted GITHUB in json", "{note}");
    }
    assert!(!posted.lock().unwrap().contains(SECRET));
}

#[test]
fn quoted_placeholder_in_stream_is_recorded() {
    let fixture = fixture("secrets: [API_KEY]");
    let url = fixture.url("/upload");
    let script = format!(
        "(printf AS_SEC; sleep 0.2; printf RET_API; sleep 0.2; printf '_KEY and more') | curl -sS -N -T - -X POST {url}"
    );
    run(&mut fixture.home.run_agent(["sh", "-c", &script])).ok();
    assert_eq!(fixture.home.audit()[0]["notes"], serde_json::json!(["quoted API_KEY in body"]));
}
