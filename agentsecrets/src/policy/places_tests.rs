//! Where secrets may stand, and what a rule that says so makes of a request.

use std::path::Path;
use std::sync::Arc;

use http::Method;
use http::header::AUTHORIZATION;

use super::Policy;
use super::grant::{Decision, Grant, Style};
use crate::identity::Caller;
use crate::policy::access_request::{Area, Ask, Place, Reference, Spot};
use crate::policy::evaluate::{Reading, judge, reading};
use crate::types::rejection::ErrorCode;
use crate::types::target::{Scheme, Target};

/// `KEY@place`, or `KEY@place:name`.
pub(super) fn reference(text: &str) -> Reference {
    let (name, spot) = text.split_once('@').unwrap();
    Reference::placeholder(name.parse().unwrap(), spot_of(spot))
}

pub(super) fn spot_of(text: &str) -> Spot {
    match text {
        "auth" => Spot::header(&AUTHORIZATION),
        "header" => Spot::new(Place::Header, "x-note"),
        "cookie" => Spot::new(Place::Cookie, "c"),
        "query" => Spot::new(Place::Query, "q"),
        "path" => Spot::new(Place::Path, ""),
        exact => match exact.parse().unwrap() {
            Area::Only(spot) => spot,
            Area::Every(place) => panic!("{place:?} needs a name"),
        },
    }
}

fn policy(rules: &str) -> Policy {
    let rules: String = rules.lines().map(|line| format!("      {line}\n")).collect();
    let text = format!("version: 1\nagents:\n  - name: coder\n    allow:\n{rules}");
    Policy::parse(&text, Path::new("policy.yaml")).unwrap()
}

fn asked<T>(path: &str, references: &[Reference], work: impl FnOnce(&Ask<'_>) -> T) -> T {
    let target = Target { scheme: Scheme::Https, host: "x.net".parse().unwrap(), port: 443 };
    work(&Ask { target: &target, method: &Method::POST, path, websocket: false, references })
}

fn decided(rules: &str, references: &[Reference]) -> Result<Grant, ErrorCode> {
    let policy = policy(rules);
    let now = std::time::Instant::now();
    match asked("/v1/x", references, |ask| judge(&policy, &policy.agents()[0], ask, now, |_| None)) {
        Decision::Allow(grant) => Ok(grant),
        Decision::Hold(_) => Err(ErrorCode::PolicyApprovalRequired),
        Decision::Deny(refusal) => Err(refusal.code),
    }
}

fn to_read(rules: &str, references: &[Reference]) -> Option<Reading> {
    let caller = Caller::for_test();
    asked("/v1/x", references, |ask| reading(&policy(rules), &caller, ask))
}

#[test]
fn a_placeholder_is_spent_in_a_place_denied_with_another_secret_and_quoted_elsewhere() {
    let rule = "- { host: x.net, secrets: [K], places: [path, json, 'form:f', 'header:X-Name', 'cookie:s'] }";
    for spot in ["path", "json:a[0].b", "form:f", "header:x-name", "cookie:s"] {
        let grant = decided(rule, &[reference(&format!("K@{spot}"))]).unwrap();
        assert_eq!(grant.spends()[0].style, Style::Placeholder(spot_of(spot)), "{spot}");
        assert!(grant.quoted().is_empty());
        let other = decided(rule, &[reference(&format!("OTHER@{spot}"))]);
        assert_eq!(other.err(), Some(ErrorCode::PolicyDenied), "{spot}");
    }
    for spot in ["auth", "form:g", "header:x-names", "cookie:t", "query"] {
        let grant = decided(rule, &[reference(&format!("OTHER@{spot}"))]).unwrap();
        assert!(grant.spends().is_empty());
        assert_eq!(grant.quoted().len(), 1, "{spot}");
    }
}

#[test]
fn what_is_asked_for_outright_is_spent_or_refused_and_never_passed_over() {
    let asked = |name: &str, style| Reference { name: name.parse().unwrap(), style };
    let rule = "- { host: x.net, secrets: [K], places: [auth, 'json:a.b'] }";
    let json = |path: &str| Style::Json(Arc::new(path.parse().unwrap()));
    let header = |name: &'static str| Style::Header(http::HeaderName::from_static(name));
    for style in [Style::Bearer, Style::Basic, header("x-api-key"), json("a.b")] {
        let grant = decided(rule, &[asked("K", style.clone())]).unwrap();
        assert_eq!(grant.spends()[0].style, style);
        assert_eq!(decided(rule, &[asked("OTHER", style)]).err(), Some(ErrorCode::PolicyDenied));
    }
    for style in [Style::Query("q".into()), Style::Form("f".into()), header("x-note"), json("a")] {
        assert_eq!(decided(rule, &[asked("K", style)]).err(), Some(ErrorCode::PolicyDenied));
    }
}

#[test]
fn what_the_request_puts_in_itself_is_not_put_in_again() {
    let rule = "- { host: x.net, secrets: [L], places: [path, json, cookie], inject: { path: { '{t}': K }, json: { a: K }, cookie: { c: K } } }";
    let styles = |references: &[&str]| {
        let references: Vec<_> = references.iter().map(|text| reference(text)).collect();
        decided(rule, &references).unwrap().spends().len() - references.len()
    };
    assert_eq!(styles(&[]), 3);
    assert_eq!(styles(&["K@path"]), 2);
    assert_eq!(styles(&["L@path"]), 3);
    assert_eq!(styles(&["L@json:a"]), 2);
    assert_eq!(styles(&["K@json:b"]), 3);
    assert_eq!(styles(&["L@cookie:c"]), 2);
}

#[test]
fn only_a_body_that_the_deciding_rule_may_fill_is_read() {
    let json = "- { host: x.net, secrets: [K], places: [auth, 'json:a'], max_body: 1KiB }";
    let plain = "- { host: x.net, secrets: [K] }";
    let form = "- { host: x.net, inject: { form: { f: K } } }";
    let elsewhere = "- { host: x.net, paths: [/v2/**], secrets: [K], places: [json] }";
    let read = Some(Reading { most: 1024, json: true, form: false, all: false });
    assert_eq!(to_read(json, &[]), read);
    assert_eq!(to_read(&format!("{json}\n{plain}"), &[]), read);
    assert_eq!(to_read(&format!("{plain}\n{json}"), &[]), None);
    assert_eq!(to_read(&format!("{elsewhere}\n{json}"), &[]), read);
    assert_eq!(to_read(elsewhere, &[]), None);
    assert_eq!(to_read(form, &[]), Some(Reading { most: 10 << 20, json: false, form: true, all: false }));
    // The first rule does not allow what the head names, whatever the body says.
    let other = "- { host: x.net, secrets: [OTHER], places: [auth, header] }";
    assert_eq!(to_read(&format!("{other}\n{json}"), &[reference("K@auth")]), read);
}
