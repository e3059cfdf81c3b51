//! What leaves for the upstream, given what the agent sent and the policy granted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Method, Uri};
use proptest::prelude::*;

use super::*;
use crate::policy::access_request::{Place, Spot};
use crate::policy::grant::Spend;
use crate::types::body::{Body, empty};
use crate::types::secret::Secret;

const VALUE: &str = "s3cr3t/+&";

fn secrets() -> Vec<(SecretName, Arc<Secret>)> {
    [("A", VALUE), ("AB", "other-value"), ("PAIR", "bob:hunter2"), ("LINES", "two\nlines")]
        .map(|(name, value)| (name.parse().unwrap(), Arc::new(Secret::new(value.into()))))
        .to_vec()
}

fn spend(name: &str, style: Style) -> Spend {
    Spend { name: name.parse().unwrap(), style }
}

fn target(scheme: Scheme, port: u16) -> Target {
    Target { scheme, host: "api.example.com".parse().unwrap(), port }
}

fn to(target: Target, request: Request<Body>, spends: Vec<Spend>) -> Result<Request<Body>, Rejection> {
    let vocabulary = Vocabulary::new(secrets().into_iter().map(|(name, _)| (name, None)));
    let values: Vec<Arc<Secret>> = secrets().into_iter().map(|(_, value)| value).collect();
    let patterns = Patterns::build(values.iter().map(|value| &**value));
    let grant = Grant::for_test(spends);
    let credentials = Credentials::new(secrets());
    let request = request.map(Payload::from);
    apply(request, target, &grant, &credentials, &vocabulary, "session".into(), patterns)
        .map(|(outbound, _)| outbound.into_request())
}

fn sent(uri: &str, headers: &[(&str, &str)], spends: Vec<Spend>) -> Result<Request<Body>, Rejection> {
    let mut request = Request::builder().method(Method::POST).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    to(target(Scheme::Https, 443), request.body(empty()).unwrap(), spends)
}

fn placeholder(name: &str, place: Place, at: &str) -> Spend {
    spend(name, Style::Placeholder(Spot::new(place, at)))
}

fn auth(name: &str) -> Vec<Spend> {
    ["authorization", "x-api-key", "x-token"].map(|header| placeholder(name, Place::Auth, header)).to_vec()
}

#[test]
fn a_placeholder_is_filled_where_it_was_granted() {
    let request =
        sent("/", &[("authorization", "Bearer AS_SECRET_A"), ("x-api-key", "{{A}}")], auth("A")).unwrap();
    assert_eq!(request.headers()["authorization"], format!("Bearer {VALUE}"));
    assert_eq!(request.headers()["x-api-key"], VALUE);
    assert!(request.headers()["authorization"].is_sensitive());
}

#[test]
fn a_quoted_placeholder_stays_text() {
    let headers =
        [("authorization", "AS_SECRET_A"), ("x-comment", "use AS_SECRET_A"), ("cookie", "a=AS_SECRET_A")];
    let request = sent("/AS_SECRET_A?q=AS_SECRET_A", &headers, auth("A")).unwrap();
    assert_eq!(request.headers()["authorization"], VALUE);
    assert_eq!(request.headers()["x-comment"], "use AS_SECRET_A");
    assert_eq!(request.headers()["cookie"], "a=AS_SECRET_A");
    assert_eq!(request.uri(), "https://api.example.com/AS_SECRET_A?q=AS_SECRET_A");
}

#[test]
fn a_lookalike_is_not_filled() {
    let request =
        sent("/", &[("x-api-key", "AS_SECRET_AB"), ("x-token", "AS_SECRET_A_")], auth("A")).unwrap();
    assert_eq!(request.headers()["x-api-key"], "AS_SECRET_AB");
    assert_eq!(request.headers()["x-token"], "AS_SECRET_A_");
}

