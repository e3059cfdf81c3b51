//! Limits: request rates of an agent, a host and a secret, and the body size.

use super::*;

fn agent_with(fixture: &Fixture, limits: &str, rule: &str) {
    let port = fixture.api.port();
    fixture.home.write_policy(&format!(
        "version: 1\nagents:\n  - name: coder\n    {limits}\n    allow:\n      - {{ host: api.test, ports: [{port}], private: \
         true, secrets: [API_KEY], paths: [/a], {rule} }}\n      - {{ host: api.test, ports: [{port}], private: true, secrets: \
         [API_KEY], places: [auth] }}\n"
    ));
}

#[test]
fn exceeded_rate_is_429_with_retry_after() {
    let fixture = Fixture::new();
    for (limits, rule, message) in [
        ("rate: 2/h", "", "of agent 'coder'"),
        ("env: false", "rate: 2/h", "to 'api.test'"),
        ("limits: { API_KEY: 2/h }", "", "with 'API_KEY'"),
    ] {
        agent_with(&fixture, limits, rule);
        let mut agent = RequestingAgent::start(&fixture);
        for _ in 0..2 {
            agent.send(&fixture.url("/a"));
            assert_eq!(agent.response().0, 200, "{message}");
        }
        agent.send(&format!("-D - {}", fixture.url("/a")));
        let (status, text) = agent.response();
        assert_eq!(status, 429);
        let retry = text
            .lines()
            .find_map(|line| line.strip_prefix("retry-after: "))
            .unwrap_or_else(|| panic!("{text}"));
        assert!((1..=1801).contains(&retry.trim().parse::<u32>().unwrap()), "{retry}");
        assert!(text.contains(message) && text.contains("rate_limited"), "{text}");
        // Requests outside the limit continue to work.
        if !rule.is_empty() {
            agent.send(&fixture.url("/b"));
            assert_eq!(agent.response().0, 200);
        }
    }
}

#[test]
fn oversized_body_is_413() {
    let fixture = Fixture::new();
    agent_with(&fixture, "max_body: 4", "max_body: 8");
    let mut agent = RequestingAgent::start(&fixture);
    agent.send(&format!("-d 1234 {}", fixture.url("/a")));
    assert_eq!(agent.response().0, 200);
    assert_eq!(agent.rejected(&format!("-d 12345 {}", fixture.url("/a"))).0, 413);
    assert_eq!(agent.rejected(&format!("-d 12345 {}", fixture.url("/b"))).0, 413);
}

#[test]
fn rate_limit_does_not_use_up_an_approval() {
    let fixture = Fixture::new();
    agent_with(&fixture, "limits: { API_KEY: 1/s }", "approve: { wait: 1s }");
    let mut agent = RequestingAgent::start(&fixture);
    let id = approval_id(&agent.rejected(&fixture.url("/a")).1);
    operator(&fixture.home, &["approve", &id]).ok();
    // A request that comes too soon is rejected; the approval is used once, when the rate allows it.
    agent.send(&fixture.url("/b"));
    assert_eq!(agent.response().0, 200);
    let mut statuses = Vec::new();
    loop {
        agent.send(&fixture.url("/a"));
        let (status, _) = agent.response();
        statuses.push(status);
        if status == 200 {
            break;
        }
        assert_eq!(status, 429, "{statuses:?}");
    }
    assert!(statuses.len() > 1, "it never came too soon");
    assert_eq!(agent.rejected(&fixture.url("/a")).0, 403);
    assert_eq!(fixture.api.received().len(), 2);
}
