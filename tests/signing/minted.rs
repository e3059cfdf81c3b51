//! What an answer mints: kept from the agent, which gets a placeholder to spend, toward the same host alone.

use hyper::Response;

use super::World;
use crate::support::endpoints::{Body, Received, whole};
use crate::support::process::finish;
use crate::support::upstream::{Options, Upstream};

const PASSWORD: &str = "correct horse battery";
const SESSION: &str = "s3ss10n-c00kie-9f27ab";
const TOKEN: &str = "ASIATEMPORARY/token+0123456789";

/// A server that gives a session, a temporary token and a refresh token to who knows the password.
fn login(received: &Received) -> Option<Response<Body>> {
    if received.path != "/login" {
        return None;
    }
    let right = received.header("authorization") == format!("Bearer {PASSWORD}");
    assert!(right, "{received:#?}");
    let body = format!(
        r#"{{"credentials": {{"token": "{TOKEN}", "refresh": "refresh-000000000001"}}, "said": "use {TOKEN} soon"}}"#
    );
    let mut response = whole("application/json", body);
    let headers = response.headers_mut();
    headers.append("set-cookie", format!("sid={SESSION}; Path=/; Secure").parse().unwrap());
    headers.append("set-cookie", "tracker=1; Path=/".parse().unwrap());
    headers.append("set-cookie", "theme=dark; Path=/".parse().unwrap());
    Some(response)
}

fn world() -> (World, Upstream, Upstream) {
    let world = World::new(&["api.test", "other.test"]);
    let api = Upstream::start(Options::https(&world.authority, &["api.test"]).answering(login));
    let other = Upstream::start(Options::https(&world.authority, &["other.test"]));
    world.home.secret("PASSWORD", PASSWORD);
    world.policy(
        "",
        &format!(
            "- host: api.test\n  ports: [{}]\n  private: true\n  secrets: [PASSWORD]\n  capture:\n    - {{ cookie: sid, as: SID }}\n    \
             - {{ json: credentials.token, as: TEMP }}\n  strip: [{{ json: credentials.refresh }}, {{ cookie: tracker }}]\n\
             - host: other.test\n  ports: [{}]\n  private: true\n  secrets: [SID, TEMP]\n  places: [auth, cookie]",
            api.port(),
            other.port()
        ),
    );
    (world, api, other)
}

#[test]
fn a_session_and_a_temporary_token_are_kept_and_spent_by_their_placeholders() {
    let (world, api, other) = world();
    let script = "cd $(mktemp -d) && curl -sSi -c jar -X POST -H 'Authorization: Bearer AS_SECRET_PASSWORD' $1/login && echo \
                  && curl -sS -b jar -H 'Authorization: Bearer AS_SECRET_TEMP' $1/echo && echo && cat jar && \
                  curl -sS -b sid=AS_SECRET_SID $2/echo && curl -sS -H 'Authorization: AS_SECRET_TEMP' $2/echo";
    let [api_url, other_url] = [("api.test", &api), ("other.test", &other)]
        .map(|(name, server)| format!("https://{name}:{}", server.port()));
    let said = finish(world.agent(&["sh", "-c", script, "sh"]).args([api_url, other_url])).ok();

    assert!(!said.contains(SESSION) && !said.contains(TOKEN) && !said.contains("refresh-0000"), "{said}");
    assert!(said.contains(r#""token": "AS_SECRET_TEMP", "refresh": null"#), "{said}");
    assert!(said.contains("use [REDACTED_BY_AGENTSECRETS] soon"), "{said}");
    assert!(said.contains("AS_SECRET_SID") && said.contains("dark") && !said.contains("tracker"), "{said}");
    let received = api.received();
    let spent = received.iter().find(|received| received.path == "/echo").unwrap();
    assert_eq!(spent.header("authorization"), format!("Bearer {TOKEN}"));
    let mut cookies: Vec<&str> = spent.header("cookie").split("; ").collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [format!("sid={SESSION}").as_str(), "theme=dark"]);
    // Elsewhere, nothing was captured.
    assert!(other.received().is_empty());
    assert_eq!(said.matches("nothing was captured as").count(), 2, "{said}");
}

#[test]
fn what_one_session_captured_is_not_another_ones() {
    let (world, api, _other) = world();
    let url = |path: &str| format!("https://api.test:{}{path}", api.port());
    world.curl(&["-X", "POST", "-H", "Authorization: Bearer AS_SECRET_PASSWORD", &url("/login")]);
    let said = world.curl(&["-b", "sid=AS_SECRET_SID", &url("/echo")]);
    assert!(said.contains("nothing was captured as 'SID' from 'api.test' in this session yet"), "{said}");
    assert_eq!(api.received().len(), 1);
}

#[test]
fn an_endpoint_that_is_known_to_mint_is_denied_unless_the_rule_says_otherwise() {
    let world = World::new(&["api.github.com", "sts.eu-west-1.amazonaws.com"]);
    let names = ["api.github.com", "sts.eu-west-1.amazonaws.com"];
    let server = Upstream::start(Options::https(&world.authority, &names));
    world.home.secret("GITHUB_KEY", PASSWORD);
    world.home.secret("AWS_KEY", "a-secret-key-of-aws");
    let policy = |more: &str| {
        let rule = |host: &str, spends: &str| {
            format!("- host: {host}\n  ports: [{}]\n  private: true\n  {spends}\n  {more}\n", server.port())
        };
        let aws = "sign: { aws: { access_key: GITHUB_KEY, secret_key: AWS_KEY, regions: [eu-west-1], services: [sts] } }";
        world.policy("", &(rule(names[0], "secrets: [GITHUB_KEY]") + &rule(names[1], aws)));
    };
    let ask = |name: &str, path: &str, more: &[&str]| {
        world.curl(&[more, &["-X", "POST", &format!("https://{name}:{}{path}", server.port())]].concat())
    };
    let bearer = ["-H", "Authorization: Bearer AS_SECRET_GITHUB_KEY"];
    let github = |more: &[&str]| ask(names[0], "/app/installations/42/access_tokens", more);
    policy("");
    let refused = github(&bearer);
    assert!(refused.contains("policy_denied") && refused.contains("mints credentials (GitHub)"), "{refused}");
    assert!(ask(names[1], "/?Action=AssumeRole", &[]).contains("mints credentials (AWS STS)"));
    // Without a secret nothing is minted, and the rest of the host is open.
    assert!(github(&[]).contains("access_tokens"));
    assert!(ask(names[0], "/repos/a/b/issues", &bearer).contains("REDACTED"));
    policy("mint: allow");
    assert!(github(&bearer).contains("REDACTED"));
    policy("capture: [{ json: token, as: INSTALLATION }]");
    assert!(github(&bearer).contains("REDACTED"));
}