#[test]
fn a_placeholder_inside_basic_is_filled() {
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let request = sent("/", &[("authorization", &basic("bob:AS_SECRET_A"))], auth("A")).unwrap();
    assert_eq!(request.headers()["authorization"], basic(&format!("bob:{VALUE}")));
    // Line breaks are no harm within base64.
    let request = sent("/", &[("authorization", &basic("AS_SECRET_LINES:"))], auth("LINES")).unwrap();
    assert_eq!(request.headers()["authorization"], basic("two\nlines:"));
}

#[test]
fn the_query_is_filled_and_encoded_and_the_rest_of_it_keeps_its_bytes() {
    let query = vec![placeholder("A", Place::Query, "key")];
    let request = sent("/p%2Fq?x=%7e+%7E&key=AS%5FSECRET_A&&flag", &[], query).unwrap();
    assert_eq!(
        request.uri().to_string(),
        "https://api.example.com/p%2Fq?x=%7e+%7E&key=s3cr3t%2F%2B%26&&flag"
    );
}

#[test]
fn the_policys_own_styles_need_no_placeholder() {
    let request = sent("/", &[("authorization", "mine")], vec![spend("A", Style::Bearer)]).unwrap();
    assert_eq!(request.headers()["authorization"], format!("Bearer {VALUE}"));
    let request = sent("/", &[], vec![spend("PAIR", Style::Basic)]).unwrap();
    assert_eq!(request.headers()["authorization"], "Basic Ym9iOmh1bnRlcjI=");
    let header = Style::Header(HeaderName::from_static("x-key"));
    assert_eq!(sent("/", &[("x-key", "1")], vec![spend("A", header)]).unwrap().headers()["x-key"], VALUE);
    for (uri, wanted) in [
        ("/", "https://api.example.com/?api%20key=s3cr3t%2F%2B%26"),
        ("/?a=1&api+key=x&api%20key&b", "https://api.example.com/?a=1&b&api%20key=s3cr3t%2F%2B%26"),
    ] {
        let request = sent(uri, &[], vec![spend("A", Style::Query("api key".into()))]).unwrap();
        assert_eq!(request.uri().to_string(), wanted);
    }
}

#[test]
fn what_cannot_be_put_in_is_refused_without_its_value() {
    let framing = Style::Header(HeaderName::from_static("content-length"));
    for (spends, slug, says) in [
        (
            vec![spend("LINES", Style::Bearer)],
            ErrorCode::BadRequest,
            "secret 'LINES' holds bytes that a header cannot carry",
        ),
        (vec![spend("A", Style::Basic)], ErrorCode::BadRequest, "secret 'A' is no user:password"),
        (vec![spend("NONE", Style::Bearer)], ErrorCode::SecretMissing, "secret 'NONE' not found in keychain"),
        (vec![spend("A", framing)], ErrorCode::BadRequest, "frames the request"),
    ] {
        let refusal = sent("/", &[], spends).err().unwrap();
        assert_eq!(refusal.code, slug);
        assert!(refusal.message.contains(says), "{refusal}");
        assert!(!refusal.message.contains("two") && !refusal.message.contains("s3cr3t"));
    }
    let refusal = sent("/", &[("x-api-key", "AS_SECRET_LINES")], auth("LINES")).err().unwrap();
    assert_eq!(refusal.message, "secret 'LINES' holds bytes that a header cannot carry");
}

#[test]
fn no_secret_goes_out_in_the_clear() {
    let request = || Request::builder().uri("/").body(empty()).unwrap();
    let refusal = to(target(Scheme::Http, 80), request(), vec![spend("A", Style::Bearer)]).err().unwrap();
    assert_eq!(refusal.code, ErrorCode::NonHttpsBlocked);
    assert!(to(target(Scheme::Http, 80), request(), vec![]).is_ok());
}

