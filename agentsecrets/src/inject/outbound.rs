//! Requests that may leave. A request gets here through `apply`, which demands a grant, or as our own request
//! to the token endpoint of a credential, which carries nothing of an agent and shares no connection with one.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Uri};

use super::body::RequestBody;
use crate::credentials::token_request::TokenRequest;
use crate::policy::private_addresses::PrivateAddresses;
use crate::tls::verify::CustomRoots;
use crate::types::body::{Body, full};
use crate::types::name::{AgentName, SecretName};
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::target::Target;

/// A request that may leave: the only input of `upstream::send`. Built by [`apply`], and by
/// [`outbound_token_request`] for our own requests.
pub struct Outbound {
    pub(in crate::inject) request: Request<RequestBody>,
    pub(in crate::inject) target: Target,
    pub(in crate::inject) private_addresses: PrivateAddresses,
    pub(in crate::inject) isolation: Isolation,
    pub(in crate::inject) tls: TlsRequirements,
    pub(in crate::inject) notes: Vec<String>,
}

/// Requirements for the TLS handshake with the server.
#[derive(Clone, Default)]
pub struct TlsRequirements {
    /// Roots that replace the usual ones.
    pub roots: Option<Arc<CustomRoots>>,
    /// The secret that is presented as client certificate.
    pub certificate: Option<(SecretName, Arc<Secret>)>,
}

/// Partition of the connection pool. Requests share a connection only if these values are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Isolation {
    /// The session, which is one run of an agent.
    pub session: Arc<str>,
    /// The agent entry.
    pub agent: AgentName,
    /// Names of the injected secrets, sorted.
    pub credentials: Arc<[SecretName]>,
}

impl Outbound {
    /// The server.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The non-public addresses that may be dialled.
    pub fn private_addresses(&self) -> &PrivateAddresses {
        &self.private_addresses
    }

    /// The partition of the connection pool.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// The requirements for TLS.
    pub fn tls(&self) -> &TlsRequirements {
        &self.tls
    }

    /// Remarks for the audit record, besides the spent secrets.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the request for the wire.
    pub fn into_request(self) -> Request<Body> {
        self.request.map(RequestBody::into_body)
    }
}

/// Builds the outbound request for `question`, on behalf of `agent`.
pub(crate) fn outbound_token_request(
    question: TokenRequest,
    agent: &AgentName,
) -> Result<Outbound, Rejection> {
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
        let message = format!("the endpoint of the credential '{}' is not usable", derived.name);
        return Err(Rejection::new(ErrorCode::CredentialUnavailable, message));
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
    let tls = TlsRequirements { roots: derived.roots.clone(), certificate: None };
    let (private_addresses, notes) = (derived.private.clone(), Vec::new());
    Ok(Outbound { request, target, private_addresses, isolation, tls, notes })
}

#[cfg(test)]
impl Outbound {
    /// An outbound request without a policy decision, for tests of later stages.
    pub(crate) fn for_test(
        request: Request<Body>,
        target: Target,
        private_addresses: PrivateAddresses,
        isolation: Isolation,
    ) -> Self {
        let request = request.map(RequestBody::Streaming);
        Self {
            request,
            target,
            private_addresses,
            isolation,
            tls: TlsRequirements::default(),
            notes: Vec::new(),
        }
    }
}
