//! Decisions on requests of users and attackers.

use std::path::Path;
use std::sync::Arc;

use http::Method;
use proptest::prelude::*;

use super::capability_check::NoCapabilityCheck;
use super::evaluate::Decision;
use super::grant::Grant;
use super::injection::{InjectionStyle, SecretUse};
use super::location_tests::{injection_point, reference};
use super::private_addresses::PrivateAddresses;
use crate::identity::Caller;
use crate::policy::Policy;
use crate::policy::access_request::{AccessRequest, SecretReference};
use crate::policy::evaluate;
use crate::types::host::Host;
use crate::types::rejection::ErrorCode;
use crate::types::target::{Scheme, Target};

const POLICY: &str = r#"version: 1
agents:
  - name: coder
    allow:
      - host: api.stripe.com
        ports: [443]
        methods: [GET, POST]
        paths: ["/v1/**"]
        secrets: [STRIPE_KEY]
      - host: "*.example.com"
        secrets: [EXAMPLE_KEY]
        places: [auth, query]
      - host: api.example.com
        methods: [DELETE]
        secrets: [ADMIN_KEY]
      - host: injected.net
        paths: ["/a", "/b/*/c"]
        inject: { bearer: TOKEN }
        private: [10.2.0.0/16]
        max_body: 1KiB
      - host: open.net
      - host: held.net
        approve: { wait: 60s }
      - host: pinned.net
        tls: passthrough
      - host: slow.net
        rate: 2/h
      - host: 10.1.2.3
      - host: both.net
        inject: { header: { X-Api-Key: KEY }, query: { k: KEY } }
        places: [auth, query]
      - host: both.net
        paths: ["/public/**"]
  - name: bare
"#;

fn policy(text: &str) -> Policy {
    Policy::parse(text, Path::new("policy.yaml")).unwrap()
}

fn caller(agent: Option<&str>, session: &str) -> Caller {
    let agent = agent.map(|name| name.parse().unwrap());
    Caller { agent, session: session.into(), is_ours: !session.is_empty(), ..Caller::for_test() }
}

fn target(url: &str) -> (Target, String) {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap()),
        None => (authority, scheme.default_port()),
    };
    (Target { scheme, host: host.parse().unwrap(), port }, path.to_owned())
}

fn decide_as(policy: &Policy, caller: &Caller, method: &str, url: &str, references: &[&str]) -> Decision {
    let references: Vec<_> = references.iter().map(|text| reference(text)).collect();
    let (target, path) = target(url);
    let method: Method = method.parse().unwrap();
    evaluate(
        policy,
        &NoCapabilityCheck,
        caller,
        &AccessRequest {
            target: &target,
            method: &method,
            path: &path,
            websocket: false,
            references: &references,
        },
    )
}

fn decide(method: &str, url: &str, references: &[&str]) -> Decision {
    decide_as(&policy(POLICY), &caller(Some("coder"), "s"), method, url, references)
}

fn granted(decision: Decision) -> Grant {
    match decision {
        Decision::Allow(grant) => grant,
        other => panic!("not allowed: {other:?}"),
    }
}

fn error_code(decision: Decision) -> Option<ErrorCode> {
    match decision {
        Decision::Allow(_) => None,
        Decision::NeedsApproval(_) => Some(ErrorCode::PolicyApprovalRequired),
        Decision::Deny(rejection) => Some(rejection.code),
    }
}

/// Description, method, URL, references, and the expected error code.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str], Option<ErrorCode>);

