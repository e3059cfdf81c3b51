//! How much an agent may ask for: of all it asks, of one host, of one secret.

use super::*;

fn agent_with(world: &World, limits: &str, rule: &str) {
    let port = world.api.port();
    world.home.policy(&format!(
        "version: 1\nagents:\n  - name: coder\n    {limits}\n    allow:\n      - {{ host: api.test, ports: [{port}], private: \
         true, secrets: [API_KEY], paths: [/a], {rule} }}\n      - {{ host: api.test, ports: [{port}], private: true, secrets: \
         [API_KEY], places: [auth] }}\n"
    ));
}

#[test]
fn over_the_rate_of_an_agent_a_rule_or_a_secret_it_is_429_and_when_to_come_again() {
    let world = World::new();
    for (limits, rule, says) in [
        ("rate: 2/h", "", "of agent 'coder'"),
        ("env: false", "rate: 2/h", "to 'api.test'"),
        ("limits: { API_KEY: 2/h }", "", "with 'API_KEY'"),
    ] {
        agent_with(&world, limits, rule);
        let mut agent = Asking::of(&world);
        for _ in 0..2 {
            agent.ask(&world.url("/a"));
            assert_eq!(agent.told().0, 200, "{says}");
        }
        agent.ask(&format!("-D - {}", world.url("/a")));
        let (status, text) = agent.told();
        assert_eq!(status, 429);
        let retry = text
            .lines()
            .find_map(|line| line.strip_prefix("retry-after: "))
            .unwrap_or_else(|| panic!("{text}"));
        assert!((1..=1801).contains(&retry.trim().parse::<u32>().unwrap()), "{retry}");
        assert!(text.contains(says) && text.contains("rate_limited"), "{text}");
        // What does not fall under it goes on.
        if !rule.is_empty() {
            agent.ask(&world.url("/b"));
            assert_eq!(agent.told().0, 200);
        }
    }
}

#[test]
fn a_body_larger_than_the_agent_may_send_is_413() {
    let world = World::new();
    agent_with(&world, "max_body: 4", "max_body: 8");
    let mut agent = Asking::of(&world);
    agent.ask(&format!("-d 1234 {}", world.url("/a")));
    assert_eq!(agent.told().0, 200);
    assert_eq!(agent.refused(&format!("-d 12345 {}", world.url("/a"))).0, 413);
    assert_eq!(agent.refused(&format!("-d 12345 {}", world.url("/b"))).0, 413);
}

#[test]
fn an_approval_is_not_lost_to_a_rate() {
    let world = World::new();
    agent_with(&world, "limits: { API_KEY: 1/s }", "approve: { wait: 1s }");
    let mut agent = Asking::of(&world);
    let id = id_in(&agent.refused(&world.url("/a")).1);
    person(&world.home, &["approve", &id]).ok();
    // Whichever comes too soon after another is refused; the approval is spent once, when there is room.
    agent.ask(&world.url("/b"));
    assert_eq!(agent.told().0, 200);
    let mut statuses = Vec::new();
    loop {
        agent.ask(&world.url("/a"));
        let (status, _) = agent.told();
        statuses.push(status);
        if status == 200 {
            break;
        }
        assert_eq!(status, 429, "{statuses:?}");
    }
    assert!(statuses.len() > 1, "it never came too soon");
    assert_eq!(agent.refused(&world.url("/a")).0, 403);
    assert_eq!(world.api.received().len(), 2);
}
