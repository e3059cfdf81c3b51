//! HMAC signatures from a template, as webhooks and exchanges use them.

use super::{Fixture, Server};

const SECRET: &str = "whsec_9f8e7d6c5b4a39281706f5e4d3c2b1a0";

fn fixture(sign: &str) -> (Fixture, Server) {
    let fixture = Fixture::new(&["hooks.test"]);
    let server = fixture.start_server(include_str!("programs/hmac_server.py"), "hooks.test", &[SECRET]);
    fixture.home.set_secret("HOOK_KEY", SECRET);
    let rule =
        format!("- host: hooks.test\n  ports: [{}]\n  private: true\n  sign:\n    hmac: {sign}", server.port);
    fixture.policy("", &rule);
    (fixture, server)
}

#[test]
fn stripe_signature_verifies() {
    let (fixture, server) = fixture(
        "{ key: HOOK_KEY, header: Stripe-Signature, message: '{timestamp}.{body}', value: 't={timestamp},v1={signature}' }",
    );
    assert_eq!(fixture.curl(&["-d", "{\"id\":\"evt_1\"}", &server.url("/stripe")]), "right");
    let record = &fixture.home.audit()[0];
    assert_eq!(record["auth_styles"], serde_json::json!(["hmac"]));
    assert_eq!(record["secret_keys"], serde_json::json!(["HOOK_KEY"]));

    fixture.home.set_secret("HOOK_KEY", "whsec_another");
    let output = fixture.curl(&["-d", "{}", &server.url("/stripe")]);
    assert!(output.starts_with("wrong: SignatureVerificationError"), "{output}");
}

#[test]
fn slack_signature_verifies() {
    let (fixture, server) = fixture(
        "{ key: HOOK_KEY, header: X-Slack-Signature, message: 'v0:{timestamp}:{body}', value: 'v0={signature}', \
         also: { X-Slack-Request-Timestamp: '{timestamp}' } }",
    );
    let forged = ["-H", "X-Slack-Signature: v0=00", "-H", "X-Slack-Request-Timestamp: 1"];
    let url = server.url("/slack");
    assert_eq!(fixture.curl(&[&forged[..], &["-d", "text=hello", &url]].concat()), "right");
}

#[test]
fn hmac_template_parts_are_signed_and_redacted() {
    let (fixture, server) = fixture(
        "{ key: HOOK_KEY, header: X-Signature, message: '{timestamp_ms}{method}{path}?{query}&{host}{body}', \
         algorithm: sha512, encoding: base64, also: { X-Timestamp: '{timestamp_ms}' } }",
    );
    let output = fixture.curl(&["-d", "buy", &server.url("/exchange?symbol=A%20B")]);
    // base64 padding reveals nothing.
    assert_eq!(output.trim_end_matches('='), "right [REDACTED_BY_AGENTSECRETS]");
}
