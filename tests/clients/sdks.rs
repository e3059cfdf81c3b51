//! The vendors' own libraries, against a server that speaks what their APIs speak. What streams is proven
//! to stream: the second piece is sent only when the client says that it has the first.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::support::endpoints::{Body, Received, stream, whole};

const OPENAI: &str = "sk-proj-s8ZqkX1vY3openaiW0rJm5";
const ANTHROPIC: &str = "sk-ant-api03-Lr7anthropicPq2Vd9";
const STRIPE: &str = "sk_test_51Hb9stripeKx8Tz4Qw6";

const SAID: &str = "openai hello there\nopenai stream hello there\nanthropic hello there\n\
    anthropic stream hello there\nstripe cus_1 a@example.com\n";

#[test]
fn the_python_libraries_of_openai_anthropic_and_stripe_work_unmodified() {
    let world = world_of_apis();
    let url = world.url("");
    let mut python = python(&world, include_str!("programs/sdks.py"), &url);
    assert_eq!(finish(with_addresses(&mut python, &url)).ok(), SAID);
    each_got_its_own(&world);
}

#[test]
fn the_node_libraries_of_openai_anthropic_and_stripe_work_unmodified() {
    let world = world_of_apis();
    let url = world.url("");
    let mut node = node(&world, include_str!("programs/sdks.js"), &url);
    assert_eq!(finish(with_addresses(&mut node, &url)).ok(), SAID);
    each_got_its_own(&world);
}

fn with_addresses<'a>(agent: &'a mut Command, url: &str) -> &'a mut Command {
    agent.env("OPENAI_BASE_URL", format!("{url}/v1")).env("ANTHROPIC_BASE_URL", url).env("STRIPE_URL", url)
}

#[track_caller]
fn each_got_its_own(world: &World) {
    let received = world.api.received();
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

fn world_of_apis() -> World {
    let first_is_there = Arc::new(Notify::new());
    let world = world_with(|options| {
        options.answering(move |received| {
            let streams = || {
                let asked: Value = serde_json::from_str(&received.body).unwrap();
                asked["stream"] == true
            };
            Some(match received.path.split('?').next().unwrap_or_default() {
                "/received" => {
                    first_is_there.notify_one();
                    whole("text/plain", "thanks")
                }
                "/v1/chat/completions" if streams() => events(openai_events(), &first_is_there),
                "/v1/chat/completions" => whole("application/json", openai("message", "hello there", true)),
                "/v1/messages" if streams() => events(anthropic_events(), &first_is_there),
                "/v1/messages" => whole("application/json", anthropic(&["hello there"]).to_string()),
                "/v1/customers" => customer(received),
                _ => return None,
            })
        })
    });
    for (name, value) in
        [("OPENAI_API_KEY", OPENAI), ("ANTHROPIC_API_KEY", ANTHROPIC), ("STRIPE_KEY", STRIPE)]
    {
        world.home.secret(name, value);
    }
    world.rule("secrets: [OPENAI_API_KEY, ANTHROPIC_API_KEY, STRIPE_KEY]");
    world
}

/// Server-sent events; those after the first piece of text wait until somebody has it.
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
    stream("text/event-stream", parts)
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

fn customer(received: &Received) -> Response<Body> {
    let mut fields = url::form_urlencoded::parse(received.body.as_bytes());
    let email = fields.find(|(name, _)| name == "email").map(|(_, email)| email.into_owned());
    whole("application/json", json!({ "id": "cus_1", "object": "customer", "email": email }).to_string())
}
