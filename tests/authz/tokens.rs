//! Agents and their tokens.

use std::fs;

use super::*;
use crate::end_to_end::SECRET;

const REDACTED_BEARER: &str = "Bearer [REDACTED_BY_AGENTSECRETS]";

#[test]
fn agent_token_is_accepted_in_every_form_and_never_forwarded() {
    let fixture = Fixture::new();
    policy(&fixture, &[("coder", "    match: { token: true }\n")]);
    let token = issue_token(&fixture, "coder", &[]);
    let proxy = Proxy::start(&fixture);
    let (error, message) = rejection(request_with_secret(&fixture, &proxy, &[]));
    assert!(error == "capability_denied" && message.contains("no agent entry"), "{message}");

    let header = format!("X-AS-Agent-Token: {token}");
    assert_eq!(
        request_with_secret(&fixture, &proxy, &[&header, "X-AS-Agent-ID: coder"]),
        ("200".into(), REDACTED_BEARER.into())
    );
    let url = fixture.url("/echo-raw");
    let placeholder = ["-H", "Authorization: Bearer AS_SECRET_API_KEY"];
    let basic = format!("http://coder:{token}@127.0.0.1:{}", proxy.port);
    let own = format!("http://127.0.0.1:{}", proxy.port);
    let bearer = format!("Proxy-Authorization: Bearer {token}");
    for way in [&["-x", &*basic][..], &["-x", &own, "--proxy-header", &bearer], &["-H", &header]] {
        for version in ["--http1.1", "--http2"] {
            let answer = proxy.curl(&[&placeholder, way, &[version, &url]].concat());
            assert_eq!(answer.ok(), REDACTED_BEARER);
        }
    }
    for received in fixture.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
        let text = format!("{received:?}");
        assert!(!text.contains(&token) && !text.contains("x-as-") && !text.contains("proxy-"), "{text}");
    }
    for record in fixture.home.audit().iter().skip(1) {
        assert_eq!(
            (&record["token_id"], &record["status"]),
            (&token_id(&token).into(), &"OK".into()),
            "{record}"
        );
        assert_eq!(record["identity_level"], "kernel", "the kernel knows it as well");
    }
    // The token's secret part is nowhere on disk.
    let secret = token.rsplit('_').next().unwrap();
    let home = run(crate::support::process::command("grep").args(["-rF", secret]).arg(fixture.home.path()));
    assert_eq!(home.code, Some(1), "{home:#?}");
}

#[test]
fn proxy_authorization_works_for_plain_http() {
    use crate::support::upstream::{Options, Upstream};
    let fixture = Fixture::with(|_| Upstream::start(Options::plain()));
    policy(&fixture, &[("coder", "    match: { token: true }\n")]);
    let token = issue_token(&fixture, "coder", &[]);
    let proxy = Proxy::start(&fixture);
    let url = format!("http://api.test:{}/echo", fixture.api.port());
    assert_eq!(proxy.curl(&[&url]).json()["error"], "capability_denied");
    let basic = format!("http://token:{token}@127.0.0.1:{}", proxy.port);
    assert_eq!(proxy.curl(&["-x", &basic, &url]).json()["path"], "/echo");
    assert!(!format!("{:?}", fixture.api.only_request()).contains(&token));
}

