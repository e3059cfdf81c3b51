//! An agent tries to gain authorization.

use super::*;
use crate::operator_commands::AgentExecutable;

#[test]
fn agent_cannot_start_session_or_issue_token() {
    let (fixture, copy) = (Fixture::new(), AgentExecutable::new());
    for words in [
        &["session", "start", "--ttl", "1h"][..],
        &["session", "list"],
        &["session", "end", "--all"],
        &["agent", "register", "evil"],
        &["agent", "list"],
        &["agent", "token", "issue", "--agent", "coder"],
        &["agent", "token", "revoke", "--all", "--agent", "coder"],
        &["agent", "policy", "set", "--agent", "coder", "--allow", "API_KEY"],
    ] {
        let script = ["sh", "-c", "echo tries; exec \"$@\"", "sh", copy.path()];
        let outcome = run(&mut fixture.home.run_agent([&script[..], words].concat()));
        assert_eq!((outcome.code, &*outcome.stdout), (Some(4), "tries\n"), "{words:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("not for agents"), "{words:?}: {outcome:#?}");
    }
}

#[test]
fn agent_cannot_read_or_change_authz_state() {
    let fixture = Fixture::new();
    issue_token(&fixture, "coder", &[]);
    start_session(&fixture, &["--token", "--agent", "coder", "--ttl", "1h"]);
    let folder = fixture.home.path().join("capabilities");
    assert!(folder.join("agents.json").exists() && folder.join("sessions.json").exists());
    for attempt in
        ["cat $0/agents.json", "cat $0/sessions.json", "ls $0/agents.json", "echo >> $0/sessions.json"]
    {
        let script = format!("echo tries; {attempt}");
        let outcome = run(&mut fixture.home.run_agent(["sh", "-c", &script, folder.to_str().unwrap()]));
        assert!(outcome.code != Some(0) && outcome.stdout == "tries\n", "{attempt}: {outcome:#?}");
    }
}
