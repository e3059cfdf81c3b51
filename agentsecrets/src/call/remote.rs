//! The request as an agent's own: it says in headers which secrets go where, and is judged on its way like
//! any other that the agent makes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Injection;
use crate::policy::grant::Style;
use crate::server::builder::upstream_tls;
use crate::types::body::{Body, BodyError};
use crate::types::failure::{Exit, Failure};

/// Sends `request` with headers that name the secrets of `injections`.
pub(super) async fn ask(
    mut request: Request<Body>,
    injections: &[Injection],
    token: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let headers = request.headers_mut();
    let mut names = Vec::new();
    for injection in injections {
        if let Style::Json(path) = &injection.reference.style
            && path.to_string().contains('-')
        {
            let what = "inside an agent a key of the body may hold no '-'";
            return Err(Failure::new(Exit::Usage, what).hint("put the secret's placeholder into the body"));
        }
        let name = format!("x-as-inject-{}", injection.header);
        append(headers, &name, injection.reference.name.as_str())?;
        names.push(name);
    }
    if let Some(token) = token {
        append(headers, "x-as-agent-token", token)?;
    }
    send(request, names).await
}

fn append(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Failure> {
    let wrong = || Failure::new(Exit::Usage, format!("'{}' cannot be said in a header", name.escape_debug()));
    let value = HeaderValue::try_from(value).map_err(|_| wrong())?;
    headers.append(HeaderName::try_from(name).map_err(|_| wrong())?, value);
    Ok(())
}

/// Sends `request` as it is; the case of the `names` of headers is kept.
pub async fn send(mut request: Request<Body>, names: Vec<String>) -> Result<Response<Body>, Failure> {
    let uri = request.uri().clone();
    let host = uri.host().unwrap_or_default().to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let failed =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, format!("upstream '{host}': {error}"));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|error| failed(&error))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.map_err(|error| failed(&error))?;
    if !secure {
        return exchange(stream, request, names).await.map_err(|error| failed(&error));
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| failed(&error))?;
    let mut tls = (*upstream_tls()?).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
    exchange(stream, request, names).await.map_err(|error| failed(&error))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
    names: Vec<String>,
) -> hyper::Result<Response<Body>> {
    let stream = Spelt { stream, names, in_head: true };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| body.map_err(BodyError::Peer).boxed_unsync()))
}

/// A stream whose first head spells these names of headers as they are given: the library writes them in
/// lower case, and what they end in are names of parameters and fields, whose case counts.
struct Spelt<IO> {
    stream: IO,
    names: Vec<String>,
    in_head: bool,
}

impl<IO> Spelt<IO> {
    /// `bytes` with the names in their own spelling, which is as long.
    fn spell(&self, bytes: &[u8]) -> Vec<u8> {
        let mut spelt = bytes.to_vec();
        let end = find(&spelt, b"\r\n\r\n").unwrap_or(spelt.len());
        for name in &self.names {
            let line = format!("\r\n{}:", name.to_ascii_lowercase());
            let at = find(&spelt, line.as_bytes()).filter(|at| *at < end).map(|at| at + 2);
            if let Some(place) = at.and_then(|at| spelt.get_mut(at..at + name.len())) {
                place.copy_from_slice(name.as_bytes());
            }
        }
        spelt
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Spelt<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Spelt<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.in_head {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let spelt = self.spell(bytes);
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &spelt))?;
        self.in_head = find(spelt.get(..written).unwrap_or_default(), b"\r\n\r\n").is_none();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_case_in_the_head_alone() {
        let names = vec!["x-as-inject-Query-apiKey".to_owned()];
        let spelt = Spelt { stream: (), names, in_head: true };
        let head = "GET / HTTP/1.1\r\nhost: a\r\nx-as-inject-query-apikey: K\r\n\r\n";
        let body = "\r\nx-as-inject-query-apikey: K";
        let spelled = spelt.spell(format!("{head}{body}").as_bytes());
        let expected = head.replace("query-apikey", "Query-apiKey") + body;
        assert_eq!(String::from_utf8(spelled).unwrap(), expected);
        assert_eq!(spelt.spell(body.as_bytes()).len(), body.len());
    }
}
