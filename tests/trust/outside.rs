//! Outside of a run, at the explicit proxy, where nobody keeps a program from mounting what it likes: the
//! same path in another view of the file system is another program.

use std::time::{Duration, Instant};

use super::Arena;
use crate::proxy::Proxy;
use crate::support::process::{command, finish};

/// An arena with a client of the proxy in the place of curl.
fn arena() -> Arena {
    let arena = Arena::new();
    let client = arena.build("client", include_str!("client.c"), &["-static"]);
    std::fs::rename(client, arena.at("tool")).unwrap();
    std::fs::copy(arena.at("tool"), arena.at("copy")).unwrap();
    arena
}

#[test]
fn the_same_path_in_another_mount_namespace_is_not_the_trusted_program() {
    let arena = arena();
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let proxy = Proxy::of(&arena.world);
    let (port, folder, own) = (proxy.port, arena.at(""), arena.at("own"));
    let ask = |name: &str| format!("{folder}tool {port} {}", arena.world.url(&format!("/{name}")));
    let overlay = format!("lowerdir={folder},upperdir={own}/upper,workdir={own}/work");
    for (name, mount, told) in [
        ("plain", "true".to_owned(), "200"),
        ("bind", format!("mount --bind {folder}copy {folder}tool"), "403"),
        // The bytes are the same, and so is what lies at the path, but not what it is linked with.
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
        let outcome = finish(command("unshare").args(["-m", "sh", "-c", &script]));
        assert_eq!(outcome.stdout.trim(), told, "{name}: {outcome:#?}");
    }
    assert_eq!(arena.spent(), ["/plain", "/same"]);
}

#[test]
fn neither_a_parent_nor_a_child_of_a_trusted_program_is_it() {
    let arena = arena();
    arena.trust(&["add", &arena.at("tool"), "--secrets", "API_KEY"]).ok();
    let proxy = Proxy::of(&arena.world);
    let (tool, copy, port) = (arena.at("tool"), arena.at("copy"), proxy.port.to_string());
    let url = |name: &str| arena.world.url(&format!("/{name}"));
    let (parent, child, grandchild) = (url("parent"), url("child"), url("grandchild"));
    let family = [&*port, &parent, &tool, &port, &child, &copy, &port, &grandchild];
    let statuses = finish(command(&copy).args(family)).ok();
    assert_eq!(statuses, "403\n200\n403\n");
    assert_eq!(arena.spent(), ["/child"]);
}

#[test]
fn a_pin_that_is_bound_to_a_session_or_a_cgroup_holds_nowhere_else() {
    let arena = arena();
    let tool = arena.at("tool");
    let proxy = Proxy::of(&arena.world);
    let status = |bound: &[&str]| {
        arena.trust(&[&["add", &tool, "--secrets", "API_KEY"], bound].concat()).ok();
        let url = arena.world.url("/bound");
        let asks = || finish(command(&tool).args([&proxy.port.to_string(), &url])).ok();
        // The proxy hears of the change a moment later.
        let wanted = if bound.contains(&"/**") || bound.is_empty() { "200" } else { "403" };
        let until = Instant::now() + Duration::from_secs(20);
        std::iter::from_fn(|| (Instant::now() < until).then(asks)).any(|status| status.trim() == wanted)
    };
    assert!(status(&[]));
    assert!(status(&["--session"]));
    assert!(status(&["--cgroup", "/**"]));
    assert!(status(&["--cgroup", "/elsewhere/**"]));
}
