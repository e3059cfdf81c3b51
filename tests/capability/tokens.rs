//! Agents and their tokens.

use std::fs;

use super::*;
use crate::spine::SECRET;

const GOOD: &str = "Bearer [REDACTED_BY_AGENTSECRETS]";

#[test]
fn a_token_opens_what_asks_for_one_in_every_way_that_clients_show_it_and_never_leaves() {
    let world = World::new();
    policy(&world, &[("coder", "    match: { token: true }\n")]);
    let token = token(&world, "coder", &[]);
    let proxy = Proxy::of(&world);
    let (slug, message) = refusal(spend(&world, &proxy, &[]));
    assert!(slug == "capability_denied" && message.contains("no agent entry"), "{message}");

    let header = format!("X-AS-Agent-Token: {token}");
    assert_eq!(spend(&world, &proxy, &[&header, "X-AS-Agent-ID: coder"]), ("200".into(), GOOD.into()));
    let url = world.url("/echo-raw");
    let placeholder = ["-H", "Authorization: Bearer AS_SECRET_API_KEY"];
    let basic = format!("http://coder:{token}@127.0.0.1:{}", proxy.port);
    let own = format!("http://127.0.0.1:{}", proxy.port);
    let bearer = format!("Proxy-Authorization: Bearer {token}");
    for way in [&["-x", &*basic][..], &["-x", &own, "--proxy-header", &bearer], &["-H", &header]] {
        for version in ["--http1.1", "--http2"] {
            let answer = proxy.curl(&[&placeholder, way, &[version, &url]].concat());
            assert_eq!(answer.ok(), GOOD);
        }
    }
    for received in world.api.received() {
        assert_eq!(received.header("authorization"), format!("Bearer {SECRET}"));
        let text = format!("{received:?}");
        assert!(!text.contains(&token) && !text.contains("x-as-") && !text.contains("proxy-"), "{text}");
    }
    for record in world.home.audit().iter().skip(1) {
        assert_eq!((&record["token_id"], &record["status"]), (&id(&token).into(), &"OK".into()), "{record}");
        assert_eq!(record["identity_level"], "kernel", "the kernel knows it as well");
    }
    // What makes it a token is nowhere on disk.
    let secret = token.rsplit('_').next().unwrap();
    let home = finish(crate::support::process::command("grep").args(["-rF", secret]).arg(world.home.path()));
    assert_eq!(home.code, Some(1), "{home:#?}");
}

#[test]
fn plain_http_in_absolute_form_is_opened_by_proxy_authorization_too() {
    use crate::support::upstream::{Options, Upstream};
    let world = World::with(|_| Upstream::start(Options::plain()));
    policy(&world, &[("coder", "    match: { token: true }\n")]);
    let token = token(&world, "coder", &[]);
    let proxy = Proxy::of(&world);
    let url = format!("http://api.test:{}/echo", world.api.port());
    assert_eq!(proxy.curl(&[&url]).json()["error"], "capability_denied");
    let basic = format!("http://token:{token}@127.0.0.1:{}", proxy.port);
    assert_eq!(proxy.curl(&["-x", &basic, &url]).json()["path"], "/echo");
    assert!(!format!("{:?}", world.api.only()).contains(&token));
}

