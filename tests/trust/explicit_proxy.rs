//! Outside of a run, at the explicit proxy, a program may mount what it likes: the same path in another mount
//! namespace is another program.

use std::time::{Duration, Instant};

use super::TrustFixture;
use crate::proxy::Proxy;
use crate::support::process::{command, run};

/// A fixture with a proxy client in place of curl.
fn proxy_client_fixture() -> TrustFixture {
    let fixture = TrustFixture::new();
    let client = fixture.build("client", include_str!("client.c"), &["-static"]);
    std::fs::rename(client, fixture.path_text("tool")).unwrap();
    std::fs::copy(fixture.path_text("tool"), fixture.path_text("copy")).unwrap();
    fixture
}

#[test]
fn same_path_in_other_mount_namespace_is_not_trusted() {
    let fixture = proxy_client_fixture();
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let proxy = Proxy::start(&fixture.base);
    let (port, folder, own) = (proxy.port, fixture.path_text(""), fixture.path_text("own"));
    let ask = |name: &str| format!("{folder}tool {port} {}", fixture.base.url(&format!("/{name}")));
    let overlay = format!("lowerdir={folder},upperdir={own}/upper,workdir={own}/work");
    for (name, mount, message) in [
        ("plain", "true".to_owned(), "200"),
        ("bind", format!("mount --bind {folder}copy {folder}tool"), "403"),
        // The bytes and the path are the same, but not the linked libraries.
        (
            "container",
            format!("mount -t tmpfs none {own} && cp {folder}tool {own} && mount --bind {own} {folder}"),
            "403",
        ),
        (
            "overlay",
            format!(
                "mount -t tmpfs none {own} && mkdir {own}/upper {own}/work && mount -t overlay -o {overlay} none {folder}"
            ),
            "403",
        ),
        ("same", format!("mount --bind {folder} {folder}"), "200"),
    ] {
        let script = format!("{mount} && {}", ask(name));
        let outcome = run(command("unshare").args(["-m", "sh", "-c", &script]));
        assert_eq!(outcome.stdout.trim(), message, "{name}: {outcome:#?}");
    }
    assert_eq!(fixture.spent_paths(), ["/plain", "/same"]);
}

#[test]
fn parent_and_child_of_trusted_program_are_not_trusted() {
    let fixture = proxy_client_fixture();
    fixture.trust(&["add", &fixture.path_text("tool"), "--secrets", "API_KEY"]).ok();
    let proxy = Proxy::start(&fixture.base);
    let (tool, copy, port) = (fixture.path_text("tool"), fixture.path_text("copy"), proxy.port.to_string());
    let url = |name: &str| fixture.base.url(&format!("/{name}"));
    let (parent, child, grandchild) = (url("parent"), url("child"), url("grandchild"));
    let family = [&*port, &parent, &tool, &port, &child, &copy, &port, &grandchild];
    let statuses = run(command(&copy).args(family)).ok();
    assert_eq!(statuses, "403\n200\n403\n");
    assert_eq!(fixture.spent_paths(), ["/child"]);
}

#[test]
fn pin_bound_to_session_or_cgroup_is_limited() {
    let fixture = proxy_client_fixture();
    let tool = fixture.path_text("tool");
    let proxy = Proxy::start(&fixture.base);
    let status = |bound: &[&str]| {
        fixture.trust(&[&["add", &tool, "--secrets", "API_KEY"], bound].concat()).ok();
        let url = fixture.base.url("/bound");
        let asks = || run(command(&tool).args([&proxy.port.to_string(), &url])).ok();
        // The proxy sees the change a moment later.
        let expected = if bound.contains(&"/**") || bound.is_empty() { "200" } else { "403" };
        let until = Instant::now() + Duration::from_secs(20);
        std::iter::from_fn(|| (Instant::now() < until).then(asks)).any(|status| status.trim() == expected)
    };
    assert!(status(&[]));
    assert!(status(&["--session"]));
    assert!(status(&["--cgroup", "/**"]));
    assert!(status(&["--cgroup", "/elsewhere/**"]));
}
