//! Private package indexes, which give nothing to those who come without the secret.

use base64::Engine;
use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::*;
use crate::support::endpoints::{Body, Received, whole};
use crate::support::process::command;

#[test]
fn pip_downloads_from_a_private_index() {
    let world = world_of_wheels();
    let outcome = finish(&mut world.home.run_agent(["sh", "-c", DOWNLOAD, &index(&world)]));
    assert_eq!(outcome.ok(), "tool-1.0-py3-none-any.whl\n");
}

/// Downloads from the index that is its argument.
pub(crate) const DOWNLOAD: &str = "/usr/bin/python3 -m pip download -q --no-cache-dir --disable-pip-version-check \
    --no-deps --no-input -d $HOME/got -i \"$0\" tool && ls $HOME/got";

/// The index's URL, with a placeholder.
pub(crate) fn index(world: &World) -> String {
    world.url("/simple/").replace("https://", "https://agent:AS_SECRET_API_KEY@")
}

/// A world whose server is an index of Python's packages.
pub(crate) fn world_of_wheels() -> World {
    let folder = tempfile::tempdir().unwrap();
    let wheel = folder.path().join("tool-1.0-py3-none-any.whl");
    let program = "import sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n\
        \x20   info = 'tool-1.0.dist-info/'\n\
        \x20   wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: tool\\nVersion: 1.0\\n')\n\
        \x20   wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nTag: py3-none-any\\n')\n\
        \x20   wheel.writestr(info + 'RECORD', '')";
    finish(command("/usr/bin/python3").args(["-c", program]).arg(&wheel)).ok();
    let wheel = Bytes::from(std::fs::read(wheel).unwrap());
    let pair = base64::prelude::BASE64_STANDARD.encode(format!("agent:{SECRET}"));
    world_with(move |options| {
        options.answering(move |received| {
            Some(match guarded(received, &format!("Basic {pair}")) {
                Some(refused) => refused,
                None if received.path == "/simple/tool/" => whole(
                    "text/html",
                    "<!DOCTYPE html><a href='/files/tool-1.0-py3-none-any.whl'>tool-1.0-py3-none-any.whl</a>",
                ),
                None => whole("application/octet-stream", wheel.clone()),
            })
        })
    })
}

#[test]
fn npm_installs_a_scoped_package_from_a_private_index() {
    let world = world_of_packages();
    let host = world.url("/").replace("https:", "");
    let install = || finish(&mut world.home.run_agent(["sh", "-c", INSTALL, &host]));

    let refused = install();
    assert_ne!(refused.code, Some(0), "{refused:#?}");
    assert!(world.api.received().is_empty());
    let denied = world.home.audit().pop().unwrap();
    assert_eq!((&denied["status"], &denied["reason"]), (&json!("BLOCKED"), &json!("policy_denied")));

    world.rule(SLASHES);
    assert_eq!(install().ok(), "the tool\n");
    spent(&world, 2);
}

/// Installs and runs the package of the registry that is its argument.
pub(crate) const INSTALL: &str = "set -e; mkdir $HOME/app; cd $HOME/app; echo '{}' > package.json; \
    printf '@acme:registry=https:%s\\n%s:_authToken=${API_KEY}\\n' \"$0\" \"$0\" > .npmrc; \
    npm install --silent --no-audit --no-fund --no-update-notifier @acme/tool; node -p 'require(\"@acme/tool\")'";

/// What a rule says so that npm may ask for a scoped package.
pub(crate) const SLASHES: &str =
    "paths: ['/@acme/**', '/@acme%2f*']\nencoded_slashes: allow\nsecrets: [API_KEY]";

/// A world whose server is an index of Node's packages.
pub(crate) fn world_of_packages() -> World {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("package");
    std::fs::create_dir(&package).unwrap();
    std::fs::write(package.join("package.json"), r#"{"name":"@acme/tool","version":"1.0.0"}"#).unwrap();
    std::fs::write(package.join("index.js"), "module.exports = 'the tool'").unwrap();
    let archive = folder.path().join("tool.tgz");
    finish(command("tar").arg("-czf").arg(&archive).arg("-C").arg(folder.path()).arg("package")).ok();
    let archive = Bytes::from(std::fs::read(archive).unwrap());
    world_with(move |options| {
        options.answering(move |received| {
            Some(match guarded(received, &format!("Bearer {SECRET}")) {
                Some(refused) => refused,
                None if received.path == "/@acme%2ftool" => description(received),
                None => whole("application/octet-stream", archive.clone()),
            })
        })
    })
}

/// What those get who come without this credential.
fn guarded(received: &Received, credential: &str) -> Option<Response<Body>> {
    if received.header("authorization") == credential {
        return None;
    }
    let mut refused = whole("text/plain", "who are you?");
    *refused.status_mut() = StatusCode::UNAUTHORIZED;
    refused.headers_mut().insert("www-authenticate", r#"Basic realm="index""#.parse().unwrap());
    Some(refused)
}

/// What the index knows of the package.
fn description(received: &Received) -> Response<Body> {
    let host = received.authority.as_deref().unwrap_or_else(|| received.header("host"));
    let tarball = format!("https://{host}/@acme/tool/-/tool-1.0.0.tgz");
    let version = json!({ "name": "@acme/tool", "version": "1.0.0", "dist": { "tarball": tarball } });
    let text = json!({
        "name": "@acme/tool",
        "dist-tags": { "latest": "1.0.0" },
        "versions": { "1.0.0": version },
    });
    whole("application/json", text.to_string())
}
