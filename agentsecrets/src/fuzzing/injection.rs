//! Fuzz targets for secret handling: placeholders in a request up to the request that leaves, and the
//! policy file.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;

use super::input::{Input, block_on, contains};
use crate::credentials::Credentials;
use crate::identity::Caller;
use crate::inject::placeholder::Placeholders;
use crate::inject::{BodyBudget, Outbound, References, RequestBody, apply};
use crate::policy::Policy;
use crate::policy::access_request::AccessRequest;
use crate::policy::capability_check::NoCapabilityCheck;
use crate::policy::evaluate;
use crate::policy::evaluate::Decision;
use crate::policy::evaluate::Evaluation;
use crate::policy::explain::explain;
use crate::policy::grant::Grant;
use crate::policy::injection::InjectionStyle;
use crate::policy::location::LocationKind;
use crate::redact::patterns::Patterns;
use crate::types::body::{self, Body};
use crate::types::secret::Secret;
use crate::types::target::{Scheme, Target};

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - { host: api.test, paths: [/all/**], secrets: [A, B], places: [auth, header, cookie, query, path, json, form] }
      - { host: api.test, paths: [/some/**], secrets: [A, B], places: ['json:a.b', 'form:f', 'query:q', 'cookie:c'] }
      - { host: api.test, paths: [/json/**], secrets: [B], inject: { json: { a.b: A } }, places: [json] }
      - { host: api.test, paths: [/form/**], secrets: [B], inject: { form: { f: A } }, places: [form] }
      - { host: api.test, paths: [/bearer/**], secrets: [A, B], inject: { bearer: A } }
      - { host: api.test, paths: [/none/**] }
      - { host: api.test, secrets: [A], places: [query] }
";
const CUSTOM: &str = "sk-proj-0000";
const VALUES: [(&str, &[u8]); 2] = [("A", b"value-of-the-first"), ("B", b"user:va/l+u e&of=the%second")];

/// Reads a request: a method number, the path and query, one header per line, an empty line, and the
/// body.
pub(super) fn placeholder(bytes: &[u8]) {
    static PLACEHOLDERS: LazyLock<Placeholders> = LazyLock::new(|| {
        Placeholders::new([("A".parse().unwrap(), None), ("B".parse().unwrap(), Some(CUSTOM.into()))])
    });
    static RULES: LazyLock<Policy> = LazyLock::new(|| Policy::parse(POLICY, Path::new("p.yaml")).unwrap());
    let mut last = 0;
    for matched in PLACEHOLDERS.find_iter(bytes) {
        let said = bytes.get(matched.range.clone()).expect("a matched lies within");
        assert!(matched.range.start >= last && !matched.range.is_empty());
        last = matched.range.end;
        let name = matched.name.as_str();
        let forms = [format!("AS_SECRET_{name}"), format!("{{{{{name}}}}}"), CUSTOM.to_owned()];
        assert!(forms.iter().any(|form| form.as_bytes() == said), "{name}");
    }
    // A request that already contains a value proves nothing.
    if VALUES.iter().any(|(_, value)| contains(bytes, value)) {
        return;
    }
    let Some((request, sent)) = request(bytes) else { return };
    let (parts, body) = request.into_parts();
    let Ok(mut references) = References::from_head(&parts, &PLACEHOLDERS) else { return };
    let target = Target { scheme: Scheme::Https, host: "api.test".parse().unwrap(), port: 443 };
    let (method, path) = (&parts.method, parts.uri.path());
    let ask = AccessRequest { target: &target, method, path, references: &[], websocket: false };
    let Ok(agent) = RULES.agent_for(&Caller::for_test()) else { return };
    let in_head = references.as_slice().to_vec();
    let evaluation = Evaluation::from_head(&RULES, agent, &ask, &in_head);
    let reading = evaluation.body_requirements();
    let budget = BodyBudget::default();
    let Ok(body) = block_on(RequestBody::read(&parts, body, reading.as_ref(), &budget)) else { return };
    if body.collect_references(&PLACEHOLDERS, &mut references).is_err() {
        return;
    }
    let decision = evaluation.decide(references.as_slice(), std::time::Instant::now(), |_| None);
    let Decision::Allow(grant) = decision else { return };
    let values =
        VALUES.iter().map(|(name, value)| (name.parse().unwrap(), Arc::new(Secret::new(value.to_vec()))));
    let patterns = Patterns::build(&[]);
    let applied = apply(
        Request::from_parts(parts, body),
        target,
        &grant,
        &Credentials::new(values.collect()),
        &PLACEHOLDERS,
        "session".into(),
        patterns,
    );
    if let Ok((outbound, _)) = applied {
        assert_only_granted_locations(&grant, outbound, &sent);
    }
}

fn request(bytes: &[u8]) -> Option<(Request<Body>, Vec<u8>)> {
    let mut input = Input(bytes);
    let methods = [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS];
    let method = methods.get(usize::from(input.byte()) % methods.len())?.clone();
    let split = input.0.windows(2).position(|two| two == b"\n\n");
    let (head, body) = split.map_or((input.0, &[][..]), |at| (&input.0[..at], &input.0[at + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut request = Request::new(body::full(body.to_vec()));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(lines.next()?).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?);
    }
    Some((request, body.to_vec()))
}

/// Checks that a value occurs only in locations that the grant allows.
fn assert_only_granted_locations(grant: &Grant, outbound: Outbound, sent: &[u8]) {
    let (parts, body) = outbound.into_request().into_parts();
    let left = block_on(body.collect()).unwrap().to_bytes();
    let request = Request::from_parts(parts, ());
    assert_body(grant, sent, &left);
    let spent = |name: &str, style: &dyn Fn(&InjectionStyle) -> bool| {
        grant
            .secret_uses()
            .iter()
            .any(|secret_use| secret_use.name.as_str() == name && style(&secret_use.style))
    };
    assert_eq!(request.headers().get_all("host").iter().collect::<Vec<_>>(), ["api.test"]);
    assert_eq!(request.uri().authority().map(|authority| authority.as_str()), Some("api.test"));
    for (name, value) in VALUES {
        for (header, text) in request.headers() {
            assert!(!header.as_str().starts_with("x-as-"), "{header}");
            let pair =
                text.as_bytes().get(6..).and_then(|pair| STANDARD.decode(pair).ok()).unwrap_or_default();
            if contains(text.as_bytes(), value) || contains(&pair, value) {
                let fits = |style: &InjectionStyle| match style {
                    InjectionStyle::ClientCertificate => false,
                    style => style.injection_point().is_some_and(|point| match point.kind {
                        LocationKind::Auth | LocationKind::Header => *point.name == *header.as_str(),
                        LocationKind::Cookie => header == "cookie",
                        _ => false,
                    }),
                };
                assert!(spent(name, &fits), "{name} in {header}");
            }
        }
        let in_place = |kind| {
            move |style: &InjectionStyle| style.injection_point().is_some_and(|point| point.kind == kind)
        };
        if contains(&decoded(request.uri().path()), value) {
            assert!(spent(name, &in_place(LocationKind::Path)), "{name} in the path");
        }
        if contains(&decoded(request.uri().query().unwrap_or_default()), value) {
            assert!(spent(name, &in_place(LocationKind::Query)), "{name} in the query");
        }
    }
}

/// Checks that the body is unchanged except for granted injections.
fn assert_body(grant: &Grant, sent: &[u8], left: &[u8]) {
    if !grant.secret_uses().iter().any(|secret_use| secret_use.style.is_in_body()) {
        assert_eq!(sent, left);
    }
    let spent = |name: &str| {
        grant
            .secret_uses()
            .iter()
            .any(|secret_use| secret_use.name.as_str() == name && secret_use.style.is_in_body())
    };
    for (name, value) in VALUES {
        if contains(left, value) || contains(&decoded(&String::from_utf8_lossy(left)), value) {
            assert!(spent(name), "{name} in the body");
        }
    }
    if let Ok(before) = serde_json::from_slice::<serde_json::Value>(sent)
        && !grant
            .secret_uses()
            .iter()
            .any(|secret_use| matches!(secret_use.style, InjectionStyle::Json(_) | InjectionStyle::Form(_)))
    {
        assert_same_structure(&before, &serde_json::from_slice(left).expect("JSON stays JSON"));
    }
}

fn assert_same_structure(before: &serde_json::Value, after: &serde_json::Value) {
    use serde_json::Value::{Array, Object, String};
    match (before, after) {
        (String(_), String(_)) => {}
        (Array(before), Array(after)) => {
            assert_eq!(before.len(), after.len());
            before.iter().zip(after).for_each(|(before, after)| assert_same_structure(before, after));
        }
        (Object(before), Object(after)) => {
            assert!(before.keys().eq(after.keys()));
            before
                .values()
                .zip(after.values())
                .for_each(|(before, after)| assert_same_structure(before, after));
        }
        (before, after) => assert_eq!(before, after),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

/// Reads a policy file, a zero byte, and a path to evaluate.
pub(super) fn policy(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let policy = match Policy::parse(text, Path::new("policy.yaml")) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.problems().is_empty());
            let text = error.to_string();
            return assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    };
    let path = parts.next().and_then(|path| std::str::from_utf8(path).ok()).unwrap_or("/v1/a");
    let caller = Caller::for_test();
    for name in ["api.test", "a.b.example.com", "192.0.2.1"] {
        let target = Target { scheme: Scheme::Https, host: name.parse().unwrap(), port: 443 };
        let ask =
            AccessRequest { target: &target, method: &Method::GET, path, references: &[], websocket: false };
        for agent in policy.agents() {
            explain(&policy, agent, &ask);
        }
        let Decision::Allow(grant) = evaluate(&policy, &NoCapabilityCheck, &caller, &ask) else { continue };
        let agent = policy.agent(grant.agent()).expect("a grant is some agent's");
        assert!(policy.names_host(Some(agent.name()), &target.host) && policy.names_host(None, &target.host));
        assert!(
            grant.secret_uses().iter().all(|secret_use| agent.secrets().any(|name| *name == secret_use.name))
        );
        assert_unambiguous_path(path);
    }
}

/// Checks that the most lenient server would read an allowed path the way policy did.
fn assert_unambiguous_path(path: &str) {
    let lower = path.to_ascii_lowercase();
    for trick in ["%2f", "%5c", "%2e", "%25", "%00", "%3b", "\\", ";", "//", "/../", "/./", "\n"] {
        assert!(!lower.contains(trick), "{path:?}");
    }
}
