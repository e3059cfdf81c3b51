//! `proxy start`, `stop`, `status`, `logs`: one instance, and clear words for what stands in its way.

use std::net::TcpListener;

use crate::spine::World;
use crate::support::process::{Outcome, finish, free_address};

/// A proxy in the background, which is stopped in any case.
struct Background<'w>(&'w World);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let _ = self.0.home.agentsecrets(["proxy", "stop"]).output();
    }
}

#[track_caller]
fn proxy(world: &World, arguments: &[&str]) -> Outcome {
    finish(world.home.agentsecrets(["proxy"]).args(arguments))
}

#[test]
fn it_starts_in_the_background_once_and_ends_when_it_is_told() {
    let world = World::new();
    let _background = Background(&world);
    let status = proxy(&world, &["status", "--json"]);
    assert_eq!((status.code, status.stdout.trim()), (Some(6), r#"{"running":false}"#));
    assert_eq!(proxy(&world, &["stop"]).code, Some(6));
    assert_eq!(proxy(&world, &["env"]).code, Some(6));

    let port = free_address().port().to_string();
    let started = proxy(&world, &["start", "--port", &port]);
    assert_eq!(started.code, Some(0), "{started:#?}");
    let status = proxy(&world, &["status", "--json"]).json();
    assert_eq!((status["running"].clone(), status["port"].to_string()), (true.into(), port.clone()));
    let pid = status["pid"].as_u64().unwrap();
    let second = proxy(&world, &["start", "--port", &free_address().port().to_string()]);
    assert!(second.code == Some(1) && second.stderr.contains(&format!("process {pid}")), "{second:#?}");

    let variables = proxy(&world, &["env"]).ok();
    assert!(variables.contains(&format!("export HTTPS_PROXY='http://127.0.0.1:{port}'")), "{variables}");
    let script = format!(
        "{variables}\ncurl -sS -H 'Authorization: Bearer AS_SECRET_API_KEY' {}",
        world.url("/echo-raw")
    );
    let answer = finish(crate::support::process::command("sh").args(["-c", &script])).ok();
    assert_eq!(answer, "Bearer [REDACTED_BY_AGENTSECRETS]");

    let logs = proxy(&world, &["logs", "--last", "1", "--secret", "API_KEY", "--env", "development"]).json();
    assert_eq!((logs["method"].clone(), logs["status"].clone()), ("GET".into(), "OK".into()));
    assert_eq!(proxy(&world, &["logs", "--secret", "OTHER"]).ok(), "");
    assert_eq!(proxy(&world, &["logs", "--env", "production"]).ok(), "");

    assert_eq!(proxy(&world, &["stop"]).code, Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    assert_eq!(proxy(&world, &["status"]).code, Some(6));
}

#[test]
fn a_file_that_was_left_behind_is_no_proxy() {
    let world = World::new();
    let _background = Background(&world);
    let file = world.home.path().join("proxy.json");
    // Of a process that lives, and is no proxy.
    std::fs::write(&file, format!(r#"{{"pid":{},"port":8765}}"#, std::process::id())).unwrap();
    assert_eq!(proxy(&world, &["status"]).code, Some(6));
    assert_eq!(proxy(&world, &["stop"]).code, Some(6));
    assert_eq!(proxy(&world, &["start", "--port", &free_address().port().to_string()]).code, Some(0));
    let pid = proxy(&world, &["status", "--json"]).json()["pid"].as_i64().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        proxy(&world, &["status"]).code == Some(6)
    });
    assert!(gone);
    assert_eq!(proxy(&world, &["start", "--port", &free_address().port().to_string()]).code, Some(0));
}

#[test]
fn what_stands_in_its_way_is_told_with_its_fix() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for mode in [&["start", "--port", &*port][..], &["start", "--foreground", "--port", &*port]] {
        let outcome = proxy(&world, mode);
        assert!(
            outcome.code == Some(1) && outcome.stderr.contains("another program listens"),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains("--port"), "{outcome:#?}");
    }
    let mut locked = world.home.agentsecrets(["proxy", "start", "--port", "0"]);
    let locked = finish(locked.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert_eq!(locked.code, Some(5), "{locked:#?}");
    world.home.policy("version: 1\nagent: []\n");
    let invalid = proxy(&world, &["start", "--port", "0"]);
    assert!(invalid.code == Some(1) && invalid.stderr.contains("policy.yaml:2"), "{invalid:#?}");
    assert_eq!(proxy(&world, &["start", "--port", "99999"]).code, Some(2));
    assert_eq!(proxy(&world, &["status"]).code, Some(6));
}
