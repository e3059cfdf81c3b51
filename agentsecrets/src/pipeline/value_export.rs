//! Our own endpoint: an agent lists the secrets that it may name, for `mcp serve`; an agent whose entry says
//! `env: true` gets real values, for `agentsecrets env` inside `run`. The host name cannot exist, so that no server
//! can ever answer there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde_json::{Map, Value};

use super::context::Pipeline;
use super::record::Attempt;
use super::stages::IdentifiedRequest;
use crate::policy::Agent;
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::CapabilityCheck;
use crate::policy::injection::{InjectionStyle, SecretUse};
use crate::policy::value_export::{ValueExport, decide_value_export};
use crate::types::body::{Body, full};
use crate::types::host::Host;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::target::{Scheme, Target};

/// The host name of the endpoint; RFC 6761 reserves its domain.
pub const HOST: &str = "agentsecrets.invalid";
/// The path of the values.
pub const ENV_PATH: &str = "/env";
/// The path of the names.
pub const NAMES_PATH: &str = "/names";

/// Whether `target` is our own endpoint.
pub(super) fn is_own_endpoint(target: &Target) -> bool {
    target.scheme == Scheme::Https && matches!(&target.host, Host::Name(name) if **name == *HOST)
}

enum ExportRequest {
    Names,
    Values(ValueExport),
}

impl Pipeline {
    /// Answers a request of an agent to our own endpoint.
    pub(super) async fn export(
        &self,
        identified: IdentifiedRequest<'_>,
        record: &mut Attempt,
    ) -> Result<Response<Body>, Rejection> {
        let IdentifiedRequest { caller, agent, secrets, target, parts, .. } = identified;
        let export = match parse(agent, &parts)? {
            ExportRequest::Names => return Ok(json(agent.secrets().map(ToString::to_string).collect())),
            ExportRequest::Values(export) => export,
        };
        let (method, path) = (&parts.method, parts.uri.path());
        let ask = AccessRequest { target: &target, method, path, websocket: false, references: &[] };
        if let Some(rejection) = self.capabilities.rejection(&caller, &ask, &uses(&export)) {
            return Err(rejection);
        }
        self.capabilities.charge(&caller).await?;
        let values = secrets.values.hand_over(&export)?;
        record.handing_over(values.iter().map(|(name, _)| name))?;
        // An object of names and values, each in base64.
        let object: Map<_, _> = values
            .into_iter()
            .map(|(name, value)| (name.to_string(), STANDARD.encode(value.expose()).into()))
            .collect();
        Ok(json(object.into()))
    }
}

fn parse(agent: &Agent, parts: &Parts) -> Result<ExportRequest, Rejection> {
    match parts.uri.path() {
        NAMES_PATH => return Ok(ExportRequest::Names),
        ENV_PATH => {}
        _ => return Err(Rejection::new(ErrorCode::BadRequest, "there is nothing at this path")),
    }
    let query = parts.uri.query().unwrap_or_default();
    let only = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "only");
    let only: Result<Vec<SecretName>, _> = only.map(|(_, name)| name.parse()).collect();
    let only = only.map_err(|error| Rejection::new(ErrorCode::BadRequest, error.to_string()))?;
    decide_value_export(agent, &only).map(ExportRequest::Values)
}

/// The uses of `export`, for the bounds beside the policy: a program that holds a value can do anything with it.
fn uses(export: &ValueExport) -> Vec<SecretUse> {
    export
        .names()
        .iter()
        .map(|name| SecretUse { name: name.clone(), style: InjectionStyle::Bearer })
        .collect()
}

pub(super) fn json(value: Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