#[test]
fn only_what_is_meant_for_the_server_leaves() {
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
fn the_port_is_named_unless_it_is_the_schemes_own() {
    let request = Request::builder().uri("/").body(empty()).unwrap();
    let request = to(target(Scheme::Https, 8443), request, vec![]).unwrap();
    assert_eq!(request.headers()["host"], "api.example.com:8443");
    assert_eq!(request.uri(), "https://api.example.com:8443/");
}

#[test]
fn connections_are_kept_apart_by_the_secrets_that_were_spent() {
    let vocabulary = Vocabulary::new([]);
    let spends =
        vec![spend("PAIR", Style::Basic), spend("A", Style::Query("k".into())), spend("A", Style::Bearer)];
    let grant = Grant::for_test(spends);
    let request = Request::builder().uri("/").body(empty().into()).unwrap();
    let (outbound, _) = apply(
        request,
        target(Scheme::Https, 443),
        &grant,
        &Credentials::new(secrets()),
        &vocabulary,
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
        let spots = [(Place::Auth, "authorization"), (Place::Header, "x"), (Place::Cookie, "c"), (Place::Query, "")];
        let spends = spots.map(|(place, at)| placeholder("A", place, at)).to_vec();
        let uri = Uri::try_from(format!("/?{query}"));
        if let (Ok(value), Ok(uri)) = (HeaderValue::from_bytes(&value), uri) {
            let request = Request::builder().uri(uri).header("authorization", value.clone()).header("connection", value);
            let _ = to(target(Scheme::Https, 443), request.body(empty()).unwrap(), spends);
        }
    }
}

proptest! {
    /// Whatever a secret holds, filling it in leaves server, path and the other parameters as they were judged.
    #[test]
    fn filling_in_makes_no_other_request(value in proptest::collection::vec(any::<u8>(), 1..40)) {
        let vocabulary = Vocabulary::new([("A".parse().unwrap(), None)]);
        let secret = Arc::new(Secret::new(value));
        let patterns = Patterns::build([&*secret].into_iter());
        let grant = Grant::for_test(vec![
            placeholder("A", Place::Query, ""),
            placeholder("A", Place::Query, "x"),
            spend("A", Style::Query("key".into())),
        ]);
        let credentials = Credentials::new(vec![("A".parse().unwrap(), secret)]);
        let request = Request::get("/v1/a%20b?x=AS_SECRET_A&AS_SECRET_A=y&z&key=old").body(empty().into()).unwrap();
        let target = target(Scheme::Https, 443);
        let sent = apply(request, target, &grant, &credentials, &vocabulary, "s".into(), patterns);
        let sent = sent.map(|(outbound, _)| outbound.into_request().uri().clone()).unwrap();
        prop_assert_eq!(sent.authority().unwrap().as_str(), "api.example.com");
        prop_assert_eq!(sent.path(), "/v1/a%20b");
        prop_assert_eq!(sent.query().unwrap().split('&').count(), 4);
    }

    #[test]
    fn a_path_that_is_filled_and_read_again_holds_exactly_the_value(value in prop_oneof!["[ -~]{1,12}", "[./%;]{1,4}", "\\PC{1,8}"]) {
        let vocabulary = Vocabulary::new([("A".parse().unwrap(), None)]);
        let secret = Arc::new(Secret::new(value.clone().into_bytes()));
        let grant = Grant::for_test(vec![placeholder("A", Place::Path, "")]);
        let credentials = Credentials::new(vec![("A".parse().unwrap(), secret)]);
        let request = Request::get("/v1/AS_SECRET_A/b%20c?x").body(empty().into()).unwrap();
        let target = target(Scheme::Https, 443);
        let sent = apply(request, target, &grant, &credentials, &vocabulary, "s".into(), Patterns::build([]));
        let is_plain = !value.contains(['/', '\\', '%', ';']) && value != "." && value != "..";
        match sent {
            Ok((outbound, _)) => {
                let uri = outbound.into_request().uri().clone();
                let segments: Vec<_> = uri.path().split('/').map(|text| super::url::segment(text).into_owned()).collect();
                prop_assert!(is_plain);
                prop_assert_eq!(segments, vec![b"".to_vec(), b"v1".to_vec(), value.into_bytes(), b"b c".to_vec()]);
                prop_assert_eq!(uri.query(), Some("x"));
            }
            Err(refusal) => prop_assert_eq!(refusal.code, ErrorCode::BadRequest),
        }
    }
}
