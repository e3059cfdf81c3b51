//! Connections of clients that know us for a proxy. The first line tells the two ways apart: `CONNECT` opens a
//! way to a server, and what follows it is not ours to read yet; anything else is a request.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::types::host::Host;
use crate::types::presented::PresentedCredentials;

/// The longest head of a `CONNECT`, in bytes.
const MAX_HEAD_LEN: usize = 16 * 1024;
/// The most headers that it may have.
const MAX_HEADERS: usize = 64;
const METHOD: &[u8] = b"CONNECT ";

/// The first request of a client.
#[derive(Debug)]
pub enum ProxyRequest {
    /// It asks for a way to this server, and shows this of itself.
    Tunnel(Host, u16, PresentedCredentials),
    /// It sends requests, of which nothing was read.
    Requests,
    /// It sends neither.
    Nonsense(&'static str),
}

/// Reads how `stream` begins, for as long as `patience`. Of a tunnel nothing is read but its head.
pub async fn opening(stream: &mut TcpStream, time_limit: Duration) -> io::Result<ProxyRequest> {
    timeout(time_limit, begin(stream)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn begin(stream: &mut TcpStream) -> io::Result<ProxyRequest> {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.peek(&mut piece).await?;
        let fresh = piece.get(..count).unwrap_or_default();
        if fresh.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.is_empty() {
            match fresh.first() {
                Some(byte) if !byte.is_ascii_uppercase() => {
                    return Ok(ProxyRequest::Nonsense("this is no HTTP"));
                }
                _ if !METHOD.starts_with(fresh) && !fresh.starts_with(METHOD) => {
                    return Ok(ProxyRequest::Requests);
                }
                _ => {}
            }
        }
        // No more is taken than the head: what follows it is for whoever opens the tunnel.
        let known = head.len();
        head.extend_from_slice(fresh);
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let taken = end.unwrap_or(head.len()) - known;
        stream.read_exact(piece.get_mut(..taken).unwrap_or_default()).await?;
        match end {
            Some(end) => return Ok(read(head.get(..end).unwrap_or_default())),
            None if head.len() > MAX_HEAD_LEN => {
                return Ok(ProxyRequest::Nonsense("the head of the CONNECT is too long"));
            }
            None => {}
        }
    }
}

/// Parses a complete head.
fn read(head: &[u8]) -> ProxyRequest {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) || request.method != Some("CONNECT")
    {
        return ProxyRequest::Nonsense("the CONNECT is not one that we can read");
    }
    let authority = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let plain = port.bytes().all(|byte| byte.is_ascii_digit());
        Some((host.parse::<Host>().ok()?, port.parse::<u16>().ok().filter(|port| plain && *port != 0)?))
    };
    let Some(target) = request.path.and_then(authority) else {
        return ProxyRequest::Nonsense("a CONNECT names a host and a port, such as api.example.com:443");
    };
    let mut named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    // Clients leave the port out of it, or the whole header, or name us.
    let agrees = |header: &httparse::Header<'_>| {
        let text = std::str::from_utf8(header.value).unwrap_or_default().trim();
        let host = authority(text).map(|(host, _)| host).or_else(|| text.parse().ok());
        let is_ours = |host: &Host| match host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => &**name == "localhost",
        };
        authority(text) == Some(target.clone())
            || text.parse::<Host>().is_ok_and(|host| host == target.0)
            || host.as_ref().is_some_and(is_ours)
    };
    if !named.all(agrees) {
        return ProxyRequest::Nonsense("the CONNECT and its Host header name different servers");
    }
    let mut shown = PresentedCredentials::default();
    for header in request.headers.iter() {
        let text = || std::str::from_utf8(header.value).unwrap_or_default().trim();
        shown = match &*header.name.to_ascii_lowercase() {
            "proxy-authorization" => shown.with_authorization(header.value),
            "x-as-agent-token" | "x-as-session-token" => shown.with_token(text()),
            "x-as-agent-id" if !text().is_empty() => shown.with_name(text()),
            _ => shown,
        };
    }
    ProxyRequest::Tunnel(target.0, target.1, shown)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[track_caller]
    fn assert_tunnel(opening: &ProxyRequest, host: &str, port: u16) {
        let is_it = matches!(opening, ProxyRequest::Tunnel(to, at, shown)
            if *to == host.parse().unwrap() && *at == port && shown.is_empty());
        assert!(is_it, "{opening:?}");
    }

    async fn said(pieces: &[&[u8]]) -> (io::Result<ProxyRequest>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = listener.accept().await.unwrap().0;
        let speaking = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            client.shutdown().await.unwrap();
        };
        let (opening, ()) = tokio::join!(opening(&mut stream, Duration::from_secs(5)), speaking);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        (opening, rest)
    }

    #[tokio::test]
    async fn connect_head_is_consumed_and_requests_are_not() {
        let head = b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n";
        let (opening, rest) = said(&[&[head, &b"\x16\x03hello"[..]].concat()]).await;
        assert_tunnel(&opening.unwrap(), "api.test", 443);
        assert_eq!(rest, b"\x16\x03hello".to_vec());
        let (opening, rest) = said(&[&head[..3], &head[3..20], &head[20..], b"\x16"]).await;
        assert_tunnel(&opening.unwrap(), "api.test", 443);
        assert_eq!(rest, b"\x16".to_vec());
        let (opening, rest) = said(&[b"GET /health HTTP/1.1\r\n\r\n"]).await;
        assert!(matches!(opening.unwrap(), ProxyRequest::Requests) && rest.len() == 24);
    }

    #[tokio::test]
    async fn incomplete_empty_and_invalid_heads_differ() {
        assert!(said(&[]).await.0.is_err());
        assert!(said(&[b"CONNECT api.test:443 HTTP/1.1\r\nHo"]).await.0.is_err());
        assert!(matches!(said(&[b"\x16\x03\x01"]).await.0.unwrap(), ProxyRequest::Nonsense(_)));
        let endless = [b"CONNECT api.test:443 HTTP/1.1\r\nA: ".to_vec(), vec![b'a'; 20_000]].concat();
        assert!(matches!(said(&[&endless]).await.0.unwrap(), ProxyRequest::Nonsense(_)));
    }

    #[test]
    fn connect_target_is_host_and_port() {
        let asked =
            |target: &str, more: &str| read(format!("CONNECT {target} HTTP/1.1\r\n{more}\r\n").as_bytes());
        assert_tunnel(&asked("[::1]:8443", ""), "::1", 8443);
        assert_tunnel(&asked("API.test:443", "Host: api.test\r\n"), "api.test", 443);
        let shown = asked("api.test:443", "Proxy-Authorization: Bearer as_sess_1\r\n");
        assert!(matches!(shown, ProxyRequest::Tunnel(_, _, shown) if shown.session.is_some()));
        for bad in [
            "api.test",
            "api.test:",
            "api.test:0",
            "api.test:99999",
            "api.test:+443",
            "user@api.test:443",
            "/",
            "2130706433:443",
        ] {
            assert!(matches!(asked(bad, ""), ProxyRequest::Nonsense(_)), "{bad}");
        }
        assert_tunnel(&asked("api.test:443", "Host: localhost:8765\r\n"), "api.test", 443);
        for host in ["evil.test", "api.test:444", "10.0.0.1", ""] {
            let host = format!("Host: {host}\r\n");
            assert!(matches!(asked("api.test:443", &host), ProxyRequest::Nonsense(_)), "{host}");
        }
    }
}
