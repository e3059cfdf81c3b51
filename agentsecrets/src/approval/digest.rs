//! The digest of a request that a person approves. It covers everything that can change the effect of the
//! request. Each part is prefixed by its length, so that no two requests have the same encoding.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, Method};

use crate::policy::injection::SecretUse;
use crate::types::name::AgentName;
use crate::types::target::{Scheme, Target};

/// Headers that differ at each retry and do not change the effect of a request. An AWS signature, which
/// covers the time, is replaced by the rule that signs.
const VOLATILE_HEADERS: &[&str] = &[
    "accept-encoding",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "baggage",
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-key",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "x-amz-date",
    "x-amzn-trace-id",
    "x-correlation-id",
    "x-request-id",
    "x-stainless-retry-count",
];

/// SHA-256 of a request as it would be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// The parts of a request that its approval covers.
#[derive(Debug, Clone, Copy)]
pub struct BoundRequest<'a> {
    /// The agent entry.
    pub agent: &'a AgentName,
    /// The session.
    pub session: &'a str,
    /// The target.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// The path as received, still encoded.
    pub path: &'a str,
    /// The query as received.
    pub query: Option<&'a str>,
    /// Whether it opens a WebSocket.
    pub websocket: bool,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
    /// The trailers.
    pub trailers: Option<&'a HeaderMap>,
    /// The secrets to spend, with their styles.
    pub secret_uses: &'a [SecretUse],
}

impl BoundRequest<'_> {
    /// The digest of the request.
    pub fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        self.write(|bytes| context.update(bytes));
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Digest(digest)
    }

    /// The covered headers, in order of name.
    pub(super) fn covered_headers(&self) -> Vec<(&str, &[u8])> {
        covered_headers(self.headers)
    }

    fn write(&self, mut out: impl FnMut(&[u8])) {
        let mut part = |bytes: &[u8]| {
            out(&(bytes.len() as u64).to_le_bytes());
            out(bytes);
        };
        part(b"agentsecrets approval 1");
        part(self.agent.as_str().as_bytes());
        part(self.session.as_bytes());
        part(match self.target.scheme {
            Scheme::Http => b"http",
            Scheme::Https => b"https",
        });
        part(self.target.host.to_string().as_bytes());
        part(&self.target.port.to_le_bytes());
        part(self.method.as_str().as_bytes());
        part(self.path.as_bytes());
        part(&[u8::from(self.query.is_some()), u8::from(self.websocket), u8::from(self.trailers.is_some())]);
        part(self.query.unwrap_or_default().as_bytes());
        for headers in [Some(self.headers), self.trailers] {
            let headers = headers.map(covered_headers).unwrap_or_default();
            part(&(headers.len() as u64).to_le_bytes());
            for (name, value) in headers {
                part(name.as_bytes());
                part(value);
            }
        }
        part(self.body);
        part(&(self.secret_uses.len() as u64).to_le_bytes());
        for SecretUse { name, style } in self.secret_uses {
            part(name.as_str().as_bytes());
            part(format!("{style:?}").as_bytes());
        }
    }
}

