//! What an agent is told when we answer in the server's stead: JSON that says what happened, with a
//! slug that does not change.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::types::rejection::{ErrorCode, Rejection};

use crate::http::framing::Violation;
use crate::types::body::{Body, full};

/// The body of a 403 and its kin.
#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    domain: &'a str,
    message: &'a str,
    rule: Option<&'a str>,
    retryable: bool,
}

/// The body of the errors that have no decision behind them.
#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
}

/// The answer to a refused request. The refusal itself travels with it, for who makes requests in this process.
pub fn refusal(refusal: &Rejection) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::FORBIDDEN);
    let mut response = Response::new(full(told(refusal)));
    *response.status_mut() = status;
    response.extensions_mut().insert(refusal.clone());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-as-refused", HeaderValue::from_static(refusal.code.as_str()));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The same as it stands on the wire, where nothing speaks HTTP yet. Nothing follows it. Clients that show a token
/// only when they are asked for one are `asked`.
pub fn on_the_wire(refusal: &Rejection, asked: bool) -> Vec<u8> {
    let refused = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::FORBIDDEN);
    let (status, question) = match asked {
        true => (
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "proxy-authenticate: Basic realm=\"agentsecrets\"\r\n",
        ),
        false => (refused, ""),
    };
    let body = told(refusal);
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         x-as-refused: {}\r\n{question}content-length: {}\r\nconnection: close\r\n\r\n",
        refusal.code.as_str(),
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

fn told(refusal: &Rejection) -> Vec<u8> {
    let body = match refusal.code {
        // Other tools match these bodies: no more than the sentence.
        ErrorCode::BadRequest | ErrorCode::SecretMissing => {
            serde_json::to_vec(&Failed { error: &refusal.message })
        }
        _ => serde_json::to_vec(&Refused {
            error: refusal.code.as_str(),
            domain: &refusal.domain,
            message: &refusal.message,
            rule: refusal.rule.as_deref(),
            retryable: refusal.code.retryable(),
        }),
    };
    body.unwrap_or_default()
}

/// The whole answer, as it stands on the wire, to what is no request. Nothing follows it.
pub(super) fn violation(violation: Violation) -> Vec<u8> {
    let status = StatusCode::from_u16(violation.status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = serde_json::to_string(&Failed { error: violation.message }).unwrap_or_default();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
         x-as-refused: bad_request\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
