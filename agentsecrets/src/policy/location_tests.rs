//! Locations of secrets, and the decisions of rules with `places`.

use std::path::Path;
use std::sync::Arc;

use http::Method;
use http::header::AUTHORIZATION;

use super::Policy;
use super::evaluate::Decision;
use super::grant::Grant;
use super::injection::InjectionStyle;
use crate::policy::access_request::{AccessRequest, SecretReference};
use crate::policy::evaluate::{BodyRequirements, Evaluation, decide};
use crate::policy::location::{InjectionPoint, LocationKind, LocationPattern};
use crate::types::rejection::ErrorCode;
use crate::types::target::{Scheme, Target};

/// `KEY@place`, or `KEY@place:name`.
pub(super) fn reference(text: &str) -> SecretReference {
    let (name, point) = text.split_once('@').unwrap();
    SecretReference::placeholder(name.parse().unwrap(), injection_point(point))
}

pub(super) fn injection_point(text: &str) -> InjectionPoint {
    match text {
        "auth" => InjectionPoint::header(&AUTHORIZATION),
        "header" => InjectionPoint::new(LocationKind::Header, "x-note"),
        "cookie" => InjectionPoint::new(LocationKind::Cookie, "c"),
        "query" => InjectionPoint::new(LocationKind::Query, "q"),
        "path" => InjectionPoint::new(LocationKind::Path, ""),
        exact => match exact.parse().unwrap() {
            LocationPattern::Exact(point) => point,
            LocationPattern::Kind(place) => panic!("{place:?} needs a name"),
        },
    }
}

fn policy(rules: &str) -> Policy {
    let rules: String = rules.lines().map(|line| format!("      {line}\n")).collect();
    let text = format!("version: 1\nagents:\n  - name: coder\n    allow:\n{rules}");
    Policy::parse(&text, Path::new("policy.yaml")).unwrap()
}

fn with_request<T>(
    path: &str,
    references: &[SecretReference],
    run: impl FnOnce(&AccessRequest<'_>) -> T,
) -> T {
    let target = Target { scheme: Scheme::Https, host: "x.net".parse().unwrap(), port: 443 };
    run(&AccessRequest { target: &target, method: &Method::POST, path, websocket: false, references })
}

fn decided(rules: &str, references: &[SecretReference]) -> Result<Grant, ErrorCode> {
    let policy = policy(rules);
    let now = std::time::Instant::now();
    match with_request("/v1/x", references, |request| {
        decide(&policy, &policy.agents()[0], request, now, |_| None)
    }) {
        Decision::Allow(grant) => Ok(grant),
        Decision::NeedsApproval(_) => Err(ErrorCode::PolicyApprovalRequired),
        Decision::Deny(rejection) => Err(rejection.code),
    }
}

fn body_requirements(rules: &str, references: &[SecretReference]) -> Option<BodyRequirements> {
    let policy = policy(rules);
    with_request("/v1/x", references, |request| {
        Evaluation::from_head(&policy, &policy.agents()[0], request, request.references).body_requirements()
    })
}

#[test]
fn placeholder_is_spent_denied_or_literal_by_location() {
    let rule = "- { host: x.net, secrets: [K], places: [path, json, 'form:f', 'header:X-Name', 'cookie:s'] }";
    for point in ["path", "json:a[0].b", "form:f", "header:x-name", "cookie:s"] {
        let grant = decided(rule, &[reference(&format!("K@{point}"))]).unwrap();
        assert_eq!(
            grant.secret_uses()[0].style,
            InjectionStyle::Placeholder(injection_point(point)),
            "{point}"
        );
        assert!(grant.quoted().is_empty());
        let other = decided(rule, &[reference(&format!("OTHER@{point}"))]);
        assert_eq!(other.err(), Some(ErrorCode::PolicyDenied), "{point}");
    }
    for point in ["auth", "form:g", "header:x-names", "cookie:t", "query"] {
        let grant = decided(rule, &[reference(&format!("OTHER@{point}"))]).unwrap();
        assert!(grant.secret_uses().is_empty());
        assert_eq!(grant.quoted().len(), 1, "{point}");
    }
}

#[test]
fn injection_header_is_spent_or_refused() {
    let reference = |name: &str, style| SecretReference { name: name.parse().unwrap(), style };
    let rule = "- { host: x.net, secrets: [K], places: [auth, 'json:a.b'] }";
    let json = |path: &str| InjectionStyle::Json(Arc::new(path.parse().unwrap()));
    let header = |name: &'static str| InjectionStyle::Header(http::HeaderName::from_static(name));
    for style in [InjectionStyle::Bearer, InjectionStyle::Basic, header("x-api-key"), json("a.b")] {
        let grant = decided(rule, &[reference("K", style.clone())]).unwrap();
        assert_eq!(grant.secret_uses()[0].style, style);
        assert_eq!(decided(rule, &[reference("OTHER", style)]).err(), Some(ErrorCode::PolicyDenied));
    }
    for style in
        [InjectionStyle::Query("q".into()), InjectionStyle::Form("f".into()), header("x-note"), json("a")]
    {
        assert_eq!(decided(rule, &[reference("K", style)]).err(), Some(ErrorCode::PolicyDenied));
    }
}

#[test]
fn secret_in_request_is_not_injected_again() {
    let rule = "- { host: x.net, secrets: [L], places: [path, json, cookie], inject: { path: { '{t}': K }, json: { a: K }, cookie: { c: K } } }";
    let styles = |references: &[&str]| {
        let references: Vec<_> = references.iter().map(|text| reference(text)).collect();
        decided(rule, &references).unwrap().secret_uses().len() - references.len()
    };
    assert_eq!(styles(&[]), 3);
    assert_eq!(styles(&["K@path"]), 2);
    assert_eq!(styles(&["L@path"]), 3);
    assert_eq!(styles(&["L@json:a"]), 2);
    assert_eq!(styles(&["K@json:b"]), 3);
    assert_eq!(styles(&["L@cookie:c"]), 2);
}

#[test]
fn only_bodies_of_the_deciding_rule_are_read() {
    let json = "- { host: x.net, secrets: [K], places: [auth, 'json:a'], max_body: 1KiB }";
    let plain = "- { host: x.net, secrets: [K] }";
    let form = "- { host: x.net, inject: { form: { f: K } } }";
    let elsewhere = "- { host: x.net, paths: [/v2/**], secrets: [K], places: [json] }";
    let requirements = Some(BodyRequirements { max_bytes: 1024, json: true, form: false, any_type: false });
    assert_eq!(body_requirements(json, &[]), requirements);
    assert_eq!(body_requirements(&format!("{json}\n{plain}"), &[]), requirements);
    assert_eq!(body_requirements(&format!("{plain}\n{json}"), &[]), None);
    assert_eq!(body_requirements(&format!("{elsewhere}\n{json}"), &[]), requirements);
    assert_eq!(body_requirements(elsewhere, &[]), None);
    assert_eq!(
        body_requirements(form, &[]),
        Some(BodyRequirements { max_bytes: 10 << 20, json: false, form: true, any_type: false })
    );
    // The first rule does not allow the reference in the head, with any body.
    let other = "- { host: x.net, secrets: [OTHER], places: [auth, header] }";
    assert_eq!(body_requirements(&format!("{other}\n{json}"), &[reference("K@auth")]), requirements);
}
