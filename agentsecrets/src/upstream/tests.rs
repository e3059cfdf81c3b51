//! Tests of the upstream client against local servers: connection reuse, certificates, time limits and errors.

use futures_util::future::join_all;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::testing::*;
use crate::inject::Outbound;
use crate::policy::private_addresses::PrivateAddresses;
use crate::types::body::{Body, BodyError, full};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::{Scheme, Target};

/// Echoes the request line, headers and body.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    let authority = head.uri.authority().map(ToString::to_string);
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut answer = Response::new(body.map_err(BodyError::Peer).boxed_unsync());
    let headers: &mut HeaderMap = answer.headers_mut();
    headers.insert("x-host", host.or(authority).unwrap_or_default().parse().unwrap());
    headers.insert("x-path", path.parse().unwrap());
    headers.insert("connection", "x-hop".parse().unwrap());
    headers.insert("x-hop", "1".parse().unwrap());
    answer
}

async fn text(answer: Response<Body>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn refused(answer: Result<Response<Body>, Rejection>) -> Rejection {
    match answer {
        Ok(answer) => panic!("answered {}", answer.status()),
        Err(refusal) => refusal,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_connection_is_reused_within_session() {
    let authority = Authority::new();
    let server = Server::start(&authority, HTTP1, echo).await;
    let client = authority.client();
    for n in 0..500 {
        let body = format!("body {n}");
        let request = Request::post("/a?b=c").body(full(body.clone())).unwrap();
        let answer = client.send(to("api.test", server.port, request)).await.unwrap();
        assert_eq!(answer.headers()["x-host"], format!("api.test:{}", server.port));
        assert_eq!(answer.headers()["x-path"], "/a?b=c");
        assert_eq!(text(answer).await, body);
    }
    assert_eq!(server.connections(), 1);
}

/// One thread, as in each worker: many responses end in one turn, and many requests begin in the next.
#[tokio::test]
async fn concurrent_http1_requests_open_one_connection_each() {
    let authority = Authority::new();
    let server = Server::start(&authority, HTTP1, echo).await;
    let client = authority.client();
    for _ in 0..20 {
        let answers = join_all((0..64).map(|_| async {
            let answer = client.send(to("api.test", server.port, get("/a?b=c"))).await.unwrap();
            text(answer).await
        }));
        assert_eq!(answers.await, [""; 64]);
    }
    assert!(server.connections() <= 64, "{} connections", server.connections());
}

#[tokio::test]
async fn http2_connection_is_shared_from_first_request() {
    let authority = Authority::new();
    let server = Server::start(&authority, HTTP2, echo).await;
    let client = authority.client();
    let answers = join_all((0..20).map(|n| {
        let request = Request::post("/a?b=c").body(full(format!("body {n}"))).unwrap();
        client.send(to("api.test", server.port, request))
    }))
    .await;
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["x-host"], format!("api.test:{}", server.port));
        assert_eq!(answer.headers()["x-path"], "/a?b=c");
        assert_eq!(text(answer).await, format!("body {n}"));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn hop_headers_of_response_are_removed() {
    let authority = Authority::new();
    let server = Server::start(&authority, HTTP1, echo).await;
    let answer = authority.client().send(to("api.test", server.port, get("/"))).await.unwrap();
    assert!(!answer.headers().contains_key("connection"));
    assert!(!answer.headers().contains_key("x-hop"));
}

#[tokio::test]
async fn connection_is_not_shared_across_sessions_or_credentials() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let server = Server::start(&authority, kind, echo).await;
        let client = authority.client();
        for (session, secrets) in
            [("one", vec!["A"]), ("one", vec!["B"]), ("two", vec!["A"]), ("one", vec!["A"])]
        {
            let outbound = to("api.test", server.port, get("/"));
            let (target, private) = (outbound.target().clone(), outbound.private_addresses().clone());
            let isolation = isolation(session, &secrets);
            let outbound = Outbound::for_test(outbound.into_request(), target, private, isolation);
            text(client.send(outbound).await.unwrap()).await;
        }
        assert_eq!(server.connections(), 3);
    }
}

#[tokio::test]
async fn ended_session_closes_idle_connections() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let server = Server::start(&authority, kind, echo).await;
        let client = authority.client();
        text(client.send(to("api.test", server.port, get("/"))).await.unwrap()).await;
        client.end_session("one");
        text(client.send(to("api.test", server.port, get("/"))).await.unwrap()).await;
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn response_after_session_end_keeps_no_connection() {
    let authority = Authority::new();
    let server = Server::start(&authority, HTTP1, echo).await;
    let client = authority.client();
    for n in 1..=3 {
        let request = Request::post("/").body(full("x")).unwrap();
        let answer = client.send(to("api.test", server.port, request)).await.unwrap();
        client.end_session("one");
        assert_eq!(text(answer).await, "x");
        assert_eq!(server.connections(), n);
    }
}

#[tokio::test]
async fn certificate_for_other_name_is_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority, HTTP1, echo).await;
    let outbound = to("other.test", server.port, get("/?key=hunter2"));
    let refusal = refused(authority.client().send(outbound).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamUntrusted);
    assert_eq!(refusal.message, "the certificate of 'other.test' is for another name");
}