#[test]
fn decision_table() {
    use ErrorCode::*;
    const KEY: &str = "STRIPE_KEY@auth";
    let table: &[Case] = &[
        (
            "a user spends a key where it is allowed",
            "POST",
            "https://api.stripe.com/v1/charges",
            &[KEY],
            None,
        ),
        ("a user asks without a key", "GET", "https://api.stripe.com/v1/charges", &[], None),
        ("a key goes to another host", "GET", "https://evil.net/v1", &[KEY], Some(DomainNotInAllowlist)),
        (
            "a name is put before the host",
            "GET",
            "https://api.stripe.com.evil.net/v1/x",
            &[KEY],
            Some(DomainNotInAllowlist),
        ),
        (
            "a subdomain is not its parent",
            "GET",
            "https://x.api.stripe.com/v1/x",
            &[],
            Some(DomainNotInAllowlist),
        ),
        ("a key in the clear", "GET", "http://api.stripe.com/v1/x", &[KEY], Some(NonHttpsBlocked)),
        (
            "in the clear, method and path wrong too",
            "PUT",
            "http://api.stripe.com/z",
            &[KEY],
            Some(NonHttpsBlocked),
        ),
        (
            "in the clear, a key that is not allowed",
            "GET",
            "http://open.net/",
            &["OTHER@auth"],
            Some(NonHttpsBlocked),
        ),
        ("an injected key in the clear", "GET", "http://injected.net/a", &[], Some(NonHttpsBlocked)),
        ("plain HTTP without a key", "GET", "http://open.net/", &[], None),
        ("another port", "GET", "https://api.stripe.com:8443/v1/x", &[KEY], Some(PolicyDenied)),
        ("another method", "DELETE", "https://api.stripe.com/v1/x", &[KEY], Some(PolicyDenied)),
        ("another path", "GET", "https://api.stripe.com/v2/x", &[KEY], Some(PolicyDenied)),
        ("the folder itself is not below it", "GET", "https://api.stripe.com/v1", &[KEY], Some(PolicyDenied)),
        ("a way out of the path", "GET", "https://api.stripe.com/v1/../v2", &[KEY], Some(PolicyDenied)),
        ("a hidden way out", "GET", "https://api.stripe.com/v1/%2e%2e/v2", &[KEY], Some(PolicyDenied)),
        (
            "an encoded slash where no path is limited",
            "GET",
            "https://open.net/a%2fb",
            &[],
            Some(PolicyDenied),
        ),
        ("a harmless encoding", "GET", "https://api.stripe.com/v1/ch%61rges", &[KEY], None),
        ("'*' crosses a slash", "GET", "https://injected.net/b/x/y/c", &[], Some(PolicyDenied)),
        ("'*' stands for one segment", "GET", "https://injected.net/b/x/c", &[], None),
        (
            "another agent's key",
            "GET",
            "https://api.stripe.com/v1/x",
            &["EXAMPLE_KEY@auth"],
            Some(PolicyDenied),
        ),
        (
            "one key allowed, one not",
            "GET",
            "https://api.stripe.com/v1/x",
            &[KEY, "TOKEN@auth"],
            Some(PolicyDenied),
        ),
        ("a key quoted in a query", "GET", "https://api.stripe.com/v1/x", &["STRIPE_KEY@query"], None),
        ("any name quoted in a header", "GET", "https://api.stripe.com/v1/x", &["UNKNOWN@header"], None),
        ("a key in a query that is filled", "GET", "https://a.example.com/", &["EXAMPLE_KEY@query"], None),
        (
            "a wrong key in a query that is filled",
            "GET",
            "https://a.example.com/",
            &["TOKEN@query"],
            Some(PolicyDenied),
        ),
        ("a later rule allows it", "DELETE", "https://api.example.com/", &["ADMIN_KEY@auth"], None),
        (
            "the later rule's key with another method",
            "GET",
            "https://api.example.com/",
            &["ADMIN_KEY@auth"],
            Some(PolicyDenied),
        ),
        ("the wildcard's parent", "GET", "https://example.com/", &[], Some(DomainNotInAllowlist)),
        ("two labels below the wildcard", "GET", "https://a.b.example.com/", &["EXAMPLE_KEY@auth"], None),
        (
            "a name that ends like the wildcard",
            "GET",
            "https://evilexample.com/",
            &[],
            Some(DomainNotInAllowlist),
        ),
        (
            "the wildcard as a prefix",
            "GET",
            "https://a.example.com.evil.net/",
            &[],
            Some(DomainNotInAllowlist),
        ),
        ("a person must approve", "GET", "https://held.net/", &[], Some(PolicyApprovalRequired)),
        ("a connection that is not opened", "GET", "https://pinned.net/", &[], Some(PolicyDenied)),
        ("an address that is named", "GET", "https://10.1.2.3/", &[], None),
        ("an address beside it", "GET", "https://10.1.2.4/", &[], Some(DomainNotInAllowlist)),
    ];
    for (what, method, url, references, expected) in table {
        assert_eq!(error_code(decide(method, url, references)), *expected, "{what}");
    }
}

