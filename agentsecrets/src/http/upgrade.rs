//! Protocol upgrades. WebSocket is the only protocol that can be searched for secrets; every other is
//! rejected, except optional offers (`h2c`, TLS) that a server may ignore.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use crate::types::hop_by_hop::{is_named_by_connection, request_upgrade, tokens};
use crate::types::rejection::{ErrorCode, Rejection};

/// The GUID that RFC 6455 appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A requested WebSocket upgrade. Stored in the request's extensions.
#[derive(Debug, Clone)]
pub(crate) struct Handshake {
    expected_accept: String,
}

/// Parses a WebSocket upgrade request. Any other protocol, or a handshake that does not follow RFC 6455,
/// fails with `bad_request`.
pub(crate) fn websocket_handshake(parts: &Parts) -> Result<Option<Handshake>, Rejection> {
    if !is_named_by_connection(&parts.headers, &UPGRADE) {
        return Ok(None);
    }
    let protocols: Vec<&str> = tokens(&parts.headers, &UPGRADE).collect();
    if protocols.iter().all(|protocol| is_ignorable(protocol)) {
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
            Ok(Some(Handshake { expected_accept: STANDARD.encode(key) }))
        }
        _ => Err(bad("Sec-WebSocket-Key is not a key")),
    }
}

/// Requests the upgrade from the next hop, without extensions: a compressed message could not be
/// searched.
pub(crate) fn request_websocket(headers: &mut HeaderMap) {
    request_upgrade(headers, HeaderValue::from_static("websocket"));
    headers.remove(SEC_WEBSOCKET_EXTENSIONS);
}

impl Handshake {
    /// Whether `response` accepts the upgrade. Accepting anything else is an error.
    pub(crate) fn is_accepted_by<B>(&self, response: &Response<B>) -> Result<bool, &'static str> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(false);
        }
        let headers = response.headers();
        let is_websocket =
            tokens(headers, &UPGRADE).all(|protocol| protocol.eq_ignore_ascii_case("websocket"));
        if !is_websocket || !headers.contains_key(UPGRADE) {
            return Err("it switched to another protocol than it was asked for");
        }
        if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|accept| accept != &*self.expected_accept) {
            return Err("its Sec-WebSocket-Accept does not prove that it speaks WebSocket");
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err("it uses a WebSocket extension that it was not offered");
        }
        Ok(true)
    }
}

/// Protocols that clients offer and servers may ignore.
fn is_ignorable(protocol: &str) -> bool {
    protocol.eq_ignore_ascii_case("h2c")
        || protocol.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("TLS/"))
}

fn bad(message: &str) -> Rejection {
    Rejection::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with(headers: &[(&str, &str)]) -> Result<Option<Handshake>, Rejection> {
        let mut request = http::Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        websocket_handshake(&request.body(()).unwrap().into_parts().0)
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn handshake_is_accepted_with_valid_proof_only() {
        let handshake = parse_with(&GOOD).unwrap().unwrap();
        let answer = |accept: &str, more: &[(&str, &str)]| {
            let mut answer = Response::builder().status(101).header("upgrade", "websocket");
            for (name, value) in [("sec-websocket-accept", accept)].iter().chain(more) {
                answer = answer.header(*name, *value);
            }
            answer.body(()).unwrap()
        };
        let good = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(handshake.is_accepted_by(&answer(good, &[])), Ok(true));
        assert!(handshake.is_accepted_by(&answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOp=", &[])).is_err());
        assert!(handshake.is_accepted_by(&answer(good, &[("upgrade", "h2c")])).is_err());
        let extension = ("sec-websocket-extensions", "permessage-deflate");
        assert!(handshake.is_accepted_by(&answer(good, &[extension])).is_err());
        assert_eq!(handshake.is_accepted_by(&Response::new(())), Ok(false));
    }

    #[test]
    fn other_protocols_are_rejected_and_offers_ignored() {
        for protocol in ["h2c", "TLS/1.2, HTTP/1.1", "connect-ip", "websocket, foo", "SPDY/3.1"] {
            let asked = parse_with(&[("connection", "upgrade"), ("upgrade", protocol)]);
            assert_eq!(asked.is_ok(), protocol == "h2c", "{protocol}");
        }
        assert!(parse_with(&[("upgrade", "connect-ip")]).unwrap().is_none());
        assert!(parse_with(&[]).unwrap().is_none());
        for (n, value) in [(2, "8"), (3, "c2hvcnQ="), (3, "no key")] {
            let mut headers = GOOD;
            headers[n].1 = value;
            assert!(parse_with(&headers).is_err(), "{value}");
        }
        assert!(parse_with(&[&GOOD[..], &[("content-length", "3")]].concat()).is_err());
    }
}
