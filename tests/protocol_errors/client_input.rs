//! Clients that send neither TLS nor HTTP. Each gets an error and a record, and reaches no server.

use super::*;
use crate::support::process::run_with_input;

/// An agent that sends raw bytes.
const RAW: &str = include_str!("raw.py");

/// The results of `cases`, in one run that ends with a valid request.
fn send_raw(fixture: &Fixture, cases: &[(&str, Vec<u8>)]) -> Vec<Value> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let good =
        format!("GET /good HTTP/1.1\r\nhost: api.test:{}\r\nconnection: close\r\n\r\n", fixture.api.port());
    let words = cases.iter().map(|(way, bytes)| format!("{way}:{}", hex(bytes)));
    let input: String =
        words.chain([format!("tls:{}", hex(good.as_bytes()))]).map(|line| line + "\n").collect();
    let mut agent = fixture.home.run_agent(["/usr/bin/python3", "-c", RAW, "api.test"]);
    let mut seen: Vec<Value> =
        run_with_input(agent.arg(fixture.api.port().to_string()), input.as_bytes()).json_lines();
    let good = seen.pop().unwrap();
    assert!(good["got"].as_str().unwrap().starts_with("HTTP/1.1 200"), "{good}");
    assert_eq!(seen.len(), cases.len());
    // Only the valid request reached the server.
    assert_eq!(fixture.api.only_request().path, "/good");
    seen
}

#[test]
fn non_tls_bytes_are_refused_and_recorded() {
    let fixture = Fixture::new();
    let hello = [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 40]].concat();
    let garbage = [&[0x16, 3, 1, 0, 32][..], &[0xaa; 32]].concat();
    let cases = [
        ("end", hello),
        ("tcp", garbage),
        ("tcp", [&[0x16, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat()),
        ("tcp", vec![0x16, 3, 1, 0, 0, 0x16, 3, 1, 0, 0]),
        ("tcp", vec![0, 1, 2, 3]),
        ("tcp", b"\r\n\r\n".to_vec()),
        ("tcp", vec![0x80, 46, 1, 3, 1, 0, 21]),
    ];
    for seen in send_raw(&fixture, &cases) {
        // At most a TLS alert.
        assert!(seen["got"].as_str().unwrap().len() <= 7, "{seen}");
    }
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), cases.len() + 1, "{audit:#?}");
    for record in &audit[..cases.len()] {
        assert_eq!(record["status"], "BLOCKED", "{record}");
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.contains("TLS"), "{record}");
    }
}

#[test]
fn non_http_bytes_are_refused_and_recorded() {
    let fixture = Fixture::new();
    let host = format!("api.test:{}", fixture.api.port());
    let get = |more: &str| format!("GET /bad HTTP/1.1\r\nhost: {host}\r\n{more}\r\n").into_bytes();
    let post = |more: &str| format!("POST /bad HTTP/1.1\r\nhost: {host}\r\n{more}\r\n12345").into_bytes();
    let cases = [
        ("tls", get(&format!("x-filler: {}\r\n", "f".repeat(400_000))), "431"),
        ("tls", get(&"x-filler: f\r\n".repeat(2_000)), "431"),
        ("tls", format!("GET /{} HTTP/1.1\r\nhost: {host}\r\n\r\n", "f".repeat(400_000)).into_bytes(), "4"),
        ("tls", post("content-length: 5\r\ncontent-length: 6\r\n"), "400"),
        ("tls", post("content-length: -5\r\n"), "400"),
        ("tls", post("content-length: 99999999999999999999999\r\n"), "400"),
        ("tls", get("x-nul: a\0b\r\n"), "400"),
        ("tls", get("x-cr: a\rb\r\n"), "400"),
        ("tls", get("x y: z\r\n"), "400"),
        ("tls", format!("GET /b\0ad HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes(), "400"),
        ("tls", format!("GET /bad HTTP/3.7\r\nhost: {host}\r\n\r\n").into_bytes(), "505"),
        ("tls", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "505"),
    ];
    let bytes: Vec<_> = cases.iter().map(|(way, bytes, _)| (*way, bytes.clone())).collect();
    for (seen, (_, sent, code)) in send_raw(&fixture, &bytes).iter().zip(&cases) {
        let got = seen["got"].as_str().unwrap();
        let sent = String::from_utf8_lossy(&sent[..sent.len().min(90)]);
        match *code {
            "" => assert_eq!(got, "", "{sent}"),
            code => assert!(got.starts_with(&format!("HTTP/1.1 {code}")), "{sent:?}: {seen}"),
        }
    }
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), cases.len() + 1, "{audit:#?}");
    assert!(audit[..cases.len()].iter().all(|record| record["status"] == "BLOCKED"), "{audit:#?}");
}
