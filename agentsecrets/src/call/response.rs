//! The response of a request, already redacted.

use http::{HeaderMap, Response};
use http_body_util::BodyExt;

use crate::types::body::Body;
use crate::types::failure::{Exit, Failure};
use crate::types::rejection::{ErrorCode, Rejection};

/// The header with the error code of a rejection, which we send instead of the server.
const REFUSED: &str = "x-as-refused";

/// A response, or the failure without one.
#[derive(Debug, Default)]
pub(crate) struct CallResponse {
    /// The status; 0 if there is no response.
    pub(crate) status: u16,
    /// The headers and trailers.
    pub(crate) headers: HeaderMap,
    /// The body, as far as it was read.
    pub(crate) body: Vec<u8>,
    /// Whether the body is longer than that.
    pub(crate) is_truncated: bool,
    /// The rejection, if we answered instead of the server.
    pub(crate) rejection: Option<Rejection>,
    /// The failure, if there is one; a rejection is one too.
    pub(crate) failure: Option<Failure>,
}

impl CallResponse {
    /// A failure without a response.
    pub(crate) fn from_failure(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// Whether a secret was redacted in it.
    pub(crate) fn is_redacted(&self) -> bool {
        self.headers.get("x-as-redacted").is_some_and(|value| value == "true")
    }

    /// Reads `response`, with at most `max_bytes` of its body.
    pub(super) async fn read(response: Response<Body>, max_bytes: usize) -> Self {
        let (parts, mut body) = response.into_parts();
        let rejection = parts.extensions.get::<Rejection>().cloned();
        let mut answer = Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: Vec::new(),
            is_truncated: false,
            failure: rejection.as_ref().map(failure_of),
            rejection,
        };
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => {
                    let room = max_bytes - answer.body.len();
                    answer.body.extend_from_slice(data.get(..room).unwrap_or(&data));
                    if data.len() > room {
                        answer.is_truncated = true;
                        break;
                    }
                }
                Ok(Err(frame)) => answer.headers.extend(frame.into_trailers().unwrap_or_default()),
                Err(error) => {
                    let failure = Failure::new(Exit::Failure, format!("the upstream's response: {error}"));
                    answer.failure.get_or_insert(failure);
                    break;
                }
            }
        }
        answer
    }

    /// Restores the rejection from the headers and body that an interceptor sent.
    pub(super) fn with_remote_rejection(mut self) -> Self {
        if let Some(code) = self.headers.get(REFUSED).and_then(|code| ErrorCode::named(code.to_str().ok()?)) {
            let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
            let text = |key: &str| json.get(key).and_then(|value| value.as_str()).unwrap_or_default();
            let message = if json.get("message").is_some() { text("message") } else { text("error") };
            let rejection = Rejection::new(code, message).with_domain(text("domain"));
            self.failure.get_or_insert(failure_of(&rejection));
            self.rejection = Some(rejection);
        }
        self
    }
}

/// The failure for a rejection. Other tools match its message.
pub(crate) fn failure_of(rejection: &Rejection) -> Failure {
    let exit = exit(rejection.code);
    match rejection.code {
        ErrorCode::SecretMissing => Failure::new(exit, &rejection.message)
            .hint("agentsecrets secrets list; agentsecrets secrets set NAME"),
        ErrorCode::BadRequest => Failure::new(exit, &rejection.message),
        code => Failure::new(exit, format!("{}: {}", code.as_str(), rejection.message)),
    }
}

fn exit(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::SecretMissing => Exit::NotFound,
        ErrorCode::BadRequest => Exit::Usage,
        ErrorCode::StoreUnavailable => Exit::Locked,
        code if code.status() == 403 => Exit::Denied,
        _ => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error_response;
    use crate::types::body::full;

    fn read(response: Response<Body>, max_bytes: usize) -> CallResponse {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(CallResponse::read(response, max_bytes))
    }

    #[test]
    fn body_is_read_up_to_limit() {
        for (limit, body, is_cut) in
            [(4, "four", false), (3, "fou", true), (0, "", true), (99, "four", false)]
        {
            let answer = read(Response::new(full("four")), limit);
            assert_eq!((&*answer.body, answer.is_truncated), (body.as_bytes(), is_cut));
        }
    }

    #[test]
    fn remote_rejection_equals_local_one() {
        for code in
            [ErrorCode::PolicyDenied, ErrorCode::SecretMissing, ErrorCode::RateLimited, ErrorCode::BadRequest]
        {
            let here = error_response::rejection(&Rejection::new(code, "why").with_domain("api.test"));
            let mut wire = error_response::rejection(&Rejection::new(code, "why").with_domain("api.test"));
            wire.extensions_mut().clear();
            let (here, wire) = (read(here, 4096), read(wire, 4096).with_remote_rejection());
            let (one, other) = (here.failure.unwrap(), wire.failure.unwrap());
            assert_eq!((one.message(), one.exit()), (other.message(), other.exit()));
            assert_eq!(here.rejection.unwrap().code, wire.rejection.unwrap().code);
        }
    }
}
