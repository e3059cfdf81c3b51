//! Where secrets stand in a request, and how they get there. Nobody can inject and forget to redact:
//! `apply` returns both halves.

mod apply;
mod aws_chunks;
mod aws_signature;
mod body;
mod headers;
mod hmac;
mod injector;
mod pairs;
pub mod placeholder;
mod proxy_headers;
mod references;
mod sign;
mod sigv4;
mod token_request;
mod url;
mod websocket;

pub use apply::apply;
pub use body::{Payload, Quotes, Room};
pub use proxy_headers::Asked;
pub use references::References;
pub use sign::sign;
pub use token_request::question;
pub use websocket::Messages;

use std::sync::Arc;

use http::Request;

use crate::policy::grant::PrivateAddresses;
use crate::tls::verify::Roots;
use crate::types::body::Body;
use crate::types::name::{AgentName, SecretName};
use crate::types::secret::Secret;
use crate::types::target::Target;

/// A request that may leave: the only thing `upstream::send` takes. Made by `apply`, and by
/// `question` for what we ask ourselves.
pub struct Outbound {
    pub(in crate::inject) request: Request<Payload>,
    pub(in crate::inject) target: Target,
    pub(in crate::inject) private: PrivateAddresses,
    pub(in crate::inject) isolation: Isolation,
    pub(in crate::inject) proof: Proof,
    pub(in crate::inject) notes: Vec<String>,
}

/// What the TLS handshake with the server is to prove, each way.
#[derive(Clone, Default)]
pub struct Proof {
    /// The only roots that the server may stand under; none for the usual ones.
    pub roots: Option<Arc<Roots>>,
    /// The secret to be shown as our certificate.
    pub certificate: Option<(SecretName, Arc<Secret>)>,
}

/// Whose connection to an upstream this is. Two requests share a connection only if these are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Isolation {
    /// The session, which is one agent's run.
    pub session: Arc<str>,
    /// The agent entry.
    pub agent: AgentName,
    /// The names of the secrets that were put in, sorted.
    pub credentials: Arc<[SecretName]>,
}

impl Outbound {
    /// Where it goes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Which non-public addresses may be dialled for it.
    pub fn private(&self) -> &PrivateAddresses {
        &self.private
    }

    /// Whose connections it may use.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// What its connection is to prove.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// What is to be noted of it, beside what was spent.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ends its life here: the request as it goes on the wire.
    pub fn into_request(self) -> Request<Body> {
        self.request.map(Payload::into_body)
    }
}

#[cfg(test)]
impl Outbound {
    /// For tests of what comes after: a request that no policy has seen.
    pub(crate) fn for_test(
        request: Request<Body>,
        target: Target,
        private: PrivateAddresses,
        isolation: Isolation,
    ) -> Self {
        let request = request.map(Payload::Streaming);
        Self { request, target, private, isolation, proof: Proof::default(), notes: Vec::new() }
    }
}
