//! Programs that use the proxy by `HTTPS_PROXY` and by its endpoint.

use serde_json::json;

use super::Proxy;
use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::run;
use crate::support::python::PYTHON;
use crate::support::upstream::{Options, Upstream};

const BEARER_HEADER: [&str; 2] = ["-H", "Authorization: Bearer AS_SECRET_API_KEY"];

#[test]
fn curl_tunnel_works_with_http1_and_http2() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    for version in ["--http1.1", "--http2"] {
        let answer = proxy.curl(
            &[&BEARER_HEADER[..], &[version, "-w", " %{http_version}", &fixture.url("/echo-raw")]].concat(),
        );
        let spoken = if version == "--http2" { "2" } else { "1.1" };
        assert_eq!(answer.ok(), format!("Bearer [REDACTED_BY_AGENTSECRETS] {spoken}"));
    }
    for received in fixture.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
        assert!(received.headers.keys().all(|name| !name.starts_with("proxy-")), "{received:#?}");
    }
    let records = fixture.home.audit();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!((&record["identity_level"], &record["agent_id"]), (&json!("kernel"), &json!("coder")));
        assert_eq!((&record["process"]["exe"], &record["status"]), (&json!("/usr/bin/curl"), &json!("OK")));
    }
}

#[test]
fn unlisted_request_is_refused_inside_tunnel() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let refused = |arguments: &[&str]| {
        let text = proxy.curl(&[&["-w", "\n%{http_code}"], arguments].concat()).ok();
        let (body, code) = text.rsplit_once('\n').unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        (code.to_owned(), body["error"].as_str().unwrap().to_owned())
    };
    let elsewhere = format!("https://elsewhere.test:{}/", fixture.api.port());
    assert_eq!(refused(&[&elsewhere]), ("403".into(), "domain_not_in_allowlist".into()));
    fixture.rule("secrets: [API_KEY]\nmethods: [POST]");
    let late = || refused(&[&BEARER_HEADER[..], &[&fixture.url("/")]].concat());
    // The policy is reloaded in a moment.
    let reloaded = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let text = proxy.curl(&[&fixture.url("/")]).ok();
        text.contains("policy_denied")
    });
    assert!(reloaded && late() == ("403".into(), "policy_denied".into()));
}

#[test]
fn plain_http_carries_no_secret() {
    let fixture = Fixture::with(|_| Upstream::start(Options::plain()));
    let proxy = Proxy::start(&fixture);
    let url = format!("http://api.test:{}/echo", fixture.api.port());
    assert_eq!(proxy.curl(&[&url]).json()["path"], "/echo");
    let refused = proxy.curl(&[&BEARER_HEADER[..], &[&url]].concat()).json();
    assert_eq!(refused["error"], "non_https_blocked");
    assert_eq!(fixture.api.received().len(), 1);
}

