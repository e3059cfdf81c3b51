//! `proxy start`, `stop`, `status`, `logs`: a single instance, and clear errors.

use std::net::TcpListener;

use crate::end_to_end::Fixture;
use crate::support::process::{Outcome, free_address, run};

/// A background proxy; dropping it stops it.
struct BackgroundProxy<'w>(&'w Fixture);

impl Drop for BackgroundProxy<'_> {
    fn drop(&mut self) {
        let _ = self.0.home.agentsecrets(["proxy", "stop"]).output();
    }
}

#[track_caller]
fn proxy(fixture: &Fixture, arguments: &[&str]) -> Outcome {
    run(fixture.home.agentsecrets(["proxy"]).args(arguments))
}

#[test]
fn background_proxy_starts_once_and_stops() {
    let fixture = Fixture::new();
    let _background = BackgroundProxy(&fixture);
    let status = proxy(&fixture, &["status", "--json"]);
    assert_eq!((status.code, status.stdout.trim()), (Some(6), r#"{"running":false}"#));
    assert_eq!(proxy(&fixture, &["stop"]).code, Some(6));
    assert_eq!(proxy(&fixture, &["env"]).code, Some(6));

    let port = free_address().port().to_string();
    let started = proxy(&fixture, &["start", "--port", &port]);
    assert_eq!(started.code, Some(0), "{started:#?}");
    let status = proxy(&fixture, &["status", "--json"]).json();
    assert_eq!((status["running"].clone(), status["port"].to_string()), (true.into(), port.clone()));
    let pid = status["pid"].as_u64().unwrap();
    let second = proxy(&fixture, &["start", "--port", &free_address().port().to_string()]);
    assert!(second.code == Some(1) && second.stderr.contains(&format!("process {pid}")), "{second:#?}");

    let variables = proxy(&fixture, &["env"]).ok();
    assert!(variables.contains(&format!("export HTTPS_PROXY='http://127.0.0.1:{port}'")), "{variables}");
    let script = format!(
        "{variables}\ncurl -sS -H 'Authorization: Bearer AS_SECRET_API_KEY' {}",
        fixture.url("/echo-raw")
    );
    let answer = run(crate::support::process::command("sh").args(["-c", &script])).ok();
    assert_eq!(answer, "Bearer [REDACTED_BY_AGENTSECRETS]");

    let logs =
        proxy(&fixture, &["logs", "--last", "1", "--secret", "API_KEY", "--env", "development"]).json();
    assert_eq!((logs["method"].clone(), logs["status"].clone()), ("GET".into(), "OK".into()));
    assert_eq!(proxy(&fixture, &["logs", "--secret", "OTHER"]).ok(), "");
    assert_eq!(proxy(&fixture, &["logs", "--env", "production"]).ok(), "");

    assert_eq!(proxy(&fixture, &["stop"]).code, Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    assert_eq!(proxy(&fixture, &["status"]).code, Some(6));
}

#[test]
fn stale_pid_file_is_ignored() {
    let fixture = Fixture::new();
    let _background = BackgroundProxy(&fixture);
    let file = fixture.home.path().join("proxy.json");
    // The pid of a live process that is not a proxy.
    std::fs::write(&file, format!(r#"{{"pid":{},"port":8765}}"#, std::process::id())).unwrap();
    assert_eq!(proxy(&fixture, &["status"]).code, Some(6));
    assert_eq!(proxy(&fixture, &["stop"]).code, Some(6));
    assert_eq!(proxy(&fixture, &["start", "--port", &free_address().port().to_string()]).code, Some(0));
    let pid = proxy(&fixture, &["status", "--json"]).json()["pid"].as_i64().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        proxy(&fixture, &["status"]).code == Some(6)
    });
    assert!(gone);
    assert_eq!(proxy(&fixture, &["start", "--port", &free_address().port().to_string()]).code, Some(0));
}

#[test]
fn start_failures_have_advice() {
    let fixture = Fixture::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for mode in [&["start", "--port", &*port][..], &["start", "--foreground", "--port", &*port]] {
        let outcome = proxy(&fixture, mode);
        assert!(
            outcome.code == Some(1) && outcome.stderr.contains("another program listens"),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains("--port"), "{outcome:#?}");
    }
    let mut locked = fixture.home.agentsecrets(["proxy", "start", "--port", "0"]);
    let locked = run(locked.env_remove("AGENTSECRETS_VAULT_KEY_FILE"));
    assert_eq!(locked.code, Some(5), "{locked:#?}");
    fixture.home.write_policy("version: 1\nagent: []\n");
    let invalid = proxy(&fixture, &["start", "--port", "0"]);
    assert!(invalid.code == Some(1) && invalid.stderr.contains("policy.yaml:2"), "{invalid:#?}");
    assert_eq!(proxy(&fixture, &["start", "--port", "99999"]).code, Some(2));
    assert_eq!(proxy(&fixture, &["status"]).code, Some(6));
}
