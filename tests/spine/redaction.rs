//! What comes back holds no secret, however it is encoded, cut or compressed.

use super::*;

const MARKER: &str = "[REDACTED_BY_AGENTSECRETS]";

#[test]
fn an_echo_of_the_secret_is_taken_out() {
    let world = World::new();
    for path in ["/echo", "/echo-gzip", "/echo-raw", "/drip", "/drip?size=7", "/sse", "/trailers"] {
        for version in ["--http1.1", "--http2"] {
            let outcome = world.curl(&[version, "-i", "--compressed"], path);
            let answer = outcome.ok();
            assert!(!answer.contains(SECRET), "{path} {version}: {answer}");
            if path != "/trailers" {
                assert!(answer.contains(MARKER), "{path} {version}: {answer}");
            }
        }
    }
    let audit = world.home.audit();
    assert_eq!(audit.len(), 14);
    let missed: Vec<_> = audit.iter().filter(|record| record["redacted"] != true).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn encoded_echoes_are_taken_out() {
    let world = World::new();
    // The server repeats what an agent that somehow knew an encoded form would ask it to repeat.
    for encoded in [
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "c2tfbGl2ZV80ZUMzOUhxTHlqV0Rhcmp0VDF6ZHA3ZGM",
        "736b5f6c6976655f34654333394871",
        "%73%6b%5f%6c%69%76%65%5f%34%65%43%33%39%48%71%4c%79%6a%57%44%61%72%6a%74%54%31%7a%64%70%37%64%63",
    ] {
        let mut curl = world.home.run_agent(["curl", "-sS", "-d", encoded]);
        let answer = finish(curl.arg(world.url("/echo"))).ok();
        let whole_hex = "736b5f6c6976655f346543333948714c796a574461726a745431";
        assert!(!answer.contains(encoded) || whole_hex.starts_with(encoded), "{encoded} in {answer}");
    }
}

#[test]
fn an_answer_is_searched_for_secrets_that_this_request_did_not_spend() {
    let world = World::new();
    let mut curl = world.home.run_agent(["curl", "-sS", "-i"]);
    let answer = finish(curl.arg(world.url(&format!("/echo-raw?value={SECRET}")))).ok();
    assert!(!answer.contains(SECRET), "{answer}");
    assert!(answer.to_lowercase().contains("x-as-redacted: true"), "{answer}");
}

#[test]
fn an_answer_without_a_secret_is_unchanged_to_the_byte() {
    let world = World::new();
    let sum = finish(&mut world.home.run_agent([
        "sh",
        "-c",
        &format!("curl -sS {} | sha256sum", world.url("/stream?n=1000000")),
    ]))
    .ok();
    let own = finish(
        crate::support::process::command("sh")
            .args(["-c", "head -c 1000000 /dev/zero | tr '\\0' x | sha256sum"]),
    )
    .ok();
    assert_eq!(sum, own);
}

#[test]
fn every_attempt_leaves_one_record_and_the_log_verifies() {
    let world = World::new();
    world.curl(&[], "/echo?token=in-the-url").ok();
    world.refused(&[], "https://nowhere.test/");
    let audit = world.home.audit();
    assert_eq!(audit.len(), 2);
    let spent = &audit[0];
    assert_eq!(spent["status"], "OK");
    assert_eq!(spent["secret_keys"][0], "API_KEY");
    assert_eq!(spent["identity_level"], "kernel");
    assert_eq!(spent["domain"], "api.test");
    assert_eq!(spent["target_url"], world.url("/echo?token="));
    assert_eq!(spent["agent_id"], "coder");
    assert_eq!(spent["process"]["exe"], "/usr/bin/curl");
    assert_eq!(spent["process"]["uid"], 65534);
    assert_eq!(spent["process"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(audit[1]["status"], "BLOCKED");
    finish(&mut world.home.agentsecrets(["audit", "verify"])).ok();

    // Changing one byte of it shows.
    let log = world.home.path().join("audit/audit.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains(SECRET));
    std::fs::write(&log, text.replacen("\"BLOCKED\"", "\"ERROR\"", 1)).unwrap();
    assert_eq!(finish(&mut world.home.agentsecrets(["audit", "verify"])).code, Some(1));
}
