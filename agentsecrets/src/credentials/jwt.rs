//! Signed JWTs, and the tokens that GitHub and Google give for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::form_urlencoded::Serializer;
use zeroize::{Zeroize, Zeroizing};

use super::oauth::{GrantedToken, is_token};
use crate::credentials::token_request::TokenResponse;
use crate::policy::minted_credentials::{GithubApp, Google, Jwt};
use crate::types::secret::Secret;

/// Lifetime in seconds of the assertion for an endpoint: it is used at once.
const GITHUB_LIFETIME: u64 = 540;
const GOOGLE_LIFETIME: u64 = 3600;
/// Clocks differ: GitHub refuses what was made in its future.
const CLOCK_SKEW: u64 = 60;

/// A JWT as the policy describes it, made now.
pub(super) fn sign(jwt: &Jwt, key: &Secret) -> Result<GrantedToken, String> {
    let now = now();
    let mut claims: Map<String, Value> = jwt.claims.clone().into_iter().collect();
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + jwt.lifetime.as_secs()).into());
    let algorithm: Algorithm = jwt.algorithm.parse().map_err(|_| "its algorithm is not known".to_owned())?;
    let mut header = Header::new(algorithm);
    header.kid.clone_from(&jwt.key_id);
    let token = encode(&header, &claims, key)?;
    Ok(GrantedToken { token: secret(&token), lifetime: jwt.lifetime, refresh: None })
}

/// The assertion that proves to GitHub that we are the app.
pub(super) fn for_github(app: &GithubApp, key: &Secret) -> Result<Zeroizing<String>, String> {
    let now = now();
    let claims = json!({ "iat": now - CLOCK_SKEW, "exp": now + GITHUB_LIFETIME, "iss": app.app });
    encode(&Header::new(Algorithm::RS256), &claims, key)
}

/// The body of the request to GitHub.
pub(super) fn github_body(app: &GithubApp) -> Zeroizing<Vec<u8>> {
    let mut body = Map::new();
    if let Some(repositories) = &app.repositories {
        body.insert("repositories".to_owned(), json!(repositories));
    }
    if let Some(permissions) = &app.permissions {
        body.insert("permissions".to_owned(), json!(permissions));
    }
    Zeroizing::new(Value::Object(body).to_string().into_bytes())
}

#[derive(Deserialize)]
struct Installation {
    token: String,
    expires_at: String,
}

/// The token in GitHub's answer.
pub(super) fn read_github(reply: &TokenResponse) -> Result<GrantedToken, String> {
    if reply.status != 201 {
        return Err(match reply.status {
            401 => "GitHub answers 401: the private key is not this app's, or our clock is wrong".to_owned(),
            404 => "GitHub answers 404: this app has no such installation".to_owned(),
            422 => "GitHub answers 422: the installation does not have these repositories or permissions"
                .to_owned(),
            status => format!("GitHub answers {status}"),
        });
    }
    let answer: Installation =
        serde_json::from_slice(&reply.body).map_err(|_| "its answer has no token".to_owned())?;
    let token = Zeroizing::new(answer.token);
    let expires: jiff::Timestamp =
        answer.expires_at.parse().map_err(|_| "its answer has no expires_at".to_owned())?;
    let left = expires.as_second().saturating_sub(i64::try_from(now()).unwrap_or(i64::MAX));
    let lifetime =
        u64::try_from(left).ok().filter(|left| *left > 0).ok_or("its token has expired already")?;
    is_token(&token).then_some(()).ok_or("its answer has no usable token")?;
    Ok(GrantedToken { token: secret(&token), lifetime: Duration::from_secs(lifetime), refresh: None })
}

/// The request to Google, by the account in `key`.
pub(super) fn for_google(google: &Google, key: &Secret) -> Result<Zeroizing<Vec<u8>>, String> {
    let account: ServiceAccount = serde_json::from_slice(key.expose()).map_err(
        |_| "the secret is no key file of a service account (JSON with client_email and private_key)",
    )?;
    let now = now();
    let mut claims = json!({
        "iss": account.client_email,
        "scope": google.scopes.join(" "),
        "aud": google.endpoint.url,
        "iat": now,
        "exp": now + GOOGLE_LIFETIME,
    });
    if let Some(subject) = &google.subject {
        claims["sub"] = json!(subject);
    }
    let mut header = Header::new(Algorithm::RS256);
    header.kid.clone_from(&account.private_key_id);
    let assertion = encode(&header, &claims, &secret(&account.private_key))?;
    let mut form = Serializer::new(String::with_capacity(assertion.len() + 128));
    form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
        .append_pair("assertion", &assertion);
    Ok(Zeroizing::new(form.finish().into_bytes()))
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: Option<String>,
}

impl Drop for ServiceAccount {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

fn encode<T: serde::Serialize>(
    header: &Header,
    claims: &T,
    key: &Secret,
) -> Result<Zeroizing<String>, String> {
    let bytes = key.expose();
    let (key, kind) = match header.alg {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            (Ok(EncodingKey::from_secret(bytes)), "key")
        }
        Algorithm::ES256 | Algorithm::ES384 => {
            (EncodingKey::from_ec_pem(bytes), "elliptic curve key in PEM (PKCS #8)")
        }
        Algorithm::EdDSA => (EncodingKey::from_ed_pem(bytes), "Ed25519 key in PEM"),
        _ => (EncodingKey::from_rsa_pem(bytes), "RSA private key in PEM"),
    };
    // The library's errors may quote the key's text.
    let unusable = |_| format!("its key is no usable {kind}");
    let key = key.map_err(unusable)?;
    jsonwebtoken::encode(header, claims, &key).map(Zeroizing::new).map_err(unusable)
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
