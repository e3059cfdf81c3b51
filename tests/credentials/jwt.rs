//! JWTs, verified by PyJWT: a generic one, a GitHub app's, a Google service account's.

use serde_json::json;

use super::{Fixture, Server};
use crate::support::process::{command, run, run_with_input};

struct JwtFixture {
    fixture: Fixture,
    server: Server,
    private: String,
}

/// An RSA key in PKCS#1 PEM, as GitHub issues it.
fn rsa() -> (String, String) {
    let private = run(command("openssl").args(["genrsa", "-traditional", "2048"])).ok();
    let public = run_with_input(command("openssl").args(["rsa", "-pubout"]), private.as_bytes()).ok();
    (private, public)
}

impl JwtFixture {
    fn new() -> Self {
        let (private, public) = rsa();
        let fixture = Fixture::new(&["tokens.test"]);
        let server = fixture.start_server(include_str!("programs/jwt_server.py"), "tokens.test", &[&public]);
        Self { fixture, server, private }
    }

    /// The API's response to a token minted as `credential` says.
    #[track_caller]
    fn request(&self, credential: &str, path: &str) -> String {
        self.fixture.policy(
            &format!("credentials:\n  - name: TOKEN\n    private: true\n    {credential}"),
            &format!(
                "- host: tokens.test\n  ports: [{}]\n  private: true\n  inject: {{ bearer: TOKEN }}",
                self.server.port
            ),
        );
        self.fixture.curl(&[&self.server.url(path)])
    }
}

#[test]
fn github_app_token_is_minted_and_used() {
    let setup = JwtFixture::new();
    setup.fixture.home.set_secret("APP_KEY", &setup.private);
    let app = |installation: u32| {
        format!(
            "github_app: {{ app: Iv1.app, installation: {installation}, private_key: APP_KEY, api: 'https://tokens.test:{}', \
             repositories: [one], permissions: {{ contents: read }} }}",
            setup.server.port
        )
    };
    assert_eq!(setup.request(&app(42), "/repos"), r#"{"said": "GitHub's token"}"#);
    setup.fixture.home.set_secret("APP_KEY", &rsa().0);
    assert!(setup.request(&app(42), "/repos").contains("the private key is not this app's"));
    setup.fixture.home.set_secret("APP_KEY", "no key at all, hunter2");
    let refused = setup.request(&app(42), "/repos");
    assert!(
        refused.contains("its key is no usable RSA private key in PEM") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[test]
fn google_service_account_token_is_minted_and_used() {
    let setup = JwtFixture::new();
    let pkcs8 =
        run_with_input(command("openssl").args(["pkcs8", "-topk8", "-nocrypt"]), setup.private.as_bytes())
            .ok();
    let file = json!({
        "type": "service_account",
        "client_email": "robot@project.iam.test",
        "private_key_id": "key-1",
        "private_key": pkcs8,
        // The token endpoint comes from the policy, not from the key file.
        "token_uri": "https://elsewhere.test/token",
    });
    setup.fixture.home.set_secret("ACCOUNT", &file.to_string());
    let google = format!(
        "google: {{ service_account: ACCOUNT, scopes: ['https://scope/a', 'https://scope/b'], subject: person@project.test, \
         token_url: 'https://tokens.test:{}/token' }}",
        setup.server.port
    );
    assert_eq!(setup.request(&google, "/storage"), r#"{"said": "Google's token"}"#);
    setup.fixture.home.set_secret("ACCOUNT", "{}");
    assert!(setup.request(&google, "/storage").contains("no key file of a service account"));
}

#[test]
fn jwt_claims_follow_policy() {
    let setup = JwtFixture::new();
    setup.fixture.home.set_secret("SIGNING_KEY", &setup.private);
    let jwt = "jwt: { key: SIGNING_KEY, algorithm: RS256, lifetime: 2m, claims: { iss: us, aud: [a, b], level: 3, ok: true } }";
    assert_eq!(setup.request(jwt, "/signed"), r#"{"said": "a good JWT"}"#);
}
