//! Credentials that are made from stored ones when they are needed: tokens of OAuth 2, of GitHub Apps and of
//! Google's service accounts, and signed JWTs. A rule names and spends them like any secret; what they are
//! made from never goes anywhere but to the endpoint that is named here.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::Spanned;

use crate::tls::verify::Roots;
use crate::types::host::Host;
use crate::types::name::SecretName;
use crate::types::printable::excerpt;
use crate::types::target::{Scheme, Target};

use super::compile::Findings;
use super::grant::PrivateAddresses;
use crate::policy::schema::{self, OAuthClient, OAuthGrant, Text};
use crate::policy::units::wait;

/// One such credential.
#[derive(Debug)]
pub struct Derived {
    /// What rules call it.
    pub name: SecretName,
    /// How it is made.
    pub how: How,
    /// Which non-public addresses may be dialled for it.
    pub private: PrivateAddresses,
    /// The only roots that its endpoint may stand under; none for the usual ones.
    pub roots: Option<Arc<Roots>>,
    /// Where the policy says so, such as `policy.yaml:3`.
    pub place: Arc<str>,
}

/// How a credential is made.
#[derive(Debug, PartialEq, Eq)]
pub enum How {
    /// By an OAuth 2 token endpoint.
    OAuth(OAuth),
    /// By GitHub, for an installation of an app.
    GithubApp(GithubApp),
    /// By Google, for a service account.
    Google(Google),
    /// By us.
    Jwt(Jwt),
}

impl How {
    /// Its name in the policy.
    pub fn as_str(&self) -> &'static str {
        match self {
            How::OAuth(_) => "oauth",
            How::GithubApp(_) => "github_app",
            How::Google(_) => "google",
            How::Jwt(_) => "jwt",
        }
    }
}

/// Where a token is fetched: always HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The server.
    pub target: Target,
    /// Path and query.
    pub path: String,
    /// The whole URL, as it was written.
    pub url: String,
}

/// A client of an OAuth 2 token endpoint.
#[derive(Debug, PartialEq, Eq)]
pub struct OAuth {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The client's public name.
    pub client_id: String,
    /// The secret that is the client's.
    pub client_secret: Option<SecretName>,
    /// The secret that is exchanged; the client's own credentials are, where there is none.
    pub refresh_token: Option<SecretName>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// For whom, where the endpoint wants to know.
    pub audience: Option<String>,
    /// Whether the client's secret goes into the body, and not into Basic authentication.
    pub in_body: bool,
}

/// An installation of a GitHub App.
#[derive(Debug, PartialEq, Eq)]
pub struct GithubApp {
    /// Where its tokens are made.
    pub endpoint: Endpoint,
    /// The app.
    pub app: String,
    /// The secret that is its private key, in PEM.
    pub private_key: SecretName,
    /// The only repositories, where not all are meant.
    pub repositories: Option<Vec<String>>,
    /// The only permissions, where not all are meant.
    pub permissions: Option<BTreeMap<String, String>>,
}

/// A service account of Google's.
#[derive(Debug, PartialEq, Eq)]
pub struct Google {
    /// Where its tokens are made.
    pub endpoint: Endpoint,
    /// The secret that is its key file, in JSON.
    pub service_account: SecretName,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// The person it acts for, where it does.
    pub subject: Option<String>,
}

/// A JWT that we sign.
#[derive(Debug, PartialEq, Eq)]
pub struct Jwt {
    /// The secret that is its key: PEM, or the bytes of a shared one.
    pub key: SecretName,
    /// The algorithm, such as `RS256`.
    pub algorithm: String,
    /// What it says besides when it was made and how long it is good.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// The key's name, for its header.
    pub key_id: Option<String>,
    /// How long it is good.
    pub lifetime: Duration,
}

