//! An approval covers the request as shown: a request that differs needs its own.

use super::*;
use crate::support::process::wait_until;

#[test]
fn approval_does_not_cover_a_different_request() {
    let fixture = fixture_with_approval("1s", "");
    let mut agent = RequestingAgent::start(&fixture);
    let approved = format!("-H 'X-Account: 1' -d amount=100 '{}'", fixture.url("/pay?a=1"));
    let id = approval_id(&agent.rejected(&approved).1);
    operator(&fixture.home, &["approve", &id]).ok();
    for other in [
        approved.replace("amount=100", "amount=101"),
        approved.replace("?a=1", "?a=2"),
        approved.replace("/pay", "/pay/x"),
        approved.replace("X-Account: 1", "X-Account: 2"),
        approved.replace("-d", "-X PUT -d"),
        format!("-H 'X-Api-Key: AS_SECRET_API_KEY' {approved}"),
    ] {
        let (status, rejection) = agent.rejected(&other);
        assert!(status == 403 && approval_id(&rejection) != id, "{other}: {rejection}");
    }
    assert!(fixture.api.received().is_empty());
    agent.send(&approved);
    assert_eq!(agent.response().0, 200);
    assert_eq!(fixture.api.only_request().body, "amount=100");
}

#[test]
fn body_is_shown_to_the_operator_and_sent_unchanged() {
    let fixture = fixture_with_approval("30s", "max_body: 64KiB");
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::start(&fixture);
    let (status, rejection) = agent.rejected(&format!(
        "-H 'Content-Type: application/octet-stream' --data-binary \"$(head -c 65537 /dev/zero | tr '\\0' x)\" {}",
        fixture.url("/pay")
    ));
    assert_eq!((status, &rejection["error"]), (413, &"body_too_large".into()));
    assert!(rejection["message"].as_str().unwrap().contains("max_body"), "{rejection}");
    agent.send(&format!(
        "-H 'Transfer-Encoding: chunked' -H 'Content-Type: text/plain' --data-binary \"$(printf 'a\\033[2Jb\\n> c')\" {}",
        fixture.url("/pay")
    ));
    let id = sees.next_id();
    let shown = operator(&fixture.home, &["approvals", "--show-body"]).ok();
    assert!(shown.contains("| a\\u{1b}[2Jb\n") && shown.contains("| > c"), "{shown}");
    operator(&fixture.home, &["approve", &id]).ok();
    assert_eq!(agent.response().0, 200);
    assert_eq!(fixture.api.only_request().body, "a\u{1b}[2Jb\n> c");
}

#[test]
fn secret_replaced_while_pending_is_sent_with_the_new_value() {
    let fixture = Fixture::new();
    let mut sees = ApprovalWatcher::start(&fixture.home);
    let mut agent = RequestingAgent::with_pending_request(&fixture);
    let id = sees.next_id();
    fixture.home.set_secret("API_KEY", "another-long-value");
    let new = "Bearer another-long-value";
    let arrived =
        || fixture.api.received().last().is_some_and(|request| request.header("authorization") == new);
    wait_until("the new value is spent", || agent.request_free_path() != "200" || arrived());
    operator(&fixture.home, &["approve", &id]).ok();
    assert_eq!(agent.read_line(), "200");
    let received = fixture.api.received();
    let paid = received.iter().find(|request| request.path == "/pay").unwrap();
    assert_eq!(paid.header("authorization"), new);
}
