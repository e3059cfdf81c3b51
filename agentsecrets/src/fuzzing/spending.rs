//! What decides over secrets: placeholders in a request, all the way to the request that leaves, and
//! the policy's own text.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::{Input, contains};
use crate::base::secret::Secret;
use crate::exchange::body::{self, Body};
use crate::exchange::target::{Scheme, Target};
use crate::identity::{Caller, Process};
use crate::inject::placeholder::Vocabulary;
use crate::inject::{Outbound, apply, references};
use crate::policy::ask::{Ask, Place};
use crate::policy::explain::explain;
use crate::policy::grant::{Decision, Grant, Style};
use crate::policy::{Policy, decide};
use crate::redact::patterns::Patterns;
use crate::resolve::Credentials;

const POLICY: &str = "\
version: 1
agents:
  - name: coder
    allow:
      - { host: api.test, paths: [/all/**], secrets: [A, B], places: [auth, header, cookie, query] }
      - { host: api.test, paths: [/bearer/**], secrets: [A, B], inject: { bearer: A } }
      - { host: api.test, paths: [/none/**] }
      - { host: api.test, secrets: [A], places: [query] }
";
const CUSTOM: &str = "sk-proj-0000";
const VALUES: [(&str, &[u8]); 2] = [("A", b"value-of-the-first"), ("B", b"user:va/l+u e&of=the%second")];

/// A request: its method by a number, then its path and query, then a header a line.
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
    let Some(request) = request(bytes) else { return };
    let (parts, body) = request.into_parts();
    let references = references(&parts, &VOCABULARY);
    let target = Target { scheme: Scheme::Https, host: "api.test".parse().unwrap(), port: 443 };
    let ask = Ask {
        target: &target,
        method: &parts.method,
        path: parts.uri.path(),
        references: &references,
        websocket: false,
    };
    let Decision::Allow(grant) = decide(&RULES, &caller(), &ask) else { return };
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
        nothing_elsewhere(&grant, outbound);
    }
}

fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let mut input = Input(bytes);
    let methods = [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS];
    let method = methods.get(usize::from(input.byte()) % methods.len())?.clone();
    let mut lines = input.0.split(|byte| *byte == b'\n');
    let mut request = Request::new(body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(lines.next()?).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(line.get(colon + 1..)?).ok()?);
    }
    Some(request)
}

/// A value stands only where the grant says that it is spent.
fn nothing_elsewhere(grant: &Grant, outbound: Outbound) {
    let request = outbound.into_request();
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
                    Style::Placeholder(Place::Cookie) => header == "cookie",
                    Style::Placeholder(Place::Header | Place::Auth) => header != "cookie",
                    Style::Bearer | Style::Basic => header == "authorization",
                    _ => false,
                };
                assert!(spent(name, &fits), "{name} in {header}");
            }
        }
        assert!(!contains(&decoded(request.uri().path()), value));
        if contains(&decoded(request.uri().query().unwrap_or_default()), value) {
            assert!(spent(name, &|style| *style == Style::Placeholder(Place::Query)), "{name} in the query");
        }
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
    let caller = caller();
    for name in ["api.test", "a.b.example.com", "192.0.2.1"] {
        let target = Target { scheme: Scheme::Https, host: name.parse().unwrap(), port: 443 };
        let ask = Ask { target: &target, method: &Method::GET, path, references: &[], websocket: false };
        for agent in policy.agents() {
            explain(&policy, agent, &ask);
        }
        let Decision::Allow(grant) = decide(&policy, &caller, &ask) else { continue };
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

fn caller() -> Caller {
    let process = Process {
        pid: 4711,
        start_time: 1,
        exe: "/usr/bin/python3".into(),
        sha256: "0".repeat(64),
        uid: 1000,
        cgroup: "/agentsecrets/1".into(),
    };
    Caller { process: Arc::new(process), agent: None, session: "session".into() }
}