#[test]
fn grant_has_only_the_spent_secrets() {
    let grant =
        granted(decide("GET", "https://a.example.com/", &["EXAMPLE_KEY@query", "EXAMPLE_KEY@cookie"]));
    let spend = SecretUse {
        name: "EXAMPLE_KEY".parse().unwrap(),
        style: InjectionStyle::Placeholder(injection_point("query")),
    };
    assert_eq!(grant.secret_uses(), [spend]);
    assert_eq!(grant.quoted(), [reference("EXAMPLE_KEY@cookie")]);
    assert_eq!(grant.agent().as_str(), "coder");
    assert_eq!(&**grant.rule(), "coder/2 (policy.yaml:10)");
    assert_eq!(grant.private(), &PrivateAddresses::None);
}

#[test]
fn injected_secret_is_not_injected_twice() {
    let grant = granted(decide("GET", "https://injected.net/a", &[]));
    assert_eq!(grant.secret_uses()[0].style, InjectionStyle::Bearer);
    assert_eq!(grant.max_body(), Some(1024));
    assert_eq!(grant.private(), &PrivateAddresses::Within(["10.2.0.0/16".parse().unwrap()].into()));
    let grant = granted(decide("GET", "https://injected.net/a", &["TOKEN@auth"]));
    assert_eq!(grant.secret_uses().len(), 1);
    assert_eq!(grant.secret_uses()[0].style, InjectionStyle::Placeholder(injection_point("auth")));
    let grant = granted(decide("GET", "https://both.net/", &["KEY@query"]));
    let styles: Vec<_> = grant.secret_uses().iter().map(|spend| &spend.style).collect();
    assert_eq!(
        styles,
        [
            &InjectionStyle::Placeholder(injection_point("query")),
            &InjectionStyle::Header("x-api-key".parse().unwrap())
        ]
    );
}

#[test]
fn rejection_names_host_and_nearest_rule() {
    let Decision::Deny(rejection) = decide("GET", "https://evil.example/", &[]) else { panic!() };
    assert!(rejection.message.starts_with("'evil.example' is not in the allowlist of agent 'coder'"));
    assert_eq!(rejection.rule, None);
    let Decision::Deny(rejection) = decide("PATCH", "https://api.stripe.com/v1/x", &[]) else { panic!() };
    assert_eq!(rejection.rule.as_deref(), Some("coder/1 (policy.yaml:5)"));
    let Decision::Deny(rejection) = decide("DELETE", "https://api.example.com/", &["TOKEN@auth"]) else {
        panic!()
    };
    assert!(rejection.message.contains("'TOKEN'"));
}

#[test]
fn later_rule_does_not_bypass_approval() {
    let text = "version: 1\nagents:\n  - name: a\n    allow:\n      - host: x.net\n        paths: [/pay]\n        \
                approve: true\n        secrets: [K]\n      - host: x.net\n        secrets: [K]\n        places: [auth, query]\n";
    let policy = policy(text);
    for references in [&[][..], &["K@auth"], &["K@query"], &["OTHER@header"]] {
        let decision = decide_as(&policy, &caller(None, "s"), "POST", "https://x.net/pay", references);
        assert_eq!(error_code(decision), Some(ErrorCode::PolicyApprovalRequired), "{references:?}");
    }
}

