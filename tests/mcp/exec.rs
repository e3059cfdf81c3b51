//! `agentsecrets exec`, which hands out values: to nobody whom no person trusted with them.

use serde_json::{Value, json};

use super::transcript::is_clean;
use crate::person::AgentsCopy;
use crate::spine::{SECRET, World};
use crate::support::home::AGENTSECRETS;
use crate::support::process::{Outcome, command, finish, finish_with};

#[track_caller]
fn exec(world: &World, request: &str) -> Outcome {
    finish_with(&mut world.home.agentsecrets(["exec"]), request.as_bytes())
}

#[test]
fn a_program_that_nobody_trusted_gets_no_value_and_is_told_the_way() {
    let world = World::new();
    let request =
        json!({"protocolVersion": 1, "provider": "vault", "ids": ["API_KEY", "providers/x/apiKey"]});
    let outcome = exec(&world, &request.to_string());
    is_clean(&format!("{outcome:?}"), SECRET);
    let told = outcome.json();
    assert_eq!((&told["protocolVersion"], &told["values"]), (&json!(1), &json!({})));
    let message = told["errors"]["API_KEY"]["message"].as_str().unwrap();
    assert!(
        message.contains("agentsecrets trust add /") && message.ends_with("--secrets API_KEY"),
        "{message}"
    );
    assert_eq!(told["errors"]["providers/x/apiKey"]["message"], "this is not the name of a secret");
    let records = world.home.audit();
    let (method, url, status) = (&records[0]["method"], &records[0]["target_url"], &records[0]["status"]);
    assert_eq!((method, url, status), (&json!("EXEC"), &json!("vault"), &json!("BLOCKED")));
    assert_eq!((&records[0]["secret_keys"], records.len()), (&json!(["API_KEY"]), 1));
}

/// A program that starts another one, and is its parent.
const STARTER: &str = "#include <sys/wait.h>\n#include <unistd.h>\nint main(int c, char **v) {\n  int status;\n  \
                       if (!fork()) { execv(v[1], v + 1); _exit(127); }\n  wait(&status);\n  return WEXITSTATUS(status);\n}\n";

#[test]
fn a_trusted_program_gets_the_values_that_it_is_trusted_with_and_no_other() {
    let world = World::new();
    world.home.secret("OTHER", "another-long-value");
    let folder = tempfile::tempdir().unwrap();
    let (source, starter) = (folder.path().join("starter.c"), folder.path().join("starter"));
    std::fs::write(&source, STARTER).unwrap();
    finish(command("gcc").arg("-o").arg(&starter).arg(&source)).ok();
    let request = json!({"protocolVersion": 1, "provider": "vault", "ids": ["API_KEY", "OTHER", "ABSENT"]});
    let ask = || {
        let mut asking = world.home.beside([starter.to_str().unwrap(), AGENTSECRETS, "exec"]);
        for (name, value) in world.home.agentsecrets(["status"]).get_envs() {
            value.map(|value| asking.env(name, value));
        }
        finish_with(&mut asking, request.to_string().as_bytes())
    };
    assert_eq!(ask().json()["values"], json!({}), "before it is trusted");
    let path = starter.canonicalize().unwrap();
    let trust = ["trust", "add", path.to_str().unwrap(), "--secrets", "API_KEY,ABSENT"];
    finish(&mut world.home.agentsecrets(trust)).ok();
    let outcome = ask();
    is_clean(&outcome.stderr, SECRET);
    let told = outcome.json();
    assert_eq!(told["values"], json!({"API_KEY": SECRET}), "{told}");
    assert_eq!(told["errors"]["ABSENT"]["message"], "secret 'ABSENT' not found in keychain");
    assert!(told["errors"]["OTHER"]["message"].as_str().unwrap().contains("OTHER"), "{told}");
    let records = world.home.audit();
    let record = records.last().unwrap();
    assert_eq!((&record["method"], &record["status"]), (&json!("EXEC"), &json!("OK")));
    assert_eq!(
        (&record["secret_keys"], &record["auth_styles"]),
        (&json!(["API_KEY"]), &json!(["exec_provider"]))
    );
    assert_eq!(record["process"]["exe"], json!(path));
    is_clean(&json!(records).to_string(), SECRET);
    // Another program in its place is another program.
    std::fs::remove_file(&starter).unwrap();
    std::fs::write(&source, STARTER.replace("127", "126")).unwrap();
    finish(command("gcc").arg("-o").arg(&starter).arg(&source)).ok();
    assert_eq!(ask().json()["values"], json!({}));
}

#[test]
fn what_is_no_request_ends_with_1_and_without_an_answer() {
    let world = World::new();
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
        let outcome = exec(&world, request);
        assert_eq!((outcome.code, &*outcome.stdout), (Some(1), ""), "{outcome:#?}");
        assert!(outcome.stderr.starts_with("error: "), "{outcome:#?}");
    }
    let empty: Value =
        exec(&world, r#"{"protocolVersion": 1, "provider": "x", "ids": [], "more": 1}"#).json();
    assert_eq!(empty, json!({"protocolVersion": 1, "values": {}, "errors": {}}));
}

#[test]
fn an_agent_is_refused() {
    let world = World::new();
    let copy = AgentsCopy::new();
    let outcome = finish(&mut world.home.run_agent([&*copy.0, "exec"]));
    assert_eq!((outcome.code, &*outcome.stdout), (Some(4), ""), "{outcome:#?}");
}
