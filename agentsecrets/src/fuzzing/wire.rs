//! Fuzz targets for the first bytes of an agent's connection: ClientHello, request head, DNS query.

use std::io::{Cursor, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::RecordType;
use http::header::HOST;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::input::{Input, block_on};
use crate::dns::server;
use crate::http::server::serve;
use crate::intercept::explicit::{ProxyRequest, opening};
use crate::intercept::protocol_detection::{Protocol, detect};
use crate::tls;
use crate::tls::authority::CertificateAuthority;
use crate::tls::leaf::LeafCertCache;
use crate::tls::terminate::PendingHello;
use crate::types::body::{self, Body};
use crate::types::host::Host;
use crate::types::target::{Claim, Scheme, Target};
use crate::types::timeouts::Timeouts;

/// Timeout for a silent peer; no peer here is silent.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Detects the protocol of the first bytes and terminates TLS.
pub(super) fn hello(bytes: &[u8]) {
    static LEAF_CERTS: LazyLock<LeafCertCache> = LazyLock::new(|| {
        LeafCertCache::new(CertificateAuthority::generate().unwrap(), tls::provider()).unwrap()
    });
    let bytes = bytes.get(..32 << 10).unwrap_or(bytes);
    connect_head(bytes);
    let (mut client, ours) = UnixStream::pair().unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    ours.set_nonblocking(true).unwrap();
    block_on(async {
        // A Unix stream socket works like TCP here and needs no port.
        let stream = TcpStream::from_std(OwnedFd::from(ours).into()).unwrap();
        let speaks = detect(&stream, TIMEOUT).await.ok();
        let expected = bytes.first().map(|first| match first {
            0x16 => Protocol::Tls,
            b'A'..=b'Z' => Protocol::Http,
            _ => Protocol::Unknown,
        });
        assert_eq!(speaks, expected);
        if speaks == Some(Protocol::Tls) {
            let Ok(hello) = PendingHello::read(stream, IpAddr::from([192, 0, 2, 1]).into(), TIMEOUT).await
            else {
                return;
            };
            let _ = hello.check_server_name();
            let ended = hello.terminate(&LEAF_CERTS).await;
            assert!(ended.is_err(), "a handshake that nobody answered was completed");
        }
    });
}

/// Reads the opening of an explicit proxy connection. For CONNECT, exactly the head is consumed.
fn connect_head(bytes: &[u8]) {
    let (mut client, ours) = UnixStream::pair().unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    ours.set_nonblocking(true).unwrap();
    block_on(async {
        let mut stream = TcpStream::from_std(OwnedFd::from(ours).into()).unwrap();
        let Ok(ProxyRequest::Tunnel(host, port, _)) = opening(&mut stream, TIMEOUT).await else { return };
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.unwrap();
        assert_eq!(rest, &bytes[end..]);
        // Other lines of the head may hold bytes that are not text.
        let head = String::from_utf8_lossy(&bytes[..end]);
        let authority = head.split(' ').nth(1).unwrap();
        let (named, number) = authority.rsplit_once(':').unwrap();
        assert_eq!((named.parse().ok(), number.parse().ok()), (Some(host), Some(port)), "{authority:?}");
    });
}

/// Parses every request of an HTTP/1.1 or HTTP/2 connection, and its target.
pub(super) fn target(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte();
    let http2 = flags & 1 != 0;
    let port = |usual| if flags & 4 == 0 { usual } else { 8443 };
    let claim = match flags & 10 {
        0 => Claim::Named { scheme: Scheme::Https, host: "api.test".parse().unwrap(), port: port(443) },
        8 => Claim::Named { scheme: Scheme::Http, host: "api.test".parse().unwrap(), port: port(80) },
        2 => Claim::Plain { port: port(80) },
        _ => Claim::Absolute,
    };
    // The connection preface and empty settings, with which every HTTP/2 client begins.
    let start: &[u8] = if http2 { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" } else { b"" };
    let io = tokio::io::join(Cursor::new([start, input.0].concat()), tokio::io::sink());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let received = heads.clone();
    let answer = |request: Request<Body>| {
        let received = received.clone();
        async move {
            let (parts, body) = request.into_parts();
            received.lock().unwrap().push(parts);
            let _ = body.collect().await;
            Response::new(body::empty())
        }
    };
    let (timeouts, stop) = (Timeouts::default(), CancellationToken::new());
    let _ = block_on(serve(io, http2, &timeouts, &stop, answer, |_| {}));
    for parts in heads.lock().unwrap().iter() {
        assert_agreement(&claim, parts);
    }
}

/// Checks that an agreed target is the server that another parser would choose.
fn assert_agreement(claim: &Claim, parts: &Parts) {
    let Ok(target) = Target::agree(claim, parts) else { return };
    assert_ne!(parts.method, Method::CONNECT);
    match claim {
        Claim::Named { scheme, host, port } => {
            assert_eq!((target.scheme, &target.host, target.port), (*scheme, host, *port));
        }
        Claim::Plain { port } => assert_eq!(target.port, *port),
        Claim::Absolute => assert_eq!(parts.uri.scheme_str(), Some(target.scheme.as_str())),
    }
    let mut names: Vec<String> = parts
        .headers
        .get_all(HOST)
        .iter()
        .map(|host| String::from_utf8(host.as_bytes().to_vec()).unwrap())
        .collect();
    assert!(names.len() <= 1, "two Host headers");
    names.extend(parts.uri.authority().map(ToString::to_string));
    names.push(target.authority());
    for name in names {
        let scheme = target.scheme.as_str();
        let Ok(url) = url::Url::parse(&format!("{scheme}://{name}/")) else { continue };
        let host: Option<Host> = url.host_str().and_then(|host| host.parse().ok());
        assert_eq!(host, Some(target.host.clone()), "{name:?}");
        // A name without a port means the port that was connected to.
        assert!(url.port().is_none_or(|named| named == target.port), "{name:?}");
        assert!(url.username().is_empty() && url.password().is_none(), "{name:?}");
    }
}

/// Queries the resolver for an agent whose policy allows no name.
pub(super) fn dns(bytes: &[u8]) {
    let Some(answer) = block_on(server::answer_without_rules(bytes)) else { return };
    assert!(answer.len() <= 1232, "{} bytes", answer.len());
    let answer = Message::from_vec(&answer).expect("an answer in form");
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert_eq!(Some(answer.metadata.id.to_be_bytes().as_slice()), bytes.get(..2));
    assert!(answer.answers.len() <= 1 && answer.authorities.is_empty());
    for record in &answer.answers {
        assert!(matches!(record.record_type(), RecordType::A | RecordType::AAAA), "{record}");
        assert_eq!(Some(&record.name), answer.queries.first().map(|query| query.name()));
    }
}
