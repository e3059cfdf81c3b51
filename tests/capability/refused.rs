//! What an agent tries, to be given more.

use super::*;
use crate::support::home::AGENTSECRETS;

#[test]
fn an_agent_starts_no_session_and_issues_no_token() {
    let world = World::new();
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
        let outcome = finish(&mut world.home.run_agent([&[AGENTSECRETS], words].concat()));
        assert_eq!(outcome.code, Some(4), "{words:?}: {outcome:#?}");
    }
}

#[test]
fn an_agent_cannot_see_or_change_what_was_given_to_whom() {
    let world = World::new();
    token(&world, "coder", &[]);
    let folder = world.home.path().join("capabilities");
    for attempt in
        ["cat $0/agents.json", "cat $0/sessions.json", "ls $0/agents.json", "echo >> $0/sessions.json"]
    {
        let outcome = finish(&mut world.home.run_agent(["sh", "-c", attempt, folder.to_str().unwrap()]));
        assert!(outcome.code != Some(0) && outcome.stdout.is_empty(), "{attempt}: {outcome:#?}");
    }
}