/// The algorithms of a JWT.
const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "EdDSA",
];
/// How long a JWT may be good.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Derived {
    /// The stored secrets that it is made from.
    pub fn sources(&self) -> Vec<&SecretName> {
        match &self.how {
            How::OAuth(oauth) => oauth.client_secret.iter().chain(&oauth.refresh_token).collect(),
            How::GithubApp(app) => vec![&app.private_key],
            How::Google(google) => vec![&google.service_account],
            How::Jwt(jwt) => vec![&jwt.key],
        }
    }

    /// Where it is fetched, unless we make it.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.how {
            How::OAuth(oauth) => Some(&oauth.endpoint),
            How::GithubApp(app) => Some(&app.endpoint),
            How::Google(google) => Some(&google.endpoint),
            How::Jwt(_) => None,
        }
    }
}

impl Findings {
    /// The credentials of `list`, each name once.
    pub(super) fn credentials(
        &mut self,
        list: &[Spanned<schema::Credential>],
        file: &str,
    ) -> Vec<Arc<Derived>> {
        let mut names = HashSet::new();
        let mut credentials = Vec::with_capacity(list.len());
        for spanned in list {
            let Some(derived) = self.credential(spanned, file) else { continue };
            if !names.insert(derived.name.clone()) {
                self.error(
                    &spanned.value.name,
                    format!("there is another credential '{}' above", derived.name),
                );
            }
            credentials.push(Arc::new(derived));
        }
        for (derived, spanned) in credentials.iter().zip(list) {
            if let Some(source) = derived.sources().into_iter().find(|source| names.contains(*source)) {
                self.error(spanned, format!("'{source}' is made itself: name a stored secret"));
            }
        }
        credentials
    }

    fn credential(&mut self, spanned: &Spanned<schema::Credential>, file: &str) -> Option<Derived> {
        let written = &spanned.value;
        let name = self.parse::<SecretName>(&written.name);
        let how = match (&written.oauth, &written.github_app, &written.google, &written.jwt) {
            (Some(oauth), None, None, None) => self.oauth(oauth).map(How::OAuth),
            (None, Some(app), None, None) => self.github_app(&app.value).map(How::GithubApp),
            (None, None, Some(google), None) => self.google(&google.value).map(How::Google),
            (None, None, None, Some(jwt)) => self.jwt(&jwt.value).map(How::Jwt),
            _ => {
                self.error(spanned, "a credential is made in one way: oauth, github_app, google or jwt");
                None
            }
        };
        let private = written.private.as_ref().map(|private| self.private(private)).unwrap_or_default();
        let roots = written.roots.as_ref().and_then(|text| self.roots(text));
        let place = format!("{file}:{}", spanned.referenced.line()).into();
        Some(Derived { name: name?, how: how?, private, roots, place })
    }

    fn oauth(&mut self, spanned: &Spanned<schema::OAuth>) -> Option<OAuth> {
        let written = &spanned.value;
        let endpoint = self.endpoint(&written.token_url, &written.token_url.value);
        let secret = written.client_secret.as_ref().map(|text| self.parse::<SecretName>(text));
        let refresh = written.refresh_token.as_ref().map(|text| self.parse::<SecretName>(text));
        match written.grant.value {
            OAuthGrant::ClientCredentials if written.refresh_token.is_some() => {
                self.error(&written.grant, "the grant client_credentials exchanges no refresh_token");
            }
            OAuthGrant::ClientCredentials if written.client_secret.is_none() => {
                self.error(&written.grant, "the grant client_credentials needs a client_secret");
            }
            OAuthGrant::RefreshToken if written.refresh_token.is_none() => {
                self.error(&written.grant, "the grant refresh_token needs a refresh_token");
            }
            OAuthGrant::ClientCredentials | OAuthGrant::RefreshToken => {}
        }
        if written.client_id.value.is_empty() {
            self.error(&written.client_id, "'client_id' is empty");
        }
        let scopes = self.scopes(&written.scopes);
        Some(OAuth {
            endpoint: endpoint?,
            client_id: written.client_id.value.clone(),
            client_secret: flat(secret)?,
            refresh_token: flat(refresh)?,
            scopes,
            audience: written.audience.clone(),
            in_body: written.auth == Some(OAuthClient::Body),
        })
    }

