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
use super::wallet::Wallet;
use crate::base::host::Host;
use crate::base::name::SecretName;
use crate::base::refusal::{Refusal, Slug};
use crate::exchange::body::{Body, full};
use crate::exchange::target::{Scheme, Target};
use crate::policy::Agent;
use crate::policy::handover::decide_handover;

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

/// Answers what `agent` asks.
pub(super) fn answer(
    agent: &Agent,
    parts: &Parts,
    wallet: &Wallet,
    attempt: &mut Attempt,
) -> Result<Response<Body>, Refusal> {
    match parts.uri.path() {
        NAMES => Ok(json(agent.secrets().map(ToString::to_string).collect())),
        PATH => hand_over(agent, parts, wallet, attempt),
        _ => Err(Refusal::new(Slug::BadRequest, HOST, "there is nothing at this path")),
    }
}

/// Hands over what `agent` asks for: an object of names and values, each in base64.
fn hand_over(
    agent: &Agent,
    parts: &Parts,
    wallet: &Wallet,
    attempt: &mut Attempt,
) -> Result<Response<Body>, Refusal> {
    let query = parts.uri.query().unwrap_or_default();
    let only = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "only");
    let only: Result<Vec<SecretName>, _> = only.map(|(_, name)| name.parse()).collect();
    let only = only.map_err(|error| Refusal::new(Slug::BadRequest, HOST, error.to_string()))?;
    let handover = decide_handover(agent, &only)?;
    let values = wallet.values.hand_over(&handover)?;
    attempt.handing_over(values.iter().map(|(name, _)| name))?;
    let object: Map<_, _> = values
        .into_iter()
        .map(|(name, value)| (name.to_string(), STANDARD.encode(value.expose()).into()))
        .collect();
    Ok(json(object.into()))
}

fn json(value: Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