#[test]
fn file_order_decides_not_host_pattern() {
    let text = "version: 1\nagents:\n  - name: a\n    allow:\n      - host: '*.x.net'\n        approve: true\n      \
                - host: api.x.net\n";
    let decision = decide_as(&policy(text), &caller(None, "s"), "GET", "https://api.x.net/", &[]);
    assert_eq!(error_code(decision), Some(ErrorCode::PolicyApprovalRequired));
}

#[test]
fn rate_is_per_rule_and_survives_reload() {
    let first = policy(POLICY);
    let caller = caller(Some("coder"), "s");
    let slow = |policy: &Policy| error_code(decide_as(policy, &caller, "GET", "https://slow.net/", &[]));
    assert_eq!((slow(&first), slow(&first)), (None, None));
    assert_eq!(slow(&first), Some(ErrorCode::RateLimited));
    let mut second = policy(POLICY);
    second.inherit_rate_limits(&first);
    assert_eq!(slow(&second), Some(ErrorCode::RateLimited));
    assert_eq!(error_code(decide_as(&second, &caller, "GET", "https://open.net/", &[])), None);
}

#[test]
fn match_facts() {
    let facts = |lines: &str| {
        policy(&format!(
            "version: 1\nagents:\n  - name: a\n    match: {{ {lines} }}\n    allow: [ {{ host: x.net }} ]\n"
        ))
    };
    let acts = |policy: &Policy, caller: &Caller| {
        error_code(decide_as(policy, caller, "GET", "https://x.net/", &[]))
    };
    for holds in [
        "exe: /usr/bin/python3.11",
        "exe: '/usr/bin/python3*'",
        "exe: '/usr/**'",
        "uid: 1000",
        "session: true",
        "cgroup: '/agents.slice/**'",
        &format!("sha256: {}", "AB".repeat(32)),
        "uid: 1000, exe: '/usr/bin/{python3.11,x}'",
    ] {
        assert_eq!(acts(&facts(holds), &caller(None, "s")), None, "{holds}");
        assert_eq!(acts(&facts(holds), &caller(Some("a"), "s")), None, "{holds}");
    }
    for fails in [
        "exe: /usr/bin/python3",
        "exe: '/usr/*'",
        "uid: 0",
        "cgroup: '/other/**'",
        "cgroup: '/agents.slice'",
        &format!("sha256: {}", "cd".repeat(32)),
        "uid: 1000, exe: /bin/sh",
        "token: true",
        "uid: 1000, token: true",
        "trusted: true",
        "pod: { namespace: prod }",
    ] {
        assert_eq!(acts(&facts(fails), &caller(None, "s")), Some(ErrorCode::CapabilityDenied), "{fails}");
        assert_eq!(
            acts(&facts(fails), &caller(Some("a"), "s")),
            Some(ErrorCode::CapabilityDenied),
            "{fails}"
        );
    }
    let mut trusted = caller(None, "s");
    trusted.attributes.trusted = true;
    assert_eq!(acts(&facts("trusted: true"), &trusted), None);
    let none = caller(None, "");
    assert_eq!(acts(&facts("session: true"), &none), Some(ErrorCode::CapabilityDenied));
    assert_eq!(acts(&facts("uid: 1000"), &none), None);
    let unnamed = policy("version: 1\nagents:\n  - name: a\n    allow: [ { host: x.net } ]\n");
    assert_eq!(acts(&unnamed, &none), Some(ErrorCode::CapabilityDenied));
    assert_eq!(acts(&unnamed, &caller(Some("b"), "s")), Some(ErrorCode::CapabilityDenied));
    let mut hidden = caller(None, "s");
    Arc::make_mut(&mut hidden.process).cgroup = "/agents.slice/../other".to_owned();
    assert_eq!(acts(&facts("cgroup: '/agents.slice/**'"), &hidden), Some(ErrorCode::CapabilityDenied));
    let mut unseen = caller(None, "s");
    let process = Arc::make_mut(&mut unseen.process);
    (process.exe, process.sha256) = (std::path::PathBuf::new(), String::new());
    let id = "0123456789ab".repeat(6)[..64].to_owned();
    process.cgroup = format!("/system.slice/docker-{id}.scope");
    for unproven in ["exe: '/**'", "exe: '/'", &format!("sha256: {}", "cd".repeat(32))] {
        assert_eq!(acts(&facts(unproven), &unseen), Some(ErrorCode::CapabilityDenied), "{unproven}");
    }
    assert_eq!(acts(&facts(&format!("container: '{id}', uid: 1000")), &unseen), None);
    assert_eq!(acts(&facts(&format!("container: '{}'", &id[..12])), &unseen), None);
    assert_eq!(acts(&facts("container: '0123456789ac'"), &unseen), Some(ErrorCode::CapabilityDenied));
    assert_eq!(
        acts(&facts("container: '0123456789ab'"), &caller(None, "s")),
        Some(ErrorCode::CapabilityDenied)
    );
}

