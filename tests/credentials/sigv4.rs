//! AWS Signature Version 4: agents sign with dummy keys, servers receive valid signatures of the real ones.

use super::{Fixture, Server};

const KEY_ID: &str = "AKIAREALKEY00EXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYREALKEY";
const TOKEN: &str = "FwoGZXIvYXdzEReal//session+token==";

/// AWS clients look for these names, and `run` sets placeholders for them.
const SIGN: &str = "access_key: AWS_ACCESS_KEY_ID, secret_key: AWS_SECRET_ACCESS_KEY";

fn fixture(more: &str) -> (Fixture, Server) {
    let fixture = Fixture::new(&["aws.test"]);
    let has_token = more.contains("session_token");
    let arguments = [KEY_ID, KEY, if has_token { TOKEN } else { "-" }];
    let server = fixture.start_server(include_str!("programs/aws_server.py"), "aws.test", &arguments);
    store(&fixture, KEY_ID, KEY);
    fixture.home.set_secret("AWS_SESSION_TOKEN", TOKEN);
    rule(&fixture, &server, more);
    (fixture, server)
}

fn store(fixture: &Fixture, id: &str, key: &str) {
    fixture.home.set_secret("AWS_ACCESS_KEY_ID", id);
    fixture.home.set_secret("AWS_SECRET_ACCESS_KEY", key);
}

fn rule(fixture: &Fixture, server: &Server, more: &str) {
    let (host, port) = (&server.host, server.port);
    fixture.policy(
        "",
        &format!("- host: {host}\n  ports: [{port}]\n  private: true\n  sign: {{ aws: {{ {SIGN}{more} }} }}"),
    );
}

#[test]
fn boto3_with_placeholder_keys_works() {
    let fixture = Fixture::new(&["s3.test"]);
    let mut server = fixture.start_server(include_str!("programs/s3_server.py"), "s3.test", &[]);
    let (id, key) = (server.read_line(), server.read_line());
    store(&fixture, &id, &key);
    rule(&fixture, &server, "");
    let output = fixture.python(include_str!("programs/s3.py"), &[&server.url("")]).ok();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines, ["got some text", "large 11534336", "listed ['large']", "gone NoSuchKey"]);
    let records = fixture.home.audit();
    assert!(records.len() >= 8);
    for record in &records {
        assert_eq!(record["auth_styles"], serde_json::json!(["aws_sigv4"]), "{record}");
        assert_eq!(record["secret_keys"], serde_json::json!(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]));
    }

    // Control: the server rejects a wrong signature.
    store(&fixture, &id, "another-key-that-is-not-the-users");
    let outcome = fixture.python(include_str!("programs/s3.py"), &[&server.url("")]);
    assert!(outcome.stderr.contains("SignatureDoesNotMatch"), "{outcome:#?}");
}

#[test]
fn sigv4_forms_are_resigned_and_verified() {
    let (fixture, server) = fixture("");
    let output = fixture.python(include_str!("programs/aws.py"), &[&server.url("")]).ok();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines,
        [
            "dynamodb: v4 header dynamodb eu-west-1",
            "lambda: v4 header lambda us-east-1",
            "s3: v4 header s3 us-east-1",
            "presigned get: v4 query s3 us-east-1",
            "presigned put: v4 query s3 us-east-1",
            "presigned other: v4 query execute-api us-east-1",
            "streamed: v4 header s3 us-east-1 4 chunks",
            "streamed with trailer: v4 header s3 us-east-1 4 chunks",
            "streamed unsigned: v4 header s3 us-east-1 unsigned chunks",
            "v4a: v4a header s3 us-*,eu-west-1",
            "v4a streamed: v4a header s3 us-*,eu-west-1 4 chunks",
            "unsigned: the request has no AWS signature that says its region and service: let the client sign, with \
             any key, or name one region and one service in the rule's 'sign'",
            "other scheme: the request authenticates otherwise than by an AWS signature of version 4 or 4A, and this \
             rule signs: leave the client to sign with any key",
            "damaged: the request to 'aws.test' broke off",
        ]
    );
}

#[test]
fn sigv4_session_token_is_signed_and_redacted() {
    let (fixture, server) =
        fixture(", session_token: AWS_SESSION_TOKEN, regions: [us-east-1], services: [s3]");
    let answer = fixture.curl(&[&server.url("/bucket/key")]);
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["verified"], "v4 header s3 us-east-1", "{answer}");
    let echoed = answer["authorization"].as_str().unwrap();
    assert!(echoed.starts_with("AWS4-HMAC-SHA256 Credential=[REDACTED_BY_AGENTSECRETS]/"), "{echoed}");
    assert!(echoed.ends_with("Signature=[REDACTED_BY_AGENTSECRETS]"), "{echoed}");

    let signed = |scope: &str| {
        let header = format!(
            "authorization: AWS4-HMAC-SHA256 Credential=x/20261125/{scope}/aws4_request, \
                              SignedHeaders=host, Signature=0"
        );
        fixture.curl(&["-H", &header, &server.url("/bucket/key")])
    };
    assert!(signed("us-east-1/s3").contains("v4 header s3 us-east-1"));
    for (scope, message) in
        [("us-east-1/iam", "the service 'iam'"), ("eu-west-1/s3", "the region 'eu-west-1'")]
    {
        let refused = signed(scope);
        assert!(refused.contains("policy_denied") && refused.contains(message), "{refused}");
    }
}

#[test]
fn signing_key_cannot_be_injected() {
    let (fixture, server) = fixture("");
    for header in [
        "x-api-key: AS_SECRET_AWS_SECRET_ACCESS_KEY",
        "authorization: Bearer AS_SECRET_AWS_SECRET_ACCESS_KEY",
    ] {
        let refused = fixture.curl(&["-H", header, &server.url("/bucket/key")]);
        assert!(refused.contains("policy_denied"), "{refused}");
    }
}

#[test]
fn unsigned_body_over_limit_is_refused() {
    let (fixture, server) = fixture("");
    let policy = format!(
        "- host: {}\n  ports: [{}]\n  private: true\n  max_body: 1MiB\n  sign: {{ aws: {{ {SIGN} }} }}",
        server.host, server.port
    );
    fixture.policy("", &policy);
    let program = "import sys; sys.stdout.write('x' * int(sys.argv[1]))";
    let post = |size: &str| {
        let script = format!(
            "python3 -c \"{program}\" {size} | curl -sS --data-binary @- -H 'transfer-encoding: chunked' -H \"$1\" $2"
        );
        let header = "authorization: AWS4-HMAC-SHA256 Credential=x/20261125/us-east-1/dynamodb/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let outcome = crate::support::process::run(
            fixture.agent(&["sh", "-c", &script, "sh"]).args([header, &server.url("/")]),
        );
        outcome.ok()
    };
    assert!(post("1000000").contains("v4 header dynamodb us-east-1"));
    let refused = post("2000000");
    assert!(refused.contains("body_too_large"), "{refused}");
}
