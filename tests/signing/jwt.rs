//! JWTs, verified by PyJWT: our own, GitHub's for an app, Google's for a service account.

use serde_json::json;

use super::{Server, World};
use crate::support::process::{command, finish, finish_with};

struct Scene {
    world: World,
    server: Server,
    private: String,
}

/// A key of RSA in the older form of PEM, as GitHub hands it out.
fn rsa() -> (String, String) {
    let private = finish(command("openssl").args(["genrsa", "-traditional", "2048"])).ok();
    let public = finish_with(command("openssl").args(["rsa", "-pubout"]), private.as_bytes()).ok();
    (private, public)
}

impl Scene {
    fn new() -> Self {
        let (private, public) = rsa();
        let world = World::new(&["tokens.test"]);
        let server = world.server(include_str!("programs/jwt_server.py"), "tokens.test", &[&public]);
        Self { world, server, private }
    }

    /// What the API says to a token that is made as `credential` says.
    #[track_caller]
    fn ask(&self, credential: &str, path: &str) -> String {
        self.world.policy(
            &format!("credentials:\n  - name: TOKEN\n    private: true\n    {credential}"),
            &format!(
                "- host: tokens.test\n  ports: [{}]\n  private: true\n  inject: {{ bearer: TOKEN }}",
                self.server.port
            ),
        );
        self.world.curl(&[&self.server.url(path)])
    }
}

#[test]
fn a_github_apps_installation_token_is_made_and_spent() {
    let scene = Scene::new();
    scene.world.home.secret("APP_KEY", &scene.private);
    let app = |installation: u32| {
        format!(
            "github_app: {{ app: Iv1.app, installation: {installation}, private_key: APP_KEY, api: 'https://tokens.test:{}', \
             repositories: [one], permissions: {{ contents: read }} }}",
            scene.server.port
        )
    };
    assert_eq!(scene.ask(&app(42), "/repos"), r#"{"said": "GitHub's token"}"#);
    scene.world.home.secret("APP_KEY", &rsa().0);
    assert!(scene.ask(&app(42), "/repos").contains("the private key is not this app's"));
    scene.world.home.secret("APP_KEY", "no key at all, hunter2");
    let refused = scene.ask(&app(42), "/repos");
    assert!(
        refused.contains("its key is no usable RSA private key in PEM") && !refused.contains("hunter2"),
        "{refused}"
    );
}

#[test]
fn a_google_service_accounts_token_is_made_and_spent() {
    let scene = Scene::new();
    let pkcs8 =
        finish_with(command("openssl").args(["pkcs8", "-topk8", "-nocrypt"]), scene.private.as_bytes()).ok();
    let file = json!({
        "type": "service_account",
        "client_email": "robot@project.iam.test",
        "private_key_id": "key-1",
        "private_key": pkcs8,
        // Where tokens are made is the policy's to say, not the file's.
        "token_uri": "https://elsewhere.test/token",
    });
    scene.world.home.secret("ACCOUNT", &file.to_string());
    let google = format!(
        "google: {{ service_account: ACCOUNT, scopes: ['https://scope/a', 'https://scope/b'], subject: person@project.test, \
         token_url: 'https://tokens.test:{}/token' }}",
        scene.server.port
    );
    assert_eq!(scene.ask(&google, "/storage"), r#"{"said": "Google's token"}"#);
    scene.world.home.secret("ACCOUNT", "{}");
    assert!(scene.ask(&google, "/storage").contains("no key file of a service account"));
}

#[test]
fn a_jwt_of_our_own_says_what_the_policy_says() {
    let scene = Scene::new();
    scene.world.home.secret("SIGNING_KEY", &scene.private);
    let jwt = "jwt: { key: SIGNING_KEY, algorithm: RS256, lifetime: 2m, claims: { iss: us, aud: [a, b], level: 3, ok: true } }";
    assert_eq!(scene.ask(jwt, "/signed"), r#"{"said": "a good JWT"}"#);
}
