//! The vendors' own SDKs against a server that speaks their APIs. Streaming is proven: the second event is
//! sent only when the client confirms the first.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::support::endpoints::{Body, ReceivedRequest, full_response, stream_response};

const OPENAI: &str = "sk-proj-s8ZqkX1vY3openaiW0rJm5";
const ANTHROPIC: &str = "sk-ant-api03-Lr7anthropicPq2Vd9";
const STRIPE: &str = "sk_test_51Hb9stripeKx8Tz4Qw6";

const EXPECTED_OUTPUT: &str = "openai hello there\nopenai stream hello there\nanthropic hello there\n\
    anthropic stream hello there\nstripe cus_1 a@example.com\n";

#[test]
fn python_vendor_sdks_work() {
    let fixture = vendor_api_fixture();
    let url = fixture.url("");
    let mut python = python(&fixture, include_str!("programs/sdks.py"), &url);
    assert_eq!(run(with_addresses(&mut python, &url)).ok(), EXPECTED_OUTPUT);
    assert_each_key_received(&fixture);
}

#[test]
fn node_vendor_sdks_work() {
    let fixture = vendor_api_fixture();
    let url = fixture.url("");
    let mut node = node(&fixture, include_str!("programs/sdks.js"), &url);
    assert_eq!(run(with_addresses(&mut node, &url)).ok(), EXPECTED_OUTPUT);
    assert_each_key_received(&fixture);
}

fn with_addresses<'a>(agent: &'a mut Command, url: &str) -> &'a mut Command {
    agent.env("OPENAI_BASE_URL", format!("{url}/v1")).env("ANTHROPIC_BASE_URL", url).env("STRIPE_URL", url)
}

#[track_caller]
fn assert_each_key_received(fixture: &Fixture) {
    let received = fixture.api.received();
    for (path, value, times) in
        [("/v1/chat/completions", OPENAI, 2), ("/v1/messages", ANTHROPIC, 2), ("/v1/customers", STRIPE, 1)]
    {
        let values: Vec<&str> = received
            .iter()
            .filter(|request| request.path.starts_with(path))
            .map(|request| request.header("authorization"))
            .collect();
        assert_eq!(values, vec![format!("Bearer {value}"); times], "{path}");
    }
}

fn vendor_api_fixture() -> Fixture {
    let first_is_there = Arc::new(Notify::new());
    let fixture = fixture_with(|options| {
        options.with_handler(move |received| {
            let streams = || {
                let request: Value = serde_json::from_str(&received.body).unwrap();
                request["stream"] == true
            };
            Some(match received.path.split('?').next().unwrap_or_default() {
                "/received" => {
                    first_is_there.notify_one();
                    full_response("text/plain", "thanks")
                }
                "/v1/chat/completions" if streams() => events(openai_events(), &first_is_there),
                "/v1/chat/completions" => {
                    full_response("application/json", openai("message", "hello there", true))
                }
                "/v1/messages" if streams() => events(anthropic_events(), &first_is_there),
                "/v1/messages" => full_response("application/json", anthropic(&["hello there"]).to_string()),
                "/v1/customers" => customer(received),
                _ => return None,
            })
        })
    });
    for (name, value) in
        [("OPENAI_API_KEY", OPENAI), ("ANTHROPIC_API_KEY", ANTHROPIC), ("STRIPE_KEY", STRIPE)]
    {
        fixture.home.set_secret(name, value);
    }
    fixture.rule("secrets: [OPENAI_API_KEY, ANTHROPIC_API_KEY, STRIPE_KEY]");
    fixture
}

/// Server-sent events; those after the first text event wait until the client has it.
fn events((before, after): (String, String), first_is_there: &Arc<Notify>) -> Response<Body> {
    let first_is_there = first_is_there.clone();
    let parts = futures_util::stream::unfold(Some((before, after)), move |rest| {
        let first_is_there = first_is_there.clone();
        async move {
            let (now, later) = rest?;
            if later.is_empty() {
                first_is_there.notified().await;
            }
            let rest = (!later.is_empty()).then(|| (later, String::new()));
            Some((Ok(Frame::data(Bytes::from(now))), rest))
        }
    });
    stream_response("text/event-stream", parts)
}

fn openai(kind: &str, text: &str, ends: bool) -> String {
    let choice = json!({
        "index": 0,
        kind: { "role": "assistant", "content": text },
        "finish_reason": ends.then_some("stop"),
    });
    let object = if kind == "delta" { "chat.completion.chunk" } else { "chat.completion" };
    json!({ "id": "c-1", "object": object, "created": 1, "model": "a-model", "choices": [choice] })
        .to_string()
}

fn openai_events() -> (String, String) {
    let event = |text, ends| format!("data: {}\n\n", openai("delta", text, ends));
    (event("hello", false), format!("{}data: [DONE]\n\n", event(" there", true)))
}

fn anthropic(texts: &[&str]) -> Value {
    let content: Vec<Value> = texts.iter().map(|text| json!({ "type": "text", "text": text })).collect();
    json!({
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "a-model",
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
        "usage": { "input_tokens": 1, "output_tokens": 2 },
    })
}

fn anthropic_events() -> (String, String) {
    let event = |data: Value| format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap());
    let delta = |text: &str| {
        let delta = json!({ "type": "text_delta", "text": text });
        event(json!({ "type": "content_block_delta", "index": 0, "delta": delta }))
    };
    let block = json!({ "type": "text", "text": "" });
    let before = [
        event(json!({ "type": "message_start", "message": anthropic(&[]) })),
        event(json!({ "type": "content_block_start", "index": 0, "content_block": block })),
        delta("hello"),
    ];
    let end = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    let after = [
        delta(" there"),
        event(json!({ "type": "content_block_stop", "index": 0 })),
        event(json!({ "type": "message_delta", "delta": end, "usage": { "output_tokens": 2 } })),
        event(json!({ "type": "message_stop" })),
    ];
    (before.concat(), after.concat())
}

fn customer(received: &ReceivedRequest) -> Response<Body> {
    let mut fields = url::form_urlencoded::parse(received.body.as_bytes());
    let email = fields.find(|(name, _)| name == "email").map(|(_, email)| email.into_owned());
    full_response(
        "application/json",
        json!({ "id": "cus_1", "object": "customer", "email": email }).to_string(),
    )
}
