//! A comment that quotes a placeholder posts those words. An agent that could have it filled in there would
//! read the secret back wherever comments are shown.

use std::sync::{Arc, Mutex};

use super::*;
use crate::spine::SECRET;

#[test]
fn a_comment_that_quotes_a_placeholder_posts_those_words() {
    let posted = Arc::new(Mutex::new(String::new()));
    let keep = posted.clone();
    let mut world = world_with(
        |options| {
            Upstream::start(options.answering(move |received| {
                *keep.lock().unwrap() = received.body.clone();
                None
            }))
        },
        "",
    );
    let shown = posted.clone();
    let web = Upstream::start(Options::https(&world.authority, &["web.test"]).answering(move |_| {
        let text = shown.lock().unwrap().clone();
        let body = http_body_util::BodyExt::boxed_unsync(http_body_util::Full::new(text.into()));
        Some(hyper::Response::new(body))
    }));
    world.home.host("web.test", web.address().ip());
    world.home.secret("GITHUB", "ghp_0123456789abcdefghijklmnopqrstuvwxyz");
    // A rule that fills placeholders in bodies, but not in this one's place; and one that fills none there.
    for places in ["[auth]", "[auth, 'json:client_secret']"] {
        world.rules(&[
            ("api.test", world.api.port(), &format!("secrets: [GITHUB, API_KEY]\nplaces: {places}")),
            ("web.test", web.port(), ""),
        ]);
        let comment = r#"{"body":"Set the header to AS_SECRET_GITHUB, or {{GITHUB}}, as I do."}"#;
        let arguments = ["-H", "Authorization: token AS_SECRET_GITHUB", "-H", JSON, "-d", comment];
        curl(&world, &arguments, "/repos/x/issues/1/comments").ok();
        let got = world.api.received().pop().unwrap();
        assert_eq!(got.header("authorization"), "token ghp_0123456789abcdefghijklmnopqrstuvwxyz");
        assert_eq!(got.body, comment);
        let url = format!("https://web.test:{}/x/issues/1", web.port());
        let read = finish(world.home.run_agent(["curl", "-sS"]).arg(url)).ok();
        assert_eq!(read, comment);
        let audit = world.home.audit();
        let note = audit[audit.len() - 2]["notes"][0].as_str().unwrap().to_owned();
        assert!(note == "quoted GITHUB in body" || note == "quoted GITHUB in json", "{note}");
    }
    assert!(!posted.lock().unwrap().contains(SECRET));
}

#[test]
fn a_placeholder_that_is_quoted_in_a_stream_is_noted_wherever_its_pieces_end() {
    let world = world("secrets: [API_KEY]");
    let url = world.url("/upload");
    let script = format!(
        "(printf AS_SEC; sleep 0.2; printf RET_API; sleep 0.2; printf '_KEY and more') | curl -sS -N -T - -X POST {url}"
    );
    finish(&mut world.home.run_agent(["sh", "-c", &script])).ok();
    assert_eq!(world.home.audit()[0]["notes"], serde_json::json!(["quoted API_KEY in body"]));
}