#[tokio::test]
async fn certificate_of_unknown_issuer_is_refused_with_advice() {
    let server = Server::start(&Authority::new(), HTTP1, echo).await;
    let other = Authority::named("other").client();
    let refusal = refused(other.send(to("api.test", server.port, get("/"))).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamUntrusted);
    assert!(refusal.message.contains("AGENTSECRETS_UPSTREAM_CA"), "{refusal}");
}

#[tokio::test]
async fn expired_certificate_is_refused() {
    let authority = Authority::new();
    let server = Server::start(&authority, ServerKind { expired: true, ..HTTP1 }, echo).await;
    let refusal = refused(authority.client().send(to("api.test", server.port, get("/"))).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamUntrusted);
    assert!(refusal.message.contains("has expired"), "{refusal}");
}

#[tokio::test]
async fn certificate_of_ip_target_must_name_ip() {
    let authority = Authority::new();
    let server = Server::start(&authority, ServerKind { name: "127.0.0.1", ..HTTP1 }, echo).await;
    let answer = authority.client().send(to("127.0.0.1", server.port, get("/"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let by_name = refused(authority.client().send(to("api.test", server.port, get("/"))).await);
    assert_eq!(by_name.code, ErrorCode::UpstreamUntrusted);
}

#[tokio::test]
async fn private_address_needs_rule_on_reused_connection() {
    let authority = Authority::new();
    for kind in [HTTP1, HTTP2] {
        let server = Server::start(&authority, kind, echo).await;
        let client = authority.client();
        text(client.send(to("api.test", server.port, get("/"))).await.unwrap()).await;
        let outbound = to("api.test", server.port, get("/"));
        let (target, isolation) = (outbound.target().clone(), outbound.isolation().clone());
        let request = outbound.into_request();
        let outbound = Outbound::for_test(request, target, PrivateAddresses::None, isolation);
        let refusal = refused(client.send(outbound).await);
        assert_eq!(refusal.code, ErrorCode::SsrfProtectionBlocked);
        assert!(refusal.message.contains("'api.test'"), "{refusal}");
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn silent_server_times_out() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let never = |_| std::future::pending::<Response<Body>>();
        let server = Server::start(&authority, kind, never).await;
        let client = authority.client().with_timeouts(SHORT_TIMEOUTS);
        let refusal = refused(client.send(to("api.test", server.port, get("/?key=hunter2"))).await);
        assert_eq!(refusal.code, ErrorCode::UpstreamTimeout);
        assert!(!refusal.message.contains("hunter2"), "{refusal}");
    }
}

#[tokio::test]
async fn stalled_tls_handshake_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = Authority::new().client().with_timeouts(SHORT_TIMEOUTS);
    let refusal = refused(client.send(to("api.test", port, get("/"))).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamTimeout);
    drop(listener);
    let refusal = refused(client.send(to("api.test", port, get("/"))).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamUnavailable);
    assert_eq!(refusal.message, "'api.test' cannot be reached: it refuses connections");
}

#[tokio::test]
async fn unknown_name_is_unavailable() {
    let refusal = refused(Authority::new().client().send(to("no.test", 443, get("/"))).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamUnavailable);
    assert!(refusal.message.starts_with("'no.test' cannot be resolved"), "{refusal}");
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let authority = Authority::new();
    let redirect = async |_| {
        let answer = Response::builder().status(302).header("location", "https://evil.test/");
        answer.body(full("gone")).unwrap()
    };
    let server = Server::start(&authority, HTTP1, move |r| Box::pin(redirect(r))).await;
    let answer = authority.client().send(to("api.test", server.port, get("/"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!(text(answer).await, "gone");
}

/// A body fed through a channel, whose sender notices when the receiver is dropped.
fn fed() -> (mpsc::Sender<Result<Frame<bytes::Bytes>, BodyError>>, Body) {
    let (sender, mut receiver) = mpsc::channel(1);
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, StreamBody::new(stream).boxed_unsync())
}

#[tokio::test]
async fn bodies_stream_in_both_directions() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let server = Server::start(&authority, kind, echo).await;
        let (sender, body) = fed();
        let request = Request::post("/").body(body).unwrap();
        let answer = authority.client().send(to("api.test", server.port, request)).await.unwrap();
        let mut answer = answer.into_body();
        for word in ["one", "two"] {
            sender.send(Ok(Frame::data(word.into()))).await.unwrap();
            let frame = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, word);
        }
        drop(sender);
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "");
    }
}

