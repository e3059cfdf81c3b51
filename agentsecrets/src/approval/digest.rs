//! What a person is asked about, as one number: whatever of a request could change what its server does is
//! in it, each part with its length before it, so that no two requests are written the same way.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, Method};

use crate::policy::grant::Spend;
use crate::types::name::AgentName;
use crate::types::target::{Scheme, Target};

/// Headers that differ whenever a client tries again, and say nothing of what is asked for. Authorization
/// that is a signature over the time is made anew by the rule that signs.
const OF_THE_MOMENT: &[&str] = &[
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

/// SHA-256 of one request as it would be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

/// Everything that is bound.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The agent entry.
    pub agent: &'a AgentName,
    /// The session.
    pub session: &'a str,
    /// Where it goes.
    pub target: &'a Target,
    /// The method.
    pub method: &'a Method,
    /// The path as it came, still encoded.
    pub path: &'a str,
    /// The query as it came.
    pub query: Option<&'a str>,
    /// Whether it asks for a WebSocket.
    pub websocket: bool,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The whole body.
    pub body: &'a [u8],
    /// What stands behind the body.
    pub trailers: Option<&'a HeaderMap>,
    /// The secrets to be spent, each in its place.
    pub spends: &'a [Spend],
}

impl Seen<'_> {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        self.write(|bytes| context.update(bytes));
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Digest(digest)
    }

    /// The headers that are bound, in order of name.
    pub(super) fn bound_headers(&self) -> Vec<(&str, &[u8])> {
        bound(self.headers)
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
            let headers = headers.map(bound).unwrap_or_default();
            part(&(headers.len() as u64).to_le_bytes());
            for (name, value) in headers {
                part(name.as_bytes());
                part(value);
            }
        }
        part(self.body);
        part(&(self.spends.len() as u64).to_le_bytes());
        for Spend { name, style } in self.spends {
            part(name.as_str().as_bytes());
            part(format!("{style:?}").as_bytes());
        }
    }
}

fn bound(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    let is_bound = |name: &str, value: &[u8]| {
        let is_signature = name == "authorization" && value.starts_with(b"AWS4-");
        !(OF_THE_MOMENT.contains(&name) || name.starts_with("x-as-") || is_signature)
    };
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut bound: Vec<_> = all.filter(|(name, value)| is_bound(name, value)).collect();
    // Values of one name keep their order.
    bound.sort_by_key(|(name, _)| *name);
    bound
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
    use crate::policy::grant::Style;

    /// One request, owned.
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
            let spends: Vec<Spend> = self.spends.iter().map(|name| spend(name)).collect();
            let (headers, trailers) = (map(&self.headers), self.trailers.as_deref().map(map));
            let seen = Seen {
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
                spends: &spends,
            };
            let mut bytes = Vec::new();
            seen.write(|part| bytes.extend_from_slice(part));
            (bytes, seen.digest())
        }
    }

    fn spend(name: &str) -> Spend {
        Spend { name: name.parse().unwrap(), style: Style::Query(name.into()) }
    }

    fn fields() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        // In order of name, as they are bound.
        proptest::collection::vec(("x-[a-c]{0,2}", proptest::collection::vec(32u8..127, 0..4)), 0..4)
            .prop_map(|mut list| {
                list.sort_by(|one, other| one.0.cmp(&other.0));
                list
            })
    }

    prop_compose! {
        // Short texts of few letters, so that parts of different requests often look alike.
        fn whole()(
            agent in "[ab]{1,3}", session in "[ab]{0,3}", host in "[ab]{1,3}\\.net", port in 1u16..4,
            method in "[AB]{1,2}", path in "/[ab?]{0,3}", query in proptest::option::of("[ab=&]{0,3}"),
            websocket: bool, headers in fields(), body in proptest::collection::vec(any::<u8>(), 0..12),
            trailers in proptest::option::of(fields()), spends in proptest::collection::vec("[AB]{1,2}", 0..3),
        ) -> Whole {
            Whole { agent, session, host, port, method, path, query, websocket, headers, body, trailers, spends }
        }
    }

    /// The parts that `bytes` were written from.
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

    /// The request that the parts say.
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
        fn a_request_can_be_read_from_what_is_digested_so_that_no_two_are_written_alike(whole in whole()) {
            prop_assert_eq!(read(parts(&whole.written().0)), whole);
        }

        #[test]
        fn two_requests_have_one_digest_only_if_they_are_one(one in whole(), other in whole()) {
            prop_assert_eq!(one == other, one.written().1 == other.written().1);
        }

        #[test]
        fn any_changed_byte_of_the_body_is_another_digest(whole in whole(), at: usize, bit in 0u8..8) {
            let mut other = whole.clone();
            match whole.body.len() {
                0 => other.body.push(bit),
                length => other.body[at % length] ^= 1 << bit,
            }
            prop_assert_ne!(whole.written().1, other.written().1);
        }
    }

    #[test]
    fn what_differs_at_every_try_and_our_own_headers_are_not_bound_and_all_others_are() {
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
