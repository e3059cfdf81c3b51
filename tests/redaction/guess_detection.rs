//! An agent that makes a server echo its guesses learns nothing, and is then blocked.

use std::time::Duration;

use super::*;

#[test]
fn repeated_fragments_block_the_host() {
    let fixture = fixture(|received| {
        let secret = secret_of(received);
        Some(match received.path.as_str() {
            "/piece" => full_response("text/plain", format!("it begins {}...\n", &secret[..25])),
            _ => full_response("text/plain", format!("it is {secret}\n")),
        })
    });
    let script = r#"ask() { curl -sS -w '%{http_code}\n' -H "Authorization: Bearer $API_KEY" "$0$1"; }
        for n in $(seq 30); do ask /whole; done; for n in $(seq 18); do ask /piece; done"#;
    let out = run(&mut fixture.home.run_agent(["sh", "-c", script, &fixture.url("")])).ok();
    assert_clean(out.as_bytes(), "guesses");
    assert!(!out.contains(&SECRET[..25]), "{out}");
    assert_eq!(
        out.matches(&format!("it is {MARKER}\n200\n")).count(),
        30,
        "whole echoes are no guesses: {out}"
    );
    assert_eq!(out.matches(&format!("it begins {MARKER}...\n200\n")).count(), 16, "{out}");
    assert_eq!(out.matches("429").count(), 2, "{out}");
    let rejection = out.lines().find(|line| line.starts_with('{')).unwrap();
    let rejection: serde_json::Value = serde_json::from_str(rejection.trim_end_matches("429")).unwrap();
    assert_eq!((&rejection["error"], &rejection["retryable"]), (&"redaction_limit".into(), &true.into()));

    let audit = fixture.home.audit();
    assert_eq!(audit.len(), 48);
    assert!(audit[..45].iter().all(|record| record["reason"].is_null()), "{audit:#?}");
    assert!(audit[45]["reason"].as_str().unwrap().starts_with("redaction_alarm"), "{:#?}", audit[45]);
    for refused in &audit[46..] {
        assert_eq!((&refused["status"], &refused["reason"]), (&"BLOCKED".into(), &"redaction_limit".into()));
    }
    assert_eq!(fixture.api.received().len(), 46);
}

#[test]
fn repeated_fragments_end_websocket() {
    let fixture = Fixture::new();
    let server = Server::start("http/programs/websocket_server.py", &fixture.authority, "api.test");
    fixture.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let url = format!("wss://api.test:{}/ws", server.port());
    let arguments: Vec<&str> = [url.as_str()].into_iter().chain(["piece"; 20]).collect();
    let agent = fixture.home.run_agent([PYTHON]);
    let output = run(&mut with_program(agent, "http/programs/websocket_agent.py", &arguments)).ok();
    assert_eq!(output.matches(&format!("it begins {MARKER}")).count(), 16, "{output}");
    assert!(
        output.lines().last().unwrap().contains("1008") && output.contains("redaction_limit"),
        "{output}"
    );
    let audit = fixture.home.audit();
    assert!(audit[0]["reason"].as_str().unwrap().starts_with("redaction_limit"), "{audit:#?}");
}

/// The number of correct bytes in each guess.
const CORRECT_BYTES: [usize; 6] = [0, 1, 8, 12, 16, 23];

/// `/KIND/N` echoes a guess with N correct bytes, in small frames with pauses between them.
fn echo_guess(received: &ReceivedRequest) -> Option<Response<Body>> {
    let mut path = received.path.split('/').skip(1);
    let (kind, right) = (path.next()?, path.next()?.parse::<usize>().ok()?);
    let kind = match kind {
        "event" => "text/event-stream",
        "line" => "application/x-ndjson",
        _ => "text/plain",
    };
    let secret = secret_of(received);
    let guess = format!("{}{}", &secret[..right], "~".repeat(secret.len() - right));
    let text = format!("you said {guess}\n\nand then {guess} and\n{}{guess}\n\n", "more ".repeat(200));
    let frames: Vec<bytes::Bytes> = text.as_bytes().chunks(200).map(bytes::Bytes::copy_from_slice).collect();
    let frames = futures_util::stream::unfold(frames.into_iter(), |mut frames| async move {
        let frame = frames.next()?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok(Frame::data(frame)), frames))
    });
    Some(stream_response(kind, frames))
}

/// The agent observes the frames that we write and their times.
#[test]
fn frames_and_timing_do_not_reveal_guesses() {
    let fixture = fixture(echo_guess);
    let rights = CORRECT_BYTES.map(|right| right.to_string()).join(",");
    for kind in ["whole", "line", "event"] {
        let port = fixture.api.port().to_string();
        let agent = fixture.home.run_agent([PYTHON]);
        let arguments = [port.as_str(), kind, &rights];
        let out = run(&mut with_program(agent, "redaction/programs/frames.py", &arguments)).ok();
        // For each guess and repetition: the sizes of its frames, and their times in milliseconds.
        let seen: Vec<(Vec<Vec<usize>>, Vec<f64>)> = serde_json::from_str(&out).unwrap();
        assert_eq!(seen.len(), CORRECT_BYTES.len());
        let (sizes, times) = &seen[0];
        assert!(sizes[0].len() > 1, "{kind}: {sizes:?}");
        for (right, (other_sizes, other_times)) in CORRECT_BYTES.iter().zip(&seen) {
            for other_sizes in other_sizes {
                assert_eq!(other_sizes, &sizes[0], "{kind}: {right} right bytes");
            }
            for (time, other) in times.iter().zip(other_times) {
                // Less than the pause that a frame held back for the next one would show.
                assert!(
                    (time - other).abs() < 80.0,
                    "{kind}: {right} right bytes: {other_times:?} not {times:?}"
                );
            }
        }
    }
}
