//! A request that asks to go on in another protocol. WebSocket is the one that we can search for secrets;
//! every other is refused, but for offers that a client makes to whom it may concern and goes on without.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use crate::types::rejection::{ErrorCode, Rejection};

/// What RFC 6455 appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A WebSocket that was asked for. It travels with the request, in its extensions.
#[derive(Debug, Clone)]
pub struct Handshake {
    accept: String,
}

/// Whether `parts` ask for a WebSocket. Any other protocol, and a WebSocket that is not RFC 6455's, is
/// refused with `bad_request`.
pub fn asked(parts: &Parts) -> Result<Option<Handshake>, Rejection> {
    if !tokens(&parts.headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Ok(None);
    }
    let protocols: Vec<&str> = tokens(&parts.headers, &UPGRADE).collect();
    if protocols.iter().all(|protocol| is_mere_offer(protocol)) {
        return Ok(None);
    }
    if !matches!(&*protocols, [protocol] if protocol.eq_ignore_ascii_case("websocket")) {
        return Err(bad("the only protocol that a connection may be upgraded to is 'websocket'"));
    }
    let has_body = parts.headers.contains_key(TRANSFER_ENCODING)
        || parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if parts.method != Method::GET || parts.version != Version::HTTP_11 || has_body {
        return Err(bad("a WebSocket is asked for with GET, in HTTP/1.1, without a body"));
    }
    if parts.headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(bad("the only WebSocket version is 13"));
    }
    let mut keys = parts.headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if STANDARD.decode(key).is_ok_and(|key| key.len() == 16) => {
            let key = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
            Ok(Some(Handshake { accept: STANDARD.encode(key) }))
        }
        _ => Err(bad("Sec-WebSocket-Key is not a key")),
    }
}

/// Asks for the WebSocket again, of the next hop, without extensions: a compressed message could not be
/// searched.
pub fn ask(headers: &mut HeaderMap) {
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
}

impl Handshake {
    /// Whether `answer` agrees to go on as a WebSocket. A server that agrees to something else is an error.
    pub fn agreed<B>(&self, answer: &Response<B>) -> Result<bool, &'static str> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(false);
        }
        let headers = answer.headers();
        let is_websocket =
            tokens(headers, &UPGRADE).all(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        if !is_websocket || !headers.contains_key(UPGRADE) {
            return Err("it switched to another protocol than it was asked for");
        }
        if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != &*self.accept) {
            return Err("its Sec-WebSocket-Accept does not prove that it speaks WebSocket");
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err("it uses a WebSocket extension that it was not offered");
        }
        Ok(true)
    }
}

/// What a client offers in passing, and what a server that knows nothing of it leaves out.
fn is_mere_offer(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("h2c")
        || protocol.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("TLS/"))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn bad(message: &str) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, "", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask_with(headers: &[(&str, &str)]) -> Result<Option<Handshake>, Rejection> {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        asked(&request.body(()).unwrap().into_parts().0)
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_handshake_of_the_rfc_is_agreed_to_only_with_its_proof() {
        let handshake = ask_with(&GOOD).unwrap().unwrap();
        let answer = |accept: &str, more: &[(&str, &str)]| {
            let mut answer = Response::builder().status(101).header("upgrade", "websocket");
            for (name, value) in [("sec-websocket-accept", accept)].iter().chain(more) {
                answer = answer.header(*name, *value);
            }
            answer.body(()).unwrap()
        };
        let good = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(handshake.agreed(&answer(good, &[])), Ok(true));
        assert!(handshake.agreed(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOp=", &[])).is_err());
        assert!(handshake.agreed(&answer(good, &[("upgrade", "h2c")])).is_err());
        let extension = ("sec-websocket-extensions", "permessage-deflate");
        assert!(handshake.agreed(&answer(good, &[extension])).is_err());
        assert_eq!(handshake.agreed(&Response::new(())), Ok(false));
    }

    #[test]
    fn another_protocol_is_refused_and_an_offer_is_passed_over() {
        for protocol in ["h2c", "TLS/1.2, HTTP/1.1", "connect-ip", "websocket, foo", "SPDY/3.1"] {
            let asked = ask_with(&[("connection", "upgrade"), ("upgrade", protocol)]);
            assert_eq!(asked.is_ok(), protocol == "h2c", "{protocol}");
        }
        assert!(ask_with(&[("upgrade", "connect-ip")]).unwrap().is_none());
        assert!(ask_with(&[]).unwrap().is_none());
        for (n, value) in [(2, "8"), (3, "c2hvcnQ="), (3, "no key")] {
            let mut headers = GOOD;
            headers[n].1 = value;
            assert!(ask_with(&headers).is_err(), "{value}");
        }
        assert!(ask_with(&[&GOOD[..], &[("content-length", "3")]].concat()).is_err());
    }
}