#[test]
fn python_endpoint_requests_inject_every_style() {
    let fixture = Fixture::new();
    fixture.home.set_secret("LOGIN", "user:a-long-password");
    fixture.rule("secrets: [API_KEY, LOGIN]\nplaces: [auth, query, json, form]");
    let proxy = Proxy::start(&fixture);
    let program = r#"
import requests, sys
proxy, target = sys.argv[1:]
def ask(inject, **more):
    headers = {"X-AS-Target-URL": target, **inject, **more.pop("headers", {})}
    r = requests.post(proxy, headers=headers, **more)
    assert r.status_code == 200, (r.status_code, r.text)
    assert r.headers["X-AS-Redacted"] == "true", r.headers
ask({"X-AS-Inject-Bearer": "API_KEY"}, headers={"X-Note": "kept"})
ask({"X-AS-Inject-Basic": "LOGIN", "X-AS-Method": "PUT"})
ask({"X-AS-Inject-Header-X-Api-Key": "API_KEY"})
ask({"X-AS-Inject-Query-apiKey": "API_KEY"})
ask({"X-AS-Inject-Body-auth-key": "API_KEY"}, json={"auth": {"id": 1}})
ask({"X-AS-Inject-Form-key": "API_KEY"}, data={"a": "b"})
"#;
    let endpoint = format!("http://localhost:{}/proxy", proxy.port);
    let mut python = proxy.client(PYTHON);
    run(python.args(["-c", program, &endpoint, &fixture.url("/echo?a=b")])).ok();
    let received = fixture.api.received();
    assert_eq!(received[0].header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!((received[0].header("x-note"), received[0].method.as_str()), ("kept", "POST"));
    assert_eq!(received[1].header("authorization"), "Basic dXNlcjphLWxvbmctcGFzc3dvcmQ=");
    assert_eq!(received[1].method, "PUT");
    assert_eq!(received[2].header("x-api-key"), SECRET);
    assert_eq!(received[3].path, format!("/echo?a=b&apiKey={SECRET}"));
    let sent: serde_json::Value = serde_json::from_str(&received[4].body).unwrap();
    assert_eq!(sent, json!({"auth": {"id": 1, "key": SECRET}}));
    assert_eq!(received[5].body, format!("a=b&key={SECRET}"));
    for request in &received {
        assert!(request.headers.keys().all(|name| !name.starts_with("x-as-")), "{request:#?}");
        assert_eq!(
            request.header("host"),
            if request.version == "HTTP/2.0" { "" } else { request.header("host") }
        );
    }
}

#[test]
fn requests_on_one_connection_are_authorized_separately() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let (good, bad) = (fixture.url("/echo-raw"), format!("https://elsewhere.test:{}/", fixture.api.port()));
    let target = |url: &str| format!("X-AS-Target-URL: {url}");
    let endpoint = format!("http://localhost:{}/proxy", proxy.port);
    let (first, second) = (target(&good), target(&bad));
    let key = "X-AS-Inject-Bearer: API_KEY";
    let arguments =
        ["-H", &first, "-H", key, &endpoint, "--next", "-sS", "-H", &second, "-H", key, &endpoint];
    let text = proxy.curl(&arguments).ok();
    assert!(
        text.starts_with("Bearer [REDACTED_BY_AGENTSECRETS]{\"error\":\"domain_not_in_allowlist\""),
        "{text}"
    );
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
}

#[test]
fn clients_use_proxy_from_shell_variables() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let url = fixture.url("/echo-raw");
    let python = "import requests, sys\n\
        print(requests.get(sys.argv[1], headers={'Authorization': 'Bearer AS_SECRET_API_KEY'}).text)";
    let urllib = "import urllib.request as u, sys\n\
        r = u.Request(sys.argv[1], headers={'Authorization': 'Bearer AS_SECRET_API_KEY'})\n\
        print(u.urlopen(r).read().decode())";
    for program in [python, urllib] {
        let answer = run(proxy.client(PYTHON).args(["-c", program, &url])).ok();
        assert_eq!(answer.trim(), "Bearer [REDACTED_BY_AGENTSECRETS]");
    }
    // Node's own clients ignore proxy variables: this does what proxy libraries do.
    let node = "const [http, tls] = [require('http'), require('tls')];
        const target = new URL(process.argv[1]), proxy = new URL(process.env.HTTPS_PROXY);
        http.request({ host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: target.host })
          .on('connect', (res, socket) => {
            const secure = tls.connect({ socket, servername: target.hostname });
            secure.write(`GET ${target.pathname} HTTP/1.1\\r\\nHost: ${target.host}\\r\\nConnection: close\\r\\n` +
              'Authorization: Bearer AS_SECRET_API_KEY\\r\\n\\r\\n');
            secure.on('data', data => process.stdout.write(data));
          }).end();";
    let answer = run(proxy.client("/usr/bin/node").args(["-e", node, &url])).ok();
    assert!(answer.ends_with("Bearer [REDACTED_BY_AGENTSECRETS]"), "{answer}");
    let header = "http.extraHeader=Authorization: Bearer AS_SECRET_API_KEY";
    let _ = run(proxy.client("/usr/bin/git").args(["-c", header, "ls-remote", &fixture.url("/repository")]));
    fixture.api.wait_for(|received| received.path.starts_with("/repository/info/refs"));
    for received in fixture.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"), "{received:#?}");
    }
}
