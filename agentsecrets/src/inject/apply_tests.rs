//! Requests as they leave for the upstream, for a given request and grant.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::policy::injection::SecretUse;
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::types::body::{Body, empty};
use crate::types::secret::Secret;

const VALUE: &str = "s3cr3t/+&";

fn secrets() -> Vec<(SecretName, Arc<Secret>)> {
    [("A", VALUE), ("AB", "other-value"), ("PAIR", "bob:hunter2"), ("LINES", "two\nlines")]
        .map(|(name, value)| (name.parse().unwrap(), Arc::new(Secret::new(value.into()))))
        .to_vec()
}

fn secret_use(name: &str, style: InjectionStyle) -> SecretUse {
    SecretUse { name: name.parse().unwrap(), style }
}

fn target(scheme: Scheme, port: u16) -> Target {
    Target { scheme, host: "api.example.com".parse().unwrap(), port }
}

fn to(target: Target, request: Request<Body>, uses: Vec<SecretUse>) -> Result<Request<Body>, Rejection> {
    let placeholders = Placeholders::new(secrets().into_iter().map(|(name, _)| (name, None)));
    let values: Vec<Arc<Secret>> = secrets().into_iter().map(|(_, value)| value).collect();
    let patterns = Patterns::build(values.iter().map(|value| &**value));
    let grant = Grant::for_test(uses);
    let credentials = Credentials::new(secrets());
    let request = request.map(RequestBody::from);
    apply(request, target, &grant, &credentials, &placeholders, "session".into(), patterns)
        .map(|(outbound, _)| outbound.into_request())
}

fn sent(uri: &str, headers: &[(&str, &str)], uses: Vec<SecretUse>) -> Result<Request<Body>, Rejection> {
    let mut request = Request::builder().method(Method::POST).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    to(target(Scheme::Https, 443), request.body(empty()).unwrap(), uses)
}

fn placeholder(name: &str, kind: LocationKind, at: &str) -> SecretUse {
    secret_use(name, InjectionStyle::Placeholder(InjectionPoint::new(kind, at)))
}

fn auth(name: &str) -> Vec<SecretUse> {
    ["authorization", "x-api-key", "x-token"]
        .map(|header| placeholder(name, LocationKind::Auth, header))
        .to_vec()
}

#[test]
fn granted_placeholder_is_filled() {
    let request =
        sent("/", &[("authorization", "Bearer AS_SECRET_A"), ("x-api-key", "{{A}}")], auth("A")).unwrap();
    assert_eq!(request.headers()["authorization"], format!("Bearer {VALUE}"));
    assert_eq!(request.headers()["x-api-key"], VALUE);
    assert!(request.headers()["authorization"].is_sensitive());
}

#[test]
fn quoted_placeholder_stays_text() {
    let headers =
        [("authorization", "AS_SECRET_A"), ("x-comment", "use AS_SECRET_A"), ("cookie", "a=AS_SECRET_A")];
    let request = sent("/AS_SECRET_A?q=AS_SECRET_A", &headers, auth("A")).unwrap();
    assert_eq!(request.headers()["authorization"], VALUE);
    assert_eq!(request.headers()["x-comment"], "use AS_SECRET_A");
    assert_eq!(request.headers()["cookie"], "a=AS_SECRET_A");
    assert_eq!(request.uri(), "https://api.example.com/AS_SECRET_A?q=AS_SECRET_A");
}

#[test]
fn lookalike_is_not_filled() {
    let request =
        sent("/", &[("x-api-key", "AS_SECRET_AB"), ("x-token", "AS_SECRET_A_")], auth("A")).unwrap();
    assert_eq!(request.headers()["x-api-key"], "AS_SECRET_AB");
    assert_eq!(request.headers()["x-token"], "AS_SECRET_A_");
}

#[test]
fn placeholder_inside_basic_is_filled() {
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let request = sent("/", &[("authorization", &basic("bob:AS_SECRET_A"))], auth("A")).unwrap();
    assert_eq!(request.headers()["authorization"], basic(&format!("bob:{VALUE}")));
    // Line breaks are harmless inside base64.
    let request = sent("/", &[("authorization", &basic("AS_SECRET_LINES:"))], auth("LINES")).unwrap();
    assert_eq!(request.headers()["authorization"], basic("two\nlines:"));
}

