//! Bodies after injection: secrets in granted locations, all other bytes unchanged.

use std::sync::Arc;

use http::{Method, Request};
use http_body_util::BodyExt;
use proptest::prelude::*;

use crate::credentials::resolved::Credentials;
use crate::inject::placeholder::Placeholders;
use crate::inject::{BodyBudget, References, RequestBody, apply};
use crate::policy::access_request::SecretReference;
use crate::policy::evaluate::BodyRequirements;
use crate::policy::grant::Grant;
use crate::policy::injection::{InjectionStyle, SecretUse};
use crate::policy::location::{InjectionPoint, LocationKind};
use crate::redact::patterns::Patterns;
use crate::types::body::full;
use crate::types::name::SecretName;
use crate::types::rejection::{ErrorCode, Rejection};
use crate::types::secret::Secret;
use crate::types::target::{Scheme, Target};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=X";
/// A value with everything that some encoding escapes.
const VALUE: &str = "s3\"c\\r&t=%2F+\u{e9}\n-- x";

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// The request that leaves when everything requested is granted, and `more`.
struct Sent {
    parts: http::request::Parts,
    body: Vec<u8>,
    notes: Vec<String>,
    trailers: bool,
}

impl Sent {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn send_with(
    headers: &[(&str, &str)],
    body: &[u8],
    more: Vec<SecretUse>,
    value: &[u8],
    keep: impl Fn(&SecretReference) -> bool,
) -> Result<Sent, Rejection> {
    let mut request = Request::builder().method(Method::POST).uri("/v1/x");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = request.body(full(body.to_vec())).unwrap().into_parts();
    let placeholders = Placeholders::new([("A".parse().unwrap(), Some("sk-proj-0000".to_owned()))]);
    let reading = BodyRequirements { max_bytes: 1 << 20, json: true, form: true, any_type: false };
    block_on(async {
        let mut references = References::from_head(&parts, &placeholders)?;
        let body = RequestBody::read(&parts, body, Some(&reading), &BodyBudget::default()).await?;
        body.collect_references(&placeholders, &mut references)?;
        let requested = references.as_slice().iter().filter(|reference| keep(reference));
        let requested = requested
            .map(|SecretReference { name, style }| SecretUse { name: name.clone(), style: style.clone() });
        let grant = Grant::for_test(requested.chain(more).collect());
        let name: SecretName = "A".parse().unwrap();
        let secret = Arc::new(Secret::new(value.to_vec()));
        let credentials = Credentials::new(vec![(name, secret)]);
        let target = Target { scheme: Scheme::Https, host: "api.test".parse().unwrap(), port: 443 };
        let request = Request::from_parts(parts, body);
        let patterns = Patterns::build([]);
        let (outbound, _) =
            apply(request, target, &grant, &credentials, &placeholders, "s".into(), patterns)?;
        let notes = outbound.notes().to_vec();
        let (parts, body) = outbound.into_request().into_parts();
        let whole = body.collect().await.unwrap();
        let trailers = whole.trailers().is_some();
        Ok(Sent { parts, body: whole.to_bytes().to_vec(), notes, trailers })
    })
}

fn send(kind: &str, body: &str, more: Vec<SecretUse>) -> Result<Sent, Rejection> {
    send_with(&[("content-type", kind)], body.as_bytes(), more, VALUE.as_bytes(), |_| true)
}

fn put(style: InjectionStyle) -> Vec<SecretUse> {
    vec![SecretUse { name: "A".parse().unwrap(), style }]
}

fn json_at(path: &str) -> Vec<SecretUse> {
    put(InjectionStyle::Json(Arc::new(path.parse().unwrap())))
}

fn form_at(field: &str) -> Vec<SecretUse> {
    put(InjectionStyle::Form(field.into()))
}

fn part(head: &str, value: &str) -> String {
    format!("--X\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

/// The fields of a multipart form as another parser sees them: name, file name, value.
fn fields(sent: &Sent) -> Vec<(String, Option<String>, Vec<u8>)> {
    let boundary = multer::parse_boundary(sent.header("content-type").unwrap()).unwrap();
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(sent.body.clone())]);
    block_on(async {
        let mut form = multer::Multipart::new(stream, boundary);
        let mut fields = Vec::new();
        while let Some(field) = form.next_field().await.unwrap() {
            let name = field.name().unwrap_or_default().to_owned();
            let file = field.file_name().map(str::to_owned);
            fields.push((name, file, field.bytes().await.unwrap().to_vec()));
        }
        fields
    })
}

#[test]
fn json_strings_are_filled_and_other_bytes_stay() {
    let body = "{ \"z\":1.50e2,\n \"AS_SECRET_A\" : [ \"Bearer AS_SECRET_A\", 12345678901234567890123 ],\t\"a\":\"\\u00e9{{A}}\" }";
    let sent = send(JSON, body, vec![]).unwrap();
    let value = serde_json::to_string(VALUE).unwrap();
    let value = value.trim_matches('"');
    assert_eq!(
        sent.text(),
        format!(
            "{{ \"z\":1.50e2,\n \"AS_SECRET_A\" : [ \"Bearer {value}\", 12345678901234567890123 ],\t\"a\":\"é{value}\" }}"
        )
    );
    assert_eq!(sent.header("content-length"), Some(&*sent.body.len().to_string()));
}

#[test]
fn escaped_placeholder_is_filled_in_any_json_type() {
    for kind in
        ["application/json; charset=utf-8", "application/vnd.api+json", "text/json", "Application/JSON"]
    {
        let sent = send(kind, r#"["\u0041S_SECRET_A", "sk-proj-0000"]"#, vec![]).unwrap();
        let read: Vec<String> = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(read, [VALUE, VALUE], "{kind}");
    }
}

#[test]
fn only_the_exact_location_is_filled() {
    let body = r#"{"a":{"secret":"AS_SECRET_A"},"secret":"AS_SECRET_A","b":[{"secret":"AS_SECRET_A"}]}"#;
    let at = InjectionStyle::Placeholder(InjectionPoint::new(LocationKind::Json, "b[0].secret"));
    let headers = [("content-type", JSON)];
    let sent = send_with(&headers, body.as_bytes(), vec![], b"v", |reference| reference.style == at).unwrap();
    assert_eq!(sent.text(), r#"{"a":{"secret":"AS_SECRET_A"},"secret":"AS_SECRET_A","b":[{"secret":"v"}]}"#);
}

#[test]
fn json_path_is_injected_and_objects_created() {
    for (body, path, expected) in [
        ("{}", "a", r#"{"a":"v"}"#),
        (" { \"x\" : 1 } ", "a.b.c", r#"{ "x" : 1 ,"a":{"b":{"c":"v"}}}"#),
        (r#"{"a":{"b":{}},"z":0}"#, "a.b.c", r#"{"a":{"b":{"c":"v"}},"z":0}"#),
        (r#"{"a":{"b":[1,"old"]}}"#, "a.b", r#"{"a":{"b":"v"}}"#),
        ("", "a.b", r#"{"a":{"b":"v"}}"#),
        (r#"{"a.b":1}"#, r"a\.b", r#"{"a.b":"v"}"#),
    ] {
        let headers = [("content-type", JSON)];
        let sent = send_with(&headers, body.as_bytes(), json_at(path), b"v", |_| true).unwrap();
        assert_eq!(sent.text(), expected, "{body}");
    }
    let sent = send_with(&[], b"", json_at("a"), b"v", |_| true).unwrap();
    assert_eq!((sent.text(), sent.header("content-type")), (r#"{"a":"v"}"#, Some(JSON)));
}

#[test]
fn json_path_through_non_object_is_an_error() {
    for (body, says) in [
        (r#"{"a":[{"b":1}]}"#, "'a' in the JSON body is an array"),
        (r#"{"a":"text"}"#, "'a' in the JSON body is a string"),
        (r#"{"a":null}"#, "'a' in the JSON body is no object"),
        (r#"[{"a":{}}]"#, "the JSON body is an array"),
        (r#"{"a":{"b":1},"a":{"b":2}}"#, "a key stands twice"),
        (r#"{"a":"#, "not what its Content-Type says"),
    ] {
        let rejection = send(JSON, body, json_at("a.b")).err().unwrap();
        assert_eq!(rejection.code, ErrorCode::BadRequest);
        assert!(rejection.message.contains(says), "{body}: {rejection}");
    }
    let rejection = send(FORM, "a=b", json_at("a.b")).err().unwrap();
    assert!(rejection.message.contains("the body is a form"), "{rejection}");
    let rejection = send("text/plain", "hello", json_at("a.b")).err().unwrap();
    assert!(rejection.message.contains("of another type"), "{rejection}");
}

#[test]
fn malformed_body_naming_a_secret_is_rejected() {
    for (kind, quiet, naming) in [
        (JSON, r#"{"a": NaN}"#, r#"{"a": NaN, "b": "AS_SECRET_A"}"#),
        (JSON, "\u{feff}{}", "\u{feff}{\"a\":\"{{A}}\"}"),
        (JSON, r#"["\ud800"]"#, r#"["\ud800 AS_SECRET_A"]"#),
        (MULTIPART, "--X\r\nbroken", "--X\r\nbroken AS_SECRET_A"),
    ] {
        assert_eq!(send(kind, quiet, vec![]).unwrap().text(), quiet);
        let rejection = send(kind, naming, vec![]).err().unwrap();
        assert_eq!(rejection.code, ErrorCode::BadRequest, "{naming}");
        assert!(rejection.message.contains("names a secret"), "{rejection}");
    }
    for depth in [300, 500_000] {
        let deep = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(send(JSON, &deep, vec![]).unwrap().text(), deep);
        assert!(send(JSON, &deep, json_at("a")).is_err());
    }
}

#[test]
fn compressed_body_is_rejected() {
    let headers = [("content-type", JSON), ("content-encoding", "gzip")];
    let rejection = send_with(&headers, b"x", vec![], b"v", |_| true).err().unwrap();
    assert!(rejection.message.contains("gzip") && rejection.message.contains("without"), "{rejection}");
}

#[test]
fn form_values_are_filled_and_encoded() {
    let sent = send(FORM, "x=%7e+%7E&k=AS%5FSECRET_A&AS_SECRET_A=name&flag&&", vec![]).unwrap();
    let encoded = "s3%22c%5Cr%26t%3D%252F%2B%C3%A9%0A--%20x";
    assert_eq!(sent.text(), format!("x=%7e+%7E&k={encoded}&AS_SECRET_A=name&flag&&"));
    let read: Vec<_> = url::form_urlencoded::parse(&sent.body).collect();
    assert_eq!(read[1].1, VALUE);
    for (body, expected) in
        [("", "f+g=v"), ("a=1", "a=1&f+g=v"), ("f+g=old&a=1", "f+g=v&a=1"), ("f%20g", "f+g=v")]
    {
        let headers = [("content-type", FORM)];
        let sent = send_with(&headers, body.as_bytes(), form_at("f g"), b"v", |_| true).unwrap();
        assert_eq!(sent.text(), expected.replace('+', "%20"), "{body}");
    }
}

#[test]
fn repeated_field_with_a_secret_is_rejected() {
    let twice = part("name=\"f\"", "AS_SECRET_A") + &part("name=\"f\"", "b") + "--X--\r\n";
    for (kind, body, more) in [
        (FORM, "f=AS_SECRET_A&f=b", vec![]),
        (FORM, "f=1&%66=2", form_at("f")),
        (MULTIPART, &*twice, vec![]),
        (MULTIPART, &twice.replace("AS_SECRET_A", "a"), form_at("f")),
    ] {
        let rejection = send(kind, body, more).err().unwrap();
        assert!(rejection.message.contains("'f' gets a secret and stands there 2 times"), "{rejection}");
    }
    assert!(send(FORM, "f=1&f=2&g=AS_SECRET_A", vec![]).is_ok());
}

#[test]
fn multipart_text_fields_are_filled_and_files_are_not() {
    let body = part("name=\"key\"", "AS_SECRET_A")
        + &part("name=\"note\"", "plain")
        + &part("name=\"doc\"; filename=\"a.txt\"\r\nContent-Type: text/plain", "quotes AS_SECRET_A\r\n--Y")
        + &part("name=\"data\"\r\nContent-Type: application/json", "{\"k\":\"AS_SECRET_A\"}")
        + "--X--\r\n";
    let sent = send(MULTIPART, &body, form_at("new \"field\"")).unwrap();
    let fields = fields(&sent);
    let seen: Vec<_> = fields
        .iter()
        .map(|(name, file, value)| (&**name, file.as_deref(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            ("key", None, VALUE),
            ("note", None, "plain"),
            ("doc", Some("a.txt"), "quotes AS_SECRET_A\r\n--Y"),
            ("data", None, "{\"k\":\"AS_SECRET_A\"}"),
            ("new %22field%22", None, VALUE),
        ]
    );
    assert_eq!(sent.header("content-length"), Some(&*sent.body.len().to_string()));
    assert!(!sent.header("content-type").unwrap().contains("boundary=X"));
}

#[test]
fn body_without_placeholders_is_unchanged() {
    let form = part("name=\"a\"", "1") + "--X--\r\nepilogue";
    for (kind, body) in [
        (JSON, " {\"b\":1,\"a\":2.0} "),
        (FORM, "a=+%zz&&="),
        (MULTIPART, &*form),
        ("text/plain", "AS_SECRET_A"),
    ] {
        let sent = send(kind, body, vec![]).unwrap();
        assert_eq!((sent.text(), sent.header("content-type")), (body, Some(kind)));
    }
}

#[test]
fn signed_body_is_not_changed() {
    for (name, value) in [
        ("signature", "sig=:AAAA:"),
        ("x-hub-signature-256", "sha256=00"),
        ("stripe-signature", "t=1"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
        ("authorization", "OAuth oauth_signature=x"),
    ] {
        let headers = [("content-type", JSON), (name, value)];
        let rejection = send_with(&headers, br#"{"a":"AS_SECRET_A"}"#, vec![], b"v", |_| true).err().unwrap();
        assert!(rejection.message.contains("signed") && rejection.message.contains(name), "{rejection}");
        assert!(send_with(&headers, br#"{"a":"b"}"#, vec![], b"v", |_| true).is_ok());
    }
    // An injected header does not sign anything.
    let token = put(InjectionStyle::Header(http::HeaderName::from_static("x-signature")));
    let headers = [("content-type", JSON)];
    let sent = send_with(&headers, br#"{"a":"AS_SECRET_A"}"#, token, b"v", |_| true).unwrap();
    assert_eq!((sent.text(), sent.header("x-signature")), (r#"{"a":"v"}"#, Some("v")));
}

#[test]
fn digests_are_recomputed_or_noted() {
    let headers = [("content-type", JSON), ("content-digest", "sha-256=:AAAA:"), ("content-md5", "AAAA")];
    let sent = send_with(&headers, br#"{"hello": "AS_SECRET_A"}"#, vec![], b"world", |_| true).unwrap();
    let known = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
    assert_eq!((sent.header("content-digest"), sent.header("content-md5")), (Some(known), None));
    assert_eq!(sent.notes, ["dropped content-md5: the body changed"]);
    let same = send_with(&headers, b"{}", vec![], b"world", |_| true).unwrap();
    assert_eq!((same.header("content-md5"), same.notes.len(), same.trailers), (Some("AAAA"), 0, false));
}

#[test]
fn unusable_value_is_rejected_and_not_shown() {
    let headers = [("content-type", JSON)];
    let rejection = send_with(&headers, br#"{"a":"AS_SECRET_A"}"#, vec![], b"\xff\xfe-value", |_| true);
    let rejection = rejection.err().unwrap();
    assert_eq!(rejection.message, "secret 'A' holds bytes that JSON cannot carry");
    let many = format!("[\"{}\"]", "AS_SECRET_A ".repeat(100));
    let large = vec![b'v'; 1 << 20];
    let rejection = send_with(&headers, many.as_bytes(), vec![], &large, |_| true).err().unwrap();
    assert_eq!(rejection.code, ErrorCode::BodyTooLarge);
    let spots = format!("[{}\"\"]", "\"AS_SECRET_A\",".repeat(1001));
    assert_eq!(send(JSON, &spots, vec![]).err().unwrap().code, ErrorCode::BadRequest);
}

fn documents() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "(AS_SECRET_A|\\{\\{A\\}\\}|[ -~\u{e9}\\n]){0,3}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map("[a-c.\"]{0,2}|AS_SECRET_A", inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The same document with its strings filled.
fn filled(document: &serde_json::Value, value: &str) -> serde_json::Value {
    use serde_json::Value;
    match document {
        Value::String(text) => {
            let placeholders = Placeholders::new([("A".parse().unwrap(), Some("sk-proj-0000".to_owned()))]);
            let found: Vec<_> =
                placeholders.find_iter(text.as_bytes()).filter(|m| m.name.as_str() == "A").collect();
            let mut text = text.clone();
            found.into_iter().rev().for_each(|matched| text.replace_range(matched.range, value));
            Value::String(text)
        }
        Value::Array(items) => items.iter().map(|item| filled(item, value)).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, item)| (key.clone(), filled(item, value))).collect())
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn filled_json_decodes_to_the_value(document in documents(), value in "\\PC{1,12}|[\\x00-\\x1f\"\\\\]{1,4}") {
        let text = serde_json::to_string_pretty(&document).unwrap();
        let headers = [("content-type", JSON)];
        // Another name may occur by chance; only `A` is granted.
        let ours = |reference: &SecretReference| reference.name.as_str() == "A";
        let sent = send_with(&headers, text.as_bytes(), vec![], value.as_bytes(), ours).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
        prop_assert_eq!(read, filled(&document, &value));
    }

    #[test]
    fn filled_form_decodes_to_the_value(value in prop::collection::vec(any::<u8>(), 1..40), other in "[ -~]{0,10}") {
        let body = format!("o={}&f=AS_SECRET_A", url::form_urlencoded::byte_serialize(other.as_bytes()).collect::<String>());
        let ours = |reference: &SecretReference| matches!(&reference.style, InjectionStyle::Placeholder(point) if &*point.name == "f");
        let sent = send_with(&[("content-type", FORM)], body.as_bytes(), vec![], &value, ours).unwrap();
        let pairs: Vec<Vec<u8>> = sent.body.split(|byte| *byte == b'&').map(<[u8]>::to_vec).collect();
        prop_assert_eq!(pairs.len(), 2);
        prop_assert_eq!(percent_encoding::percent_decode(&pairs[1][2..]).collect::<Vec<u8>>(), value.clone());
        let form = part("name=\"f\"", "AS_SECRET_A") + "--X--\r\n";
        let sent = send_with(&[("content-type", MULTIPART)], form.as_bytes(), vec![], &value, |_| true).unwrap();
        prop_assert_eq!(fields(&sent), vec![("f".to_owned(), None, value)]);
    }

    #[test]
    fn hostile_bodies_never_panic_and_stay_unchanged_without_a_grant(
        kind in prop_oneof![Just(JSON), Just(FORM), Just(MULTIPART)],
        body in prop::collection::vec(prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            prop::sample::select(vec!["{", "}", "[", "]", "\"", ":", ",", "\\u0041", "AS_SECRET_A", "{{A}}", "&", "=", "%41", "--X", "\r\n",
                "Content-Disposition: form-data; name=\"a\"", "; filename=\"b\"", "--X--", "1e9"]).prop_map(|piece| piece.as_bytes().to_vec()),
        ], 0..30).prop_map(|pieces| pieces.concat()),
    ) {
        let headers = [("content-type", kind)];
        if let Ok(sent) = send_with(&headers, &body, vec![], b"v", |_| false) {
            prop_assert_eq!(&sent.body, &body);
        }
        let _ = send_with(&headers, &body, vec![], b"v", |_| true);
        let _ = send_with(&headers, &body, json_at("a.b"), b"v", |_| true);
        let _ = send_with(&headers, &body, form_at("a"), b"v", |_| true);
    }
}
