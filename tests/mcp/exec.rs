//! `agentsecrets exec` returns values only to programs that the operator trusts with them.

use serde_json::{Value, json};

use super::assert_clean;
use crate::end_to_end::{Fixture, SECRET};
use crate::operator_commands::AgentExecutable;
use crate::support::home::AGENTSECRETS;
use crate::support::process::{Outcome, command, run, run_with_input};

#[track_caller]
fn exec(fixture: &Fixture, request: &str) -> Outcome {
    run_with_input(&mut fixture.home.agentsecrets(["exec"]), request.as_bytes())
}

#[test]
fn exec_untrusted_program_gets_no_value() {
    let fixture = Fixture::new();
    let request =
        json!({"protocolVersion": 1, "provider": "vault", "ids": ["API_KEY", "providers/x/apiKey"]});
    let outcome = exec(&fixture, &request.to_string());
    assert_clean(&format!("{outcome:?}"), SECRET);
    let reply = outcome.json();
    assert_eq!((&reply["protocolVersion"], &reply["values"]), (&json!(1), &json!({})));
    let message = reply["errors"]["API_KEY"]["message"].as_str().unwrap();
    assert!(
        message.contains("agentsecrets trust add /") && message.ends_with("--secrets API_KEY"),
        "{message}"
    );
    assert_eq!(reply["errors"]["providers/x/apiKey"]["message"], "this is not the name of a secret");
    let records = fixture.home.audit();
    let (method, url, status) = (&records[0]["method"], &records[0]["target_url"], &records[0]["status"]);
    assert_eq!((method, url, status), (&json!("EXEC"), &json!("vault"), &json!("BLOCKED")));
    assert_eq!((&records[0]["secret_keys"], records.len()), (&json!(["API_KEY"]), 1));
}

/// A program that starts another one as its child.
const STARTER_SOURCE: &str = "#include <sys/wait.h>\n#include <unistd.h>\nint main(int c, char **v) {\n  int status;\n  \
                       if (!fork()) { execv(v[1], v + 1); _exit(127); }\n  wait(&status);\n  return WEXITSTATUS(status);\n}\n";

#[test]
fn exec_trusted_program_gets_its_values_only() {
    let fixture = Fixture::new();
    fixture.home.set_secret("OTHER", "another-long-value");
    let folder = tempfile::tempdir().unwrap();
    let (source, starter) = (folder.path().join("starter.c"), folder.path().join("starter"));
    std::fs::write(&source, STARTER_SOURCE).unwrap();
    run(command("gcc").arg("-o").arg(&starter).arg(&source)).ok();
    let request = json!({"protocolVersion": 1, "provider": "vault", "ids": ["API_KEY", "OTHER", "ABSENT"]});
    let ask = || {
        let mut asking = fixture.home.command_outside([starter.to_str().unwrap(), AGENTSECRETS, "exec"]);
        for (name, value) in fixture.home.agentsecrets(["status"]).get_envs() {
            value.map(|value| asking.env(name, value));
        }
        run_with_input(&mut asking, request.to_string().as_bytes())
    };
    assert_eq!(ask().json()["values"], json!({}), "before it is trusted");
    let path = starter.canonicalize().unwrap();
    let trust = ["trust", "add", path.to_str().unwrap(), "--secrets", "API_KEY,ABSENT"];
    run(&mut fixture.home.agentsecrets(trust)).ok();
    let outcome = ask();
    assert_clean(&outcome.stderr, SECRET);
    let reply = outcome.json();
    assert_eq!(reply["values"], json!({"API_KEY": SECRET}), "{reply}");
    assert_eq!(reply["errors"]["ABSENT"]["message"], "secret 'ABSENT' not found in keychain");
    assert!(reply["errors"]["OTHER"]["message"].as_str().unwrap().contains("OTHER"), "{reply}");
    let records = fixture.home.audit();
    let record = records.last().unwrap();
    assert_eq!((&record["method"], &record["status"]), (&json!("EXEC"), &json!("OK")));
    assert_eq!(
        (&record["secret_keys"], &record["auth_styles"]),
        (&json!(["API_KEY"]), &json!(["exec_provider"]))
    );
    assert_eq!(record["process"]["exe"], json!(path));
    assert_clean(&json!(records).to_string(), SECRET);
    // A different program at the same path is not trusted.
    std::fs::remove_file(&starter).unwrap();
    std::fs::write(&source, STARTER_SOURCE.replace("127", "126")).unwrap();
    run(command("gcc").arg("-o").arg(&starter).arg(&source)).ok();
    assert_eq!(ask().json()["values"], json!({}));
}

#[test]
fn exec_invalid_request_exits_1() {
    let fixture = Fixture::new();
    for request in [
        "",
        "nonsense",
        "[]",
        r#"{"protocolVersion": 2, "provider": "x", "ids": []}"#,
        r#"{"protocolVersion": "1", "provider": "x", "ids": []}"#,
        r#"{"protocolVersion": 1, "provider": "x", "ids": [7]}"#,
        r#"{"protocolVersion": 1, "provider": "x"}"#,
        &" ".repeat(2 << 20),
    ] {
        let outcome = exec(&fixture, request);
        assert_eq!((outcome.code, &*outcome.stdout), (Some(1), ""), "{outcome:#?}");
        assert!(outcome.stderr.starts_with("error: "), "{outcome:#?}");
    }
    let empty: Value =
        exec(&fixture, r#"{"protocolVersion": 1, "provider": "x", "ids": [], "more": 1}"#).json();
    assert_eq!(empty, json!({"protocolVersion": 1, "values": {}, "errors": {}}));
}

#[test]
fn exec_refuses_agent() {
    let fixture = Fixture::new();
    let copy = AgentExecutable::new();
    let outcome = run(&mut fixture.home.run_agent([&*copy.0, "exec"]));
    assert_eq!((outcome.code, &*outcome.stdout), (Some(4), ""), "{outcome:#?}");
}