    fn github_app(&mut self, written: &schema::GithubApp) -> Option<GithubApp> {
        let api =
            written.api.as_ref().map_or("https://api.github.com", |text| text.value.trim_end_matches('/'));
        let url = format!("{api}/app/installations/{}/access_tokens", written.installation.value);
        let endpoint = self.endpoint(written.api.as_ref().unwrap_or(&written.app), &url);
        let private_key = self.parse::<SecretName>(&written.private_key);
        Some(GithubApp {
            endpoint: endpoint?,
            app: written.app.value.clone(),
            private_key: private_key?,
            repositories: written.repositories.clone(),
            permissions: written.permissions.clone(),
        })
    }

    fn google(&mut self, written: &schema::Google) -> Option<Google> {
        let url =
            written.token_url.as_ref().map_or("https://oauth2.googleapis.com/token", |text| &text.value);
        let endpoint = self.endpoint(written.token_url.as_ref().unwrap_or(&written.service_account), url);
        let service_account = self.parse::<SecretName>(&written.service_account);
        if written.scopes.value.is_empty() {
            self.error(&written.scopes, "'scopes' is empty: Google wants to know what the token is for");
        }
        let scopes = self.scopes(&written.scopes.value);
        let subject = written.subject.clone();
        Some(Google { endpoint: endpoint?, service_account: service_account?, scopes, subject })
    }

    fn jwt(&mut self, written: &schema::Jwt) -> Option<Jwt> {
        let key = self.parse::<SecretName>(&written.key);
        if !ALGORITHMS.contains(&written.algorithm.value.as_str()) {
            let what = excerpt(&written.algorithm.value);
            self.error(
                &written.algorithm,
                format!("'{what}' is no algorithm: allowed are {}", ALGORITHMS.join(", ")),
            );
        }
        let lifetime = match &written.lifetime {
            None => Some(Duration::from_secs(300)),
            Some(text) => self.keep(text, wait(&text.value)),
        };
        if let Some(text) = &written.lifetime
            && lifetime.is_some_and(|lifetime| lifetime > LONGEST)
        {
            self.error(text, "a JWT is good for 24h at most");
        }
        let mut claims = BTreeMap::new();
        for (name, claim) in &written.claims {
            if matches!(name.as_str(), "iat" | "exp" | "nbf") {
                self.error(
                    claim,
                    format!("'{name}' is set when the JWT is made: say how long in 'lifetime'"),
                );
            }
            let value = match claim.value.clone() {
                schema::Claim::Bool(value) => value.into(),
                schema::Claim::Number(value) => value.into(),
                schema::Claim::Text(value) => value.into(),
                schema::Claim::Texts(values) => values.into(),
            };
            claims.insert(name.clone(), value);
        }
        let (algorithm, key_id) = (written.algorithm.value.clone(), written.key_id.clone());
        Some(Jwt { key: key?, algorithm, claims, key_id, lifetime: lifetime? })
    }

    fn scopes(&mut self, list: &[Text]) -> Vec<String> {
        self.each(list, |text| match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(text.to_owned()),
            false => Err(format!("'{}' is not a scope", excerpt(text))),
        })
    }

    fn endpoint(&mut self, at: &Text, url: &str) -> Option<Endpoint> {
        self.keep(at, endpoint(url))
    }
}