#[test]
fn first_matching_entry_is_the_callers() {
    let text = "version: 1\nagents:\n  - name: root\n    match: { uid: 0 }\n    allow: [ { host: r.net } ]\n  \
                - name: any\n    allow: [ { host: a.net } ]\n";
    let policy = policy(text);
    assert_eq!(policy.agent_for(&caller(None, "s")).unwrap().name().as_str(), "any");
    assert_eq!(policy.agent_for(&caller(Some("root"), "s")).unwrap_err().code, ErrorCode::CapabilityDenied);
}

#[test]
fn no_rules_deny_with_reason() {
    let bare = caller(Some("bare"), "s");
    assert_eq!(
        error_code(decide_as(&policy(POLICY), &bare, "GET", "https://open.net/", &[])),
        Some(ErrorCode::EmptyAllowlist)
    );
    let nothing = Policy::load(Path::new("/nonexistent/policy.yaml")).unwrap();
    let Decision::Deny(rejection) = decide_as(&nothing, &bare, "GET", "https://open.net/", &[]) else {
        panic!()
    };
    assert_eq!(rejection.code, ErrorCode::EmptyAllowlist);
}

#[test]
fn only_named_hosts_are_resolved() {
    let policy = policy(POLICY);
    let coder = "coder".parse().unwrap();
    let names = |host: &str| policy.names_host(Some(&coder), &host.parse().unwrap());
    assert!(names("API.stripe.com.") && names("a.b.example.com") && names("10.1.2.3"));
    assert!(!names("example.com") && !names("evil.net") && !names("10.1.2.4"));
    assert!(!policy.names_host(Some(&"bare".parse().unwrap()), &"open.net".parse().unwrap()));
    assert!(!policy.names_host(Some(&"nobody".parse().unwrap()), &"open.net".parse().unwrap()));
    assert!(policy.names_host(None, &"open.net".parse().unwrap()));
}

fn references() -> impl Strategy<Value = Vec<SecretReference>> {
    let place = prop_oneof![Just("auth"), Just("header"), Just("cookie"), Just("query"), Just("path")];
    let name =
        prop_oneof![Just("STRIPE_KEY"), Just("EXAMPLE_KEY"), Just("ADMIN_KEY"), Just("TOKEN"), Just("OTHER")];
    let one = (name, place).prop_map(|(name, place)| {
        SecretReference::placeholder(name.parse().unwrap(), injection_point(place))
    });
    prop::collection::vec(one, 0..3)
}

/// Hosts similar to those of the policy, and others.
fn hosts() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        Just("api"),
        Just("stripe"),
        Just("example"),
        Just("evilexample"),
        Just("com"),
        Just("net"),
        Just("open"),
        Just("x")
    ];
    prop::collection::vec(label, 1..5).prop_map(|labels| labels.join("."))
}