fn covered_headers(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let is_covered = |name: &str, value: &[u8]| {
        let is_signature = name == "authorization" && value.starts_with(b"AWS4-");
        !(VOLATILE_HEADERS.contains(&name) || name.starts_with("x-as-") || is_signature)
    };
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut covered: Vec<_> = all.filter(|(name, value)| is_covered(name, value)).collect();
    // A stable sort, so that values of one name keep their order.
    covered.sort_by_key(|(name, _)| *name);
    covered
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::policy::injection::InjectionStyle;

    /// An owned request.
    #[derive(Debug, Clone, PartialEq)]
    struct Whole {
        agent: String,
        session: String,
        host: String,
        port: u16,
        method: String,
        path: String,
        query: Option<String>,
        websocket: bool,
        headers: Vec<(String, Vec<u8>)>,
        body: Vec<u8>,
        trailers: Option<Vec<(String, Vec<u8>)>>,
        spends: Vec<String>,
    }

    impl Whole {
        fn written(&self) -> (Vec<u8>, Digest) {
            let map = |list: &[(String, Vec<u8>)]| -> HeaderMap {
                let pair = |(name, value): &(String, Vec<u8>)| {
                    let name: HeaderName = name.parse().unwrap();
                    (name, HeaderValue::from_bytes(value).unwrap())
                };
                let mut map = HeaderMap::new();
                list.iter().map(pair).for_each(|(name, value)| {
                    map.append(name, value);
                });
                map
            };
            let target = Target { scheme: Scheme::Https, host: self.host.parse().unwrap(), port: self.port };
            let spends: Vec<SecretUse> = self.spends.iter().map(|name| spend(name)).collect();
            let (headers, trailers) = (map(&self.headers), self.trailers.as_deref().map(map));
            let bound = BoundRequest {
                agent: &self.agent.parse().unwrap(),
                session: &self.session,
                target: &target,
                method: &self.method.parse().unwrap(),
                path: &self.path,
                query: self.query.as_deref(),
                websocket: self.websocket,
                headers: &headers,
                body: &self.body,
                trailers: trailers.as_ref(),
                secret_uses: &spends,
            };
            let mut bytes = Vec::new();
            bound.write(|part| bytes.extend_from_slice(part));
            (bytes, bound.digest())
        }
    }

    fn spend(name: &str) -> SecretUse {
        SecretUse { name: name.parse().unwrap(), style: InjectionStyle::Query(name.into()) }
    }

    fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        // In order of name, as in the encoding.
        proptest::collection::vec(("x-[a-c]{0,2}", proptest::collection::vec(32u8..127, 0..4)), 0..4)
            .prop_map(|mut list| {
                list.sort_by(|one, other| one.0.cmp(&other.0));
                list
            })
    }

    prop_compose! {
        // Short texts of few letters, so that parts of different requests are often equal.
        fn whole()(
            agent in "[ab]{1,3}", session in "[ab]{0,3}", host in "[ab]{1,3}\\.net", port in 1u16..4,
            method in "[AB]{1,2}", path in "/[ab?]{0,3}", query in proptest::option::of("[ab=&]{0,3}"),
            websocket: bool, headers in fields(), body in proptest::collection::vec(any::<u8>(), 0..12),
            trailers in proptest::option::of(fields()), spends in proptest::collection::vec("[AB]{1,2}", 0..3),
        ) -> Whole {
            Whole { agent, session, host, port, method, path, query, websocket, headers, body, trailers, spends }
        }
    }

    /// The parts that `bytes` encode.
    fn parts(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_at(8);
            let (part, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            parts.push(part.to_vec());
            bytes = rest;
        }
        parts
    }

    /// Decodes a request.
    fn read(parts: Vec<Vec<u8>>) -> Whole {
        let mut parts = parts.into_iter().skip(1);
        let mut next = move || parts.next().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let number = |bytes: Vec<u8>| u64::from_le_bytes(bytes.try_into().unwrap());
        let (agent, session) = (text(next()), text(next()));
        assert_eq!(next(), b"https");
        let (host, port) = (text(next()), u16::from_le_bytes(next().try_into().unwrap()));
        let (method, path, there) = (text(next()), text(next()), next());
        let query = Some(text(next())).filter(|_| there[0] == 1);
        let mut list = || (0..number(next())).map(|_| (text(next()), next())).collect::<Vec<_>>();
        let (headers, trailers) = (list(), list());
        let (trailers, websocket) = (Some(trailers).filter(|_| there[2] == 1), there[1] == 1);
        let body = next();
        let spends = (0..number(next())).map(|_| (text(next()), next()).0).collect();
        Whole { agent, session, host, port, method, path, query, websocket, headers, body, trailers, spends }
    }

    proptest! {
        #[test]
        fn encoding_can_be_decoded(whole in whole()) {
            prop_assert_eq!(read(parts(&whole.written().0)), whole);
        }

        #[test]
        fn different_requests_have_different_digests(one in whole(), other in whole()) {
            prop_assert_eq!(one == other, one.written().1 == other.written().1);
        }

        #[test]
        fn changed_body_changes_the_digest(whole in whole(), at: usize, bit in 0u8..8) {
            let mut other = whole.clone();
            match whole.body.len() {
                0 => other.body.push(bit),
                length => other.body[at % length] ^= 1 << bit,
            }
            prop_assert_ne!(whole.written().1, other.written().1);
        }
    }

    #[test]
    fn only_volatile_and_internal_headers_are_not_covered() {
        let whole = |headers: &[(&str, &str)]| Whole {
            agent: "a".into(),
            session: "s".into(),
            host: "a.net".into(),
            port: 443,
            method: "POST".into(),
            path: "/".into(),
            query: None,
            websocket: false,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).into(), value.as_bytes().to_vec()))
                .collect(),
            body: Vec::new(),
            trailers: None,
            spends: Vec::new(),
        };
        let plain = whole(&[]).written().1;
        for free in
            [("date", "now"), ("traceparent", "1"), ("x-as-agent-id", "b"), ("authorization", "AWS4-X y")]
        {
            assert_eq!(whole(&[free]).written().1, plain, "{free:?}");
        }
        for bound in [("stripe-account", "acct_2"), ("x-amz-target", "Delete"), ("authorization", "Bearer x")]
        {
            assert_ne!(whole(&[bound]).written().1, plain, "{bound:?}");
        }
    }
}
