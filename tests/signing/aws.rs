//! AWS: agents sign with dummy keys, and servers find the real ones' signatures.

use super::{Server, World};

const KEY_ID: &str = "AKIAREALKEY00EXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYREALKEY";
const TOKEN: &str = "FwoGZXIvYXdzEReal//session+token==";

/// The names that `run` gives an agent placeholders for are those that AWS's clients look for.
const SIGN: &str = "access_key: AWS_ACCESS_KEY_ID, secret_key: AWS_SECRET_ACCESS_KEY";

fn world(more: &str) -> (World, Server) {
    let world = World::new(&["aws.test"]);
    let has_token = more.contains("session_token");
    let arguments = [KEY_ID, KEY, if has_token { TOKEN } else { "-" }];
    let server = world.server(include_str!("programs/aws_server.py"), "aws.test", &arguments);
    store(&world, KEY_ID, KEY);
    world.home.secret("AWS_SESSION_TOKEN", TOKEN);
    rule(&world, &server, more);
    (world, server)
}

fn store(world: &World, id: &str, key: &str) {
    world.home.secret("AWS_ACCESS_KEY_ID", id);
    world.home.secret("AWS_SECRET_ACCESS_KEY", key);
}

fn rule(world: &World, server: &Server, more: &str) {
    let (host, port) = (&server.host, server.port);
    world.policy(
        "",
        &format!("- host: {host}\n  ports: [{port}]\n  private: true\n  sign: {{ aws: {{ {SIGN}{more} }} }}"),
    );
}

#[test]
fn boto3_with_placeholders_for_keys_works_against_an_s3_that_checks_every_signature() {
    let world = World::new(&["s3.test"]);
    let mut server = world.server(include_str!("programs/s3_server.py"), "s3.test", &[]);
    let (id, key) = (server.line(), server.line());
    store(&world, &id, &key);
    rule(&world, &server, "");
    let said = world.python(include_str!("programs/s3.py"), &[&server.url("")]).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines, ["got some text", "large 11534336", "listed ['large']", "gone NoSuchKey"]);
    let records = world.home.audit();
    assert!(records.len() >= 8);
    for record in &records {
        assert_eq!(record["auth_styles"], serde_json::json!(["aws_sigv4"]), "{record}");
        assert_eq!(record["secret_keys"], serde_json::json!(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]));
    }

    // The server tells right from wrong.
    store(&world, &id, "another-key-that-is-not-the-users");
    let outcome = world.python(include_str!("programs/s3.py"), &[&server.url("")]);
    assert!(outcome.stderr.contains("SignatureDoesNotMatch"), "{outcome:#?}");
}

#[test]
fn every_form_of_signature_is_made_anew_and_verified_by_other_libraries() {
    let (world, server) = world("");
    let said = world.python(include_str!("programs/aws.py"), &[&server.url("")]).ok();
    let lines: Vec<&str> = said.lines().collect();
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
fn a_temporary_keys_token_is_signed_and_nothing_that_was_computed_comes_back() {
    let (world, server) = world(", session_token: AWS_SESSION_TOKEN, regions: [us-east-1], services: [s3]");
    let answer = world.curl(&[&server.url("/bucket/key")]);
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
        world.curl(&["-H", &header, &server.url("/bucket/key")])
    };
    assert!(signed("us-east-1/s3").contains("v4 header s3 us-east-1"));
    for (scope, told) in [("us-east-1/iam", "the service 'iam'"), ("eu-west-1/s3", "the region 'eu-west-1'")]
    {
        let refused = signed(scope);
        assert!(refused.contains("policy_denied") && refused.contains(told), "{refused}");
    }
}

#[test]
fn a_key_that_signs_cannot_be_spent_in_any_other_way() {
    let (world, server) = world("");
    for header in [
        "x-api-key: AS_SECRET_AWS_SECRET_ACCESS_KEY",
        "authorization: Bearer AS_SECRET_AWS_SECRET_ACCESS_KEY",
    ] {
        let refused = world.curl(&["-H", header, &server.url("/bucket/key")]);
        assert!(refused.contains("policy_denied"), "{refused}");
    }
}

#[test]
fn a_body_without_a_hash_is_held_up_to_a_limit_and_refused_beyond() {
    let (world, server) = world("");
    let policy = format!(
        "- host: {}\n  ports: [{}]\n  private: true\n  max_body: 1MiB\n  sign: {{ aws: {{ {SIGN} }} }}",
        server.host, server.port
    );
    world.policy("", &policy);
    let program = "import sys; sys.stdout.write('x' * int(sys.argv[1]))";
    let post = |size: &str| {
        let script = format!(
            "python3 -c \"{program}\" {size} | curl -sS --data-binary @- -H 'transfer-encoding: chunked' -H \"$1\" $2"
        );
        let header = "authorization: AWS4-HMAC-SHA256 Credential=x/20261125/us-east-1/dynamodb/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let outcome = crate::support::process::finish(
            world.agent(&["sh", "-c", &script, "sh"]).args([header, &server.url("/")]),
        );
        outcome.ok()
    };
    assert!(post("1000000").contains("v4 header dynamodb us-east-1"));
    let refused = post("2000000");
    assert!(refused.contains("body_too_large"), "{refused}");
}
