//! Responses hold no secret, however it is encoded, split or compressed.

use super::*;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

#[test]
fn echoed_secret_is_redacted() {
    let fixture = Fixture::new();
    for path in ["/echo", "/echo-gzip", "/echo-raw", "/drip", "/drip?size=7", "/sse", "/trailers"] {
        for version in ["--http1.1", "--http2"] {
            let outcome = fixture.curl(&[version, "-i", "--compressed"], path);
            let answer = outcome.ok();
            assert!(!answer.contains(SECRET), "{path} {version}: {answer}");
            if path != "/trailers" {
                assert!(answer.contains(MARKER), "{path} {version}: {answer}");
            }
        }
    }
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 14);
    let missed: Vec<_> = audit.iter().filter(|record| record["redacted"] != true).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn encoded_echo_is_redacted() {
    let fixture = Fixture::new();
    // The server echoes an encoded form that the agent guessed.
    for encoded in [
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "c2tfbGl2ZV80ZUMzOUhxTHlqV0Rhcmp0VDF6ZHA3ZGM",
        "736b5f6c6976655f34654333394871",
        "%73%6b%5f%6c%69%76%65%5f%34%65%43%33%39%48%71%4c%79%6a%57%44%61%72%6a%74%54%31%7a%64%70%37%64%63",
    ] {
        let mut curl = fixture.home.run_agent(["curl", "-sS", "-d", encoded]);
        let answer = run(curl.arg(fixture.url("/echo"))).ok();
        let whole_hex = "736b5f6c6976655f346543333948714c796a574461726a745431";
        assert!(!answer.contains(encoded) || whole_hex.starts_with(encoded), "{encoded} in {answer}");
    }
}

#[test]
fn other_secrets_of_agent_are_redacted() {
    let fixture = Fixture::new();
    let mut curl = fixture.home.run_agent(["curl", "-sS", "-i"]);
    let answer = run(curl.arg(fixture.url(&format!("/echo-raw?value={SECRET}")))).ok();
    assert!(!answer.contains(SECRET), "{answer}");
    assert!(answer.to_lowercase().contains("x-as-redacted: true"), "{answer}");
}

#[test]
fn clean_response_is_unchanged() {
    let fixture = Fixture::new();
    let sum = run(&mut fixture.home.run_agent([
        "sh",
        "-c",
        &format!("curl -sS {} | sha256sum", fixture.url("/stream?n=1000000")),
    ]))
    .ok();
    let own = run(crate::support::process::command("sh")
        .args(["-c", "head -c 1000000 /dev/zero | tr '\\0' x | sha256sum"]))
    .ok();
    assert_eq!(sum, own);
}

#[test]
fn each_attempt_has_one_record_and_log_verifies() {
    let fixture = Fixture::new();
    fixture.curl(&[], "/echo?token=in-the-url").ok();
    fixture.rejected(&[], "https://nowhere.test/");
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 2);
    let spent = &audit[0];
    assert_eq!(spent["status"], "OK");
    assert_eq!(spent["secret_keys"][0], "API_KEY");
    assert_eq!(spent["identity_level"], "kernel");
    assert_eq!(spent["domain"], "api.test");
    assert_eq!(spent["target_url"], fixture.url("/echo?token="));
    assert_eq!(spent["agent_id"], "coder");
    assert_eq!(spent["process"]["exe"], "/usr/bin/curl");
    assert_eq!(spent["process"]["uid"], 65534);
    assert_eq!(spent["process"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(audit[1]["status"], "BLOCKED");
    run(&mut fixture.home.agentsecrets(["audit", "verify"])).ok();

    // One changed byte is detected.
    let log = fixture.home.path().join("audit/audit.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains(SECRET));
    std::fs::write(&log, text.replacen("\"BLOCKED\"", "\"ERROR\"", 1)).unwrap();
    assert_eq!(run(&mut fixture.home.agentsecrets(["audit", "verify"])).code, Some(1));
}