#[test]
fn a_bad_token_is_refused_where_none_was_needed_and_the_record_says_which() {
    let world = World::new();
    let good = token(&world, "coder", &[]);
    let proxy = Proxy::of(&world);
    assert_eq!(spend(&world, &proxy, &[]), ("200".into(), GOOD.into()));
    let shown = |token: &str| spend(&world, &proxy, &[&format!("X-AS-Agent-Token: {token}")]);

    let mut forged = good.clone();
    forged.replace_range(good.len() - 1.., if good.ends_with('A') { "E" } else { "A" });
    for bad in [&*forged, "as_agent_0000000000000000_x", "as_agent_", "ghp_1", "AS_SECRET_API_KEY"] {
        let (slug, message) = refusal(shown(bad));
        assert!(
            slug == "capability_denied" && message.contains("no ") && !message.contains(bad),
            "{message}"
        );
    }
    let two = [format!("X-AS-Agent-Token: {good}"), format!("X-AS-Agent-Token: {forged}")];
    assert_eq!(refusal(spend(&world, &proxy, &[&two[0], &two[1]])).0, "capability_denied");

    for (scope, says) in [("--project", "project 'elsewhere'"), ("--environment", "environment 'elsewhere'")]
    {
        let foreign = token(&world, "coder", &[scope, "elsewhere"]);
        until("it is known", || refusal(shown(&foreign)).1.contains(says));
        let record = world.home.audit().pop().unwrap();
        assert_eq!((&record["token_id"], &record["status"]), (&id(&foreign).into(), &"BLOCKED".into()));
        assert!(record["reason"].as_str().unwrap().contains(says), "{record}");
    }
    let short = token(&world, "coder", &["--ttl", "1s"]);
    until("it expires", || shown(&short).1.contains("has expired"));

    assert_eq!(shown(&good).0, "200");
    person(&world, &["agent", "token", "revoke", id(&good)]).ok();
    until("it is revoked", || shown(&good).0 == "403");
    assert_eq!(refusal(shown(&good)).0, "token_revoked");
    let record = world.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("token_revoked"), "{record}");
    let url = world.url("/echo");
    let tunnel = proxy.curl(&["-x", &format!("http://coder:{good}@127.0.0.1:{}", proxy.port), &url]);
    assert!(tunnel.stderr.contains("403"), "{tunnel:#?}");
    assert_eq!(world.home.audit().pop().unwrap()["token_id"], id(&good));
}

#[test]
fn what_is_under_way_with_a_token_ends_when_it_is_revoked() {
    let world = World::new();
    let token = token(&world, "coder", &[]);
    let proxy = Proxy::of(&world);
    let mut curl = super::sessions::held(
        &world,
        &proxy,
        &["-x", &format!("http://coder:{token}@127.0.0.1:{}", proxy.port)],
    );
    person(&world, &["agent", "token", "revoke", "--all", "--agent", "coder"]).ok();
    super::sessions::ends_soon(&mut curl);
    let record = world.home.audit().pop().unwrap();
    assert!(record["reason"].as_str().unwrap().starts_with("token_revoked"), "{record}");
}

#[test]
fn a_token_that_another_agent_offers_is_refused_and_recorded() {
    let world = World::new();
    policy(&world, &[("coder", ""), ("other", "")]);
    let (own, others) = (token(&world, "coder", &[]), token(&world, "other", &[]));
    let url = world.url("/echo-raw");
    let run = |token: &str| {
        let header = format!("X-AS-Agent-Token: {token}");
        let command = ["curl", "-sS", "-H", "Authorization: Bearer AS_SECRET_API_KEY", "-H", &header, &url];
        let words = [&["run", "--agent", "coder", "--"][..], &command].concat();
        finish(&mut world.home.agentsecrets(words)).ok()
    };
    assert_eq!(run(&own), GOOD);
    let refused = run(&others);
    assert!(refused.contains("capability_denied") && refused.contains("agent 'other'"), "{refused}");
    let record = world.home.audit().pop().unwrap();
    assert_eq!(
        (&record["token_id"], &record["status"]),
        (&id(&others).into(), &"BLOCKED".into()),
        "{record}"
    );
    assert_eq!(record["agent_id"], "coder");
}

#[test]
fn a_call_with_a_token_is_that_agents_own_request() {
    let world = World::new();
    policy(&world, &[("coder", "    match: { token: true }\n")]);
    let token = token(&world, "coder", &[]);
    let url = world.url("/echo-raw");
    let call = ["call", "--url", &url, "--bearer", "API_KEY", "--output", "json"];
    let ask = |more: &[&str], variable: Option<&str>| {
        let mut call = world.home.agentsecrets([&call[..], more].concat());
        finish(call.envs(variable.map(|token| ("AS_AGENT_TOKEN", token))))
    };
    for answer in [ask(&["--token", &token], None), ask(&[], Some(&token))] {
        assert_eq!(answer.json()["body"], GOOD);
        let record = world.home.audit().pop().unwrap();
        assert_eq!((&record["agent_id"], &record["token_id"]), (&"coder".into(), &id(&token).into()));
    }
    let forged = ask(&["--token", &format!("{token}x")], None);
    assert!(forged.code == Some(4) && !forged.stderr.contains(&token), "{forged:#?}");
    person(
        &world,
        &["agent", "policy", "set", "--agent", "coder", "--allow", "API_KEY", "--deny", "API_KEY"],
    )
    .ok();
    let denied = ask(&["--token", &token], None);
    assert!(denied.code == Some(4) && denied.stderr.contains("was not given 'API_KEY'"), "{denied:#?}");
    let outside = person(&world, &call);
    assert_eq!(outside.json()["status"], 200, "the person is no agent");
}

