//! WebSockets: authorized and injected once, then searched and filled message by message.

use serde_json::{Value, json};

use super::*;
use crate::support::python::Server;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

/// A fixture whose rule allows a WebSocket server, and that server.
fn fixture(more: &str) -> (Fixture, Server) {
    fixture_with_server("websocket_server.py", more)
}

fn fixture_with_server(server: &str, more: &str) -> (Fixture, Server) {
    let fixture = Fixture::new();
    let server = Server::start(&format!("http/programs/{server}"), &fixture.authority, "api.test");
    fixture.rules(&[("api.test", server.port(), more)]);
    (fixture, server)
}

/// The replies to an agent that sends `messages`.
#[track_caller]
fn exchange(fixture: &Fixture, server: &Server, messages: &[&str]) -> Vec<Value> {
    let url = format!("wss://api.test:{}/ws", server.port());
    let arguments: Vec<&str> = [url.as_str()].into_iter().chain(messages.iter().copied()).collect();
    let program = "http/programs/websocket_agent.py";
    run(&mut with_program(fixture.home.run_agent([PYTHON]), program, &arguments)).json_lines()
}

#[test]
fn websocket_handshake_gets_secret_and_messages_are_redacted() {
    let (fixture, server) = fixture("secrets: [API_KEY]");
    let output = exchange(&fixture, &server, &["hello", "auth", "parts", "extensions", "send70000", "close"]);
    assert_eq!(output[0], "echo hello");
    assert_eq!(output[1], format!("you are Bearer {MARKER}."));
    assert_eq!(output[2]["text"], format!("\u{0}\u{ff}Bearer {MARKER}\u{ff}"));
    assert_eq!(output[3], format!("parts of Bearer {MARKER}!"));
    assert_eq!(output[4], "[]", "messages would be compressed");
    assert_eq!(output[5], "70000");
    assert_eq!(output[6], json!({ "code": 4001, "reason": format!("bye Bearer {MARKER}") }));

    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 1, "{audit:#?}");
    assert_eq!((&audit[0]["status"], &audit[0]["status_code"]), (&"OK".into(), &101.into()));
    assert_eq!(audit[0]["redacted"], true);
    assert_eq!(audit[0]["secret_keys"][0], "API_KEY");
}

#[test]
fn reset_after_close_handshake_is_no_error() {
    let (fixture, server) = fixture_with_server("websocket_reset.py", "secrets: [API_KEY]");
    assert_eq!(exchange(&fixture, &server, &["hello"]), [json!({ "code": 1000, "reason": "" })]);
    let audit = fixture.home.audit();
    assert_eq!((audit.len(), &audit[0]["status"]), (1, &"OK".into()), "{audit:#?}");
}

#[test]
fn unlisted_websocket_is_refused() {
    let (fixture, server) = fixture("secrets: [API_KEY]\npaths: [\"/other\"]");
    assert_eq!(exchange(&fixture, &server, &["hello"]), [json!({ "status": 403 })]);
    assert_eq!(fixture.home.audit()[0]["reason"], "policy_denied");
}

#[test]
fn websocket_placeholder_is_filled_only_where_allowed() {
    // Lengths of "k=AS_SECRET_API_KEY" and "k=sk_live_…" as the server received them.
    let digest = |text: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (fixture, server) = fixture("secrets: [API_KEY]");
    assert_eq!(exchange(&fixture, &server, &["sha:k=AS_SECRET_API_KEY"]), [digest("k=AS_SECRET_API_KEY")]);
    fixture.rules(&[("api.test", server.port(), "secrets: [API_KEY]\nplaces: [auth, websocket]")]);
    let filled = exchange(&fixture, &server, &["sha:k=AS_SECRET_API_KEY", "k=AS_SECRET_API_KEY"]);
    assert_eq!(filled, [digest(&format!("k={SECRET}")), format!("echo k={MARKER}")]);
    let denied = exchange(&fixture, &server, &["AS_SECRET_OTHER"]);
    assert_eq!(denied[0]["code"], 1008, "{denied:?}");
    let reasons: Vec<_> = fixture.home.audit().iter().map(|record| record["reason"].clone()).collect();
    assert!(reasons[2].as_str().unwrap().starts_with("policy_denied"), "{reasons:?}");
}

#[test]
fn large_websocket_message_uses_little_memory() {
    let (fixture, server) = fixture("secrets: [API_KEY]");
    let url = format!("wss://api.test:{}/ws", server.port());
    let program = "http/programs/websocket_agent.py";
    let arguments = [url.as_str(), "hello", "big50000000", "hello", "send50000000"];
    let mut agent =
        WaitingAgent::start_command(with_program(fixture.home.run_agent([PYTHON]), program, &arguments));
    let interceptor = agent.interceptor();
    let before = resident_memory(interceptor);
    let mut most = before;
    let mut lines = std::io::BufReader::new(agent.child.stdout.take().unwrap());
    let mut line = String::new();
    while std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0 {
        most = most.max(
            std::fs::metadata(format!("/proc/{interceptor}")).map_or(0, |_| resident_memory(interceptor)),
        );
    }
    assert!(line.contains("\"length\": 50000000") && line.contains("\"50000000\""), "{line}");
    assert!(most < before + 16 * 1024, "{before} KiB became {most} KiB");
}

#[test]
fn other_upgrade_protocols_are_refused() {
    let fixture = Fixture::new();
    for protocol in ["connect-udp", "h2c, foo", "websocket"] {
        let upgrade = format!("Upgrade: {protocol}");
        let (code, rejection) =
            fixture.rejected(&["--http1.1", "-H", "Connection: Upgrade", "-H", &upgrade], &fixture.url("/"));
        assert_eq!(code, "400", "{protocol} {rejection}");
    }
    assert!(fixture.api.received().is_empty());
    let offer = ["--http1.1", "-H", "Connection: Upgrade, HTTP2-Settings", "-H", "Upgrade: h2c"];
    fixture.curl(&offer, "/echo").ok();
    let received = fixture.api.only_request();
    assert_eq!((received.header("upgrade"), received.header("http2-settings")), ("", ""));
}
