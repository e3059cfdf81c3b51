//! `agentsecrets exec`, which hands out values: to nobody whom no person trusted with them.

use serde_json::{Value, json};

use super::transcript::is_clean;
use crate::person::AgentsCopy;
use crate::spine::{SECRET, World};
use crate::support::process::{Outcome, finish, finish_with};

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