#[test]
fn what_an_agent_was_not_given_it_may_not_spend_whatever_its_rules_say() {
    let world = World::new();
    let proxy = Proxy::of(&world);
    person(&world, &["agent", "register", "coder"]).ok();
    for (bounds, code) in [
        (&["--allow", "OTHER_KEY"][..], "403"),
        (&["--allow", "API_KEY,OTHER_KEY"], "200"),
        (&["--deny", "API_KEY"], "403"),
        (&[], "200"),
    ] {
        person(&world, &[&["agent", "policy", "set", "--agent", "coder"], bounds].concat()).ok();
        until("it is in force", || spend(&world, &proxy, &[]).0 == code);
    }
    let set = person(&world, &["agent", "policy", "get", "--agent", "coder", "--json"]).json();
    assert_eq!(set, serde_json::json!({ "agent": "coder", "allow": null, "deny": [] }));
    let unknown = person(&world, &["agent", "policy", "set", "--agent", "nobody", "--deny", "A"]);
    assert_eq!(unknown.code, Some(3));
}

#[test]
fn a_file_that_cannot_be_understood_denies_and_names_its_line() {
    let world = World::new();
    let token = token(&world, "coder", &[]);
    let proxy = Proxy::of(&world);
    let header = format!("X-AS-Agent-Token: {token}");
    assert_eq!(spend(&world, &proxy, &[&header]).0, "200");
    let file = world.home.path().join("capabilities/agents.json");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(&file, sound.replace("\"tokens\"", "\"tokns\"")).unwrap();
    until("it is noticed", || spend(&world, &proxy, &[&header]).0 == "403");
    let (slug, message) = refusal(spend(&world, &proxy, &[]));
    assert!(slug == "capability_denied" && message.contains("agents.json:"), "{message}");
    let refused = person(&world, &["agent", "list"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("unknown field `tokns`"), "{refused:#?}");
    let start = person(&world, &["run", "--", "true"]);
    assert!(start.code != Some(0) && start.stderr.contains("agents.json:"), "{start:#?}");
    fs::write(&file, sound).unwrap();
    until("it is sound again", || spend(&world, &proxy, &[&header]).0 == "200");
}

#[test]
fn what_is_registered_and_issued_is_listed_without_what_makes_it_a_token() {
    let world = World::new();
    let token = token(&world, "coder", &["--ttl", "8h", "--project", "shop"]);
    assert_eq!(person(&world, &["agent", "register", "coder"]).code, Some(1));
    let list = person(&world, &["agent", "token", "list", "--json"]).json();
    assert_eq!(list[0]["id"], id(&token));
    assert_eq!((&list[0]["state"], &list[0]["project"]), (&"live".into(), &"shop".into()));
    assert!(!list.to_string().contains(token.rsplit('_').next().unwrap()));
    let agents = person(&world, &["agent", "list"]).ok();
    assert!(agents.starts_with('╭') && agents.contains("coder"), "{agents}");
    person(&world, &["agent", "delete", "coder"]).ok();
    assert_eq!(person(&world, &["agent", "list", "--json"]).json(), serde_json::json!([]));
    assert_eq!(person(&world, &["agent", "delete", "coder"]).code, Some(3));
    let acts = person(&world, &["audit", "list", "--admin", "--json"]).ok();
    for act in ["agent register", "agent token issue", "agent delete"] {
        assert!(acts.contains(act), "{act} in {acts}");
    }
    assert!(!acts.contains(token.rsplit('_').next().unwrap()));
}
