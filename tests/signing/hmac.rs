//! Signatures by a template, as webhooks and exchanges ask for them.

use super::{Server, World};

const SECRET: &str = "whsec_9f8e7d6c5b4a39281706f5e4d3c2b1a0";

fn world(sign: &str) -> (World, Server) {
    let world = World::new(&["hooks.test"]);
    let server = world.server(include_str!("programs/hmac_server.py"), "hooks.test", &[SECRET]);
    world.home.secret("HOOK_KEY", SECRET);
    let rule =
        format!("- host: hooks.test\n  ports: [{}]\n  private: true\n  sign:\n    hmac: {sign}", server.port);
    world.policy("", &rule);
    (world, server)
}

#[test]
fn stripes_own_library_finds_the_signature_right() {
    let (world, server) = world(
        "{ key: HOOK_KEY, header: Stripe-Signature, message: '{timestamp}.{body}', value: 't={timestamp},v1={signature}' }",
    );
    assert_eq!(world.curl(&["-d", "{\"id\":\"evt_1\"}", &server.url("/stripe")]), "right");
    let record = &world.home.audit()[0];
    assert_eq!(record["auth_styles"], serde_json::json!(["hmac"]));
    assert_eq!(record["secret_keys"], serde_json::json!(["HOOK_KEY"]));

    world.home.secret("HOOK_KEY", "whsec_another");
    let said = world.curl(&["-d", "{}", &server.url("/stripe")]);
    assert!(said.starts_with("wrong: SignatureVerificationError"), "{said}");
}

#[test]
fn slacks_signature_has_its_time_in_a_header_of_its_own() {
    let (world, server) = world(
        "{ key: HOOK_KEY, header: X-Slack-Signature, message: 'v0:{timestamp}:{body}', value: 'v0={signature}', \
         also: { X-Slack-Request-Timestamp: '{timestamp}' } }",
    );
    let forged = ["-H", "X-Slack-Signature: v0=00", "-H", "X-Slack-Request-Timestamp: 1"];
    let url = server.url("/slack");
    assert_eq!(world.curl(&[&forged[..], &["-d", "text=hello", &url]].concat()), "right");
}

#[test]
fn method_path_query_and_host_can_be_signed_and_the_signature_does_not_come_back() {
    let (world, server) = world(
        "{ key: HOOK_KEY, header: X-Signature, message: '{timestamp_ms}{method}{path}?{query}&{host}{body}', \
         algorithm: sha512, encoding: base64, also: { X-Timestamp: '{timestamp_ms}' } }",
    );
    let said = world.curl(&["-d", "buy", &server.url("/exchange?symbol=A%20B")]);
    // What fills base64 up tells nothing.
    assert_eq!(said.trim_end_matches('='), "right [REDACTED_BY_AGENTSECRETS]");
}
