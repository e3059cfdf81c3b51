//! Every encoding in every location, over both versions of HTTP.

use super::*;

/// `/place/N`: the N-th encoding of the credential, in that location.
fn echo_credential(received: &ReceivedRequest) -> Option<Response<Body>> {
    let mut path = received.path.split('/').skip(1);
    let (place, number) = (path.next()?, path.next()?.parse::<usize>().ok()?);
    let (_, echo) = ENCODERS.get(number)?;
    let echo = echo(secret_of(received).as_bytes());
    let frames = |frames: Vec<Frame<bytes::Bytes>>| futures_util::stream::iter(frames.into_iter().map(Ok));
    let header = HeaderValue::from_bytes(&echo).ok();
    Some(match (place, header) {
        ("header", Some(value)) => {
            let mut answer = full_response("text/plain", "in the headers");
            for name in ["x-echo", "location", "set-cookie", "www-authenticate"] {
                answer.headers_mut().insert(HeaderName::from_static(name), value.clone());
            }
            answer
        }
        ("trailer", Some(value)) => {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-echo"), value)]);
            stream_response("text/plain", frames(vec![Frame::data("{}".into()), Frame::trailers(trailers)]))
        }
        ("event", _) => {
            let event = [b"data: ", &echo[..], b"\n\n"].concat();
            stream_response(
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
            stream_response(
                "application/grpc",
                frames(vec![Frame::data(message.into()), Frame::trailers(ok)]),
            )
        }
        ("drip", _) => {
            let bytes = echo.chunks(5).map(|chunk| Frame::data(bytes::Bytes::copy_from_slice(chunk)));
            stream_response("text/plain", frames(bytes.collect()))
        }
        _ => full_response("text/plain", echo),
    })
}

#[test]
fn every_encoding_is_redacted_everywhere() {
    let fixture = fixture(echo_credential);
    let all = ENCODERS.len();
    let mut requests = 0;
    for place in ["body", "header", "trailer", "event", "message", "drip"] {
        for version in ["--http1.1", "--http2"] {
            let path = format!("/{place}/[0-{}]", all - 1);
            let outcome = fixture.curl(&[version, "-i"], &path);
            let answer = outcome.ok();
            assert_clean(answer.as_bytes(), &format!("{place} {version}"));
            assert_eq!(answer.matches(" 200").count(), all, "{place} {version}: {answer}");
            let markers = answer.matches(MARKER).count();
            assert!(place == "trailer" || markers >= all, "{place} {version}: {markers} markers in {answer}");
            requests += all;
        }
    }
    let audit = fixture.home.audit();
    assert_eq!(audit.len(), requests);
    let missed = audit.iter().find(|record| record["redacted"] != true);
    assert!(missed.is_none(), "{missed:#?}");
    let alarm = audit.iter().find(|record| !record["reason"].is_null());
    assert!(alarm.is_none(), "whole secrets are no guesses: {alarm:#?}");
}

/// A server that puts the credential everywhere except in the body.
fn send_credential(mut peer: Peer) {
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
fn hints_reason_and_header_names_are_redacted() {
    let fixture = Fixture::new();
    let server = FaultyServer::https(&fixture.authority, "api.test", "http/1.1", send_credential);
    fixture.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let url = format!("https://api.test:{}/", server.port());
    for version in ["--http1.1", "--http2"] {
        let answer = fixture.curl_at(&["-i", version], &url).ok();
        assert_clean(answer.to_lowercase().as_bytes(), version);
        assert_clean(answer.as_bytes(), version);
        assert!(answer.contains(&format!("x-echo: {MARKER}")) && answer.ends_with("hello"), "{answer}");
        assert!(!answer.contains("103") && !answer.contains("Fine"), "{answer}");
    }
}

#[test]
fn websocket_messages_and_close_reason_are_redacted() {
    let fixture = Fixture::new();
    let server = Server::start("http/programs/websocket_server.py", &fixture.authority, "api.test");
    fixture.rules(&[("api.test", server.port(), "secrets: [API_KEY]")]);
    let url = format!("wss://api.test:{}/ws", server.port());
    let agent = fixture.home.run_agent([PYTHON]);
    let arguments = [url.as_str(), "forms", "hello", "close"];
    let output = run(&mut with_program(agent, "http/programs/websocket_agent.py", &arguments)).ok();
    assert_clean(output.as_bytes(), "messages");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0].matches(MARKER).count(), 7, "{output}");
    assert_eq!(lines[1], "\"echo hello\"");
    assert!(lines[2].contains(&format!("bye Bearer {MARKER}")), "{output}");
}
