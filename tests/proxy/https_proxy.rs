//! What people really use, told of the proxy by the shell's variables and by nothing else.

use super::Proxy;
use crate::clients::git::{SCRIPT, basic, world_of_git};
use crate::clients::indexes::{DOWNLOAD, INSTALL, SLASHES, index, world_of_packages, world_of_wheels};
use crate::clients::python::{PythonServer, world_of_python};
use crate::clients::{packages, spent};
use crate::spine::{SECRET, World};
use crate::support::process::{Outcome, command, finish};
use crate::support::python::PYTHON;

impl Proxy {
    /// Runs a program that has the placeholder where it looks for its key, in a folder of its own.
    #[track_caller]
    fn program(&self, words: &[&str]) -> Outcome {
        let (program, arguments) = words.split_first().unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut client = self.client(program);
        client.args(arguments).env("HOME", home.path()).env("API_KEY", "AS_SECRET_API_KEY");
        client.env("PYTHONPATH", packages().join("python"));
        client.env("NODE_PATH", packages().join("node/node_modules"));
        finish(client.current_dir(home.path()))
    }
}

#[test]
fn python_speaks_either_version_of_http() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let program = r#"
import os, sys, httpx, requests
headers = {"Authorization": "Bearer " + os.environ["API_KEY"]}
print("requests", requests.get(sys.argv[1], headers=headers).status_code)
for http2 in (False, True):
    with httpx.Client(http2=http2) as client:
        answer = client.get(sys.argv[1], headers=headers)
        print("httpx", answer.status_code, answer.http_version)
"#;
    let said = proxy.program(&[PYTHON, "-c", program, &world.url("/echo")]).ok();
    assert_eq!(said, "requests 200\nhttpx 200 HTTP/1.1\nhttpx 200 HTTP/2\n");
    spent(&world, 3);
}

#[test]
fn node_asks_through_its_own_agent_for_proxies() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let program = r#"
const { EnvHttpProxyAgent, request } = require("undici");
const headers = { authorization: "Bearer " + process.env.API_KEY };
request(process.argv[1], { headers, dispatcher: new EnvHttpProxyAgent() })
  .then(async (answer) => { await answer.body.text(); console.log("undici", answer.statusCode); process.exit(0); });
"#;
    let said = proxy.program(&["/usr/bin/node", "-e", program, &world.url("/echo")]).ok();
    assert_eq!(said, "undici 200\n");
    spent(&world, 1);
}

#[test]
fn git_clones_and_pushes() {
    let (world, repository) = world_of_git();
    let proxy = Proxy::of(&world);
    let plain = world.url("/project.git");
    let with_placeholder = plain.replace("https://", "https://agent:AS_SECRET_API_KEY@");
    let header = format!("http.extraHeader=Authorization: Basic {}", basic("agent:AS_SECRET_API_KEY"));
    proxy.program(&["sh", "-c", SCRIPT, &with_placeholder, &plain, &header]).ok();
    assert_eq!(repository.log(), "second\nfirst\n");
}

#[test]
fn pip_downloads_and_npm_installs() {
    let world = world_of_wheels();
    let proxy = Proxy::of(&world);
    assert_eq!(proxy.program(&["sh", "-c", DOWNLOAD, &index(&world)]).ok(), "tool-1.0-py3-none-any.whl\n");

    let world = world_of_packages();
    world.rule(SLASHES);
    let proxy = Proxy::of(&world);
    let host = world.url("/").replace("https:", "");
    assert_eq!(proxy.program(&["sh", "-c", INSTALL, &host]).ok(), "the tool\n");
    spent(&world, 2);
}

#[test]
fn java_is_told_by_its_own_properties() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("trusted").display().to_string();
    let authority = proxy.variables["NODE_EXTRA_CA_CERTS"].as_str().unwrap();
    let mut keytool = command("keytool");
    keytool.args(["-importcert", "-noprompt", "-storepass", "changeit", "-keystore", &store]);
    finish(keytool.args(["-file", authority])).ok();
    let file = folder.path().join("Client.java");
    std::fs::write(&file, include_bytes!("../clients/programs/Client.java")).unwrap();
    let said = proxy.program(&[
        "/usr/bin/java",
        "-Dhttps.proxyHost=127.0.0.1",
        &format!("-Dhttps.proxyPort={}", proxy.port),
        &format!("-Djavax.net.ssl.trustStore={store}"),
        "-Djavax.net.ssl.trustStorePassword=changeit",
        file.to_str().unwrap(),
        &world.url(""),
    ]);
    assert_eq!(said.ok(), "HttpClient 200 HTTP_2\nHttpsURLConnection 200\n");
    spent(&world, 2);
}

#[test]
fn websockets_and_grpc_run_inside_a_tunnel() {
    let said = through_a_tunnel(
        include_str!("../clients/programs/websocket_server.py"),
        include_str!("../clients/programs/websocket.py"),
        1,
    );
    assert_eq!(said, "one\ntwo\nb'three'\n");
    let said = through_a_tunnel(
        include_str!("../clients/programs/grpc_server.py"),
        include_str!("../clients/programs/grpc_client.py"),
        4,
    );
    assert_eq!(said, "unary hello OK a trailer\nstream 0 1 2\nboth a b\nfailed NOT_FOUND nothing is there\n");
}

/// What a Python client says of its talk with a Python server, which was shown the secret so many times.
#[track_caller]
fn through_a_tunnel(server: &str, client: &str, times: usize) -> String {
    let (world, mut server): (World, PythonServer) = world_of_python(server);
    let proxy = Proxy::of(&world);
    let said = proxy.program(&[PYTHON, "-c", client, &server.url]).ok();
    for _ in 0..times {
        assert_eq!(server.line(), format!("Bearer {SECRET}"));
    }
    said
}
