//! The requests that we answer ourselves: an agent asks which secrets it may name, for `mcp serve`; and one
//! whose entry says `env: true` asks for real values, for `agentsecrets env` inside `run`. They are asked for
//! under a name that no server can have, so that nothing but us ever answers; nothing else of ours goes that
//! way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde_json::{Map, Value};

use super::record::Attempt;
use crate::pipeline::agent_credentials::Wallet;
use crate::policy::Agent;
use crate::policy::grant::{Spend, Style};
use crate::policy::value_export::{Handover, decide_handover};
use crate::types::body::{Body, full};
use crate::types::host::Host;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::{Scheme, Target};

/// The name, below a domain that RFC 6761 keeps from having any.
pub const HOST: &str = "agentsecrets.invalid";
/// Where the values are.
pub const PATH: &str = "/env";
/// Where the names are.
pub const NAMES: &str = "/names";

/// Whether a request is for us.
pub(super) fn is_for_us(target: &Target) -> bool {
    target.scheme == Scheme::Https && matches!(&target.host, Host::Name(name) if **name == *HOST)
}

/// What an agent asks us, as far as it may.
pub(super) enum Question {
    /// Which secrets it may name.
    Names,
    /// Their values.
    Values(Handover),
}

/// What `agent` asks.
pub(super) fn asked(agent: &Agent, parts: &Parts) -> Result<Question, Rejection> {
    match parts.uri.path() {
        NAMES => return Ok(Question::Names),
        PATH => {}
        _ => return Err(Rejection::new(ErrorCode::BadRequest, HOST, "there is nothing at this path")),
    }
    let query = parts.uri.query().unwrap_or_default();
    let only = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "only");
    let only: Result<Vec<SecretName>, _> = only.map(|(_, name)| name.parse()).collect();
    let only = only.map_err(|error| Rejection::new(ErrorCode::BadRequest, HOST, error.to_string()))?;
    decide_handover(agent, &only).map(Question::Values)
}

/// The names of the secrets of `agent`.
pub(super) fn names(agent: &Agent) -> Response<Body> {
    json(agent.secrets().map(ToString::to_string).collect())
}

/// What `handover` spends, for those who have a say in that: whoever has a value can do anything with it.
pub(super) fn spends(handover: &Handover) -> Vec<Spend> {
    handover.names().iter().map(|name| Spend { name: name.clone(), style: Style::Bearer }).collect()
}

/// Hands it over: an object of names and values, each in base64.
pub(super) fn hand_over(
    handover: &Handover,
    wallet: &Wallet,
    attempt: &mut Attempt,
) -> Result<Response<Body>, Rejection> {
    let values = wallet.values.hand_over(handover)?;
    attempt.handing_over(values.iter().map(|(name, _)| name))?;
    let object: Map<_, _> = values
        .into_iter()
        .map(|(name, value)| (name.to_string(), STANDARD.encode(value.expose()).into()))
        .collect();
    Ok(json(object.into()))
}

pub(super) fn json(value: Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
