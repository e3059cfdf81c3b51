//! Credentials that are made from stored ones on demand: OAuth 2 tokens, tokens of GitHub Apps and of Google
//! service accounts, and signed JWTs. A rule names and spends them like any secret. Their source secrets go
//! to the token endpoint named here and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::private_addresses::PrivateAddresses;
use crate::tls::verify::CustomRoots;
use crate::types::name::SecretName;
use crate::types::target::Target;

/// A credential that is made on demand.
#[derive(Debug)]
pub struct MintedCredential {
    /// The name in rules.
    pub name: SecretName,
    /// The method that makes it.
    pub method: MintMethod,
    /// The non-public addresses that may be dialled for it.
    pub private: PrivateAddresses,
    /// The only trusted roots for its endpoint, or `None` for the default ones.
    pub roots: Option<Arc<CustomRoots>>,
    /// Its location in the policy, such as `policy.yaml:3`.
    pub defined_at: Arc<str>,
}

/// The method that makes a credential.
#[derive(Debug, PartialEq, Eq)]
pub enum MintMethod {
    /// An OAuth 2 token endpoint.
    OAuth(OAuth),
    /// GitHub, for an installation of an app.
    GithubApp(GithubApp),
    /// Google, for a service account.
    Google(Google),
    /// A JWT signed by this program.
    Jwt(Jwt),
}

impl MintMethod {
    /// The key in the policy.
    pub fn as_str(&self) -> &'static str {
        match self {
            MintMethod::OAuth(_) => "oauth",
            MintMethod::GithubApp(_) => "github_app",
            MintMethod::Google(_) => "google",
            MintMethod::Jwt(_) => "jwt",
        }
    }
}

/// The HTTPS endpoint that issues a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// The server.
    pub target: Target,
    /// Path and query.
    pub path: String,
    /// The whole URL as written.
    pub url: String,
}

/// A client of an OAuth 2 token endpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct OAuth {
    /// The endpoint.
    pub endpoint: TokenEndpoint,
    /// The client id.
    pub client_id: String,
    /// The secret with the client secret.
    pub client_secret: Option<SecretName>,
    /// The secret with the refresh token, or `None` for the client credentials grant.
    pub refresh_token: Option<SecretName>,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The audience, if the endpoint needs one.
    pub audience: Option<String>,
    /// Whether the client secret goes into the body instead of Basic authentication.
    pub secret_in_body: bool,
}

/// An installation of a GitHub App.
#[derive(Debug, PartialEq, Eq)]
pub struct GithubApp {
    /// The endpoint that issues its tokens.
    pub endpoint: TokenEndpoint,
    /// The app id or client id.
    pub app: String,
    /// The secret with its private key, in PEM.
    pub private_key: SecretName,
    /// The only repositories, or `None` for all.
    pub repositories: Option<Vec<String>>,
    /// The only permissions, or `None` for all.
    pub permissions: Option<BTreeMap<String, String>>,
}

/// A Google service account.
#[derive(Debug, PartialEq, Eq)]
pub struct Google {
    /// The endpoint that issues its tokens.
    pub endpoint: TokenEndpoint,
    /// The secret with its key file, in JSON.
    pub service_account: SecretName,
    /// The requested scopes.
    pub scopes: Vec<String>,
    /// The user that it impersonates.
    pub subject: Option<String>,
}

/// A JWT that this program signs.
#[derive(Debug, PartialEq, Eq)]
pub struct Jwt {
    /// The secret with its key: PEM, or the bytes of a shared key.
    pub key: SecretName,
    /// The algorithm, such as `RS256`.
    pub algorithm: String,
    /// The claims, without the times of issue and expiry.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// The key id for its header.
    pub key_id: Option<String>,
    /// The time until it expires.
    pub lifetime: Duration,
}
impl MintedCredential {
    /// The stored secrets that it is made from.
    pub fn source_secrets(&self) -> Vec<&SecretName> {
        match &self.method {
            MintMethod::OAuth(oauth) => oauth.client_secret.iter().chain(&oauth.refresh_token).collect(),
            MintMethod::GithubApp(app) => vec![&app.private_key],
            MintMethod::Google(google) => vec![&google.service_account],
            MintMethod::Jwt(jwt) => vec![&jwt.key],
        }
    }

    /// The token endpoint, unless this program makes it.
    pub fn endpoint(&self) -> Option<&TokenEndpoint> {
        match &self.method {
            MintMethod::OAuth(oauth) => Some(&oauth.endpoint),
            MintMethod::GithubApp(app) => Some(&app.endpoint),
            MintMethod::Google(google) => Some(&google.endpoint),
            MintMethod::Jwt(_) => None,
        }
    }
}
