//! What we ask ourselves: a question to the endpoint that the policy names for a credential. It comes from
//! no agent, so it carries nothing of an agent's, and shares no connection with one.

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Uri};

use super::{Isolation, Outbound, Proof};
use crate::credentials::token_request::Question;
use crate::types::body::full;
use crate::types::name::AgentName;
use crate::types::rejection::{ErrorCode, Rejection};

/// `question` as a request that may leave, asked for `agent`.
pub fn question(question: Question, agent: &AgentName) -> Result<Outbound, Rejection> {
    let derived = question.derived;
    let made = derived.endpoint().and_then(|endpoint| {
        let (host, port) = (&endpoint.target.host, endpoint.target.port);
        let uri = Uri::builder()
            .scheme("https")
            .authority(format!("{host}:{port}"))
            .path_and_query(&*endpoint.path);
        Some((endpoint.target.clone(), uri.build().ok()?))
    });
    let Some((target, uri)) = made else {
        let message = format!("the endpoint of the credential '{}' cannot be asked", derived.name);
        return Err(Rejection::new(ErrorCode::CredentialUnavailable, "", message));
    };
    let mut headers = HeaderMap::new();
    headers.extend(question.authorization.map(|value| (AUTHORIZATION, value)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(question.content_type));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("agentsecrets/", env!("CARGO_PKG_VERSION"))));
    let mut request = Request::new(full(Bytes::from_owner(question.body)).into());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (Method::POST, uri, headers);
    let session = format!("credential {}", derived.name).into();
    let isolation = Isolation { session, agent: agent.clone(), credentials: question.spends.into() };
    let proof = Proof { roots: derived.roots.clone(), certificate: None };
    let (private, notes) = (derived.private.clone(), Vec::new());
    Ok(Outbound { request, target, private, isolation, proof, notes })
}