#[test]
fn bad_token_is_refused_and_recorded() {
    let fixture = Fixture::new();
    let good = issue_token(&fixture, "coder", &[]);
    let proxy = Proxy::start(&fixture);
    assert_eq!(request_with_secret(&fixture, &proxy, &[]), ("200".into(), REDACTED_BEARER.into()));
    let shown = |token: &str| request_with_secret(&fixture, &proxy, &[&format!("X-AS-Agent-Token: {token}")]);

    let mut forged = good.clone();
    forged.replace_range(good.len() - 1.., if good.ends_with('A') { "E" } else { "A" });
    for bad in [&*forged, "as_agent_0000000000000000_x", "as_agent_", "ghp_1", "AS_SECRET_API_KEY"] {
        let (code, message) = rejection(shown(bad));
        assert!(
            code == "capability_denied" && message.contains("no ") && !message.contains(bad),
            "{message}"
        );
    }
    let two = [format!("X-AS-Agent-Token: {good}"), format!("X-AS-Agent-Token: {forged}")];
    assert_eq!(rejection(request_with_secret(&fixture, &proxy, &[&two[0], &two[1]])).0, "capability_denied");

    for (scope, expected) in
        [("--project", "project 'elsewhere'"), ("--environment", "environment 'elsewhere'")]
    {
        let foreign = issue_token(&fixture, "coder", &[scope, "elsewhere"]);
        wait_until("it is known", || rejection(shown(&foreign)).1.contains(expected));
        let record = fixture.home.audit().pop().unwrap();
        assert_eq!((&record["token_id"], &record["status"]), (&token_id(&foreign).into(), &"BLOCKED".into()));
        assert!(record["reason"].as_str().unwrap().contains(expected), "{record}");
    }
    let short = issue_token(&fixture, "coder", &["--ttl", "1s"]);
    wait_until("it expires", || shown(&short).1.contains("has expired"));

    assert_eq!(shown(&good).0, "200");
    operator(&fixture, &["agent", "token", "revoke", token_id(&good)]).ok();
    wait_until("it is revoked", || shown(&good).0 == "403");
    assert_eq!(rejection(shown(&good)).0, "token_revoked");
    let record = fixture.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("token_revoked"), "{record}");
    let url = fixture.url("/echo");
    let tunnel = proxy.curl(&["-x", &format!("http://coder:{good}@127.0.0.1:{}", proxy.port), &url]);
    assert!(tunnel.stderr.contains("403"), "{tunnel:#?}");
    assert_eq!(fixture.home.audit().pop().unwrap()["token_id"], token_id(&good));
}

#[test]
fn revoked_token_ends_requests_in_flight() {
    let fixture = Fixture::new();
    let token = issue_token(&fixture, "coder", &[]);
    let proxy = Proxy::start(&fixture);
    let mut curl = super::sessions::start_streaming_curl(
        &fixture,
        &proxy,
        &["-x", &format!("http://coder:{token}@127.0.0.1:{}", proxy.port)],
    );
    operator(&fixture, &["agent", "token", "revoke", "--all", "--agent", "coder"]).ok();
    super::sessions::wait_for_end(&mut curl);
    let record = fixture.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("token_revoked"), "{record}");
}

#[test]
fn token_of_another_agent_is_refused_and_recorded() {
    let fixture = Fixture::new();
    policy(&fixture, &[("coder", ""), ("other", "")]);
    let (own, others) = (issue_token(&fixture, "coder", &[]), issue_token(&fixture, "other", &[]));
    let url = fixture.url("/echo-raw");
    let run = |token: &str| {
        let header = format!("X-AS-Agent-Token: {token}");
        let command = ["curl", "-sS", "-H", "Authorization: Bearer AS_SECRET_API_KEY", "-H", &header, &url];
        let words = [&["run", "--agent", "coder", "--"][..], &command].concat();
        run(&mut fixture.home.agentsecrets(words)).ok()
    };
    assert_eq!(run(&own), REDACTED_BEARER);
    let refused = run(&others);
    assert!(refused.contains("capability_denied") && refused.contains("agent 'other'"), "{refused}");
    let record = fixture.home.audit().pop().unwrap();
    assert_eq!(
        (&record["token_id"], &record["status"]),
        (&token_id(&others).into(), &"BLOCKED".into()),
        "{record}"
    );
    assert_eq!(record["agent_id"], "coder");
}

#[test]
fn call_with_token_acts_as_agent() {
    let fixture = Fixture::new();
    policy(&fixture, &[("coder", "    match: { token: true }\n")]);
    let token = issue_token(&fixture, "coder", &[]);
    let url = fixture.url("/echo-raw");
    let call = ["call", "--url", &url, "--bearer", "API_KEY", "--output", "json"];
    let ask = |more: &[&str], variable: Option<&str>| {
        let mut call = fixture.home.agentsecrets([&call[..], more].concat());
        run(call.envs(variable.map(|token| ("AS_AGENT_TOKEN", token))))
    };
    for answer in [ask(&["--token", &token], None), ask(&[], Some(&token))] {
        assert_eq!(answer.json()["body"], REDACTED_BEARER);
        let record = fixture.home.audit().pop().unwrap();
        assert_eq!((&record["agent_id"], &record["token_id"]), (&"coder".into(), &token_id(&token).into()));
    }
    let forged = ask(&["--token", &format!("{token}x")], None);
    assert!(forged.code == Some(4) && !forged.stderr.contains(&token), "{forged:#?}");
    operator(
        &fixture,
        &["agent", "policy", "set", "--agent", "coder", "--allow", "API_KEY", "--deny", "API_KEY"],
    )
    .ok();
    let denied = ask(&["--token", &token], None);
    assert!(denied.code == Some(4) && denied.stderr.contains("was not given 'API_KEY'"), "{denied:#?}");
    let outside = operator(&fixture, &call);
    assert_eq!(outside.json()["status"], 200, "the person is no agent");
}

