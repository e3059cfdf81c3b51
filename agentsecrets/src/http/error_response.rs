//! Responses that the proxy generates itself: JSON with a message and a stable error code.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::types::rejection::{ErrorCode, Rejection};

use crate::http::framing::Violation;
use crate::types::body::{Body, full};

/// JSON body of a policy rejection (403 and similar).
#[derive(Serialize)]
struct RejectionBody<'a> {
    error: &'a str,
    domain: &'a str,
    message: &'a str,
    rule: Option<&'a str>,
    retryable: bool,
}

/// JSON body of an error without a policy decision.
#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

/// Builds the response to a rejected request. The rejection is attached as an extension, for callers in
/// this process.
pub(crate) fn rejection(rejection: &Rejection) -> Response<Body> {
    let status = StatusCode::from_u16(rejection.code.status()).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = Response::new(full(json_body(rejection)));
    *response.status_mut() = status;
    response.extensions_mut().insert(rejection.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-as-refused", HeaderValue::from_static(rejection.code.as_str()));
    if let Some(seconds) = rejection.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Serialises the same response for a connection that does not speak HTTP yet; the connection closes
/// after it. With `wants_proxy_auth` it is a 407 challenge, for clients that send a token only when
/// challenged.
pub(crate) fn rejection_bytes(rejection: &Rejection, wants_proxy_auth: bool) -> Vec<u8> {
    let refused = StatusCode::from_u16(rejection.code.status()).unwrap_or(StatusCode::FORBIDDEN);
    let (status, challenge) = match wants_proxy_auth {
        true => (
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "proxy-authenticate: Basic realm=\"agentsecrets\"\r\n",
        ),
        false => (refused, ""),
    };
    let body = json_body(rejection);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         x-as-refused: {}\r\n{challenge}content-length: {}\r\nconnection: close\r\n\r\n",
        rejection.code.as_str(),
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

fn json_body(rejection: &Rejection) -> Vec<u8> {
    let body = match rejection.code {
        // Other tools match these bodies: they hold the message and nothing else.
        ErrorCode::BadRequest | ErrorCode::SecretMissing => {
            serde_json::to_vec(&ErrorBody { error: &rejection.message })
        }
        _ => serde_json::to_vec(&RejectionBody {
            error: rejection.code.as_str(),
            domain: &rejection.domain,
            message: &rejection.message,
            rule: rejection.rule.as_deref(),
            retryable: rejection.code.retryable(),
        }),
    };
    body.unwrap_or_default()
}

/// Serialises the response to a malformed request; the connection closes after it.
pub(super) fn violation_bytes(violation: Violation) -> Vec<u8> {
    let status = StatusCode::from_u16(violation.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = serde_json::to_string(&ErrorBody { error: violation.message }).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         x-as-refused: bad_request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
