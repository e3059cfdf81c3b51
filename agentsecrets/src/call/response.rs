//! What came of a request. It has been redacted already.

use http::{HeaderMap, Response};
use http_body_util::BodyExt;

use crate::types::body::Body;
use crate::types::failure::{Exit, Failure};
use crate::types::rejection::{ErrorCode, Rejection};

/// The header that names the refusal where we answer in the server's stead.
const REFUSED: &str = "x-as-refused";

/// The answer, or why there is none.
#[derive(Debug, Default)]
pub struct Answer {
    /// Its status; 0 if there is no answer.
    pub status: u16,
    /// Its headers, and trailers.
    pub headers: HeaderMap,
    /// Its body, as far as it was read.
    pub body: Vec<u8>,
    /// Whether it goes on after that.
    pub is_cut: bool,
    /// Why we answered in the server's stead, if we did.
    pub refusal: Option<Rejection>,
    /// What went wrong, if anything did: a refusal is told so too.
    pub failure: Option<Failure>,
}

impl Answer {
    /// No answer at all.
    pub fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// Whether a secret was taken out of it.
    pub fn is_redacted(&self) -> bool {
        self.headers.get("x-as-redacted").is_some_and(|value| value == "true")
    }

    /// What `response` says, to its end or to so many bytes of its body.
    pub(super) async fn read(response: Response<Body>, most: usize) -> Self {
        let (parts, mut body) = response.into_parts();
        let refusal = parts.extensions.get::<Rejection>().cloned();
        let mut answer = Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: Vec::new(),
            is_cut: false,
            failure: refusal.as_ref().map(refused),
            refusal,
        };
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => {
                    let room = most - answer.body.len();
                    answer.body.extend_from_slice(data.get(..room).unwrap_or(&data));
                    if data.len() > room {
                        answer.is_cut = true;
                        break;
                    }
                }
                Ok(Err(frame)) => answer.headers.extend(frame.into_trailers().unwrap_or_default()),
                Err(error) => {
                    let failure = Failure::new(Exit::Failure, format!("the upstream's answer: {error}"));
                    answer.failure.get_or_insert(failure);
                    break;
                }
            }
        }
        answer
    }

    /// The same, where an interceptor answered: its refusals come as any answer does.
    pub(super) fn with_the_wires_refusal(mut self) -> Self {
        if let Some(slug) = self.headers.get(REFUSED).and_then(|slug| ErrorCode::named(slug.to_str().ok()?)) {
            let told: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
            let text = |key: &str| told.get(key).and_then(|value| value.as_str()).unwrap_or_default();
            let message = if told.get("message").is_some() { text("message") } else { text("error") };
            let refusal = Rejection::new(slug, text("domain"), message);
            self.failure.get_or_insert(refused(&refusal));
            self.refusal = Some(refusal);
        }
        self
    }
}

/// How a refusal ends a command. Other tools match its words.
pub fn refused(refusal: &Rejection) -> Failure {
    let exit = exit(refusal.code);
    match refusal.code {
        ErrorCode::SecretMissing => Failure::new(exit, &refusal.message)
            .hint("agentsecrets secrets list; agentsecrets secrets set NAME"),
        ErrorCode::BadRequest => Failure::new(exit, &refusal.message),
        slug => Failure::new(exit, format!("{}: {}", slug.as_str(), refusal.message)),
    }
}

fn exit(slug: ErrorCode) -> Exit {
    match slug {
        ErrorCode::SecretMissing => Exit::NotFound,
        ErrorCode::BadRequest => Exit::Usage,
        ErrorCode::StoreUnavailable => Exit::Locked,
        slug if slug.status() == 403 => Exit::Denied,
        _ => Exit::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::error_response;
    use crate::types::body::full;

    fn read(response: Response<Body>, most: usize) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Answer::read(response, most))
    }

    #[test]
    fn a_body_is_read_to_its_end_or_to_the_limit() {
        for (most, body, is_cut) in [(4, "four", false), (3, "fou", true), (0, "", true), (99, "four", false)]
        {
            let answer = read(Response::new(full("four")), most);
            assert_eq!((&*answer.body, answer.is_cut), (body.as_bytes(), is_cut));
        }
    }

    #[test]
    fn a_refusal_on_the_wire_is_told_as_one_in_this_process() {
        for slug in
            [ErrorCode::PolicyDenied, ErrorCode::SecretMissing, ErrorCode::RateLimited, ErrorCode::BadRequest]
        {
            let here = error_response::refusal(&Rejection::new(slug, "api.test", "why"));
            let mut wire = error_response::refusal(&Rejection::new(slug, "api.test", "why"));
            wire.extensions_mut().clear();
            let (here, wire) = (read(here, 4096), read(wire, 4096).with_the_wires_refusal());
            let (one, other) = (here.failure.unwrap(), wire.failure.unwrap());
            assert_eq!((one.what(), one.exit()), (other.what(), other.exit()));
            assert_eq!(here.refusal.unwrap().code, wire.refusal.unwrap().code);
        }
    }
}
