//! What decides over secrets: placeholders in a request, all the way to the request that leaves, and
//! the policy's own text.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;

use super::{Input, block_on, contains};
use crate::credentials::Credentials;
use crate::identity::Caller;
use crate::inject::placeholder::Vocabulary;
use crate::inject::{Outbound, Payload, References, Room, apply};
use crate::policy::Policy;
use crate::policy::access_request::{Ask, Place};
use crate::policy::bounds::Unbounded;
use crate::policy::evaluate;
use crate::policy::evaluate::reading;
use crate::policy::explain::explain;
use crate::policy::grant::{Decision, Grant, Style};
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

/// A request: its method by a number, then its path and query, then a header a line, and what follows an
/// empty line is its body.
pub(super) fn placeholder(bytes: &[u8]) {
    static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
        Vocabulary::new([("A".parse().unwrap(), None), ("B".parse().unwrap(), Some(CUSTOM.into()))])
    });
    static RULES: LazyLock<Policy> = LazyLock::new(|| Policy::parse(POLICY, Path::new("p.yaml")).unwrap());
    let mut last = 0;
    for mention in VOCABULARY.mentions(bytes) {
        let said = bytes.get(mention.range.clone()).expect("a mention lies within");
        assert!(mention.range.start >= last && !mention.range.is_empty());
        last = mention.range.end;
        let name = mention.name.as_str();
        let forms = [format!("AS_SECRET_{name}"), format!("{{{{{name}}}}}"), CUSTOM.to_owned()];
        assert!(forms.iter().any(|form| form.as_bytes() == said), "{name}");
    }
    // A client that holds a value already proves nothing.
    if VALUES.iter().any(|(_, value)| contains(bytes, value)) {
        return;
    }
    let Some((request, sent)) = request(bytes) else { return };
    let (parts, body) = request.into_parts();
    let Ok(mut references) = References::of_head(&parts, &VOCABULARY) else { return };
    let target = Target { scheme: Scheme::Https, host: "api.test".parse().unwrap(), port: 443 };
    let (method, path) = (&parts.method, parts.uri.path());
    let ask = Ask { target: &target, method, path, references: &[], websocket: false };
    let reading = reading(&RULES, &Caller::for_test(), &Ask { references: references.all(), ..ask });
    let room = Room::default();
    let Ok(body) = block_on(Payload::read(&parts, body, reading.as_ref(), &room)) else { return };
    if references.and_of_body(&body, &VOCABULARY).is_err() {
        return;
    }
    let ask = Ask { references: references.all(), ..ask };
    let Decision::Allow(grant) = evaluate(&RULES, &Unbounded, &Caller::for_test(), &ask) else { return };
    let values =
        VALUES.iter().map(|(name, value)| (name.parse().unwrap(), Arc::new(Secret::new(value.to_vec()))));
    let patterns = Patterns::build(&[]);
    let applied = apply(
        Request::from_parts(parts, body),
        target,
        &grant,
        &Credentials::new(values.collect()),
        &VOCABULARY,
        "session".into(),
        patterns,
    );
    if let Ok((outbound, _)) = applied {
        nothing_elsewhere(&grant, outbound, &sent);
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

/// A value stands only where the grant says that it is spent.
fn nothing_elsewhere(grant: &Grant, outbound: Outbound, sent: &[u8]) {
    let (parts, body) = outbound.into_request().into_parts();
    let left = block_on(body.collect()).unwrap().to_bytes();
    let request = Request::from_parts(parts, ());
    in_the_body(grant, sent, &left);
    let spent = |name: &str, style: &dyn Fn(&Style) -> bool| {
        grant.spends().iter().any(|spend| spend.name.as_str() == name && style(&spend.style))
    };
    assert_eq!(request.headers().get_all("host").iter().collect::<Vec<_>>(), ["api.test"]);
    assert_eq!(request.uri().authority().map(|authority| authority.as_str()), Some("api.test"));
    for (name, value) in VALUES {
        for (header, text) in request.headers() {
            assert!(!header.as_str().starts_with("x-as-"), "{header}");
            let pair =
                text.as_bytes().get(6..).and_then(|pair| STANDARD.decode(pair).ok()).unwrap_or_default();
            if contains(text.as_bytes(), value) || contains(&pair, value) {
                let fits = |style: &Style| match style {
                    Style::ClientCertificate => false,
                    style => style.spot().is_some_and(|spot| match spot.place {
                        Place::Auth | Place::Header => *spot.name == *header.as_str(),
                        Place::Cookie => header == "cookie",
                        _ => false,
                    }),
                };
                assert!(spent(name, &fits), "{name} in {header}");
            }
        }
        let in_place = |place| move |style: &Style| style.spot().is_some_and(|spot| spot.place == place);
        if contains(&decoded(request.uri().path()), value) {
            assert!(spent(name, &in_place(Place::Path)), "{name} in the path");
        }
        if contains(&decoded(request.uri().query().unwrap_or_default()), value) {
            assert!(spent(name, &in_place(Place::Query)), "{name} in the query");
        }
    }
}

/// The body that leaves is the one that was sent, but for what the grant puts in.
fn in_the_body(grant: &Grant, sent: &[u8], left: &[u8]) {
    if !grant.spends().iter().any(|spend| spend.style.is_in_body()) {
        assert_eq!(sent, left);
    }
    let spent = |name: &str| {
        grant.spends().iter().any(|spend| spend.name.as_str() == name && spend.style.is_in_body())
    };
    for (name, value) in VALUES {
        if contains(left, value) || contains(&decoded(&String::from_utf8_lossy(left)), value) {
            assert!(spent(name), "{name} in the body");
        }
    }
    if let Ok(before) = serde_json::from_slice::<serde_json::Value>(sent)
        && !grant.spends().iter().any(|spend| matches!(spend.style, Style::Json(_) | Style::Form(_)))
    {
        same_but_for_strings(&before, &serde_json::from_slice(left).expect("JSON stays JSON"));
    }
}

fn same_but_for_strings(before: &serde_json::Value, after: &serde_json::Value) {
    use serde_json::Value::{Array, Object, String};
    match (before, after) {
        (String(_), String(_)) => {}
        (Array(before), Array(after)) => {
            assert_eq!(before.len(), after.len());
            before.iter().zip(after).for_each(|(before, after)| same_but_for_strings(before, after));
        }
        (Object(before), Object(after)) => {
            assert!(before.keys().eq(after.keys()));
            before
                .values()
                .zip(after.values())
                .for_each(|(before, after)| same_but_for_strings(before, after));
        }
        (before, after) => assert_eq!(before, after),
    }
}

fn decoded(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).collect()
}

