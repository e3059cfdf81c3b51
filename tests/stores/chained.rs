//! External stores and store order: mounted files and the operator's programs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::curl;
use crate::end_to_end::{Fixture, SECRET, WaitingAgent};
use crate::support::home::Home;
use crate::support::process::{run, run_with_input};

/// A folder that everybody may read, as in a container.
fn shared_folder() -> tempfile::TempDir {
    let open = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("mounted-").permissions(open).tempdir().unwrap()
}

/// A shell script as a program.
fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A fixture without a vault, with these stores.
fn fixture(stores: &str) -> Fixture {
    let fixture = Fixture::new();
    fs::remove_file(fixture.home.path().join("vault")).unwrap();
    fixture.home.write_config(stores);
    fixture
}

#[test]
fn mounted_secret_is_used_and_reloaded() {
    let mounted = shared_folder();
    let at = |name: &str| mounted.path().join(name);
    for (version, value) in [("..v1", SECRET), ("..v2", "sk_live_rotated_0000000000000000")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("API_KEY"), format!("{value}\n")).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/API_KEY", at("API_KEY")).unwrap();
    let fixture = fixture(&format!("stores: [{{ mounted: {{ path: {} }} }}]\n", mounted.path().display()));
    let url = fixture.url("/echo");
    let script = format!(
        "cat {0}/API_KEY {0}/..v1/API_KEY 2>/dev/null && echo seen; echo ready; read line; for i in $(seq 1000); do curl -sS \
         -o /dev/null -H 'Authorization: Bearer AS_SECRET_API_KEY' {url}; read -t 0 line && exit; done",
        mounted.path().display()
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
    use std::io::{Read, Write};
    let mut stdin = agent.child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    fixture.api.wait_for(|received| received.header("authorization") == format!("Bearer {SECRET}"));
    symlink("..v2", at("..new")).unwrap();
    fs::rename(at("..new"), at("..data")).unwrap();
    fixture
        .api
        .wait_for(|received| received.header("authorization") == "Bearer sk_live_rotated_0000000000000000");
    stdin.write_all(b"enough\n").unwrap();
    let mut rest = String::new();
    agent.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn command_store_is_called_once() {
    let folder = shared_folder();
    let marker = folder.path().join("asked");
    let program = script(
        folder.path(),
        "vendor",
        &format!("echo \"$@\" >> {}; printf %s '{SECRET}'", marker.display()),
    );
    let fixture = fixture(&format!(
        "stores: [{{ command: {{ run: [{program}, read, \"op://{{environment}}/{{name}}\"] }} }}]\n"
    ));
    for _ in 0..2 {
        let url = fixture.url("/echo");
        let both = format!(
            "for i in 1 2; do curl -sS -o /dev/null -H 'Authorization: Bearer AS_SECRET_API_KEY' {url}; done"
        );
        run(&mut fixture.home.run_agent(["sh", "-c", &both])).ok();
    }
    let received = fixture.api.received();
    assert_eq!(received.len(), 4);
    assert!(received.iter().all(|received| received.header("authorization") == format!("Bearer {SECRET}")));
    assert_eq!(fs::read_to_string(marker).unwrap(), "read op://development/API_KEY\n".repeat(2));
}

#[test]
fn failing_command_store_is_named_without_output() {
    let folder = shared_folder();
    let fails = script(folder.path(), "fails", "echo s3cret-output; echo s3cret-error >&2; exit 7");
    let hangs = script(folder.path(), "hangs", "echo s3cret-output; exec sleep 1000");
    for (program, message) in [
        (&fails, "exited with 7"),
        (&hangs, "did not end within 1 s"),
        (&"/no/such".to_owned(), "install it"),
    ] {
        let fixture = fixture(&format!(
            "stores: [{{ command: {{ run: [{program}, s3cret-argument], timeout: 1s }} }}]\n"
        ));
        let outcome = run(&mut fixture.home.run_agent(["echo", "started"]));
        assert!(outcome.code == Some(5) && !outcome.stdout.contains("started"), "{outcome:?}");
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains(program.as_str()), "{outcome:?}");
        assert!(!outcome.stderr.contains("s3cret"), "{outcome:?}");
    }
}

#[test]
fn first_store_wins_and_first_writable_is_written() {
    let mounted = shared_folder();
    fs::write(mounted.path().join("API_KEY"), SECRET).unwrap();
    let fixture =
        fixture(&format!("stores: [{{ mounted: {{ path: {} }} }}, vault]\n", mounted.path().display()));
    let mut set = fixture.home.agentsecrets(["secrets", "set", "API_KEY"]);
    let set = run_with_input(&mut set, b"a-value-that-is-not-used");
    assert!(set.code == Some(0) && set.stderr.contains("(vault)"), "{set:?}");
    assert!(set.stderr.contains("the mounted store holds API_KEY too"), "{set:?}");
    fixture.home.set_secret("OTHER", "another-value-1");
    let listed = run(&mut fixture.home.agentsecrets(["secrets", "list"])).ok();
    let stores: Vec<_> =
        listed.lines().map(|line| (line.split_whitespace().next(), line.split_whitespace().last())).collect();
    assert_eq!(
        stores,
        [(Some("Key"), Some("Store")), (Some("API_KEY"), Some("mounted")), (Some("OTHER"), Some("vault"))]
    );
    curl(&fixture, |command| command).ok();
    assert_eq!(fixture.api.only_request().header("authorization"), format!("Bearer {SECRET}"));
    let delete = run(&mut fixture.home.agentsecrets(["secrets", "delete", "API_KEY"]));
    assert!(delete.code == Some(2) && delete.stderr.contains("only read"), "{delete:?}");
}

#[test]
fn missing_mount_is_an_error() {
    let home = Home::new();
    home.write_config("stores: [{ mounted: { path: /nowhere/secrets } }, vault]\n");
    let list = run(&mut home.agentsecrets(["secrets", "list"]));
    assert!(list.code == Some(5) && list.stderr.contains("mount it"), "{list:?}");
    let doctor = run(&mut home.agentsecrets(["doctor"]));
    assert!(doctor.code == Some(1) && doctor.stdout.contains("/nowhere/secrets"), "{doctor:?}");
}

#[test]
fn invalid_store_order_names_line() {
    let fixture = fixture("stores:\n  - vault\n  - keychian\n");
    for words in [&["secrets", "list"][..], &["run", "--", "echo", "started"]] {
        let outcome = run(&mut fixture.home.agentsecrets(words));
        assert!(outcome.stderr.contains("config.yaml:3: 'keychian' is no store"), "{outcome:?}");
        assert!(outcome.code != Some(0) && !outcome.stdout.contains("started"), "{outcome:?}");
    }
}

#[test]
fn store_helper_is_unreachable_and_dies_with_interceptor() {
    let folder = shared_folder();
    let program = script(folder.path(), "vendor", &format!("printf %s '{SECRET}'"));
    let fixture = fixture(&format!("stores: [{{ command: {{ run: [{program}] }} }}]\n"));
    let agent = WaitingAgent::start(&fixture.home);
    let interceptor = agent.interceptor();
    let below = crate::support::value_search::process_tree(interceptor);
    assert!(below.len() >= 3, "the interceptor, its process inspector and its store helper: {below:?}");
    for pid in &below {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let effective = status.lines().find(|line| line.starts_with("CapEff")).unwrap();
        let ptrace_alone = effective.ends_with("0000000000080000");
        assert!(effective.ends_with("0000000000000000") || ptrace_alone, "{pid}: {effective}");
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(interceptor as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while below.iter().any(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()))
    {
        assert!(std::time::Instant::now() < end, "something of the interceptor lives on");
        std::thread::yield_now();
    }
}

#[test]
fn dead_store_helper_denies_secrets() {
    let folder = shared_folder();
    let program = script(folder.path(), "vendor", &format!("printf %s '{SECRET}'"));
    let fixture = fixture(&format!("stores: [{{ command: {{ run: [{program}] }} }}]\n"));
    let script = format!(
        "c() {{ curl -sS -o /dev/null -w '%{{http_code}}\\n' -H 'Authorization: Bearer AS_SECRET_API_KEY' {}; }}; c; \
         read line; while [ $(c) != 503 ]; do :; done; c; c",
        fixture.url("/echo")
    );
    let mut agent = WaitingAgent::start_command(fixture.home.run_agent(["bash", "-c", &script]));
    let interceptor = agent.interceptor();
    let helper = crate::support::value_search::process_tree(interceptor).into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        *pid != interceptor && status.contains("CapEff:\t0000000000000000")
    });
    let helper = nix::unistd::Pid::from_raw(helper.expect("a store helper runs") as i32);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    use std::io::{Read, Write};
    agent.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    agent.child.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "503\n503\n");
}
