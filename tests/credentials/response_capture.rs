//! Values captured from responses: the agent gets a placeholder that works for the same host only.

use hyper::Response;

use super::Fixture;
use crate::support::endpoints::{Body, ReceivedRequest, full_response};
use crate::support::process::run;
use crate::support::upstream::{Options, Upstream};

const PASSWORD: &str = "correct horse battery";
const SESSION: &str = "s3ss10n-c00kie-9f27ab";
const TOKEN: &str = "ASIATEMPORARY/token+0123456789";

/// A server that issues a session, a temporary token and a refresh token for the password.
fn login_response(received: &ReceivedRequest) -> Option<Response<Body>> {
    if received.path != "/login" {
        return None;
    }
    let right = received.header("authorization") == format!("Bearer {PASSWORD}");
    assert!(right, "{received:#?}");
    let body = format!(
        r#"{{"credentials": {{"token": "{TOKEN}", "refresh": "refresh-000000000001"}}, "said": "use {TOKEN} soon"}}"#
    );
    let mut response = full_response("application/json", body);
    let headers = response.headers_mut();
    headers.append("set-cookie", format!("sid={SESSION}; Path=/; Secure").parse().unwrap());
    headers.append("set-cookie", "tracker=1; Path=/".parse().unwrap());
    headers.append("set-cookie", "theme=dark; Path=/".parse().unwrap());
    Some(response)
}

fn fixture() -> (Fixture, Upstream, Upstream) {
    let fixture = Fixture::new(&["api.test", "other.test"]);
    let api = Upstream::start(Options::https(&fixture.authority, &["api.test"]).with_handler(login_response));
    let other = Upstream::start(Options::https(&fixture.authority, &["other.test"]));
    fixture.home.set_secret("PASSWORD", PASSWORD);
    fixture.policy(
        "",
        &format!(
            "- host: api.test\n  ports: [{}]\n  private: true\n  secrets: [PASSWORD]\n  capture:\n    - {{ cookie: sid, as: SID }}\n    \
             - {{ json: credentials.token, as: TEMP }}\n  strip: [{{ json: credentials.refresh }}, {{ cookie: tracker }}]\n\
             - host: other.test\n  ports: [{}]\n  private: true\n  secrets: [SID, TEMP]\n  places: [auth, cookie]",
            api.port(),
            other.port()
        ),
    );
    (fixture, api, other)
}

#[test]
fn captured_values_are_used_by_placeholder() {
    let (fixture, api, other) = fixture();
    let script = "cd $(mktemp -d) && curl -sSi -c jar -X POST -H 'Authorization: Bearer AS_SECRET_PASSWORD' $1/login && echo \
                  && curl -sS -b jar -H 'Authorization: Bearer AS_SECRET_TEMP' $1/echo && echo && cat jar && \
                  curl -sS -b sid=AS_SECRET_SID $2/echo && curl -sS -H 'Authorization: AS_SECRET_TEMP' $2/echo";
    let [api_url, other_url] = [("api.test", &api), ("other.test", &other)]
        .map(|(name, server)| format!("https://{name}:{}", server.port()));
    let output = run(fixture.agent(&["sh", "-c", script, "sh"]).args([api_url, other_url])).ok();

    assert!(
        !output.contains(SESSION) && !output.contains(TOKEN) && !output.contains("refresh-0000"),
        "{output}"
    );
    assert!(output.contains(r#""token": "AS_SECRET_TEMP", "refresh": null"#), "{output}");
    assert!(output.contains("use [REDACTED_BY_AGENTSECRETS] soon"), "{output}");
    assert!(
        output.contains("AS_SECRET_SID") && output.contains("dark") && !output.contains("tracker"),
        "{output}"
    );
    let received = api.received();
    let spent = received.iter().find(|received| received.path == "/echo").unwrap();
    assert_eq!(spent.header("authorization"), format!("Bearer {TOKEN}"));
    let mut cookies: Vec<&str> = spent.header("cookie").split("; ").collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [format!("sid={SESSION}").as_str(), "theme=dark"]);
    // For the other host nothing is captured.
    assert!(other.received().is_empty());
    assert_eq!(output.matches("nothing was captured as").count(), 2, "{output}");
}

#[test]
fn captured_values_are_per_session() {
    let (fixture, api, _other) = fixture();
    let url = |path: &str| format!("https://api.test:{}{path}", api.port());
    fixture.curl(&["-X", "POST", "-H", "Authorization: Bearer AS_SECRET_PASSWORD", &url("/login")]);
    let output = fixture.curl(&["-b", "sid=AS_SECRET_SID", &url("/echo")]);
    assert!(output.contains("nothing was captured as 'SID' from 'api.test' in this session yet"), "{output}");
    assert_eq!(api.received().len(), 1);
}

#[test]
fn minting_endpoint_is_denied_by_default() {
    let fixture = Fixture::new(&["api.github.com", "sts.eu-west-1.amazonaws.com"]);
    let names = ["api.github.com", "sts.eu-west-1.amazonaws.com"];
    let server = Upstream::start(Options::https(&fixture.authority, &names));
    fixture.home.set_secret("GITHUB_KEY", PASSWORD);
    fixture.home.set_secret("AWS_KEY", "a-secret-key-of-aws");
    let policy = |more: &str| {
        let rule = |host: &str, spends: &str| {
            format!("- host: {host}\n  ports: [{}]\n  private: true\n  {spends}\n  {more}\n", server.port())
        };
        let aws = "sign: { aws: { access_key: GITHUB_KEY, secret_key: AWS_KEY, regions: [eu-west-1], services: [sts] } }";
        fixture.policy("", &(rule(names[0], "secrets: [GITHUB_KEY]") + &rule(names[1], aws)));
    };
    let ask = |name: &str, path: &str, more: &[&str]| {
        fixture.curl(&[more, &["-X", "POST", &format!("https://{name}:{}{path}", server.port())]].concat())
    };
    let bearer = ["-H", "Authorization: Bearer AS_SECRET_GITHUB_KEY"];
    let github = |more: &[&str]| ask(names[0], "/app/installations/42/access_tokens", more);
    policy("");
    let refused = github(&bearer);
    assert!(refused.contains("policy_denied") && refused.contains("mints credentials (GitHub)"), "{refused}");
    assert!(ask(names[1], "/?Action=AssumeRole", &[]).contains("mints credentials (AWS STS)"));
    // Without a secret nothing is minted, and the rest of the host is allowed.
    assert!(github(&[]).contains("access_tokens"));
    assert!(ask(names[0], "/repos/a/b/issues", &bearer).contains("REDACTED"));
    policy("mint: allow");
    assert!(github(&bearer).contains("REDACTED"));
    policy("capture: [{ json: token, as: INSTALLATION }]");
    assert!(github(&bearer).contains("REDACTED"));
}