/// Nothing where it was written and is wrong.
fn flat<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = |why: &str| format!("'{}' cannot be where a token is fetched: {why}", excerpt(text));
    let url =
        url::Url::parse(text).map_err(|_| wrong("it is no URL, such as https://login.example.com/token"))?;
    if url.scheme() != "https" {
        return Err(wrong("it must be https://, as secrets go there"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong("it must have no user, password or fragment"));
    }
    let host: Host =
        url.host_str().and_then(|host| host.parse().ok()).ok_or_else(|| wrong("its host is not valid"))?;
    let port = url.port().unwrap_or(443);
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Ok(Endpoint { target: Target { scheme: Scheme::Https, host, port }, path, url: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::Policy;

    fn read(credential: &str) -> Result<Policy, String> {
        let text = format!(
            "version: 1\ncredentials:\n  - name: T\n    {credential}\nagents:\n  - name: a\n    allow:\n      - host: \
             api.x.com\n        secrets: [T, OTHER]\n"
        );
        Policy::parse(&text, Path::new("p")).map_err(|error| error.to_string())
    }

    const URL: &str = "token_url: 'https://login.x.com/token'";

    #[test]
    fn a_rule_spends_it_like_any_secret_and_what_it_is_made_from_is_read_in_its_stead() {
        let more = "grant: refresh_token, client_id: i, client_secret: S, refresh_token: R";
        let policy = read(&format!("oauth: {{ {URL}, {more} }}")).unwrap();
        let agent = &policy.agents()[0];
        assert_eq!(agent.secrets().map(|name| name.as_str()).collect::<Vec<_>>(), ["OTHER", "T"]);
        let stored = agent.stored();
        assert_eq!(stored.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["OTHER", "R", "S"]);
        read("github_app: { app: 12, installation: 42, private_key: K }").unwrap();
        read("google: { service_account: K, scopes: [a] }").unwrap();
        read("jwt: { key: K, algorithm: EdDSA, claims: { aud: [a, b] }, lifetime: 1h }").unwrap();
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let oauth = |more: &str| format!("oauth: {{ {more} }}");
        for (credential, told) in [
            (String::new(), "p:3: a credential is made in one way"),
            ("oatuh: {}".to_owned(), "p:4: unknown field"),
            (
                oauth(
                    "token_url: 'http://x.com/t', grant: client_credentials, client_id: i, client_secret: S",
                ),
                "must be https://",
            ),
            (
                oauth(
                    "token_url: 'https://u:p@x.com/t', grant: client_credentials, client_id: i, client_secret: S",
                ),
                "no user",
            ),
            (
                oauth("token_url: token, grant: client_credentials, client_id: i, client_secret: S"),
                "p:4: 'token' cannot be",
            ),
            (oauth(&format!("{URL}, grant: password, client_id: i")), "p:4: unknown variant"),
            (
                oauth(&format!("{URL}, grant: client_credentials, client_id: i")),
                "p:4: the grant client_credentials needs",
            ),
            (
                oauth(&format!("{URL}, grant: refresh_token, client_id: i")),
                "p:4: the grant refresh_token needs",
            ),
            (
                oauth(&format!("{URL}, grant: refresh_token, client_id: i, refresh_token: T")),
                "'T' is made itself",
            ),
            (
                oauth(&format!("{URL}, grant: refresh_token, client_id: i, refresh_token: 'x y'")),
                "'x y' is not a valid",
            ),
            ("jwt: { key: K, algorithm: none }".to_owned(), "p:4: 'none' is no algorithm"),
            ("jwt: { key: K, algorithm: RS256, claims: { exp: 5 } }".to_owned(), "'exp' is set when"),
            ("jwt: { key: K, algorithm: RS256, lifetime: 48h }".to_owned(), "24h at most"),
            ("google: { service_account: K, scopes: [] }".to_owned(), "'scopes' is empty"),
            ("github_app: { app: a, installation: x, private_key: K }".to_owned(), "p:4"),
            (
                "jwt: { key: K, algorithm: RS256 }\n  - name: T\n    jwt: { key: K, algorithm: RS256 }"
                    .to_owned(),
                "another credential 'T'",
            ),
        ] {
            let error = read(&credential).unwrap_err();
            assert!(error.contains(told), "{credential}: {error}");
        }
    }
}
