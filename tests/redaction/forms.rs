//! Each form in each place, over both versions of HTTP.

use super::*;

/// `/place/N`: the N-th form of the credential, in that place.
fn repeat(received: &Received) -> Option<Response<Body>> {
    let mut path = received.path.split('/').skip(1);
    let (place, number) = (path.next()?, path.next()?.parse::<usize>().ok()?);
    let (_, echo) = ECHOES.get(number)?;
    let echo = echo(secret_of(received).as_bytes());
    let frames = |frames: Vec<Frame<bytes::Bytes>>| futures_util::stream::iter(frames.into_iter().map(Ok));
    let header = HeaderValue::from_bytes(&echo).ok();
    Some(match (place, header) {
        ("header", Some(value)) => {
            let mut answer = whole("text/plain", "in the headers");
            for name in ["x-echo", "location", "set-cookie", "www-authenticate"] {
                answer.headers_mut().insert(HeaderName::from_static(name), value.clone());
            }
            answer
        }
        ("trailer", Some(value)) => {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-echo"), value)]);
            stream("text/plain", frames(vec![Frame::data("{}".into()), Frame::trailers(trailers)]))
        }
        ("event", _) => {
            let event = [b"data: ", &echo[..], b"\n\n"].concat();
            stream(
                "text/event-stream",
                frames(vec![Frame::data(event.into()), Frame::data("data: more\n\n".into())]),
            )
        }
        ("message", _) => {
            let message = [&[0][..], &(echo.len() as u32).to_be_bytes(), &echo].concat();
            let ok = HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            stream("application/grpc", frames(vec![Frame::data(message.into()), Frame::trailers(ok)]))
        }
        ("drip", _) => {
            let bytes = echo.chunks(5).map(|chunk| Frame::data(bytes::Bytes::copy_from_slice(chunk)));
            stream("text/plain", frames(bytes.collect()))
        }
        _ => whole("text/plain", echo),
    })
}

#[test]
fn every_form_is_taken_out_of_every_place_over_both_versions_of_http() {
    let world = world(repeat);
    let all = ECHOES.len();
    let mut asked = 0;
    for place in ["body", "header", "trailer", "event", "message", "drip"] {
        for version in ["--http1.1", "--http2"] {
            let path = format!("/{place}/[0-{}]", all - 1);
            let outcome = world.curl(&[version, "-i"], &path);
            let answer = outcome.ok();
            is_clean(answer.as_bytes(), &format!("{place} {version}"));
            assert_eq!(answer.matches(" 200").count(), all, "{place} {version}: {answer}");
            let markers = answer.matches(MARKER).count();
            assert!(place == "trailer" || markers >= all, "{place} {version}: {markers} markers in {answer}");
            asked += all;
        }
    }
    let audit = world.home.audit();
    assert_eq!(audit.len(), asked);
    let missed = audit.iter().find(|record| record["redacted"] != true);
    assert!(missed.is_none(), "{missed:#?}");
    let alarm = audit.iter().find(|record| !record["reason"].is_null());
    assert!(alarm.is_none(), "whole secrets are no guesses: {alarm:#?}");
}

/// A server whose answer says the credential in everything that is not its body.
fn tell(mut peer: Peer) {
    while let Some(head) = peer.request() {
        let secret = head
            .lines()
            .find_map(|line| line.strip_prefix("authorization: Bearer "))
            .unwrap_or_default()
            .to_owned();
        peer.send(format!(
            "HTTP/1.1 103 Early Hints\r\nlink: </{secret}>\r\nx-echo: {secret}\r\n\r\n\
             HTTP/1.1 200 Fine {secret}\r\nx-{secret}: 1\r\nx-echo: {secret}\r\netag: \"{secret}\"\r\n\
             content-length: 5\r\n\r\nhello"
        ));
    }
}

#[test]
fn early_hints_reason_phrases_and_the_names_of_headers_hold_no_secret() {
    let world = World::new();
    let server = Faulty::https(&world.authority, "api.test", "http/1.1", tell);
    world.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let url = format!("https://api.test:{}/", server.port());
    for version in ["--http1.1", "--http2"] {
        let answer = world.curl_at(&["-i", version], &url).ok();
        is_clean(answer.to_lowercase().as_bytes(), version);
        is_clean(answer.as_bytes(), version);
        assert!(answer.contains(&format!("x-echo: {MARKER}")) && answer.ends_with("hello"), "{answer}");
        assert!(!answer.contains("103") && !answer.contains("Fine"), "{answer}");
    }
}

#[test]
fn a_websocket_repeats_no_form_in_its_messages_or_its_end() {
    let world = World::new();
    let server = Server::start("http/programs/websocket_server.py", &world.authority, "api.test");
    world.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let url = format!("wss://api.test:{}/ws", server.port());
    let agent = world.home.run_agent([PYTHON]);
    let arguments = [url.as_str(), "forms", "hello", "close"];
    let said = finish(&mut with_program(agent, "http/programs/websocket_agent.py", &arguments)).ok();
    is_clean(said.as_bytes(), "messages");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0].matches(MARKER).count(), 7, "{said}");
    assert_eq!(lines[1], "\"echo hello\"");
    assert!(lines[2].contains(&format!("bye Bearer {MARKER}")), "{said}");
}
