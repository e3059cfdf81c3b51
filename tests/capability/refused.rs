//! What an agent tries, to be given more.

use super::*;
use crate::person::AgentsCopy;

#[test]
fn an_agent_starts_no_session_and_issues_no_token() {
    let (world, copy) = (World::new(), AgentsCopy::new());
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
        let outcome = finish(&mut world.home.run_agent([&script[..], words].concat()));
        assert_eq!((outcome.code, &*outcome.stdout), (Some(4), "tries\n"), "{words:?}: {outcome:#?}");
        assert!(outcome.stderr.contains("not for agents"), "{words:?}: {outcome:#?}");
    }
}

#[test]
fn an_agent_cannot_see_or_change_what_was_given_to_whom() {
    let world = World::new();
    token(&world, "coder", &[]);
    session(&world, &["--token", "--agent", "coder", "--ttl", "1h"]);
    let folder = world.home.path().join("capabilities");
    assert!(folder.join("agents.json").exists() && folder.join("sessions.json").exists());
    for attempt in
        ["cat $0/agents.json", "cat $0/sessions.json", "ls $0/agents.json", "echo >> $0/sessions.json"]
    {
        let script = format!("echo tries; {attempt}");
        let outcome = finish(&mut world.home.run_agent(["sh", "-c", &script, folder.to_str().unwrap()]));
        assert!(outcome.code != Some(0) && outcome.stdout == "tries\n", "{attempt}: {outcome:#?}");
    }
}
