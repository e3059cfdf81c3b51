//! The request to a token endpoint and its response. The caller decides how the request is sent.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::policy::minted_credentials::MintedCredential;
use crate::types::name::SecretName;
use crate::types::rejection::Rejection;

/// A POST to the endpoint of a credential.
pub struct TokenRequest {
    /// The credential that is to be made.
    pub derived: Arc<MintedCredential>,
    /// Those of its sources that the question carries.
    pub spends: Vec<SecretName>,
    /// The client's authentication.
    pub authorization: Option<HeaderValue>,
    /// The kind of body.
    pub content_type: &'static str,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// The endpoint's response.
pub struct TokenResponse {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// The way to token endpoints.
pub trait TokenFetch: Send + Sync {
    /// Asks, once, without following redirects.
    fn ask(&self, question: TokenRequest) -> BoxFuture<'static, Result<TokenResponse, Rejection>>;
}
