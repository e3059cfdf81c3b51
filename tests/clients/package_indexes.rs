//! Private package indexes that require the secret.

use base64::Engine;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::*;
use crate::support::endpoints::{Body, ReceivedRequest, full_response};
use crate::support::process::command;

#[test]
fn pip_downloads_from_private_index() {
    let fixture = pip_index_fixture();
    let outcome = run(&mut fixture.home.run_agent(["sh", "-c", PIP_DOWNLOAD, &index_url(&fixture)]));
    assert_eq!(outcome.ok(), "tool-1.0-py3-none-any.whl\n");
}

/// Downloads from the index in its argument.
pub(crate) const PIP_DOWNLOAD: &str = "/usr/bin/python3 -m pip download -q --no-cache-dir --disable-pip-version-check \
    --no-deps --no-input -d $HOME/got -i \"$0\" tool && ls $HOME/got";

/// The index URL with a placeholder.
pub(crate) fn index_url(fixture: &Fixture) -> String {
    fixture.url("/simple/").replace("https://", "https://agent:AS_SECRET_API_KEY@")
}

/// A fixture whose server is a Python package index.
pub(crate) fn pip_index_fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let wheel = folder.path().join("tool-1.0-py3-none-any.whl");
    let program = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n\
        \x20   info = 'tool-1.0.dist-info/'\n\
        \x20   wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: tool\\nVersion: 1.0\\n')\n\
        \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nTag: py3-none-any\\n')\n\
        \x20   wheel.writestr(info + 'RECORD', '')";
    run(command("/usr/bin/python3").args(["-c", program]).arg(&wheel)).ok();
    let wheel = Bytes::from(std::fs::read(wheel).unwrap());
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("agent:{SECRET}"));
    fixture_with(move |options| {
        options.with_handler(move |received| {
            Some(match require_credential(received, &format!("Basic {pair}")) {
                Some(refused) => refused,
                None if received.path == "/simple/tool/" => full_response(
                    "text/html",
                    "<!DOCTYPE html><a href='/files/tool-1.0-py3-none-any.whl'>tool-1.0-py3-none-any.whl</a>",
                ),
                None => full_response("application/octet-stream", wheel.clone()),
            })
        })
    })
}

#[test]
fn npm_installs_from_private_index() {
    let fixture = npm_registry_fixture();
    let host = fixture.url("/").replace("https:", "");
    let install = || run(&mut fixture.home.run_agent(["sh", "-c", NPM_INSTALL, &host]));

    let refused = install();
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    assert!(fixture.api.received().is_empty());
    let denied = fixture.home.audit().pop().unwrap();
    assert_eq!((&denied["status"], &denied["reason"]), (&json!("BLOCKED"), &json!("policy_denied")));

    fixture.rule(ALLOW_ENCODED_SLASHES);
    assert_eq!(install().ok(), "the tool\n");
    assert_secret_received(&fixture, 2);
}

/// Installs and runs the package from the registry in its argument.
pub(crate) const NPM_INSTALL: &str = "set -e; mkdir $HOME/app; cd $HOME/app; echo '{}' > package.json; \
    printf '@acme:registry=https:%s\\n%s:_authToken=${API_KEY}\\n' \"$0\" \"$0\" > .npmrc; \
    npm install --silent --no-audit --no-fund --no-update-notifier @acme/tool; node -p 'require(\"@acme/tool\")'";

/// The rule key that scoped npm packages need.
pub(crate) const ALLOW_ENCODED_SLASHES: &str =
    "paths: ['/@acme/**', '/@acme%2f*']\nencoded_slashes: allow\nsecrets: [API_KEY]";

/// A fixture whose server is an npm registry.
pub(crate) fn npm_registry_fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("package");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("package.json"), r#"{"name":"@acme/tool","version":"1.0.0"}"#).unwrap();
    std::fs::write(package.join("index.js"), "module.exports = 'the tool'").unwrap();
    let archive = folder.path().join("tool.tgz");
    run(command("tar").arg("-czf").arg(&archive).arg("-C").arg(folder.path()).arg("package")).ok();
    let archive = Bytes::from(std::fs::read(archive).unwrap());
    fixture_with(move |options| {
        options.with_handler(move |received| {
            Some(match require_credential(received, &format!("Bearer {SECRET}")) {
                Some(refused) => refused,
                None if received.path == "/@acme%2ftool" => description(received),
                None => full_response("application/octet-stream", archive.clone()),
            })
        })
    })
}

/// The response to a request without the credential.
fn require_credential(received: &ReceivedRequest, credential: &str) -> Option<Response<Body>> {
    if received.header("authorization") == credential {
        return None;
    }
    let mut refused = full_response("text/plain", "who are you?");
    *refused.status_mut() = StatusCode::UNAUTHORIZED;
    refused.headers_mut().insert("www-authenticate", r#"Basic realm="index""#.parse().unwrap());
    Some(refused)
}

/// The registry's metadata of the package.
fn description(received: &ReceivedRequest) -> Response<Body> {
    let host = received.authority.as_deref().unwrap_or_else(|| received.header("host"));
    let tarball = format!("https://{host}/@acme/tool/-/tool-1.0.0.tgz");
    let version = json!({ "name": "@acme/tool", "version": "1.0.0", "dist": { "tarball": tarball } });
    let text = json!({
        "name": "@acme/tool",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": version },
    });
    full_response("application/json", text.to_string())
}