#[test]
fn query_is_filled_and_other_bytes_stay() {
    let query = vec![placeholder("A", LocationKind::Query, "key")];
    let request = sent("/p%2Fq?x=%7e+%7E&key=AS%5FSECRET_A&&flag", &[], query).unwrap();
    assert_eq!(
        request.uri().to_string(),
        "https://api.example.com/p%2Fq?x=%7e+%7E&key=s3cr3t%2F%2B%26&&flag"
    );
}

#[test]
fn inject_rules_need_no_placeholder() {
    let request =
        sent("/", &[("authorization", "mine")], vec![secret_use("A", InjectionStyle::Bearer)]).unwrap();
    assert_eq!(request.headers()["authorization"], format!("Bearer {VALUE}"));
    let request = sent("/", &[], vec![secret_use("PAIR", InjectionStyle::Basic)]).unwrap();
    assert_eq!(request.headers()["authorization"], "Basic Ym9iOmh1bnRlcjI=");
    let header = InjectionStyle::Header(HeaderName::from_static("x-key"));
    assert_eq!(
        sent("/", &[("x-key", "1")], vec![secret_use("A", header)]).unwrap().headers()["x-key"],
        VALUE
    );
    for (uri, expected) in [
        ("/", "https://api.example.com/?api%20key=s3cr3t%2F%2B%26"),
        ("/?a=1&api+key=x&api%20key&b", "https://api.example.com/?a=1&b&api%20key=s3cr3t%2F%2B%26"),
    ] {
        let request = sent(uri, &[], vec![secret_use("A", InjectionStyle::Query("api key".into()))]).unwrap();
        assert_eq!(request.uri().to_string(), expected);
    }
}

#[test]
fn unusable_value_is_rejected_and_not_shown() {
    let framing = InjectionStyle::Header(HeaderName::from_static("content-length"));
    for (uses, slug, says) in [
        (
            vec![secret_use("LINES", InjectionStyle::Bearer)],
            ErrorCode::BadRequest,
            "secret 'LINES' holds bytes that a header cannot carry",
        ),
        (
            vec![secret_use("A", InjectionStyle::Basic)],
            ErrorCode::BadRequest,
            "secret 'A' is not 'user:password'",
        ),
        (
            vec![secret_use("NONE", InjectionStyle::Bearer)],
            ErrorCode::SecretMissing,
            "secret 'NONE' not found in keychain",
        ),
        (vec![secret_use("A", framing)], ErrorCode::BadRequest, "frames the request"),
    ] {
        let rejection = sent("/", &[], uses).err().unwrap();
        assert_eq!(rejection.code, slug);
        assert!(rejection.message.contains(says), "{rejection}");
        assert!(!rejection.message.contains("two") && !rejection.message.contains("s3cr3t"));
    }
    let rejection = sent("/", &[("x-api-key", "AS_SECRET_LINES")], auth("LINES")).err().unwrap();
    assert_eq!(rejection.message, "secret 'LINES' holds bytes that a header cannot carry");
}

#[test]
fn secret_over_plain_http_is_rejected() {
    let request = || Request::builder().uri("/").body(empty()).unwrap();
    let rejection =
        to(target(Scheme::Http, 80), request(), vec![secret_use("A", InjectionStyle::Bearer)]).err().unwrap();
    assert_eq!(rejection.code, ErrorCode::NonHttpsBlocked);
    assert!(to(target(Scheme::Http, 80), request(), vec![]).is_ok());
}

