//! Real clients that learn of the proxy only from the shell's variables.

use super::Proxy;
use crate::clients::git::{SCRIPT, basic, git_fixture};
use crate::clients::package_indexes::{
    ALLOW_ENCODED_SLASHES, NPM_INSTALL, PIP_DOWNLOAD, index_url, npm_registry_fixture, pip_index_fixture,
};
use crate::clients::python::{PythonServer, python_server_fixture};
use crate::clients::{assert_secret_received, packages};
use crate::end_to_end::{Fixture, SECRET};
use crate::support::process::{Outcome, command, run};
use crate::support::python::PYTHON;

impl Proxy {
    /// Runs a program with the placeholder in its usual variable, in its own folder.
    #[track_caller]
    fn run_program(&self, words: &[&str]) -> Outcome {
        let (program, arguments) = words.split_first().unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut client = self.client(program);
        client.args(arguments).env("HOME", home.path()).env("API_KEY", "AS_SECRET_API_KEY");
        client.env("PYTHONPATH", packages().join("python"));
        client.env("NODE_PATH", packages().join("node/node_modules"));
        run(client.current_dir(home.path()))
    }
}

#[test]
fn python_works_with_http1_and_http2() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let program = r#"
import os, sys, httpx, requests
headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
print("requests", requests.get(sys.argv[1], headers=headers).status_code)
for http2 in (False, True):
    with httpx.Client(http2=http2) as client:
        answer = client.get(sys.argv[1], headers=headers)
        print("httpx", answer.status_code, answer.http_version)
"#;
    let output = proxy.run_program(&[PYTHON, "-c", program, &fixture.url("/echo")]).ok();
    assert_eq!(output, "requests 200\nhttpx 200 HTTP/1.1\nhttpx 200 HTTP/2\n");
    assert_secret_received(&fixture, 3);
}

#[test]
fn node_env_proxy_agent_works() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let program = r#"
const { EnvHttpProxyAgent, request } = require("undici");
const headers = { authorization: "Bearer " + process.env.API_KEY };
request(process.argv[1], { headers, dispatcher: new EnvHttpProxyAgent() })
  .then(async (answer) => { await answer.body.text(); console.log("undici", answer.statusCode); process.exit(0); });
"#;
    let output = proxy.run_program(&["/usr/bin/node", "-e", program, &fixture.url("/echo")]).ok();
    assert_eq!(output, "undici 200\n");
    assert_secret_received(&fixture, 1);
}

#[test]
fn git_clones_and_pushes() {
    let (fixture, repository) = git_fixture();
    let proxy = Proxy::start(&fixture);
    let plain = fixture.url("/project.git");
    let with_placeholder = plain.replace("https://", "https://agent:AS_SECRET_API_KEY@");
    let header = format!("http.extraHeader=Authorization: Basic {}", basic("agent:AS_SECRET_API_KEY"));
    proxy.run_program(&["sh", "-c", SCRIPT, &with_placeholder, &plain, &header]).ok();
    assert_eq!(repository.log(), "second\nfirst\n");
}

#[test]
fn pip_and_npm_work() {
    let fixture = pip_index_fixture();
    let proxy = Proxy::start(&fixture);
    assert_eq!(
        proxy.run_program(&["sh", "-c", PIP_DOWNLOAD, &index_url(&fixture)]).ok(),
        "tool-1.0-py3-none-any.whl\n"
    );

    let fixture = npm_registry_fixture();
    fixture.rule(ALLOW_ENCODED_SLASHES);
    let proxy = Proxy::start(&fixture);
    let host = fixture.url("/").replace("https:", "");
    assert_eq!(proxy.run_program(&["sh", "-c", NPM_INSTALL, &host]).ok(), "the tool\n");
    assert_secret_received(&fixture, 2);
}

#[test]
fn java_proxy_properties_work() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("trusted").display().to_string();
    let authority = proxy.variables["NODE_EXTRA_CA_CERTS"].as_str().unwrap();
    let mut keytool = command("keytool");
    keytool.args(["-importcert", "-noprompt", "-storepass", "changeit", "-keystore", &store]);
    run(keytool.args(["-file", authority])).ok();
    let file = folder.path().join("Client.java");
    std::fs::write(&file, include_bytes!("../clients/programs/Client.java")).unwrap();
    let output = proxy.run_program(&[
        "/usr/bin/java",
        "-Dhttps.proxyHost=127.0.0.1",
        &format!("-Dhttps.proxyPort={}", proxy.port),
        &format!("-Djavax.net.ssl.trustStore={store}"),
        "-Djavax.net.ssl.trustStorePassword=changeit",
        file.to_str().unwrap(),
        &fixture.url(""),
    ]);
    assert_eq!(output.ok(), "HttpClient 200 HTTP_2\nHttpsURLConnection 200\n");
    assert_secret_received(&fixture, 2);
}

#[test]
fn websocket_and_grpc_tunnels_work() {
    let output = through_a_tunnel(
        include_str!("../clients/programs/websocket_server.py"),
        include_str!("../clients/programs/websocket.py"),
        1,
    );
    assert_eq!(output, "one\ntwo\nb'three'\n");
    let output = through_a_tunnel(
        include_str!("../clients/programs/grpc_server.py"),
        include_str!("../clients/programs/grpc_client.py"),
        4,
    );
    assert_eq!(
        output,
        "unary hello OK a trailer\nstream 0 1 2\nboth a b\nfailed NOT_FOUND nothing is there\n"
    );
}

/// The output of a Python client of a Python server, which received the secret `times` times.
#[track_caller]
fn through_a_tunnel(server: &str, client: &str, times: usize) -> String {
    let (fixture, mut server): (Fixture, PythonServer) = python_server_fixture(server);
    let proxy = Proxy::start(&fixture);
    let output = proxy.run_program(&[PYTHON, "-c", client, &server.url]).ok();
    for _ in 0..times {
        assert_eq!(server.read_line(), format!("Bearer {SECRET}"));
    }
    output
}
