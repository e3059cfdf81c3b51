//! A rewritten body has a correct length, correct digests and no stale trailers.

use super::*;
use crate::end_to_end::SECRET;
use crate::support::python::{PYTHON, with_program};

const BODY_RULE: &str = "secrets: [API_KEY]\nplaces: [json, form]";

#[test]
fn chunked_body_is_sent_with_content_length() {
    let fixture = fixture(BODY_RULE);
    let expected = format!("[\"{SECRET}\"]");
    for version in ["--http1.1", "--http2"] {
        let arguments = [
            version,
            "-H",
            JSON_HEADER,
            "-H",
            "Transfer-Encoding: chunked",
            "-d",
            r#"["AS_SECRET_API_KEY"]"#,
        ];
        curl(&fixture, &arguments, "/echo").ok();
        let got = fixture.api.received().pop().unwrap();
        assert_eq!(got.body, expected);
        assert_eq!(got.header("transfer-encoding"), "");
    }
    let received = fixture.api.received();
    assert_eq!(received[0].header("content-length"), expected.len().to_string());
}

#[test]
fn expect_continue_is_answered() {
    let fixture = fixture(BODY_RULE);
    let arguments = [
        "-v",
        "--http1.1",
        "--expect100-timeout",
        "15",
        "-H",
        "Expect: 100-continue",
        "-H",
        JSON_HEADER,
        "-d",
        r#"["AS_SECRET_API_KEY"]"#,
    ];
    let outcome = curl(&fixture, &arguments, "/echo");
    assert!(outcome.stderr.contains("HTTP/1.1 100 Continue"), "{outcome:?}");
    assert_eq!(fixture.api.received().pop().unwrap().body, format!("[\"{SECRET}\"]"));
    // The request is rejected before its body: no `100 Continue`.
    let arguments = [&arguments[..5], &[JSON_HEADER, "-H", "Content-Length: 99999999", "-d", "[]"]].concat();
    assert_eq!(curl_rejected(&fixture, &arguments[1..], "/echo").0, "413");
}

#[test]
fn digest_headers_match_rewritten_body() {
    let fixture = fixture(BODY_RULE);
    let arguments = [
        "-H",
        JSON_HEADER,
        "-H",
        "Content-Digest: sha-256=:AAAA:",
        "-H",
        "Content-MD5: AAAA",
        "-d",
        r#"["AS_SECRET_API_KEY"]"#,
    ];
    curl(&fixture, &arguments, "/echo").ok();
    let got = fixture.api.received().pop().unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, got.body.as_bytes());
    let digest = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
    assert_eq!(got.header("content-digest"), format!("sha-256=:{digest}:"));
    assert_eq!(got.header("content-md5"), "");
    assert_eq!(fixture.home.audit()[0]["notes"][0], "dropped content-md5: the body changed");
}

#[test]
fn body_over_limit_is_413() {
    let fixture = fixture(&format!("{BODY_RULE}\nmax_body: 1KiB"));
    let body = format!("[\"{}\"]", "x".repeat(1100));
    for more in ["Accept: */*", "Transfer-Encoding: chunked"] {
        let (code, sentence) =
            curl_rejected(&fixture, &["-H", JSON_HEADER, "-H", more, "-d", &body], "/echo");
        assert!(code == "413" && sentence.contains("max_body"), "{code} {sentence}");
    }
    // Ten MiB is the default limit; a body without a secret is streamed without one.
    let script = |kind: &str| {
        let url = fixture.url("/upload");
        format!(
            "head -c 12000000 /dev/zero | tr '\\0' 1 | curl -sS -m 50 -w '%{{http_code}}' -H 'Content-Type: {kind}' -T - -X POST {url}"
        )
    };
    fixture.rule(BODY_RULE);
    let text = run(&mut fixture.home.run_agent(["sh", "-c", &script("application/json")])).ok();
    assert!(text.ends_with("413"), "{text}");
    let text = run(&mut fixture.home.run_agent(["sh", "-c", &script("text/plain")])).ok();
    assert_eq!(text, r#"{"bytes":"12000000"}200"#);
}

#[test]
fn rewritten_body_drops_trailers() {
    let fixture = fixture(BODY_RULE);
    let port = fixture.api.port().to_string();
    let program = "injection/programs/raw.py";
    let request = "POST /echo HTTP/1.1\r\nHost: api.test:PORT\r\nContent-Type: application/json\r\nTrailer: X-Sum, X-AS-Session-Token\r\n\
                   Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n15\r\n[\"AS_SECRET_API_KEY\"]\r\n0\r\nX-Sum: 7\r\nX-AS-Session-Token: t\r\n\r\n";
    let request = request.replace("PORT", &port);
    let answer = run(&mut with_program(fixture.home.run_agent([PYTHON]), program, &[&port, &request])).ok();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let got = fixture.api.received().pop().unwrap();
    assert_eq!(got.body, format!("[\"{SECRET}\"]"));
    assert_eq!(got.trailers["x-sum"], ["7"]);
    assert_eq!(got.trailers.len(), 1, "{got:#?}");
}

#[test]
fn large_document_is_filled_quickly() {
    let fixture = fixture(BODY_RULE);
    // Strings, keys and numbers, with placeholders at both ends: 8 MB.
    let script = format!(
        "(printf '[\"AS_SECRET_API_KEY\"'; yes ',{{\"key\":\"some text\",\"n\":1.5}}' | head -n 250000 | tr -d '\\n'; \
         printf ',\"AS_SECRET_API_KEY\"]') | curl -sS -m 50 -o /dev/null -w '%{{http_code}} %{{size_upload}}' -H '{JSON_HEADER}' \
         --data-binary @- {}",
        fixture.url("/echo")
    );
    let output = run(&mut fixture.home.run_agent(["sh", "-c", &script])).ok();
    assert!(output.starts_with("200"), "{output}");
    let got = fixture.api.received().pop().unwrap();
    assert!(got.bytes.len() > 7_000_000, "{output}");
    let document: serde_json::Value = serde_json::from_slice(&got.bytes).unwrap();
    let ends = (&document[0], &document[250_001]);
    assert_eq!(ends, (&SECRET.into(), &SECRET.into()));
}
