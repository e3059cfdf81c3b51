//! Compiles `credentials:` entries.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::Spanned;

use super::diagnostics::Diagnostics;
use super::schema::{self, OAuthClient, OAuthGrant, Text};
use super::units::parse_duration;
use crate::policy::minted_credentials::{
    GithubApp, Google, Jwt, MintMethod, MintedCredential, OAuth, TokenEndpoint,
};
use crate::types::host::Host;
use crate::types::name::SecretName;
use crate::types::printable::excerpt;
use crate::types::target::{Scheme, Target};

const JWT_ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "EdDSA",
];
/// The longest lifetime of a JWT.
const MAX_JWT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

impl Diagnostics {
    /// The credentials of `list`. A duplicate name is an error.
    pub(super) fn credentials(
        &mut self,
        list: &[Spanned<schema::Credential>],
        file: &str,
    ) -> Vec<Arc<MintedCredential>> {
        let mut names = HashSet::new();
        let mut credentials = Vec::with_capacity(list.len());
        for spanned in list {
            let Some(credential) = self.credential(spanned, file) else { continue };
            if !names.insert(credential.name.clone()) {
                self.error(
                    &spanned.value.name,
                    format!("there is another credential '{}' above", credential.name),
                );
            }
            credentials.push(Arc::new(credential));
        }
        for (credential, spanned) in credentials.iter().zip(list) {
            if let Some(source) =
                credential.source_secrets().into_iter().find(|source| names.contains(*source))
            {
                self.error(spanned, format!("'{source}' is made itself: name a stored secret"));
            }
        }
        credentials
    }

    fn credential(&mut self, spanned: &Spanned<schema::Credential>, file: &str) -> Option<MintedCredential> {
        let written = &spanned.value;
        let name = self.parse::<SecretName>(&written.name);
        let method = match (&written.oauth, &written.github_app, &written.google, &written.jwt) {
            (Some(oauth), None, None, None) => self.oauth(oauth).map(MintMethod::OAuth),
            (None, Some(app), None, None) => self.github_app(&app.value).map(MintMethod::GithubApp),
            (None, None, Some(google), None) => self.google(&google.value).map(MintMethod::Google),
            (None, None, None, Some(jwt)) => self.jwt(&jwt.value).map(MintMethod::Jwt),
            _ => {
                self.error(spanned, "a credential is made in one way: oauth, github_app, google or jwt");
                None
            }
        };
        let private = written.private.as_ref().map(|private| self.private(private)).unwrap_or_default();
        let roots = written.roots.as_ref().and_then(|text| self.roots(text));
        let defined_at = format!("{file}:{}", spanned.referenced.line()).into();
        Some(MintedCredential { name: name?, method: method?, private, roots, defined_at })
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
            client_secret: flatten(secret)?,
            refresh_token: flatten(refresh)?,
            scopes,
            audience: written.audience.clone(),
            secret_in_body: written.auth == Some(OAuthClient::Body),
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
        if !JWT_ALGORITHMS.contains(&written.algorithm.value.as_str()) {
            let algorithm = excerpt(&written.algorithm.value);
            self.error(
                &written.algorithm,
                format!("'{algorithm}' is no algorithm: allowed are {}", JWT_ALGORITHMS.join(", ")),
            );
        }
        let lifetime = match &written.lifetime {
            None => Some(Duration::from_secs(300)),
            Some(text) => self.check(text, parse_duration(&text.value)),
        };
        if let Some(text) = &written.lifetime
            && lifetime.is_some_and(|lifetime| lifetime > MAX_JWT_LIFETIME)
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
        self.parse_list(list, |text| {
            match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                true => Ok(text.to_owned()),
                false => Err(format!("'{}' is not a scope", excerpt(text))),
            }
        })
    }

    fn endpoint(&mut self, at: &Text, url: &str) -> Option<TokenEndpoint> {
        self.check(at, parse_endpoint(url))
    }
}

/// `None` if the key is present but invalid.
fn flatten<T>(read: Option<Option<T>>) -> Option<Option<T>> {
    match read {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

fn parse_endpoint(text: &str) -> Result<TokenEndpoint, String> {
    let error = |reason: &str| format!("'{}' cannot be where a token is fetched: {reason}", excerpt(text));
    let url =
        url::Url::parse(text).map_err(|_| error("it is no URL, such as https://login.example.com/token"))?;
    if url.scheme() != "https" {
        return Err(error("it must be https://, as secrets go there"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(error("it must have no user, password or fragment"));
    }
    let host: Host =
        url.host_str().and_then(|host| host.parse().ok()).ok_or_else(|| error("its host is not valid"))?;
    let port = url.port().unwrap_or(443);
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Ok(TokenEndpoint { target: Target { scheme: Scheme::Https, host, port }, path, url: text.to_owned() })
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
    fn minted_secret_is_spendable_and_its_sources_are_stored() {
        let more = "grant: refresh_token, client_id: i, client_secret: S, refresh_token: R";
        let policy = read(&format!("oauth: {{ {URL}, {more} }}")).unwrap();
        let agent = &policy.agents()[0];
        assert_eq!(agent.secrets().map(|name| name.as_str()).collect::<Vec<_>>(), ["OTHER", "T"]);
        let stored = agent.stored_secrets();
        assert_eq!(stored.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["OTHER", "R", "S"]);
        read("github_app: { app: 12, installation: 42, private_key: K }").unwrap();
        read("google: { service_account: K, scopes: [a] }").unwrap();
        read("jwt: { key: K, algorithm: EdDSA, claims: { aud: [a, b] }, lifetime: 1h }").unwrap();
    }

    #[test]
    fn mistakes_have_their_line() {
        let oauth = |more: &str| format!("oauth: {{ {more} }}");
        for (credential, message) in [
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
            assert!(error.contains(message), "{credential}: {error}");
        }
    }
}
