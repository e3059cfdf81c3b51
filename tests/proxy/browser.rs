//! A web page in Chromium that tries to use the proxy's port.

use serde_json::Value;

use super::Proxy;
use crate::clients::packages;
use crate::end_to_end::Fixture;
use crate::support::process::{command, run};
use crate::support::python::{PYTHON, program};

#[test]
fn browser_page_gets_nothing() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    let mut python = command(PYTHON);
    python.args(["-c", &program("proxy/browser.py"), &proxy.port.to_string(), &fixture.url("/echo")]);
    let home = tempfile::tempdir().unwrap();
    python.env("PYTHONPATH", packages().join("python")).env("HOME", home.path());
    let seen = run(&mut python).json();

    // Control: the browser itself reaches the port as the operator.
    assert_eq!(seen["typed"], r#"{"project":"default","status":"ok"}"#);
    for page in ["elsewhere", "of this machine"] {
        let seen = &seen[page];
        for unreadable in ["health", "proxy", "proxy by POST", "proxy without headers"] {
            assert_eq!(seen[unreadable], "TypeError", "{page}, {unreadable}: {seen:#}");
        }
        for blind in ["health, not to be read", "proxy, not to be read"] {
            assert_eq!(seen[blind], "opaque", "{page}, {blind}: {seen:#}");
        }
        assert_eq!(seen["form"], "unreadable", "{page}: {seen:#}");
        assert_nothing_loads(seen);
    }
    for page in ["bound anew", "bound anew, to itself"] {
        let seen = &seen[page];
        for refused in ["health", "proxy", "proxy by POST", "proxy without headers", "form"] {
            let text = seen[refused].as_str().unwrap();
            assert!(text.contains(r#""error":"#) && !text.starts_with("200"), "{page}, {refused}: {text}");
        }
        assert_nothing_loads(seen);
    }
    assert!(fixture.api.received().is_empty());
    let records = fixture.home.audit();
    assert!(records.len() >= 30, "{}", records.len());
    for record in &records {
        assert_eq!(record["status"], "BLOCKED", "{record:#}");
        let reason = record["reason"].as_str().unwrap();
        let known = ["capability_denied", "target_mismatch", "bad_request", "domain_not_in_allowlist"];
        assert!(known.contains(&reason), "{record:#}");
    }
    let of_pages = records.iter().filter(|record| record["reason"] == "capability_denied").count();
    assert!(of_pages >= 12, "{of_pages} of {}", records.len());
}

#[track_caller]
fn assert_nothing_loads(seen: &Value) {
    for name in ["image", "script", "WebSocket"] {
        assert_eq!(seen[name], "broken", "{name}: {seen:#}");
    }
}
