//! A body that was rewritten is a whole and honest one: its length, its digests, its trailers.

use super::*;
use crate::spine::SECRET;
use crate::support::python::{PYTHON, with_program};

const PLACES: &str = "secrets: [API_KEY]\nplaces: [json, form]";

#[test]
fn a_chunked_body_is_filled_and_sent_with_its_length() {
    let world = world(PLACES);
    let wanted = format!("[\"{SECRET}\"]");
    for version in ["--http1.1", "--http2"] {
        let arguments =
            [version, "-H", JSON, "-H", "Transfer-Encoding: chunked", "-d", r#"["AS_SECRET_API_KEY"]"#];
        curl(&world, &arguments, "/echo").ok();
        let got = world.api.received().pop().unwrap();
        assert_eq!(got.body, wanted);
        assert_eq!(got.header("transfer-encoding"), "");
    }
    let received = world.api.received();
    assert_eq!(received[0].header("content-length"), wanted.len().to_string());
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told() {
    let world = world(PLACES);
    let arguments = [
        "-v",
        "--http1.1",
        "--expect100-timeout",
        "15",
        "-H",
        "Expect: 100-continue",
        "-H",
        JSON,
        "-d",
        r#"["AS_SECRET_API_KEY"]"#,
    ];
    let outcome = curl(&world, &arguments, "/echo");
    assert!(outcome.stderr.contains("HTTP/1.1 100 Continue"), "{outcome:?}");
    assert_eq!(world.api.received().pop().unwrap().body, format!("[\"{SECRET}\"]"));
    // Refused before the body: it is never asked for.
    let arguments = [&arguments[..5], &[JSON, "-H", "Content-Length: 99999999", "-d", "[]"]].concat();
    assert_eq!(refused(&world, &arguments[1..], "/echo").0, "413");
}

#[test]
fn digests_are_those_of_the_body_that_leaves() {
    let world = world(PLACES);
    let arguments = [
        "-H",
        JSON,
        "-H",
        "Content-Digest: sha-256=:AAAA:",
        "-H",
        "Content-MD5: AAAA",
        "-d",
        r#"["AS_SECRET_API_KEY"]"#,
    ];
    curl(&world, &arguments, "/echo").ok();
    let got = world.api.received().pop().unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, got.body.as_bytes());
    let digest = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
    assert_eq!(got.header("content-digest"), format!("sha-256=:{digest}:"));
    assert_eq!(got.header("content-md5"), "");
    assert_eq!(world.home.audit()[0]["notes"][0], "dropped content-md5: the body changed");
}

#[test]
fn a_body_over_the_limit_is_refused_whether_its_length_is_said_or_not() {
    let world = world(&format!("{PLACES}\nmax_body: 1KiB"));
    let body = format!("[\"{}\"]", "x".repeat(1100));
    for more in ["Accept: */*", "Transfer-Encoding: chunked"] {
        let (code, sentence) = refused(&world, &["-H", JSON, "-H", more, "-d", &body], "/echo");
        assert!(code == "413" && sentence.contains("max_body"), "{code} {sentence}");
    }
    // Ten MiB where the rule says nothing; and what no secret goes into streams, however much it is.
    let script = |kind: &str| {
        let url = world.url("/upload");
        format!(
            "head -c 12000000 /dev/zero | tr '\\0' 1 | curl -sS -m 50 -w '%{{http_code}}' -H 'Content-Type: {kind}' -T - -X POST {url}"
        )
    };
    world.rule(PLACES);
    let text = finish(&mut world.home.run_agent(["sh", "-c", &script("application/json")])).ok();
    assert!(text.ends_with("413"), "{text}");
    let text = finish(&mut world.home.run_agent(["sh", "-c", &script("text/plain")])).ok();
    assert_eq!(text, r#"{"bytes":"12000000"}200"#);
}

#[test]
fn trailers_stay_behind_a_body_that_was_rewritten() {
    let world = world(PLACES);
    let port = world.api.port().to_string();
    let program = "references/programs/raw.py";
    let request = "POST /echo HTTP/1.1\r\nHost: api.test:PORT\r\nContent-Type: application/json\r\nTrailer: X-Sum, X-AS-Session-Token\r\n\
                   Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n15\r\n[\"AS_SECRET_API_KEY\"]\r\n0\r\nX-Sum: 7\r\nX-AS-Session-Token: t\r\n\r\n";
    let request = request.replace("PORT", &port);
    let answer = finish(&mut with_program(world.home.run_agent([PYTHON]), program, &[&port, &request])).ok();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let got = world.api.received().pop().unwrap();
    assert_eq!(got.body, format!("[\"{SECRET}\"]"));
    assert_eq!(got.trailers["x-sum"], ["7"]);
    assert_eq!(got.trailers.len(), 1, "{got:#?}");
}

#[test]
fn a_large_document_is_filled_in_good_time() {
    let world = world(PLACES);
    // Strings, keys and numbers, and placeholders at both ends: 8 MB.
    let script = format!(
        "(printf '[\"AS_SECRET_API_KEY\"'; yes ',{{\"key\":\"some text\",\"n\":1.5}}' | head -n 250000 | tr -d '\\n'; \
         printf ',\"AS_SECRET_API_KEY\"]') | curl -sS -m 50 -o /dev/null -w '%{{http_code}} %{{size_upload}}' -H '{JSON}' \
         --data-binary @- {}",
        world.url("/echo")
    );
    let said = finish(&mut world.home.run_agent(["sh", "-c", &script])).ok();
    assert!(said.starts_with("200"), "{said}");
    let got = world.api.received().pop().unwrap();
    assert!(got.bytes.len() > 7_000_000, "{said}");
    let document: serde_json::Value = serde_json::from_slice(&got.bytes).unwrap();
    let ends = (&document[0], &document[250_001]);
    assert_eq!(ends, (&SECRET.into(), &SECRET.into()));
}
