//! What an agent learns that makes a server repeat its guesses: nothing, and then less.

use std::time::Duration;

use super::*;

#[test]
fn pieces_that_come_back_again_and_again_raise_an_alarm_and_close_the_host() {
    let world = world(|received| {
        let secret = secret_of(received);
        Some(match received.path.as_str() {
            "/piece" => whole("text/plain", format!("it begins {}...\n", &secret[..25])),
            _ => whole("text/plain", format!("it is {secret}\n")),
        })
    });
    let script = r#"ask() { curl -sS -w '%{http_code}\n' -H "Authorization: Bearer $API_KEY" "$0$1"; }
        for n in $(seq 30); do ask /whole; done; for n in $(seq 18); do ask /piece; done"#;
    let out = finish(&mut world.home.run_agent(["sh", "-c", script, &world.url("")])).ok();
    is_clean(out.as_bytes(), "guesses");
    assert!(!out.contains(&SECRET[..25]), "{out}");
    assert_eq!(
        out.matches(&format!("it is {MARKER}\n200\n")).count(),
        30,
        "whole echoes are no guesses: {out}"
    );
    assert_eq!(out.matches(&format!("it begins {MARKER}...\n200\n")).count(), 16, "{out}");
    assert_eq!(out.matches("429").count(), 2, "{out}");
    let refusal = out.lines().find(|line| line.starts_with('{')).unwrap();
    let refusal: serde_json::Value = serde_json::from_str(refusal.trim_end_matches("429")).unwrap();
    assert_eq!((&refusal["error"], &refusal["retryable"]), (&"redaction_limit".into(), &true.into()));

    let audit = world.home.audit();
    assert_eq!(audit.len(), 48);
    assert!(audit[..45].iter().all(|record| record["reason"].is_null()), "{audit:#?}");
    assert!(audit[45]["reason"].as_str().unwrap().starts_with("redaction_alarm"), "{:#?}", audit[45]);
    for refused in &audit[46..] {
        assert_eq!((&refused["status"], &refused["reason"]), (&"BLOCKED".into(), &"redaction_limit".into()));
    }
    assert_eq!(world.api.received().len(), 46);
}

#[test]
fn a_websocket_in_which_pieces_come_back_again_and_again_is_ended() {
    let world = World::new();
    let server = Server::start("http/programs/websocket_server.py", &world.authority, "api.test");
    world.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let url = format!("wss://api.test:{}/ws", server.port());
    let arguments: Vec<&str> = [url.as_str()].into_iter().chain(["piece"; 20]).collect();
    let agent = world.home.run_agent([PYTHON]);
    let said = finish(&mut with_program(agent, "http/programs/websocket_agent.py", &arguments)).ok();
    assert_eq!(said.matches(&format!("it begins {MARKER}")).count(), 16, "{said}");
    assert!(said.lines().last().unwrap().contains("1008") && said.contains("redaction_limit"), "{said}");
    let audit = world.home.audit();
    assert!(audit[0]["reason"].as_str().unwrap().starts_with("redaction_limit"), "{audit:#?}");
}

/// How much of each guess is right.
const RIGHT: [usize; 6] = [0, 1, 8, 12, 16, 23];

/// `/KIND/N` repeats a guess of which N bytes are right, in small frames with pauses between them.
fn repeat(received: &Received) -> Option<Response<Body>> {
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
    Some(stream(kind, frames))
}

/// The agent sees the very frames that we write, and when they come.
#[test]
fn neither_the_frames_nor_their_times_tell_how_much_of_a_guess_is_right() {
    let world = world(repeat);
    let rights = RIGHT.map(|right| right.to_string()).join(",");
    for kind in ["whole", "line", "event"] {
        let port = world.api.port().to_string();
        let agent = world.home.run_agent([PYTHON]);
        let arguments = [port.as_str(), kind, &rights];
        let out = finish(&mut with_program(agent, "redaction/programs/frames.py", &arguments)).ok();
        // For each guess: the sizes of its frames, each time, and when each came, in milliseconds.
        let seen: Vec<(Vec<Vec<usize>>, Vec<f64>)> = serde_json::from_str(&out).unwrap();
        assert_eq!(seen.len(), RIGHT.len());
        let (sizes, times) = &seen[0];
        assert!(sizes[0].len() > 1, "{kind}: {sizes:?}");
        for (right, (other_sizes, other_times)) in RIGHT.iter().zip(&seen) {
            for other_sizes in other_sizes {
                assert_eq!(other_sizes, &sizes[0], "{kind}: {right} right bytes");
            }
            for (time, other) in times.iter().zip(other_times) {
                // Less than the pause that would show that a frame waited for the next.
                assert!(
                    (time - other).abs() < 80.0,
                    "{kind}: {right} right bytes: {other_times:?} not {times:?}"
                );
            }
        }
    }
}
