//! WebSockets: judged and injected once, searched and filled message by message.

use serde_json::{Value, json};

use super::*;
use crate::support::python::Server;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

/// A world whose rule allows a WebSocket server, and that server.
fn world(more: &str) -> (World, Server) {
    world_of("websocket_server.py", more)
}

fn world_of(server: &str, more: &str) -> (World, Server) {
    let world = World::new();
    let server = Server::start(&format!("http/programs/{server}"), &world.authority, "api.test");
    world.rules(&[("api.test", server.port(), more)]);
    (world, server)
}

/// What an agent gets that sends `messages`.
#[track_caller]
fn said(world: &World, server: &Server, messages: &[&str]) -> Vec<Value> {
    let url = format!("wss://api.test:{}/ws", server.port());
    let arguments: Vec<&str> = [url.as_str()].into_iter().chain(messages.iter().copied()).collect();
    let program = "http/programs/websocket_agent.py";
    let out = finish(&mut with_program(world.home.run_agent([PYTHON]), program, &arguments)).ok();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_websocket_spends_a_secret_and_its_messages_hold_none() {
    let (world, server) = world("secrets: [API_KEY]");
    let said = said(&world, &server, &["hello", "auth", "parts", "extensions", "send70000", "close"]);
    assert_eq!(said[0], "echo hello");
    assert_eq!(said[1], format!("you are Bearer {MARKER}."));
    assert_eq!(said[2]["text"], format!("\u{0}\u{ff}Bearer {MARKER}\u{ff}"));
    assert_eq!(said[3], format!("parts of Bearer {MARKER}!"));
    assert_eq!(said[4], "[]", "messages would be compressed");
    assert_eq!(said[5], "70000");
    assert_eq!(said[6], json!({ "code": 4001, "reason": format!("bye Bearer {MARKER}") }));

    let audit = world.home.audit();
    assert_eq!(audit.len(), 1, "{audit:#?}");
    assert_eq!((&audit[0]["status"], &audit[0]["status_code"]), (&"OK".into(), &101.into()));
    assert_eq!(audit[0]["redacted"], true);
    assert_eq!(audit[0]["secret_keys"][0], "API_KEY");
}

#[test]
fn how_the_connection_ends_after_both_goodbyes_is_no_failure() {
    let (world, server) = world_of("websocket_reset.py", "secrets: [API_KEY]");
    assert_eq!(said(&world, &server, &["hello"]), [json!({ "code": 1000, "reason": "" })]);
    let audit = world.home.audit();
    assert_eq!((audit.len(), &audit[0]["status"]), (1, &"OK".into()), "{audit:#?}");
}

#[test]
fn a_handshake_that_policy_does_not_allow_is_refused_like_any_request() {
    let (world, server) = world("secrets: [API_KEY]\npaths: [\"/other\"]");
    assert_eq!(said(&world, &server, &["hello"]), [json!({ "status": 403 })]);
    assert_eq!(world.home.audit()[0]["reason"], "policy_denied");
}

#[test]
fn a_placeholder_in_a_message_is_filled_only_where_the_rule_says_so() {
    // Of "k=AS_SECRET_API_KEY" and "k=sk_live_…", as the server received it.
    let digest = |text: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (world, server) = world("secrets: [API_KEY]");
    assert_eq!(said(&world, &server, &["sha:k=AS_SECRET_API_KEY"]), [digest("k=AS_SECRET_API_KEY")]);
    world.rules(&[("api.test", server.port(), "secrets: [API_KEY]\nplaces: [auth, websocket]")]);
    let filled = said(&world, &server, &["sha:k=AS_SECRET_API_KEY", "k=AS_SECRET_API_KEY"]);
    assert_eq!(filled, [digest(&format!("k={SECRET}")), format!("echo k={MARKER}")]);
    let denied = said(&world, &server, &["AS_SECRET_OTHER"]);
    assert_eq!(denied[0]["code"], 1008, "{denied:?}");
    let reasons: Vec<_> = world.home.audit().iter().map(|record| record["reason"].clone()).collect();
    assert!(reasons[2].as_str().unwrap().starts_with("policy_denied"), "{reasons:?}");
}

#[test]
fn a_message_of_any_size_passes_in_little_memory() {
    let (world, server) = world("secrets: [API_KEY]");
    let url = format!("wss://api.test:{}/ws", server.port());
    let program = "http/programs/websocket_agent.py";
    let arguments = [url.as_str(), "hello", "big50000000", "hello", "send50000000"];
    let mut agent = Agent::started(with_program(world.home.run_agent([PYTHON]), program, &arguments));
    let interceptor = agent.interceptor();
    let before = resident(interceptor);
    let mut most = before;
    let mut lines = std::io::BufReader::new(agent.child.stdout.take().unwrap());
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0 {
        most =
            most.max(std::fs::metadata(format!("/proc/{interceptor}")).map_or(0, |_| resident(interceptor)));
    }
    assert!(line.contains("\"length\": 50000000") && line.contains("\"50000000\""), "{line}");
    assert!(most < before + 16 * 1024, "{before} KiB became {most} KiB");
}

#[test]
fn any_other_protocol_is_refused_and_an_offer_is_passed_over() {
    let world = World::new();
    for protocol in ["connect-udp", "h2c, foo", "websocket"] {
        let upgrade = format!("Upgrade: {protocol}");
        let (code, refusal) =
            world.refused(&["--http1.1", "-H", "Connection: Upgrade", "-H", &upgrade], &world.url("/"));
        assert_eq!(code, "400", "{protocol} {refusal}");
    }
    assert!(world.api.received().is_empty());
    let offer = ["--http1.1", "-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c"];
    world.curl(&offer, "/echo").ok();
    let received = world.api.only();
    assert_eq!((received.header("upgrade"), received.header("http2-settings")), ("", ""));
}