/// A policy file, a zero byte, and a path to be judged by it.
pub(super) fn policy(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Ok(text) = std::str::from_utf8(parts.next().unwrap_or_default()) else { return };
    let policy = match Policy::parse(text, Path::new("policy.yaml")) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.problems().is_empty());
            let told = error.to_string();
            return assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
        }
    };
    let path = parts.next().and_then(|path| std::str::from_utf8(path).ok()).unwrap_or("/v1/a");
    let caller = Caller::for_test();
    for name in ["api.test", "a.b.example.com", "192.0.2.1"] {
        let target = Target { scheme: Scheme::Https, host: name.parse().unwrap(), port: 443 };
        let ask = Ask { target: &target, method: &Method::GET, path, references: &[], websocket: false };
        for agent in policy.agents() {
            explain(&policy, agent, &ask);
        }
        let Decision::Allow(grant) = evaluate(&policy, &Unbounded, &caller, &ask) else { continue };
        let agent = policy.agent(grant.agent()).expect("a grant is some agent's");
        assert!(policy.names(Some(agent.name()), &target.host) && policy.names(None, &target.host));
        assert!(grant.spends().iter().all(|spend| agent.secrets().any(|name| *name == spend.name)));
        one_reading(path);
    }
}

/// A path that was allowed, as the most lenient server would read it, is the one that was judged.
fn one_reading(path: &str) {
    let lower = path.to_ascii_lowercase();
    for trick in ["%2f", "%5c", "%2e", "%25", "%00", "%3b", "\\", ";", "//", "/../", "/./", "\n"] {
        assert!(!lower.contains(trick), "{path:?}");
    }
}