#[test]
fn agent_registry_limits_secrets_beyond_policy() {
    let fixture = Fixture::new();
    let proxy = Proxy::start(&fixture);
    operator(&fixture, &["agent", "register", "coder"]).ok();
    for (bounds, code) in [
        (&["--allow", "OTHER_KEY"][..], "403"),
        (&["--allow", "API_KEY,OTHER_KEY"], "200"),
        (&["--deny", "API_KEY"], "403"),
        (&[], "200"),
    ] {
        operator(&fixture, &[&["agent", "policy", "set", "--agent", "coder"], bounds].concat()).ok();
        wait_until("it is in force", || request_with_secret(&fixture, &proxy, &[]).0 == code);
    }
    let set = operator(&fixture, &["agent", "policy", "get", "--agent", "coder", "--json"]).json();
    assert_eq!(set, serde_json::json!({ "agent": "coder", "allow": null, "deny": [] }));
    let unknown = operator(&fixture, &["agent", "policy", "set", "--agent", "nobody", "--deny", "A"]);
    assert_eq!(unknown.code, Some(3));
}

#[test]
fn malformed_agents_file_denies_and_names_line() {
    let fixture = Fixture::new();
    let token = issue_token(&fixture, "coder", &[]);
    let proxy = Proxy::start(&fixture);
    let header = format!("X-AS-Agent-Token: {token}");
    assert_eq!(request_with_secret(&fixture, &proxy, &[&header]).0, "200");
    let file = fixture.home.path().join("capabilities/agents.json");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(&file, sound.replace("\"tokens\"", "\"tokns\"")).unwrap();
    wait_until("it is noticed", || request_with_secret(&fixture, &proxy, &[&header]).0 == "403");
    let (error, message) = rejection(request_with_secret(&fixture, &proxy, &[]));
    assert!(error == "capability_denied" && message.contains("agents.json:"), "{message}");
    let refused = operator(&fixture, &["agent", "list"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("unknown field `tokns`"), "{refused:#?}");
    let start = operator(&fixture, &["run", "--", "true"]);
    assert!(start.code != Some(0) && start.stderr.contains("agents.json:"), "{start:#?}");
    fs::write(&file, sound).unwrap();
    wait_until("it is sound again", || request_with_secret(&fixture, &proxy, &[&header]).0 == "200");
}

#[test]
fn token_list_does_not_show_tokens() {
    let fixture = Fixture::new();
    let token = issue_token(&fixture, "coder", &["--ttl", "8h", "--project", "shop"]);
    assert_eq!(operator(&fixture, &["agent", "register", "coder"]).code, Some(1));
    let list = operator(&fixture, &["agent", "token", "list", "--json"]).json();
    assert_eq!(list[0]["id"], token_id(&token));
    assert_eq!((&list[0]["state"], &list[0]["project"]), (&"live".into(), &"shop".into()));
    assert!(!list.to_string().contains(token.rsplit('_').next().unwrap()));
    let agents = operator(&fixture, &["agent", "list"]).ok();
    assert!(agents.starts_with('╭') && agents.contains("coder"), "{agents}");
    operator(&fixture, &["agent", "delete", "coder"]).ok();
    assert_eq!(operator(&fixture, &["agent", "list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(operator(&fixture, &["agent", "delete", "coder"]).code, Some(3));
    let acts = operator(&fixture, &["audit", "list", "--admin", "--json"]).ok();
    for act in ["agent register", "agent token issue", "agent delete"] {
        assert!(acts.contains(act), "{act} in {acts}");
    }
    assert!(!acts.contains(token.rsplit('_').next().unwrap()));
}
