//! Sends a request as an agent's own, through the interceptor: headers name the secrets and their locations,
//! and the policy decides it like any other request of the agent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::injection::Injection;
use crate::inject::injection_header;
use crate::policy::injection::InjectionStyle;
use crate::server::builder::upstream_tls;
use crate::types::body::{Body, BodyError};
use crate::types::failure::{ErrorContext, Exit, Failure};

/// Sends `request` with headers that name the secrets of `injections`.
pub(super) async fn send_with_injections(
    mut request: Request<Body>,
    injections: &[Injection],
    token: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let headers = request.headers_mut();
    let mut names = Vec::new();
    for injection in injections {
        if let InjectionStyle::Json(path) = &injection.reference.style
            && path.to_string().contains('-')
        {
            let what = "inside an agent a key of the body must not contain '-'";
            return Err(Failure::new(Exit::Usage, what).hint("write the secret's placeholder into the body"));
        }
        let name = injection_header(&injection.reference.style).unwrap_or_default();
        append(headers, &name, injection.reference.name.as_str())?;
        names.push(name);
    }
    if let Some(token) = token {
        append(headers, "x-as-agent-token", token)?;
    }
    send(request, names).await
}

fn append(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Failure> {
    let invalid =
        || Failure::new(Exit::Usage, format!("'{}' cannot be sent in a header", name.escape_debug()));
    let value = HeaderValue::try_from(value).map_err(|_| invalid())?;
    headers.append(HeaderName::try_from(name).map_err(|_| invalid())?, value);
    Ok(())
}

/// Sends `request` unchanged; the header names `names` keep their case.
pub(crate) async fn send(mut request: Request<Body>, names: Vec<String>) -> Result<Response<Body>, Failure> {
    let uri = request.uri().clone();
    let host = uri.host().unwrap_or_default().to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let upstream = format!("upstream '{host}'");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().context(&upstream)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await.context(&upstream)?;
    if !secure {
        return exchange(stream, request, names).await.context(&upstream);
    }
    let name = ServerName::try_from(bare.to_owned()).context(&upstream)?;
    let mut tls = (*upstream_tls()?).clone();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    let stream = connector.connect(name, stream).await.context(&upstream)?;
    exchange(stream, request, names).await.context(&upstream)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
    names: Vec<String>,
) -> hyper::Result<Response<Body>> {
    let stream = HeaderCaseStream { stream, names, is_in_head: true };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| body.map_err(BodyError::Peer).boxed_unsync()))
}

/// A stream that restores the case of `names` in the first head: hyper writes lower case, but these names end
/// in names of parameters and fields, whose case matters.
struct HeaderCaseStream<IO> {
    stream: IO,
    names: Vec<String>,
    is_in_head: bool,
}

impl<IO> HeaderCaseStream<IO> {
    /// `bytes` with the case of the names restored, which keeps its length.
    fn restore_case(&self, bytes: &[u8]) -> Vec<u8> {
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

impl<IO: AsyncRead + Unpin> AsyncRead for HeaderCaseStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for HeaderCaseStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_in_head {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let spelt = self.restore_case(bytes);
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &spelt))?;
        self.is_in_head = find(spelt.get(..written).unwrap_or_default(), b"\r\n\r\n").is_none();
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
    fn case_is_restored_in_head_only() {
        let names = vec!["x-as-inject-Query-apiKey".to_owned()];
        let spelt = HeaderCaseStream { stream: (), names, is_in_head: true };
        let head = "GET / HTTP/1.1\r\nhost: a\r\nx-as-inject-query-apikey: K\r\n\r\n";
        let body = "\r\nx-as-inject-query-apikey: K";
        let restored = spelt.restore_case(format!("{head}{body}").as_bytes());
        let expected = head.replace("query-apikey", "Query-apiKey") + body;
        assert_eq!(String::from_utf8(restored).unwrap(), expected);
        assert_eq!(spelt.restore_case(body.as_bytes()).len(), body.len());
    }
}