fn paths() -> impl Strategy<Value = String> {
    "/(v1|a|b|%2[eEfF5]|%5c|\\.|\\.\\.|;|//|/|%00|x){0,6}"
}

/// Host matching without the index.
fn is_named(host: &str) -> bool {
    let exact = [
        "api.stripe.com",
        "api.example.com",
        "injected.net",
        "open.net",
        "held.net",
        "pinned.net",
        "slow.net",
        "10.1.2.3",
        "both.net",
    ];
    let labels: Vec<&str> = host.split('.').collect();
    exact.contains(&host) || (labels.len() > 2 && labels.ends_with(&["example", "com"]))
}

fn summary(decision: &Decision) -> String {
    match decision {
        Decision::Allow(grant) => {
            format!("{:?} {:?} {:?}", grant.secret_uses(), grant.quoted(), grant.private())
        }
        Decision::NeedsApproval(pending) => format!("{:?}", pending.secret_uses()),
        Decision::Deny(rejection) => format!("{:?} {}", rejection.code, rejection.message),
    }
}

proptest! {
    #[test]
    fn host_without_rule_is_denied(host in hosts(), path in paths(), https: bool, port: u16, named in references()) {
        let policy = policy(POLICY);
        let scheme = if https { Scheme::Https } else { Scheme::Http };
        let target = Target { scheme, host: host.parse().unwrap(), port };
        let ask = AccessRequest { target: &target, method: &Method::GET, path: &path, websocket: false, references: &named };
        let decision = evaluate(&policy, &NoCapabilityCheck, &caller(Some("coder"), "s"), &ask);
        prop_assert_eq!(policy.names_host(None, &target.host), is_named(&host));
        if !is_named(&host) {
            prop_assert_eq!(error_code(decision), Some(ErrorCode::DomainNotInAllowlist));
        } else if let Decision::Allow(grant) = decision {
            prop_assert!(https || grant.secret_uses().is_empty());
            let ambiguous = ["//", "%2", "%5", ";", "%00"].iter().any(|bad| path.contains(bad))
                || path.split('/').any(|segment| segment == "." || segment == "..");
            prop_assert!(!ambiguous, "{}", path);
            for spend in grant.secret_uses() {
                prop_assert!(policy.agents()[0].secrets().any(|name| *name == spend.name));
            }
        }
    }

    #[test]
    fn wildcard_covers_whole_labels_only(prefix in "[a-z0-9.-]{0,12}", suffix in "[a-z.]{0,12}") {
        let Ok(host) = format!("{prefix}example.com{suffix}").parse::<Host>() else { return Ok(()) };
        let covered = policy(POLICY).names_host(None, &host);
        let text = host.to_string();
        prop_assert_eq!(covered, is_named(&text), "{}", text);
    }

    #[test]
    fn rule_for_another_host_changes_no_decision(
        host in hosts(), other in hosts(), path in paths(), named in references(), first: bool,
    ) {
        prop_assume!(host != other);
        let (target, path) = (Target { scheme: Scheme::Https, host: host.parse().unwrap(), port: 443 }, path);
        let ask = AccessRequest { target: &target, method: &Method::GET, path: &path, websocket: false, references: &named };
        let added = format!("      - host: {other}\n        secrets: [OTHER]\n        private: true\n");
        let text = if first {
            POLICY.replacen("    allow:\n", &format!("    allow:\n{added}"), 1)
        } else {
            POLICY.replacen("  - name: bare\n", &format!("{added}  - name: bare\n"), 1)
        };
        let before = evaluate(&policy(POLICY), &NoCapabilityCheck, &caller(Some("coder"), "s"), &ask);
        let after = evaluate(&policy(&text), &NoCapabilityCheck, &caller(Some("coder"), "s"), &ask);
        prop_assert_eq!(summary(&before), summary(&after));
    }
}