#[test]
fn hop_by_hop_and_internal_headers_are_removed() {
    let request = sent(
        "http://elsewhere.example/x",
        &[
            ("host", "elsewhere.example"),
            ("connection", "close, X-Private, te"),
            ("x-private", "1"),
            ("keep-alive", "1"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("x-as-agent-token", "t"),
            ("range", "bytes=0-1"),
            ("accept-encoding", "compress"),
            ("accept", "*/*"),
        ],
        vec![],
    )
    .unwrap();
    let mut left: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    left.sort();
    assert_eq!(left, ["accept-encoding: identity", "accept: */*", "host: api.example.com", "te: trailers"]);
    assert_eq!(request.uri(), "https://api.example.com/x");
}

#[test]
fn host_header_omits_the_default_port() {
    let request = Request::builder().uri("/").body(empty()).unwrap();
    let request = to(target(Scheme::Https, 8443), request, vec![]).unwrap();
    assert_eq!(request.headers()["host"], "api.example.com:8443");
    assert_eq!(request.uri(), "https://api.example.com:8443/");
}

#[test]
fn isolation_names_the_spent_secrets() {
    let placeholders = Placeholders::new([]);
    let uses = vec![
        secret_use("PAIR", InjectionStyle::Basic),
        secret_use("A", InjectionStyle::Query("k".into())),
        secret_use("A", InjectionStyle::Bearer),
    ];
    let grant = Grant::for_test(uses);
    let request = Request::builder().uri("/").body(empty().into()).unwrap();
    let (outbound, _) = apply(
        request,
        target(Scheme::Https, 443),
        &grant,
        &Credentials::new(secrets()),
        &placeholders,
        "session".into(),
        Patterns::build([]),
    )
    .unwrap();
    let names: Vec<&str> = outbound.isolation().credentials.iter().map(SecretName::as_str).collect();
    assert_eq!(names, ["A", "PAIR"]);
}

proptest! {
    #[test]
    fn hostile_requests_never_panic(value in proptest::collection::vec(any::<u8>(), 0..60), query in "[ -~]{0,40}") {
        let spots = [(LocationKind::Auth, "authorization"), (LocationKind::Header, "x"), (LocationKind::Cookie, "c"), (LocationKind::Query, "")];
        let uses = spots.map(|(kind, at)| placeholder("A", kind, at)).to_vec();
        let uri = Uri::try_from(format!("/?{query}"));
        if let (Ok(value), Ok(uri)) = (HeaderValue::from_bytes(&value), uri) {
            let request = Request::builder().uri(uri).header("authorization", value.clone()).header("connection", value);
            let _ = to(target(Scheme::Https, 443), request.body(empty()).unwrap(), uses);
        }
    }
}

proptest! {
    /// Whatever a secret contains, filling it in leaves server, path and the other parameters as policy
    /// saw them.
    #[test]
    fn filling_keeps_the_request_target(value in proptest::collection::vec(any::<u8>(), 1..40)) {
        let placeholders = Placeholders::new([("A".parse().unwrap(), None)]);
        let secret = Arc::new(Secret::new(value));
        let patterns = Patterns::build([&*secret].into_iter());
        let grant = Grant::for_test(vec![
            placeholder("A", LocationKind::Query, ""),
            placeholder("A", LocationKind::Query, "x"),
            secret_use("A", InjectionStyle::Query("key".into())),
        ]);
        let credentials = Credentials::new(vec![("A".parse().unwrap(), secret)]);
        let request = Request::get("/v1/a%20b?x=AS_SECRET_A&AS_SECRET_A=y&z&key=old").body(empty().into()).unwrap();
        let target = target(Scheme::Https, 443);
        let sent = apply(request, target, &grant, &credentials, &placeholders, "s".into(), patterns);
        let sent = sent.map(|(outbound, _)| outbound.into_request().uri().clone()).unwrap();
        prop_assert_eq!(sent.authority().unwrap().as_str(), "api.example.com");
        prop_assert_eq!(sent.path(), "/v1/a%20b");
        prop_assert_eq!(sent.query().unwrap().split('&').count(), 4);
    }

    #[test]
    fn filled_path_decodes_to_the_value(value in prop_oneof!["[ -~]{1,12}", "[./%;]{1,4}", "\\PC{1,8}"]) {
        let placeholders = Placeholders::new([("A".parse().unwrap(), None)]);
        let secret = Arc::new(Secret::new(value.clone().into_bytes()));
        let grant = Grant::for_test(vec![placeholder("A", LocationKind::Path, "")]);
        let credentials = Credentials::new(vec![("A".parse().unwrap(), secret)]);
        let request = Request::get("/v1/AS_SECRET_A/b%20c?x").body(empty().into()).unwrap();
        let target = target(Scheme::Https, 443);
        let sent = apply(request, target, &grant, &credentials, &placeholders, "s".into(), Patterns::build([]));
        let is_plain = !value.contains(['/', '\\', '%', ';']) && value != "." && value != "..";
        match sent {
            Ok((outbound, _)) => {
                let uri = outbound.into_request().uri().clone();
                let segments: Vec<_> = uri.path().split('/').map(|text| crate::inject::urlencoded::decode_segment(text).into_owned()).collect();
                prop_assert!(is_plain);
                prop_assert_eq!(segments, vec![b"".to_vec(), b"v1".to_vec(), value.into_bytes(), b"b c".to_vec()]);
                prop_assert_eq!(uri.query(), Some("x"));
            }
            Err(rejection) => prop_assert_eq!(rejection.code, ErrorCode::BadRequest),
        }
    }
}
