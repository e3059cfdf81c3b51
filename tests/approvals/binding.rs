//! What a person saw is what is spent: everything that differs is another request.

use super::*;
use crate::support::process::until;

#[test]
fn a_request_that_differs_from_the_one_approved_is_not_covered() {
    let world = holding("1s", "");
    let mut agent = Asking::of(&world);
    let approved = format!("-H 'X-Account: 1' -d amount=100 '{}'", world.url("/pay?a=1"));
    let id = id_in(&agent.refused(&approved).1);
    person(&world.home, &["approve", &id]).ok();
    for other in [
        approved.replace("amount=100", "amount=101"),
        approved.replace("?a=1", "?a=2"),
        approved.replace("/pay", "/pay/x"),
        approved.replace("X-Account: 1", "X-Account: 2"),
        approved.replace("-d", "-X PUT -d"),
        format!("-H 'X-Api-Key: AS_SECRET_API_KEY' {approved}"),
    ] {
        let (status, refusal) = agent.refused(&other);
        assert!(status == 403 && id_in(&refusal) != id, "{other}: {refusal}");
    }
    assert!(world.api.received().is_empty());
    agent.ask(&approved);
    assert_eq!(agent.told().0, 200);
    assert_eq!(world.api.only().body, "amount=100");
}

#[test]
fn a_body_is_read_before_anybody_is_asked_whatever_it_is_and_is_sent_as_it_was() {
    let world = holding("30s", "max_body: 64KiB");
    let mut sees = Watching::at(&world.home);
    let mut agent = Asking::of(&world);
    let (status, refusal) = agent.refused(&format!(
        "-H 'Content-Type: application/octet-stream' --data-binary \"$(head -c 65537 /dev/zero | tr '\\0' x)\" {}",
        world.url("/pay")
    ));
    assert_eq!((status, &refusal["error"]), (413, &"body_too_large".into()));
    assert!(refusal["message"].as_str().unwrap().contains("max_body"), "{refusal}");
    agent.ask(&format!(
        "-H 'Transfer-Encoding: chunked' -H 'Content-Type: text/plain' --data-binary \"$(printf 'a\\033[2Jb\\n> c')\" {}",
        world.url("/pay")
    ));
    let id = sees.next_id();
    let shown = person(&world.home, &["approvals", "--show-body"]).ok();
    assert!(shown.contains("| a\\u{1b}[2Jb\n") && shown.contains("| > c"), "{shown}");
    person(&world.home, &["approve", &id]).ok();
    assert_eq!(agent.told().0, 200);
    assert_eq!(world.api.only().body, "a\u{1b}[2Jb\n> c");
}

#[test]
fn a_secret_that_is_replaced_while_a_request_waits_is_spent_as_it_is_then() {
    let world = World::new();
    let mut sees = Watching::at(&world.home);
    let mut agent = Asking::beside(&world);
    let id = sees.next_id();
    world.home.secret("API_KEY", "another-long-value");
    let new = "Bearer another-long-value";
    let arrived =
        || world.api.received().last().is_some_and(|request| request.header("authorization") == new);
    until("the new value is spent", || agent.other() != "200" || arrived());
    person(&world.home, &["approve", &id]).ok();
    assert_eq!(agent.line(), "200");
    let received = world.api.received();
    let paid = received.iter().find(|request| request.path == "/pay").unwrap();
    assert_eq!(paid.header("authorization"), new);
}