#[tokio::test]
async fn dropped_response_cancels_request() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let (senders, mut receivers) = mpsc::channel(1);
        let endless = move |_| {
            let senders = senders.clone();
            async move {
                let (sender, body) = fed();
                senders.send(sender).await.unwrap();
                Response::new(body)
            }
        };
        let server = Server::start(&authority, kind, endless).await;
        let client = authority.client();
        let answer = client.send(to("api.test", server.port, get("/"))).await.unwrap();
        let sender = receivers.recv().await.unwrap();
        sender.send(Ok(Frame::data("x".into()))).await.unwrap();
        drop(answer);
        sender.closed().await;
    }
}

#[tokio::test]
async fn truncated_response_is_an_error() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let broken = |_| async {
            let (sender, body) = fed();
            tokio::spawn(async move {
                sender.send(Ok(Frame::data("half".into()))).await.unwrap();
                drop(sender.send(Err(BodyError::TooLarge)).await);
            });
            Response::new(body)
        };
        let server = Server::start(&authority, kind, broken).await;
        let answer = authority.client().send(to("api.test", server.port, get("/"))).await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn too_large_request_body_is_reported() {
    for kind in [HTTP1, HTTP2] {
        let authority = Authority::new();
        let read = |request: Request<Incoming>| async {
            drop(request.into_body().collect().await);
            Response::new(full(""))
        };
        let server = Server::start(&authority, kind, read).await;
        let (sender, body) = fed();
        tokio::spawn(async move {
            sender.send(Ok(Frame::data("part".into()))).await.unwrap();
            drop(sender.send(Err(BodyError::TooLarge)).await);
        });
        let request = Request::post("/").body(body).unwrap();
        let refusal = refused(authority.client().send(to("api.test", server.port, request)).await);
        assert_eq!(refusal.code, ErrorCode::BodyTooLarge);
    }
}

#[tokio::test]
async fn goaway_opens_new_connection() {
    let authority = Authority::new();
    let server = Server::start(&authority, ServerKind { has_goaway: true, ..HTTP2 }, echo).await;
    let client = authority.client();
    for n in 1..=3 {
        let request = Request::post("/").body(full("x")).unwrap();
        let answer = client.send(to("api.test", server.port, request)).await.unwrap();
        assert_eq!(text(answer).await, "x");
        server.ended_connections(n).await;
        assert_eq!(server.connections(), n);
    }
}

/// Reads the head of a request.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A server that answers the first request of its first connection, reads the second one and closes.
async fn forgetful() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heads, seen) = mpsc::channel(8);
    tokio::spawn(async move {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (mut first, _) = listener.accept().await.unwrap();
        heads.send(read_head(&mut first).await).await.unwrap();
        first.write_all(answer).await.unwrap();
        heads.send(read_head(&mut first).await).await.unwrap();
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        heads.send(read_head(&mut second).await).await.unwrap();
        second.write_all(answer).await.unwrap();
    });
    (port, seen)
}

#[tokio::test]
async fn safe_request_is_retried_when_idle_connection_died() {
    let (port, mut seen) = forgetful().await;
    let client = Authority::new().client();
    assert_eq!(text(client.send(plain(port, get("/1"))).await.unwrap()).await, "ok");
    assert_eq!(text(client.send(plain(port, get("/2"))).await.unwrap()).await, "ok");
    let mut heads = Vec::new();
    for _ in 0..3 {
        heads.push(seen.recv().await.unwrap());
    }
    assert!(heads[1].starts_with("GET /2 ") && heads[1] == heads[2], "{heads:?}");
}

#[tokio::test]
async fn unsafe_request_is_not_retried() {
    let (port, mut seen) = forgetful().await;
    let client = Authority::new().client();
    assert_eq!(text(client.send(plain(port, get("/1"))).await.unwrap()).await, "ok");
    let request = Request::post("/2").body(full("x")).unwrap();
    let refusal = refused(client.send(plain(port, request)).await);
    assert_eq!(refusal.code, ErrorCode::UpstreamUnavailable);
    seen.recv().await.unwrap();
    assert!(seen.recv().await.unwrap().starts_with("POST /2 "));
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn upgrade_uses_its_own_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
    });
    let request = Request::builder()
        .uri("/")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(crate::types::body::empty())
        .unwrap();
    let mut answer = Authority::new().client().send(plain(port, request)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["upgrade"], "websocket");
    let upgraded = hyper::upgrade::on(&mut answer).await.unwrap();
    let mut said = Vec::new();
    hyper_util::rt::TokioIo::new(upgraded).read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"hello");
}

#[tokio::test]
async fn own_listener_is_not_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = listener.local_addr().unwrap();
    let client = Authority::new().client().with_own_listeners([ours]);
    let target = Target { scheme: Scheme::Http, host: "api.test".parse().unwrap(), port: ours.port() };
    let outbound = Outbound::for_test(get("/"), target, PrivateAddresses::Any, isolation("one", &[]));
    let refusal = refused(client.send(outbound).await);
    assert_eq!(refusal.code, ErrorCode::SsrfProtectionBlocked);
    assert_eq!(refusal.message, "'api.test' resolves to the interceptor itself");
}
